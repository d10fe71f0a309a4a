package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A node gets namespaces of its own for processes, mounts and network, and a
// root directory put together from the host's programs (read-only) and fresh
// directories for the rest. Nothing it mounts, binds or writes is seen by the
// host outside the state directory, and the kernel takes it all away with the
// node's first process.

// kernelSettings are what a kubelet demands and otherwise writes into the
// host's kernel, where they would stay: it is shown files with these values.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// enterNode makes this process, the first of its namespaces, the node.
func enterNode(c Config) error {
	if err := unix.Sethostname([]byte(c.nodeName())); err != nil {
		return fmt.Errorf("set the node's host name: %w", err)
	}
	if err := enterRoot(c); err != nil {
		return err
	}
	return configureNodeNetwork(c)
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) do() error {
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

func enterRoot(c Config) error {
	// What we mount must not spread to the host.
	if err := (mount{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}).do(); err != nil {
		return err
	}
	root := c.path("node/root")
	in := func(path string) string { return filepath.Join(root, path) }
	// /var is on disk: images, volumes and logs would fill memory.
	disk := c.path("node/var")
	for _, dir := range []string{root, disk} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the node's root: %w", err)
		}
	}
	if err := (mount{"tmpfs", root, "tmpfs", 0, "mode=755"}).do(); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "var", "root", "opt", "mnt", nodeDir, ".host"} {
		if err := os.MkdirAll(in(dir), 0o755); err != nil {
			return fmt.Errorf("make the node's root: %w", err)
		}
	}
	if err := mountPrograms(in); err != nil {
		return err
	}
	mounts := []mount{
		{disk, in("var"), "", unix.MS_BIND, ""},
		{c.Dir, in(nodeDir), "", unix.MS_BIND, ""},
		{"/dev", in("dev"), "", unix.MS_BIND | unix.MS_REC, ""},
		{"tmpfs", in("run"), "tmpfs", 0, "mode=755"},
		{"tmpfs", in("tmp"), "tmpfs", 0, "mode=1777"},
		{"proc", in("proc"), "proc", 0, ""},
		// A new sysfs shows the node's network devices, not the host's.
		{"sysfs", in("sys"), "sysfs", 0, ""},
		{"/sys/fs/cgroup", in("sys/fs/cgroup"), "", unix.MS_BIND | unix.MS_REC, ""},
	}
	for _, m := range mounts {
		if err := m.do(); err != nil {
			return err
		}
	}
	// Debian reaches some programs through this directory of links.
	if _, err := os.Stat("/etc/alternatives"); err == nil {
		if err := os.Mkdir(in("etc/alternatives"), 0o755); err != nil {
			return fmt.Errorf("make the node's root: %w", err)
		}
		if err := (mount{"/etc/alternatives", in("etc/alternatives"), "", unix.MS_BIND, ""}).do(); err != nil {
			return err
		}
	}
	if err := writeNodeRoot(c, in); err != nil {
		return err
	}
	for name, value := range kernelSettings {
		if _, err := os.Stat(in("/proc/sys/" + name)); err != nil {
			continue
		}
		source := in("/run/kernel-settings/" + name)
		if err := writeFile(source, []byte(value+"\n"), 0o444); err != nil {
			return err
		}
		if err := (mount{source, in("/proc/sys/" + name), "", unix.MS_BIND, ""}).do(); err != nil {
			return err
		}
	}
	if err := unix.PivotRoot(root, in(".host")); err != nil {
		return fmt.Errorf("enter the node's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter the node's root: %w", err)
	}
	if err := unix.Unmount("/.host", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	if err := os.Remove("/.host"); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	// Shared among the node's own processes, so that pods may ask for mount propagation.
	return (mount{"none", "/", "", unix.MS_REC | unix.MS_SHARED, ""}).do()
}

// mountPrograms shows the host's programs and libraries. On a merged /usr, /bin
// and its like are links.
func mountPrograms(in func(string) string) error {
	for _, dir := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt"} {
		info, err := os.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(dir)
			if err != nil {
				return fmt.Errorf("look at %s: %w", dir, err)
			}
			if err := os.Symlink(target, in(dir)); err != nil {
				return fmt.Errorf("link %s: %w", dir, err)
			}
			continue
		}
		if err := os.MkdirAll(in(dir), 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
		if err := (mount{dir, in(dir), "", unix.MS_BIND | unix.MS_REC, ""}).do(); err != nil {
			return err
		}
		if err := (mount{"none", in(dir), "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY, ""}).do(); err != nil {
			return err
		}
	}
	return nil
}

// writeNodeRoot fills the node's /etc, and what programs expect of /var.
func writeNodeRoot(c Config, in func(string) string) error {
	for path, content := range map[string]string{
		"etc/passwd":   "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
		"etc/group":    "root:x:0:\nnogroup:x:65534:\n",
		"etc/hosts":    fmt.Sprintf("127.0.0.1 localhost\n%s %s\n%s %s\n", c.NodeAddress(), c.nodeName(), c.HostAddress(), HostName),
		"etc/hostname": c.nodeName() + "\n",
		// What pods with dnsPolicy Default and the node itself ask.
		"etc/resolv.conf": "nameserver " + c.NodeAddress() + "\n",
	} {
		if err := writeFile(in(path), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"ld.so.cache", "nsswitch.conf", "protocols", "services", "localtime"} {
		data, err := os.ReadFile("/etc/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("copy /etc/%s: %w", name, err)
		}
		if err := writeFile(in("etc/"+name), data, 0o644); err != nil {
			return err
		}
	}
	for _, dir := range []string{"var/lib", "var/log/pods", "var/log/containers", "var/tmp"} {
		if err := os.MkdirAll(in(dir), 0o755); err != nil {
			return fmt.Errorf("make /%s: %w", dir, err)
		}
	}
	if err := os.Symlink("/run", in("var/run")); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link /var/run: %w", err)
	}
	return nil
}
