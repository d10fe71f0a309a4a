// Package rig brings a single-node Kubernetes up and takes it down again
// without a trace.
package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// Mode says how much of a cluster is run.
type Mode string

const (
	// ControlPlane is etcd, API server and controller manager on loopback, for
	// tests of controllers. It needs no privileges.
	ControlPlane Mode = "control-plane"
	// Node is all of it with a node that runs pods, in namespaces of its own.
	Node Mode = "node"
)

// MaxIndex is the highest cluster index: one second octet each in 10.180.0.0
// to 10.243.0.0.
const MaxIndex = 63

// nodeDir is where a node sees the cluster's state directory. The node has a
// root of its own, so that its paths are the same and short for every cluster
// (a Unix socket's path holds 107 bytes).
const nodeDir = "/cluster"

// Config is what a cluster was started with; cluster.json holds it.
type Config struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	Mode  Mode   `json:"mode"`
	// Dir is the state directory as the host sees it.
	Dir string `json:"dir"`
	// CNIBin is the directory of the CNI plugins.
	CNIBin string `json:"cniBin,omitempty"`
}

var nameRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// Validate reports a name or index that cannot work.
func (c Config) Validate() error {
	if !nameRule.MatchString(c.Name) {
		return fmt.Errorf("--name %q: use 1 to 40 of a-z, 0-9 and -, not at the ends", c.Name)
	}
	if c.Index < 0 || c.Index > MaxIndex {
		return fmt.Errorf("--index %d: use 0 to %d", c.Index, MaxIndex)
	}
	return nil
}

// inside is the state directory as the components see it.
func (c Config) inside() string {
	if c.Mode == Node {
		return nodeDir
	}
	return c.Dir
}

func (c Config) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

func (c Config) insidePath(elem ...string) string {
	return filepath.Join(append([]string{c.inside()}, elem...)...)
}

// octet is the cluster's own second octet: everything it uses is in
// 10.<octet>.0.0/16.
func (c Config) octet() int { return 180 + c.Index }

// HostAddress is where pods reach servers on the host.
func (c Config) HostAddress() string {
	if c.Mode == ControlPlane {
		return "127.0.0.1"
	}
	return fmt.Sprintf("10.%d.0.1", c.octet())
}

// NodeAddress is where the API server (and NodePorts) are reached.
func (c Config) NodeAddress() string {
	if c.Mode == ControlPlane {
		return "127.0.0.1"
	}
	return fmt.Sprintf("10.%d.0.2", c.octet())
}

func (c Config) clusterCIDR() string { return fmt.Sprintf("10.%d.0.0/16", c.octet()) }

// PodCIDR and ServiceCIDR are routed from the host to the node.
func (c Config) PodCIDR() string { return fmt.Sprintf("10.%d.64.0/18", c.octet()) }

// ServiceCIDR holds the ClusterIPs.
func (c Config) ServiceCIDR() string { return fmt.Sprintf("10.%d.128.0/20", c.octet()) }

func (c Config) apiServiceIP() string { return fmt.Sprintf("10.%d.128.1", c.octet()) }

// DNSAddress is the ClusterIP of the kube-dns Service.
func (c Config) DNSAddress() string { return fmt.Sprintf("10.%d.128.10", c.octet()) }

// port returns the port of a component. Nodes have a network of their own and
// use the usual ones; control planes share the host's loopback. 20000 and up
// stays below the range from which Linux takes outgoing ports (32768).
func (c Config) port(name string) int {
	usual := map[string]int{"kube-apiserver": 6443, "etcd": 2379, "etcd-peer": 2380, "kube-controller-manager": 10257}
	offset := map[string]int{"kube-apiserver": 0, "etcd": 1, "etcd-peer": 2, "kube-controller-manager": 3}
	if c.Mode == Node {
		return usual[name]
	}
	return 20000 + 10*c.Index + offset[name]
}

// Server is the API server's URL.
func (c Config) Server() string {
	return fmt.Sprintf("https://%s:%d", c.NodeAddress(), c.port("kube-apiserver"))
}

func (c Config) nodeName() string { return "spillway-" + c.Name }

// linkName is the host's end of the cable to the node.
func (c Config) linkName() string { return fmt.Sprintf("spwc%d", c.Index) }

// cgroupName is the parent of all pods' cgroups. Without one of its own a
// kubelet takes the pods of its neighbour for orphans and kills them.
func (c Config) cgroupName() string { return fmt.Sprintf("spillway-cluster-%d", c.Index) }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c Config) Kubeconfig() string { return c.path("kubeconfig") }

const configFile = "cluster.json"

func (c Config) save() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", configFile, err)
	}
	return writeFile(c.path(configFile), append(data, '\n'), 0o600)
}

// loadConfig reads cluster.json; errNoCluster when there is none.
func loadConfig(dir string) (Config, error) {
	data, err := os.ReadFile(filepath.Join(dir, configFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, errNoCluster
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the cluster's configuration: %w", err)
	}
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("%s in %s is damaged (run `cluster down`): %w", configFile, dir, err)
	}
	// The directory may have been reached by another path than when it was made.
	c.Dir = dir
	return c, nil
}

var errNoCluster = errors.New("no cluster here: run `cluster up`")

// DefaultStateDir is where a cluster of that name lives unless --state says otherwise.
func DefaultStateDir(name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the state: set HOME or XDG_CACHE_HOME, or pass --state: %w", err)
	}
	return filepath.Join(cache, "spillway", "cluster", name), nil
}

// writeFile replaces a file in one step, so that a kill leaves the old or the
// new content and never half of it.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	next := path + ".new"
	if err := os.WriteFile(next, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
