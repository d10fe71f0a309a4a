package rig

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"spillway.dev/cluster/internal/oci"
)

// ctr runs containerd's client against a node. The socket is in the node's own
// root, which the kernel shows to root under its first process.
func ctr(supervisor process, args ...string) (string, error) {
	socket := fmt.Sprintf("/proc/%d/root%s", supervisor.PID, containerdSocket)
	command := exec.Command("ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
	// A killed `up` must not leave a ctr behind that waits for containerd for
	// ever. The signal is tied to the thread, which so has to be kept.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// loadImage imports an OCI or Docker archive and returns the names of the
// images that are new.
func loadImage(supervisor process, archive string) (string, error) {
	file, err := os.Open(archive)
	if err != nil {
		return "", fmt.Errorf("load image: %w", err)
	}
	file.Close()
	out, err := ctr(supervisor, "images", "import", archive)
	if err != nil {
		return "", err
	}
	// The kubelet sees an image when the CRI plugin has put its label on it.
	for range 100 {
		unseen, err := ctr(supervisor, "images", "list", "-q", `labels."io.cri-containerd.image"!="managed"`)
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(unseen) == "" {
			return out, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", fmt.Errorf("containerd took %s but does not show it to the kubelet: see the log containerd.log", archive)
}

// loadPauseImage gives the node the image that holds every pod's namespaces;
// its program lies beside this one.
func loadPauseImage(c Config, supervisor process) error {
	program, err := os.ReadFile(siblingPath("pause"))
	if err != nil {
		return fmt.Errorf("find the program of the pause image (build.sh puts it beside this one): %w", err)
	}
	archive, err := oci.Archive(pauseImage, program)
	if err != nil {
		return err
	}
	file := c.path("pause.tar")
	if err := writeFile(file, archive, 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	_, err = loadImage(supervisor, file)
	return err
}
