package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21"
	for _, name := range []string{"(etcd)", "(a b)", "(a) S 1 (b)"} {
		start, state, err := parseStat("42 " + name + rest)
		if err != nil || start != 987654 || state != 'S' {
			t.Errorf("%s: %d %c %v", name, start, state, err)
		}
	}
	for _, bad := range []string{"", "42 (etcd", "42 (etcd) S 1 2"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestKillHitsOnlyTheRecordedProcess(t *testing.T) {
	command := exec.Command("sleep", "60")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer command.Process.Kill() //nolint:errcheck
	p, err := processOf(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// A pid file of an earlier process that had the same pid.
	other := process{PID: p.PID, Start: p.Start - 1}
	if other.alive() {
		t.Error("a process of another start time counts as alive")
	}
	if err := other.kill(); err != nil || !p.alive() {
		t.Fatalf("the wrong process was killed: %v", err)
	}
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	// Not waited for, it stays as a zombie, which must not count as alive.
	if err := p.waitGone(5 * time.Second); err != nil {
		t.Error(err)
	}
	_ = command.Wait()
	if err := p.kill(); err != nil {
		t.Errorf("a process that is gone: %v", err)
	}
}

func TestPIDFiles(t *testing.T) {
	dir := t.TempDir()
	self, err := thisProcess()
	if err != nil || self.PID != os.Getpid() {
		t.Fatalf("%+v, %v", self, err)
	}
	if err := self.save(filepath.Join(dir, "self.pid")); err != nil {
		t.Fatal(err)
	}
	gone := process{PID: self.PID, Start: self.Start + 1}
	if err := gone.save(filepath.Join(dir, "gone.pid")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"cut.pid": `{"pid":1`, "init.pid": `{"pid":1,"start":0}`, "empty.pid": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	living, err := recorded(dir)
	if err != nil || len(living) != 1 || living[0] != self {
		t.Errorf("%+v, %v", living, err)
	}
}
