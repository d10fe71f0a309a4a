package test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spillway.dev/cluster/internal/oci"
)

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
