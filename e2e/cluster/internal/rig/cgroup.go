package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const cgroupMount = "/sys/fs/cgroup"

// cgroupRoots are the tops of all hierarchies: one with cgroup v2, one for each
// controller with v1. Links (cpu -> cpu,cpuacct) are left out.
func cgroupRoots(mount string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
		return []string{mount}, nil
	}
	entries, err := os.ReadDir(mount)
	if err != nil {
		return nil, fmt.Errorf("no control groups: mount them on %s: %w", mount, err)
	}
	var roots []string
	for _, entry := range entries {
		if entry.IsDir() {
			roots = append(roots, filepath.Join(mount, entry.Name()))
		}
	}
	return roots, nil
}

// makeCgroup makes the parent of a cluster's pods in every hierarchy.
func makeCgroup(c Config) error {
	roots, err := cgroupRoots(cgroupMount)
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, c.cgroupName())
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the control group: %w", err)
		}
		if err := inheritCpuset(root, dir); err != nil {
			return err
		}
		if err := delegateControllers(root, dir); err != nil {
			return err
		}
	}
	return nil
}

// inheritCpuset: with v1 a new group may use no CPU and no memory node.
func inheritCpuset(root, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), bytes.TrimSpace(value), 0o644)
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// delegateControllers: with v2 a kubelet wants every controller of the root in
// its own group too.
func delegateControllers(root, dir string) error {
	for _, parent := range []string{root, dir} {
		available, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read controllers: %w", err)
		}
		for _, controller := range strings.Fields(string(available)) {
			// One by one: a controller that may not be delegated must not keep
			// the others back. The kubelet says which it misses.
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
		}
	}
	return nil
}

// removeCgroup removes a cluster's groups, innermost first. Its processes have
// ended, but the kernel takes a moment to notice.
func removeCgroup(c Config) error {
	roots, err := cgroupRoots(cgroupMount)
	if err != nil {
		return nil //nolint:nilerr // no control groups, nothing to remove
	}
	for _, root := range roots {
		if err := removeGroups(filepath.Join(root, c.cgroupName())); err != nil {
			return err
		}
	}
	return nil
}

func removeGroups(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list control groups: %w", err)
	}
	slices.Reverse(dirs)
	deadline := time.Now().Add(10 * time.Second)
	for _, dir := range dirs {
		for {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove the control group: %w", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}
