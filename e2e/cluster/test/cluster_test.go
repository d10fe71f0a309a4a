// Package test runs the tool as its users do and looks for what it leaves
// behind. Tests with a node need root and containerd and are skipped elsewhere.
package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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

// nextIndex starts somewhere above those that clusters get by themselves, so
// that nobody else takes an index while we look for traces of its cluster.
var nextIndex = os.Getpid() * 7

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
