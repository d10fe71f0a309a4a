package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process names one process for good: a pid alone is given away again after
// its process ends, a pid with its start time is not.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// thisProcess reads our own pid and start time from /proc. Inside a new pid
// namespace, as long as /proc is still the host's, that is the host's pid.
func thisProcess() (process, error) {
	target, err := os.Readlink("/proc/self")
	if err != nil {
		return process{}, fmt.Errorf("read own pid: %w", err)
	}
	pid, err := strconv.Atoi(target)
	if err != nil {
		return process{}, fmt.Errorf("read own pid: %w", err)
	}
	return processOf(pid)
}

func processOf(pid int) (process, error) {
	start, _, err := readStat(pid)
	return process{PID: pid, Start: start}, err
}

// readStat returns when a process started (clock ticks after boot) and its state.
func readStat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read process %d: %w", pid, err)
	}
	return parseStat(string(data))
}

// parseStat takes fields 3 (state) and 22 (start time) of proc(5)'s stat. The
// command in field 2 may hold spaces and parentheses, so we count from its end.
func parseStat(stat string) (start uint64, state byte, err error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, 0, fmt.Errorf("not a stat line: %q", stat)
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("short stat line: %q", stat)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("start time: %w", err)
	}
	return start, fields[0][0], nil
}

// alive is false for a process that ended, was replaced by another of the same
// pid, or waits as a zombie for its parent.
func (p process) alive() bool {
	start, state, err := readStat(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// kill sends SIGKILL to exactly this process: the pidfd is taken first and the
// start time compared after, so a reused pid is never hit.
func (p process) kill() error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return nil
}

// waitGone waits until the process has ended.
func (p process) waitGone(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for p.alive() {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d did not end within %s", p.PID, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func (p process) save(path string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'), 0o600)
}

// loadProcess reads a pid file; ok is false when there is none or when it was
// cut off.
func loadProcess(path string) (p process, ok bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("read pid file: %w", err)
	}
	if json.Unmarshal(data, &p) != nil || p.PID <= 1 {
		return process{}, false, nil
	}
	return p, true, nil
}

// recorded returns the living processes among the pid files of a directory.
func recorded(dir string) ([]process, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil {
		return nil, fmt.Errorf("list pid files: %w", err)
	}
	var living []process
	for _, file := range files {
		p, ok, err := loadProcess(file)
		if err != nil {
			return nil, err
		}
		if ok && p.alive() {
			living = append(living, p)
		}
	}
	return living, nil
}
