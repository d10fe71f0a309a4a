// Package test runs the tool as its users do and looks for what it leaves
// behind. Tests with a node need root and containerd and are skipped elsewhere.
package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spillway.dev/cluster/internal/oci"
)

var programs string

func TestMain(m *testing.M) {
	build := exec.Command("../build.sh")
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build.sh:", err)
		os.Exit(1)
	}
	programs = strings.TrimSpace(string(out))
	os.Exit(m.Run())
}

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

// nextIndex starts somewhere above those that clusters get by themselves, so
// that nobody else takes an index while we look for traces of its cluster.
var nextIndex = os.Getpid() * 7

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

func TestControlPlane(t *testing.T) {
	before := machine(t)
	one, two := newRig(t, "one"), newRig(t, "two")
	if kubeconfig := one.run("up", "--control-plane-only"); kubeconfig != one.run("kubeconfig") {
		t.Errorf("up printed %q", kubeconfig)
	}
	two.run("up", "--control-plane-only")
	for _, r := range []rig{one, two} {
		if s := r.status(); !s.Healthy || s.HostAddress != "127.0.0.1" {
			t.Errorf("status: %+v", s)
		}
	}
	if one.status().Server == two.status().Server {
		t.Error("both have the same address")
	}
	one.kubectl("create", "namespace", "only-here")
	if out := two.kubectl("get", "namespaces", "-o", "name"); strings.Contains(out, "only-here") {
		t.Error("they are one cluster")
	}
	// Controllers: owned objects go with their owner, namespaces end.
	one.kubectl("-n", "only-here", "create", "configmap", "owner")
	uid := one.kubectl("-n", "only-here", "get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
	one.apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: owned, namespace: only-here, ownerReferences: [
		{apiVersion: v1, kind: ConfigMap, name: owner, uid: "` + uid + `"}]}}`)
	one.kubectl("-n", "only-here", "delete", "configmap", "owner")
	one.kubectl("-n", "only-here", "wait", "--for=delete", "configmap/owned", "--timeout=30s")
	one.kubectl("delete", "namespace", "only-here", "--timeout=30s")
	// The same index is not given twice.
	three := newRig(t, "three")
	if _, err := three.try("up", "--control-plane-only", "--index", fmt.Sprint(one.status().Index)); err == nil || !strings.Contains(err.Error(), `"one"`) {
		t.Errorf("a taken index: %v", err)
	}
	// Up again: at once, and the same cluster.
	uid = one.kubectl("get", "namespace", "default", "-o", "jsonpath={.metadata.uid}")
	one.run("up", "--control-plane-only")
	if uid != one.kubectl("get", "namespace", "default", "-o", "jsonpath={.metadata.uid}") {
		t.Error("up made a new cluster of a healthy one")
	}
	if _, err := one.try("up"); err == nil || !strings.Contains(err.Error(), "cluster down") {
		t.Errorf("another mode: %v", err)
	}
	// A component that was killed comes back; one that was stopped stays so.
	one.run("stop", "kube-apiserver")
	if _, err := one.try("kubectl", "--request-timeout=2s", "get", "namespaces"); err == nil {
		t.Error("the API server answers although it was stopped")
	}
	if one.status().Healthy {
		t.Error("healthy without an API server")
	}
	one.run("start", "kube-apiserver")
	one.run("up", "--control-plane-only")
	if uid != one.kubectl("get", "namespace", "default", "-o", "jsonpath={.metadata.uid}") {
		t.Error("the restarted API server is another cluster's")
	}
	one.downLeavesNothing()
	if !two.status().Healthy {
		t.Error("two went down with one")
	}
	two.downLeavesNothing()
	if after := machine(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("TestControlPlane has run without privileges")
	}
	// A directory that a user without any rights can reach.
	home, err := os.MkdirTemp("/tmp", "spillway-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	program := filepath.Join(home, "cluster")
	data, err := os.ReadFile(filepath.Join(programs, "cluster"))
	if err == nil {
		err = os.WriteFile(program, data, 0o755)
	}
	if err == nil {
		err = os.Chown(home, 65534, 65534)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		command := exec.Command(program, args...)
		command.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
		command.Dir = home
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := command.CombinedOutput()
		if err != nil {
			t.Errorf("cluster %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	defer run("down")
	run("up", "--control-plane-only")
	if out := run("kubectl", "get", "namespaces"); !strings.Contains(out, "kube-system") {
		t.Error(out)
	}
	run("down")
	if _, err := os.Stat(filepath.Join(home, ".cache", "spillway")); err == nil {
		t.Error("the state directory is left")
	}
}

// TestKilledUp kills `up` at many moments and expects the next to end well.
func TestKilledUp(t *testing.T) {
	modes := [][]string{{"up", "--control-plane-only"}}
	if _, err := exec.LookPath("containerd"); os.Geteuid() == 0 && err == nil {
		modes = append(modes, []string{"up"})
	}
	for _, args := range modes {
		r := newRig(t, "killed")
		for _, moment := range []time.Duration{0, 30, 60, 90, 120, 160, 220, 300, 500, 1000, 2500} {
			command := r.command(args...)
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(moment * time.Millisecond)
			_ = command.Process.Kill()
			_ = command.Wait()
			switch moment {
			case 60, 160, 1000:
				// And the supervisor too: only files are left.
				if data, err := os.ReadFile(filepath.Join(r.dir, "supervisor.pid")); err == nil {
					var supervisor struct{ PID int }
					if json.Unmarshal(data, &supervisor) == nil {
						_ = syscall.Kill(supervisor.PID, syscall.SIGKILL)
					}
				}
			case 120:
				r.run("down")
				if _, err := os.Stat(r.dir); err == nil {
					t.Error("down after a killed up left the directory")
				}
			}
		}
		r.run(args...)
		if s := r.status(); !s.Healthy {
			t.Errorf("%v: %+v", args, s)
		}
		r.downLeavesNothing()
	}
}

const app = `
apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: app
        image: localhost/spillway-testapp:1
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        resources: {limits: {memory: 64Mi, cpu: 500m}}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: app}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: app}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
`

func TestNodesSideBySide(t *testing.T) {
	needNode(t)
	before := machine(t)
	archive := testImage(t)
	rigs := []rig{newRig(t, "one"), newRig(t, "two")}
	for _, r := range rigs {
		r.run("up")
		r.run("load-image", archive)
		r.apply(app)
	}
	for _, r := range rigs {
		r.kubectl("-n", "app", "rollout", "status", "deployment/app", "--timeout=60s")
	}
	// Only now, so that each has to work beside the other.
	for _, r := range rigs {
		usePods(t, r)
	}
	rigs[0].downLeavesNothing()
	if s := rigs[1].status(); !s.Healthy {
		t.Errorf("two went down with one: %+v", s)
	}
	usePods(t, rigs[1])
	rigs[1].downLeavesNothing()
	if after := machine(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// testImage builds the image of the test's program and returns its archive.
func testImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, archive := filepath.Join(dir, "program"), filepath.Join(dir, "image.tar")
	build := exec.Command("go", "build", "-o", program, "../internal/testapp")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = oci.Archive("localhost/spillway-testapp:1", data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return archive
}

// usePods does what tests and the demo do with a cluster.
func usePods(t *testing.T, r rig) {
	t.Helper()
	in := func(args ...string) string {
		t.Helper()
		return r.kubectl(append([]string{"-n", "app", "exec", "deployment/app", "--", "/program"}, args...)...)
	}
	ip := r.kubectl("-n", "app", "get", "service", "app", "-o", "jsonpath={.spec.clusterIP}")
	for _, name := range []string{"app", "app.app", "app.app.svc.cluster.local"} {
		if got := in("lookup", name); got != ip {
			t.Errorf("%s: DNS says %q for %s, not %s", r.name, got, name, ip)
		}
	}
	if _, err := r.try("kubectl", "-n", "app", "exec", "deployment/app", "--", "/program", "lookup", "example.com"); err == nil {
		t.Errorf("%s: a name from outside was found", r.name)
	}
	for range 4 { // some of them to the caller's own pod
		if got := in("get", "http://app"); !strings.HasPrefix(got, "app-") {
			t.Errorf("%s: the Service says %q", r.name, got)
		}
	}
	if got := fetch(t, "http://"+ip); !strings.HasSuffix(got, "called by "+r.status().HostAddress+"\n") {
		t.Errorf("%s: from the host the Service says %q", r.name, got)
	}
	// A server on the host, by address and by name.
	listener, err := net.Listen("tcp", net.JoinHostPort(r.status().HostAddress, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the host") })}
	go server.Serve(listener) //nolint:errcheck
	defer server.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for _, host := range []string{r.status().HostAddress, r.status().HostName} {
		if got := in("get", "http://"+net.JoinHostPort(host, port)); got != "the host" {
			t.Errorf("%s: %s says %q", r.name, host, got)
		}
	}
	if got := r.kubectl("-n", "app", "logs", "deployment/app"); !strings.Contains(got, "serving") {
		t.Errorf("%s: logs: %q", r.name, got)
	}
	in("keep", "/data/file", "kept")
	if got := in("keep", "/data/file", "again"); !strings.HasPrefix(got, "kept\n") {
		t.Errorf("%s: the volume holds %q", r.name, got)
	}
	forward := r.command("kubectl", "-n", "app", "port-forward", "service/app", ":80")
	out, err := forward.StdoutPipe()
	if err == nil {
		err = forward.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer forward.Wait() //nolint:errcheck
	defer forward.Process.Kill()
	var local string
	if _, err := fmt.Fscanf(out, "Forwarding from %s", &local); err != nil {
		t.Fatalf("%s: port-forward: %v", r.name, err)
	}
	if got := fetch(t, "http://"+local); !strings.Contains(got, "called by 127.0.0.1") {
		t.Errorf("%s: the forwarded port says %q", r.name, got)
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		t.Error(err)
	}
	return body.String()
}

// TestDownEndsUp: a `down` does not wait until an `up` has given up.
func TestDownEndsUp(t *testing.T) {
	r := newRig(t, "slow")
	r.run("up", "--control-plane-only")
	namespaces, index := r.namespaces(), r.status().Index
	// A supervisor that hangs, so that up waits for it.
	data, err := os.ReadFile(filepath.Join(r.dir, "supervisor.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var supervisor struct{ PID int }
	if err := json.Unmarshal(data, &supervisor); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(supervisor.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	up := r.command("up", "--control-plane-only")
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	begin := time.Now()
	r.run("down")
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("down took %s", took)
	}
	if up.Wait() == nil {
		t.Error("up reports success for a cluster that was taken down")
	}
	for _, trace := range r.traces(namespaces, index) {
		t.Errorf("left behind: %s", trace)
	}
}

func TestErrorsTellTheFix(t *testing.T) {
	r := newRig(t, "none")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status"}, "cluster up"},
		{[]string{"kubectl", "get", "pods"}, "cluster up"},
		{[]string{"load-image", "nothing.tar"}, "cluster up"},
		{[]string{"up", "--index", "64"}, "0 to 63"},
		{[]string{"up", "--nonsense"}, "nonsense"},
		{[]string{"fly"}, "--help"},
	} {
		if _, err := r.try(c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	r = rig{t, "No_Name", t.TempDir(), 0}
	if _, err := r.try("status"); err == nil || !strings.Contains(err.Error(), "--name") {
		t.Errorf("a bad name: %v", err)
	}
}
