package rig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestForeignDirectoriesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir, t.Logf); err == nil || !strings.Contains(err.Error(), "--state") {
		t.Errorf("lock: %v", err)
	}
	if err := Down(dir, t.Logf); err == nil {
		t.Error("down took it")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestLockIsExclusive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := lockState(dir, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	waiting, got := make(chan bool, 1), make(chan error, 1)
	go func() {
		second, err := lockState(dir, func(string, ...any) { waiting <- true })
		if err == nil {
			defer second.Close()
			_, err = os.Stat(filepath.Join(dir, lockFile))
		}
		got <- err
	}()
	<-waiting
	select {
	case err := <-got:
		t.Fatalf("two hold the lock: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	// As `down` does: the directory goes while the other waits for its lock.
	if err := removeState(dir); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if err := <-got; err != nil {
		t.Errorf("the second holds a lock on a file that is gone: %v", err)
	}
}

func TestCleanKeepsTheConfigurationToTheEnd(t *testing.T) {
	c := Config{Name: "x", Mode: ControlPlane, Dir: t.TempDir()}
	for _, file := range []string{lockFile, "etcd/data", "zzz"} {
		if err := writeFile(c.path(file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	if err := clean(c); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != lockFile {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestCgroupRoots(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	for _, dir := range []string{"cpu,cpuacct", "memory"} {
		if err := os.Mkdir(filepath.Join(v1, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("cpu,cpuacct", filepath.Join(v1, "cpu")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v2, "cgroup.controllers"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if roots, err := cgroupRoots(v1); err != nil || len(roots) != 2 {
		t.Errorf("v1: %v, %v", roots, err)
	}
	if roots, err := cgroupRoots(v2); err != nil || len(roots) != 1 || roots[0] != v2 {
		t.Errorf("v2: %v, %v", roots, err)
	}
}

func TestWhichVolumesAreOurs(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
	if wantsVolume(claim, "n") {
		t.Error("took a claim of nobody")
	}
	claim.Annotations = map[string]string{provisionerAnnotation: volumesProvisioner, selectedNodeAnnotation: "n"}
	if !wantsVolume(claim, "n") || wantsVolume(claim, "other") {
		t.Error("claims of our own class and node are ours")
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{provisionedByAnnotation: volumesProvisioner}},
		Spec:       corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete},
		Status:     corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased},
	}
	if !isForgotten(volume) {
		t.Error("a released volume goes")
	}
	volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	if isForgotten(volume) {
		t.Error("a retained volume stays")
	}
	if path := volumePath("../../etc"); path != volumesDir+"/etc" {
		t.Errorf("a volume outside: %s", path)
	}
}
