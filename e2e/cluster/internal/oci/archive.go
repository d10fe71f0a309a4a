// Package oci makes images of a single program.
package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
)

// Archive makes an OCI archive of an image with one static program in it,
// which needs no image builder and takes no time.
func Archive(name string, program []byte) ([]byte, error) {
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
