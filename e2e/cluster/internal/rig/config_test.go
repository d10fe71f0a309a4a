package rig

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestClustersShareNothing(t *testing.T) {
	ports, cidrs := map[int]Config{}, map[string]Config{}
	for index := range MaxIndex + 1 {
		c := Config{Name: "x", Index: index, Mode: ControlPlane}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"kube-apiserver", "etcd", "etcd-peer", "kube-controller-manager"} {
			port := c.port(name)
			if other, taken := ports[port]; taken {
				t.Errorf("port %d of index %d is also one of %d", port, index, other.Index)
			}
			if port >= 32768 {
				t.Errorf("port %d is in the range for outgoing connections", port)
			}
			ports[port] = c
		}
		c.Mode = Node
		whole := netip.MustParsePrefix(c.clusterCIDR())
		if other, taken := cidrs[whole.String()]; taken {
			t.Errorf("%s of index %d is also that of %d", whole, index, other.Index)
		}
		cidrs[whole.String()] = c
		pods, services := netip.MustParsePrefix(c.PodCIDR()), netip.MustParsePrefix(c.ServiceCIDR())
		for _, part := range []netip.Prefix{pods, services} {
			if !whole.Contains(part.Addr()) || part.Bits() <= whole.Bits() || part.Masked() != part {
				t.Errorf("%s is no part of %s", part, whole)
			}
		}
		if pods.Overlaps(services) {
			t.Errorf("%s overlaps %s", pods, services)
		}
		for _, address := range []string{c.HostAddress(), c.NodeAddress()} {
			if a := netip.MustParseAddr(address); pods.Contains(a) || services.Contains(a) || !whole.Contains(a) {
				t.Errorf("%s is not apart from pods and Services", a)
			}
		}
		for _, address := range []string{c.apiServiceIP(), c.DNSAddress()} {
			if !services.Contains(netip.MustParseAddr(address)) {
				t.Errorf("%s is not in %s", address, services)
			}
		}
		if len(c.linkName()) > 15 {
			t.Errorf("the kernel takes no link name of %d bytes", len(c.linkName()))
		}
	}
}

func TestValidate(t *testing.T) {
	for name, ok := range map[string]bool{
		"default": true, "a": true, "a-1": true, "": false, "-a": false, "a-": false, "A": false, "a/b": false, "..": false,
		strings.Repeat("a", 40): true, strings.Repeat("a", 41): false,
	} {
		if err := (Config{Name: name}).Validate(); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for index, ok := range map[int]bool{-1: false, 0: true, MaxIndex: true, MaxIndex + 1: false} {
		if err := (Config{Name: "a", Index: index}).Validate(); (err == nil) != ok {
			t.Errorf("index %d: %v", index, err)
		}
	}
}

func TestConfigIsKept(t *testing.T) {
	dir := t.TempDir()
	if _, err := loadConfig(dir); !errors.Is(err, errNoCluster) {
		t.Fatalf("an empty directory: %v", err)
	}
	c := Config{Name: "x", Index: 3, Mode: Node, Dir: dir, CNIBin: "/plugins"}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	if got, err := loadConfig(dir); err != nil || got != c {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestComponents(t *testing.T) {
	for _, c := range []Config{{Name: "x", Index: 2, Mode: ControlPlane, Dir: "/state"}, {Name: "x", Index: 2, Mode: Node, Dir: "/state"}} {
		var names []string
		for _, component := range components(c) {
			if component.after != "" && !slices.Contains(names, component.after) {
				t.Errorf("%s waits for %s, which comes later or never", component.name, component.after)
			}
			names = append(names, component.name)
			for _, arg := range component.args {
				if c.Mode == Node && strings.Contains(arg, "/state") {
					t.Errorf("%s: %s is a path of the host, which a node does not see", component.name, arg)
				}
			}
		}
		if c.Mode == ControlPlane && (slices.Contains(names, "kubelet") || len(names) != 3) {
			t.Errorf("a control plane runs %v", names)
		}
	}
}

func TestDefaultStateDir(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/cache")
	if dir, err := DefaultStateDir("x"); err != nil || dir != filepath.FromSlash("/cache/spillway/cluster/x") {
		t.Errorf("%q, %v", dir, err)
	}
}
