package rig

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// ociArchive makes an OCI archive of an image with one static program in it,
// which needs no image builder and takes no time.
func ociArchive(name string, program []byte) ([]byte, error) {
	layer, err := tarOf(map[string][]byte{"program": program}, 0o755)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	add := func(mediaType string, blob []byte) descriptor {
		sum := sha256.Sum256(blob)
		digest := hex.EncodeToString(sum[:])
		files["blobs/sha256/"+digest] = blob
		return descriptor{MediaType: "application/vnd.oci.image." + mediaType, Digest: "sha256:" + digest, Size: len(blob)}
	}
	layerDescriptor := add("layer.v1.tar", layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/program"}, "User": "65535:65535"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerDescriptor.Digest}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the image's configuration: %w", err)
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": add("config.v1+json", config), "layers": []descriptor{layerDescriptor},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the image's manifest: %w", err)
	}
	manifestDescriptor := add("manifest.v1+json", manifest)
	manifestDescriptor.Annotations = map[string]string{
		"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:],
	}
	if files["index.json"], err = json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifestDescriptor}}); err != nil {
		return nil, fmt.Errorf("encode the image's index: %w", err)
	}
	return tarOf(files, 0o644)
}

func tarOf(files map[string][]byte, mode int64) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return nil, fmt.Errorf("write the image: %w", err)
		}
		if _, err := w.Write(data); err != nil {
			return nil, fmt.Errorf("write the image: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write the image: %w", err)
	}
	return out.Bytes(), nil
}

// ctr runs containerd's client against a node. The socket is in the node's own
// root, which the kernel shows to root under its first process.
func ctr(supervisor process, args ...string) (string, error) {
	socket := fmt.Sprintf("/proc/%d/root%s", supervisor.PID, containerdSocket)
	command := exec.Command("ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
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
	archive, err := ociArchive(pauseImage, program)
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
