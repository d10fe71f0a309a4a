package rig

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

func TestNodeFiles(t *testing.T) {
	c := Config{Name: "x", Index: 7, Mode: Node, Dir: t.TempDir(), CNIBin: "/plugins"}
	if err := writeNodeFiles(c); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"kubelet.yaml", "kube-proxy.yaml"} {
		data, err := os.ReadFile(c.path("etc", file))
		if err != nil {
			t.Fatal(err)
		}
		var content map[string]any
		if err := yaml.UnmarshalStrict(data, &content); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if strings.Contains(string(data), c.Dir) {
			t.Errorf("%s names a path of the host, which a node does not see", file)
		}
	}
	var cni struct {
		Plugins []struct {
			IPAM struct {
				Ranges [][]struct{ Subnet string }
			}
		}
	}
	if err := json.Unmarshal([]byte(cniConfig(c)), &cni); err != nil || cni.Plugins[0].IPAM.Ranges[0][0].Subnet != c.PodCIDR() {
		t.Errorf("CNI: %+v, %v", cni, err)
	}
	for _, text := range []string{"10.187.0.2", HostName, "NXDOMAIN"} {
		if !strings.Contains(corefile(c), text) {
			t.Errorf("the Corefile lacks %s", text)
		}
	}
}

func TestCertificates(t *testing.T) {
	c := Config{Name: "x", Index: 7, Mode: Node, Dir: t.TempDir()}
	if err := writeCertificates(c); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil || config.Host != "https://10.187.0.2:6443" {
		t.Fatalf("kubeconfig: %+v, %v", config, err)
	}
	if info, err := os.Stat(c.Kubeconfig()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kubeconfig can be read by others: %v, %v", info.Mode(), err)
	}
	ca := x509.NewCertPool()
	ca.AppendCertsFromPEM(config.CAData)
	pair, err := tls.LoadX509KeyPair(c.path("pki/kube-apiserver.crt"), c.path("pki/kube-apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"10.187.0.2", "127.0.0.1", "10.187.128.1", "kubernetes.default.svc"} {
		if net.ParseIP(name) != nil {
			name = "[" + name + "]"
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: ca, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Whoever holds a user's certificate must not get at etcd.
	etcd := x509.NewCertPool()
	pem, err := os.ReadFile(c.path("pki/etcd-ca.crt"))
	if err != nil || !etcd.AppendCertsFromPEM(pem) {
		t.Fatalf("etcd's authority: %v", err)
	}
	user, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := user.Leaf.Verify(x509.VerifyOptions{Roots: etcd, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("etcd takes a user's certificate")
	}
}
