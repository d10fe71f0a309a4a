package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what `up` was told.
type Options struct {
	Name  string
	Dir   string
	Index int // -1: any free one
	Mode  Mode
	Limit time.Duration
}

// Up brings a cluster up, or waits for one that is coming up, and returns when
// it can be used. It may be killed at any moment: the next Up goes on or, where
// no supervisor is left, cleans up and starts anew.
func Up(ctx context.Context, o Options, say func(string, ...any)) (Config, error) {
	lock, err := lockState(o.Dir, say)
	if err != nil {
		return Config{}, err
	}
	defer lock.Close()
	c, err := loadConfig(o.Dir)
	if err != nil && !errors.Is(err, errNoCluster) {
		return Config{}, err
	}
	known := err == nil
	supervisor, alive, err := supervisorOf(o.Dir)
	if err != nil {
		return Config{}, err
	}
	if alive {
		if c.Mode != o.Mode || o.Index >= 0 && o.Index != c.Index {
			return c, fmt.Errorf("cluster %q is up as %s with index %d: run `cluster down --name %s` before you change that", c.Name, c.Mode, c.Index, c.Name)
		}
	} else {
		previous := 0
		if known {
			say("a cluster was left here that does not run: cleaning up")
			previous = c.Index
			if err := clean(c); err != nil {
				return c, err
			}
		}
		c = Config{Name: o.Name, Dir: o.Dir, Mode: o.Mode}
		if c, supervisor, err = start(c, o.Index, previous, say); err != nil {
			return c, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	if err := makeReady(ctx, c, supervisor, say); err != nil {
		if alive {
			return c, fmt.Errorf("%w\nlogs: %s; `cluster down` and `cluster up` give a new one", err, c.path("logs"))
		}
		// Leave the logs, but no half cluster.
		if killErr := stopAll(c); killErr != nil {
			err = fmt.Errorf("%w; and stopping it: %w", err, killErr)
		}
		return c, fmt.Errorf("%w\nlogs: %s", err, c.path("logs"))
	}
	return c, nil
}

// start takes an index, writes the cluster's files and starts its supervisor.
func start(c Config, wantIndex, previous int, say func(string, ...any)) (Config, process, error) {
	if c.Mode == Node {
		var err error
		if c.CNIBin, err = checkMachine(); err != nil {
			return c, process{}, err
		}
	}
	index, listener, err := takeIndex(c, wantIndex, previous)
	if err != nil {
		return c, process{}, err
	}
	defer listener.Close()
	c.Index = index
	if err := c.Validate(); err != nil {
		return c, process{}, err
	}
	say("starting cluster %q: %s, index %d", c.Name, c.Mode, c.Index)
	// First, so that what follows can be cleaned.
	if err := c.save(); err != nil {
		return c, process{}, err
	}
	if err := writeCertificates(c); err != nil {
		return c, process{}, err
	}
	if c.Mode == Node {
		if err := writeNodeFiles(c); err != nil {
			return c, process{}, err
		}
		if err := makeCgroup(c); err != nil {
			return c, process{}, err
		}
	}
	socket, err := listener.File()
	if err != nil {
		return c, process{}, fmt.Errorf("hand over the index: %w", err)
	}
	defer socket.Close()
	if err := startSupervisor(c, socket); err != nil {
		return c, process{}, err
	}
	supervisor, alive, err := supervisorOf(c.Dir)
	if err == nil && !alive {
		err = fmt.Errorf("the supervisor ended at once: %s", tail(c.path(supervisorLog)))
	}
	return c, supervisor, err
}

func startSupervisor(c Config, socket *os.File) error {
	lock, err := os.OpenFile(c.path(supervisorLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make the supervisor's lock: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("take the supervisor's lock: %w", err)
	}
	if err := os.MkdirAll(c.path("logs"), 0o755); err != nil {
		return fmt.Errorf("make the log directory: %w", err)
	}
	logs, err := os.OpenFile(c.path(supervisorLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the supervisor's log: %w", err)
	}
	defer logs.Close()
	program, err := programLink(c.Dir, SupervisorName)
	if err != nil {
		return err
	}
	command := exec.Command(program, c.Dir)
	command.Args[0] = SupervisorName
	command.Dir = "/"
	command.Stdout, command.Stderr = logs, logs
	command.ExtraFiles = []*os.File{socket, lock} // indexFD, lockFD
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.Mode == Node {
		command.SysProcAttr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	return nil
}

// SupervisorName is the name under which this binary is the supervisor.
const SupervisorName = "cluster-supervisor"

const packages = "apt-get install containerd runc containernetworking-plugins nftables"

// checkMachine reports all that a node would miss, with the fix, and returns
// where the CNI plugins are.
func checkMachine() (cniBin string, err error) {
	if os.Geteuid() != 0 {
		return "", errors.New("a node needs root (namespaces, mounts, control groups): use sudo, or --control-plane-only, which needs nothing")
	}
	var missing []string
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "nft", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if hasPlugins(dir) {
			cniBin = dir
			break
		}
	}
	if cniBin == "" {
		missing = append(missing, "CNI plugins")
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("not found: %s; %s", strings.Join(missing, ", "), packages)
	}
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return "", fmt.Errorf("read what file systems there are: %w", err)
	}
	if !strings.Contains(string(filesystems), "\toverlay\n") {
		// It may be a module that nobody has needed yet.
		if out, err := exec.Command("modprobe", "overlay").CombinedOutput(); err != nil {
			return "", fmt.Errorf("the kernel has no overlay file system: modprobe overlay: %w: %s", err, strings.TrimSpace(string(out)))
		}
	}
	return cniBin, nil
}

func hasPlugins(dir string) bool {
	for _, plugin := range []string{"ptp", "host-local", "loopback"} {
		if _, err := os.Stat(filepath.Join(dir, plugin)); err != nil {
			return false
		}
	}
	return true
}

// siblingPath is the path of a program that lies beside this one.
func siblingPath(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// tail returns the last lines of a log.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
