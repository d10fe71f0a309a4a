package rig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// component is one program of the cluster.
type component struct {
	name string
	// path is the program; empty for this binary under the component's name.
	path string
	args []string
	// after names the component that must answer before this one is started.
	after string
	// answers tells whether others may rely on it; nil: as soon as it runs.
	answers func(context.Context) bool
}

// components lists a cluster's programs in the order of their start.
func components(c Config) []component {
	list := []component{etcd(c), apiServer(c), controllerManager(c)}
	if c.Mode == ControlPlane {
		return list
	}
	etc := func(name string) string { return c.insidePath("etc", name) }
	return append([]component{{
		name: "containerd", path: "containerd",
		args:    []string{"--config", etc("containerd.toml")},
		answers: unixAnswers(containerdSocket),
	}}, append(list,
		component{name: "kube-scheduler", after: "kube-apiserver", args: []string{
			"--kubeconfig=" + etc("kube-scheduler.kubeconfig"),
			"--authentication-kubeconfig=" + etc("kube-scheduler.kubeconfig"),
			"--authorization-kubeconfig=" + etc("kube-scheduler.kubeconfig"),
			"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false",
		}},
		component{name: "kubelet", after: "kube-apiserver", args: []string{
			"--config=" + etc("kubelet.yaml"), "--kubeconfig=" + etc("kubelet.kubeconfig"),
			"--root-dir=/var/lib/kubelet", "--node-ip=" + c.NodeAddress(), "--hostname-override=" + c.nodeName(),
		}},
		component{name: "kube-proxy", after: "kube-apiserver", args: []string{"--config=" + etc("kube-proxy.yaml")}},
		component{name: "coredns", after: "kube-apiserver", args: []string{"-conf", etc("Corefile")}},
		component{name: "local-volumes", after: "kube-apiserver", args: []string{etc("local-volumes.kubeconfig"), c.nodeName()}},
	)...)
}

// etcd: without fsync, for nothing here outlives `down` and a slow disk would
// make every write of every test slow.
func etcd(c Config) component {
	client := fmt.Sprintf("https://127.0.0.1:%d", c.port("etcd"))
	peer := fmt.Sprintf("http://127.0.0.1:%d", c.port("etcd-peer"))
	pki := c.insidePath("pki") + "/"
	return component{name: "etcd", args: []string{
		"--name=etcd", "--data-dir=" + c.insidePath("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=etcd=" + peer,
		"--client-cert-auth", "--trusted-ca-file=" + pki + "etcd-ca.crt",
		"--cert-file=" + pki + "etcd.crt", "--key-file=" + pki + "etcd.key",
		"--log-level=warn", "--auto-compaction-retention=5m", "--auto-compaction-mode=periodic",
	}, answers: tcpAnswers(fmt.Sprintf("127.0.0.1:%d", c.port("etcd")))}
}

func apiServer(c Config) component {
	pki := c.insidePath("pki") + "/"
	args := []string{
		"--advertise-address=" + c.NodeAddress(),
		"--bind-address=" + c.bindAddress(), fmt.Sprintf("--secure-port=%d", c.port("kube-apiserver")),
		"--service-cluster-ip-range=" + c.ServiceCIDR(),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--profiling=false",
		"--client-ca-file=" + pki + "ca.crt",
		"--tls-cert-file=" + pki + "kube-apiserver.crt", "--tls-private-key-file=" + pki + "kube-apiserver.key",
		"--kubelet-client-certificate=" + pki + "kubelet-client.crt", "--kubelet-client-key=" + pki + "kubelet-client.key",
		"--kubelet-certificate-authority=" + pki + "ca.crt", "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki + "service-accounts.key", "--service-account-signing-key-file=" + pki + "service-accounts.key",
		"--requestheader-client-ca-file=" + pki + "front-proxy-ca.crt", "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki + "front-proxy-client.crt", "--proxy-client-key-file=" + pki + "front-proxy-client.key",
		fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", c.port("etcd")), "--etcd-cafile=" + pki + "etcd-ca.crt",
		"--etcd-certfile=" + pki + "etcd-client.crt", "--etcd-keyfile=" + pki + "etcd-client.key",
	}
	if c.Mode == ControlPlane {
		// No pod will ever call the Service "kubernetes", and loopback is no
		// valid endpoint for it.
		args = append(args, "--endpoint-reconciler-type=none")
	}
	return component{name: "kube-apiserver", after: "etcd", args: args,
		answers: httpsAnswers(fmt.Sprintf("https://127.0.0.1:%d/readyz", c.port("kube-apiserver")), pki+"ca.crt")}
}

func (c Config) bindAddress() string {
	if c.Mode == ControlPlane {
		return "127.0.0.1"
	}
	return "0.0.0.0"
}

// controlPlaneControllers are those without which the API itself would not
// behave as in a cluster. Controllers of workloads are left out: with no node
// they could only overwrite the status that a test writes in their place.
var controlPlaneControllers = []string{
	"clusterrole-aggregation-controller", "garbage-collector-controller", "legacy-serviceaccount-token-cleaner-controller",
	"namespace-controller", "resourcequota-controller", "root-ca-certificate-publisher-controller",
	"serviceaccount-controller", "serviceaccount-token-controller", "validatingadmissionpolicy-status-controller",
}

func controllerManager(c Config) component {
	pki := c.insidePath("pki") + "/"
	config := c.insidePath("etc", "kube-controller-manager.kubeconfig")
	args := []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.port("kube-controller-manager")),
		"--leader-elect=false", "--profiling=false", "--use-service-account-credentials=true",
		"--root-ca-file=" + pki + "ca.crt", "--service-account-private-key-file=" + pki + "service-accounts.key",
		"--cluster-signing-cert-file=" + pki + "ca.crt", "--cluster-signing-key-file=" + pki + "ca.key",
	}
	if c.Mode == ControlPlane {
		args = append(args, "--controllers="+strings.Join(controlPlaneControllers, ","))
	}
	return component{name: "kube-controller-manager", after: "kube-apiserver", args: args}
}

func tcpAnswers(address string) func(context.Context) bool  { return dialAnswers("tcp", address) }
func unixAnswers(address string) func(context.Context) bool { return dialAnswers("unix", address) }

func dialAnswers(network, address string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
}

func httpsAnswers(url, caFile string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		ca, err := os.ReadFile(caFile)
		if err != nil {
			return false
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}
		client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		response, err := client.Do(request)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
}
