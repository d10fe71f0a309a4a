package rig

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile is held by a command while it changes a cluster, and marks a
// directory as ours to delete. supervisorLock is held by the supervisor.
const (
	lockFile       = "cluster.lock"
	supervisorLock = "supervisor.lock"
)

// lockState makes the state directory and takes its lock, waiting for another
// command that holds it.
func lockState(dir string, say func(string, ...any)) (*os.File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the state directory: %w", err)
	}
	path := filepath.Join(dir, lockFile)
	if _, err := os.Stat(path); len(entries) > 0 && err != nil {
		return nil, fmt.Errorf("%s holds something that is not a cluster's state: pass --state with a new or empty directory", dir)
	}
	for told := false; ; {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a `down` was faster
		}
		if err != nil {
			return nil, fmt.Errorf("open the lock: %w", err)
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			if !told {
				say("another command works on this cluster; waiting for it")
				told = true
			}
			err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			file.Close()
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return nil, fmt.Errorf("take the lock: %w", err)
		}
		// The file may have been deleted by the `down` we waited for.
		var ours, there unix.Stat_t
		if unix.Fstat(int(file.Fd()), &ours) == nil && unix.Stat(path, &there) == nil && ours.Ino == there.Ino {
			return file, nil
		}
		file.Close()
	}
}

// supervisorOf finds the living supervisor of a state directory. The lock is
// the truth; the pid file follows a moment after a start.
func supervisorOf(dir string) (process, bool, error) {
	file, err := os.OpenFile(filepath.Join(dir, supervisorLock), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, fmt.Errorf("open the supervisor's lock: %w", err)
	}
	defer file.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return process{}, false, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return process{}, false, fmt.Errorf("ask for the supervisor's lock: %w", err)
		}
		p, ok, err := loadProcess(filepath.Join(dir, supervisorPID))
		if err != nil {
			return process{}, false, err
		}
		if ok && p.alive() {
			return p, true, nil
		}
		if time.Now().After(deadline) {
			return process{}, false, fmt.Errorf("a process holds %s but left no pid: find it with `fuser`", file.Name())
		}
	}
}

// removeState deletes the directory. Nothing may be mounted in it: what a
// mount shows is not ours to delete.
func removeState(dir string) error {
	mounts, err := mountsUnder(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("still mounted in the state directory: %s; unmount and run `cluster down` again", strings.Join(mounts, ", "))
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := os.RemoveAll(dir)
		if err == nil {
			return nil
		}
		// The last of the node's mounts go a moment after its last process.
		if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOTEMPTY) || time.Now().After(deadline) {
			return fmt.Errorf("remove the state directory: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func mountsUnder(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer file.Close()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", dir, err)
	}
	var found []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], real+"/") {
			found = append(found, fields[4])
		}
	}
	return found, nil
}
