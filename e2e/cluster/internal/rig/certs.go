package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// authority is a certificate authority in memory.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// identity is a certificate and its key in PEM.
type identity struct{ cert, key []byte }

// A day back, for clocks that are set right while the cluster starts.
var (
	certFrom = func() time.Time { return time.Now().Add(-24 * time.Hour) }
	certTo   = func() time.Time { return time.Now().AddDate(5, 0, 0) }
)

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of %s: %w", name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: certFrom(), NotAfter: certTo(),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// issue signs a certificate for a user (its groups are the organisations) and,
// where hosts are given, for a server under these names and addresses.
func (a *authority) issue(user string, groups []string, hosts ...string) (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("make the key of %s: %w", user, err)
	}
	serial, err := newSerial()
	if err != nil {
		return identity{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: user, Organization: groups},
		NotBefore: certFrom(), NotAfter: certTo(),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if len(hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return identity{}, fmt.Errorf("sign the certificate of %s: %w", user, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return identity{}, err
	}
	return identity{cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: keyPEM}, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return serial, nil
}

// writeCertificates makes all keys, certificates and kubeconfigs of a cluster.
func writeCertificates(c Config) error {
	ca, err := newAuthority("spillway-" + c.Name)
	if err != nil {
		return err
	}
	// The API server takes user names from headers of whoever holds a
	// certificate of this authority, so it must be another than the one for users.
	front, err := newAuthority("spillway-" + c.Name + "-front-proxy")
	if err != nil {
		return err
	}
	// etcd trusts every certificate of its authority with everything.
	etcd, err := newAuthority("spillway-" + c.Name + "-etcd")
	if err != nil {
		return err
	}
	files := map[string][]byte{"ca.crt": ca.pem, "front-proxy-ca.crt": front.pem, "etcd-ca.crt": etcd.pem}
	if files["ca.key"], err = encodeKey(ca.key); err != nil {
		return err
	}
	serviceAccounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the service account key: %w", err)
	}
	if files["service-accounts.key"], err = encodeKey(serviceAccounts); err != nil {
		return err
	}
	masters := []string{"system:masters"}
	for _, w := range []struct {
		file   string
		by     *authority
		user   string
		groups []string
		hosts  []string
	}{
		{"kube-apiserver", ca, "kube-apiserver", nil, []string{
			c.NodeAddress(), "127.0.0.1", c.apiServiceIP(), "localhost", c.nodeName(), "kubernetes", "kubernetes.default",
			"kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		{"kubelet-client", ca, "kube-apiserver-kubelet-client", masters, nil},
		{"kubelet", ca, "kubelet", nil, []string{c.NodeAddress(), "127.0.0.1", c.nodeName()}},
		{"front-proxy-client", front, "front-proxy-client", nil, nil},
		{"etcd", etcd, "etcd", nil, []string{"127.0.0.1", "localhost"}},
		{"etcd-client", etcd, "kube-apiserver", nil, nil},
	} {
		id, err := w.by.issue(w.user, w.groups, w.hosts...)
		if err != nil {
			return err
		}
		files[w.file+".crt"], files[w.file+".key"] = id.cert, id.key
	}
	for name, data := range files {
		if err := writeFile(c.path("pki", name), data, 0o600); err != nil {
			return err
		}
	}
	for file, user := range map[string]struct {
		name   string
		groups []string
	}{
		"kubeconfig":                             {"admin", masters},
		"etc/kube-controller-manager.kubeconfig": {"system:kube-controller-manager", nil},
		"etc/kube-scheduler.kubeconfig":          {"system:kube-scheduler", nil},
		"etc/kubelet.kubeconfig":                 {"system:node:" + c.nodeName(), []string{"system:nodes"}},
		"etc/kube-proxy.kubeconfig":              {"system:kube-proxy", nil},
		"etc/coredns.kubeconfig":                 {dnsUser, nil},
		"etc/local-volumes.kubeconfig":           {volumesUser, nil},
	} {
		id, err := ca.issue(user.name, user.groups)
		if err != nil {
			return err
		}
		if err := writeFile(c.path(file), renderKubeconfig(c, user.name, ca.pem, id), 0o600); err != nil {
			return err
		}
	}
	return nil
}
