package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Down ends a cluster and removes every trace of it. Without one it does nothing.
func Down(dir string, say func(string, ...any)) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		say("no cluster in %s", dir)
		return nil
	}
	// Before the lock: an `up` that waits for this cluster then sees that it
	// ended and gives the lock up.
	if supervisor, alive, err := supervisorOf(dir); err == nil && alive {
		if err := supervisor.kill(); err != nil {
			return err
		}
	}
	lock, err := lockState(dir, say)
	if err != nil {
		return err
	}
	defer lock.Close()
	c, err := loadConfig(dir)
	if errors.Is(err, errNoCluster) {
		// An `up` that got no further than its lock.
		return removeState(dir)
	}
	if err != nil {
		say("%v", err)
		c = Config{Dir: dir, Index: -1}
	}
	if err := clean(c); err != nil {
		return err
	}
	if err := removeState(dir); err != nil {
		return err
	}
	removeEmptyParents(dir)
	say("cluster %q is gone", c.Name)
	return nil
}

// clean ends all that runs and removes all but the lock.
func clean(c Config) error {
	if err := stopAll(c); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("read the state directory: %w", err)
	}
	// The configuration goes last: without it the rest could not be cleaned.
	for _, last := range []bool{false, true} {
		for _, entry := range entries {
			if entry.Name() == lockFile || (entry.Name() == configFile) != last {
				continue
			}
			if err := removeState(filepath.Join(c.Dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// stopAll kills a cluster and waits until the kernel has taken away what hung
// on its processes. Files stay.
func stopAll(c Config) error {
	supervisor, alive, err := supervisorOf(c.Dir)
	if err != nil {
		return err
	}
	if alive {
		if err := supervisor.kill(); err != nil {
			return err
		}
		if err := supervisor.waitGone(20 * time.Second); err != nil {
			return err
		}
	}
	// A control plane's components were told to die with the supervisor.
	left, err := recorded(c.path(childPIDs))
	if err != nil {
		return err
	}
	for _, p := range left {
		if err := p.kill(); err != nil {
			return err
		}
		if err := p.waitGone(20 * time.Second); err != nil {
			return err
		}
	}
	if c.Mode != Node || c.Index < 0 {
		return nil
	}
	if err := disconnectHost(c); err != nil {
		return err
	}
	return removeCgroup(c)
}

// removeEmptyParents takes away the directories above the default state
// directory when no other cluster is left in them.
func removeEmptyParents(dir string) {
	standard, err := DefaultStateDir(filepath.Base(dir))
	if err != nil || standard != dir {
		return
	}
	for range 2 {
		dir = filepath.Dir(dir)
		if os.Remove(dir) != nil {
			return
		}
	}
}
