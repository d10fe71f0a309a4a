package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rig is one cluster under test.
type rig struct {
	t     *testing.T
	name  string
	dir   string
	index int
}

type status struct {
	Index       int
	Healthy     bool
	Kubeconfig  string
	Server      string
	HostAddress string
	HostName    string
	Components  []struct {
		Name, State string
	}
}

func newRig(t *testing.T, name string) rig {
	t.Helper()
	r := rig{t, name, filepath.Join(t.TempDir(), "state"), freeIndex(t)}
	t.Cleanup(func() {
		if _, err := r.try("down"); err != nil {
			t.Error(err)
		}
	})
	return r
}

func freeIndex(t *testing.T) int {
	t.Helper()
	out, err := exec.Command(filepath.Join(programs, "cluster"), "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		nextIndex++
		index := 24 + nextIndex%40
		if !strings.Contains(string(out), fmt.Sprintf("\n%d ", index)) {
			return index
		}
	}
	t.Fatal("no free index")
	return 0
}

func needNode(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a node needs root")
	}
	if _, err := exec.LookPath("containerd"); err != nil {
		t.Skip("no containerd here")
	}
}

func (r rig) command(args ...string) *exec.Cmd {
	if args[0] == "up" && !slices.Contains(args, "--index") {
		args = append(slices.Clip(args), "--index", fmt.Sprint(r.index))
	}
	return exec.Command(filepath.Join(programs, "cluster"), append([]string{"--name", r.name, "--state", r.dir}, args...)...)
}

func (r rig) try(args ...string) (string, error) {
	command := r.command(args...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("cluster %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

func (r rig) run(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (r rig) kubectl(args ...string) string {
	r.t.Helper()
	return r.run(append([]string{"kubectl"}, args...)...)
}

func (r rig) apply(manifest string) {
	r.t.Helper()
	command := r.command("kubectl", "apply", "-f", "-")
	command.Stdin = strings.NewReader(manifest)
	if out, err := command.CombinedOutput(); err != nil {
		r.t.Fatalf("apply: %v\n%s", err, out)
	}
}

func (r rig) status() status {
	r.t.Helper()
	out, err := r.try("status", "--json")
	var s status
	if jsonErr := json.Unmarshal([]byte(out), &s); jsonErr != nil {
		r.t.Fatalf("status: %v, %v", jsonErr, err)
	}
	return s
}

// traces is all that a cluster could leave on the machine: the namespaces that
// processes live in, and whatever bears one of its names.
func (r rig) traces(namespaces []string, index int) []string {
	var found []string
	add := func(kind, what string) { found = append(found, kind+": "+what) }
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		stat, err := os.ReadFile(p + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			continue
		}
		line, _ := os.ReadFile(p + "/cmdline")
		for _, ns := range []string{"pid", "net", "mnt"} {
			link, _ := os.Readlink(p + "/ns/" + ns)
			for _, own := range namespaces {
				if link == own {
					add("process in "+own, string(line))
				}
			}
		}
		if strings.Contains(string(line), r.dir) {
			add("process", p+" "+string(line))
		}
		if mounts, _ := os.ReadFile(p + "/mountinfo"); strings.Contains(string(mounts), r.dir) {
			add("mount", p)
		}
	}
	if _, err := net.InterfaceByName(fmt.Sprintf("spwc%d", index)); err == nil {
		add("link", fmt.Sprintf("spwc%d", index))
	}
	if out, err := exec.Command("ip", "route").Output(); err == nil {
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, fmt.Sprintf("10.%d.", 180+index)) {
				add("route", line)
			}
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == fmt.Sprintf("spillway-cluster-%d", index) {
			add("control group", path)
		}
		return nil
	})
	if sockets, _ := os.ReadFile("/proc/net/unix"); strings.Contains(string(sockets), fmt.Sprintf("@spillway-cluster-%d\n", index)) {
		add("socket", fmt.Sprintf("@spillway-cluster-%d", index))
	}
	if _, err := os.Stat(r.dir); err == nil {
		add("directory", r.dir)
	}
	return found
}

// namespaces are those of the cluster's supervisor, unless they are our own.
func (r rig) namespaces() []string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "supervisor.pid"))
	if err != nil {
		r.t.Fatal(err)
	}
	var supervisor struct{ PID int }
	if err := json.Unmarshal(data, &supervisor); err != nil {
		r.t.Fatal(err)
	}
	var namespaces []string
	for _, ns := range []string{"pid", "net", "mnt"} {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", supervisor.PID, ns))
		if err != nil {
			r.t.Fatal(err)
		}
		if own, _ := os.Readlink("/proc/self/ns/" + ns); link != own {
			namespaces = append(namespaces, link)
		}
	}
	return namespaces
}

// downLeavesNothing takes the cluster down and looks for what is left.
func (r rig) downLeavesNothing() {
	r.t.Helper()
	namespaces, index := r.namespaces(), r.status().Index
	if len(r.traces(namespaces, index)) == 0 {
		r.t.Error("a running cluster shows no trace: the search for them is broken")
	}
	r.run("down")
	for _, trace := range r.traces(namespaces, index) {
		r.t.Errorf("left behind: %s", trace)
	}
	r.run("down") // once more does no harm
}

// machine is what no cluster may change for the rest of the machine.
func machine(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
		"kernel/keys/root_maxbytes", "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max", "net/ipv4/conf/all/rp_filter",
	} {
		value, _ := os.ReadFile("/proc/sys/" + name)
		fmt.Fprintf(&out, "%s = %s", name, value)
	}
	if nft, err := exec.Command("nft", "list", "ruleset").Output(); err == nil {
		out.Write(nft)
	}
	for _, dir := range []string{"/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/lib/containerd", "/var/log/pods"} {
		entries, err := os.ReadDir(dir)
		fmt.Fprintln(&out, dir, err == nil, len(entries))
	}
	return out.String()
}
