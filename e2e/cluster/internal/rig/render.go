package rig

import (
	"encoding/base64"
	"fmt"
)

// renderKubeconfig is YAML by hand: nothing in it needs escaping.
func renderKubeconfig(c Config, user string, ca []byte, id identity) []byte {
	enc := base64.StdEncoding.EncodeToString
	context := "spillway-" + c.Name
	return []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: "%[4]s"
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: "%[4]s"
current-context: %[1]s
`, context, c.Server(), enc(ca), user, enc(id.cert), enc(id.key)))
}

// writeNodeFiles writes what the node's components read.
func writeNodeFiles(c Config) error {
	for file, content := range map[string]string{
		"etc/containerd.toml":   containerdConfig(c),
		"etc/cni/pods.conflist": cniConfig(c),
		"etc/kubelet.yaml":      kubeletConfig(c),
		"etc/kube-proxy.yaml":   proxyConfig(c),
		"etc/Corefile":          corefile(c),
	} {
		if err := writeFile(c.path(file), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

const pauseImage = "localhost/spillway-pause:1"

// containerdConfig: restrict_oom_score_adj because machines without
// CAP_SYS_RESOURCE may not lower a score; no AppArmor because its loader and
// securityfs are not in the node's root.
func containerdConfig(c Config) string {
	return fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "%[1]s"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "%[2]s"
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "%[3]s"
conf_dir = "%[4]s"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
`, containerdSocket, pauseImage, c.CNIBin, c.insidePath("etc/cni"))
}

const containerdSocket = "/run/containerd/containerd.sock"

// cniConfig joins each pod to the node by a cable of its own. With a bridge,
// answers between two pods would not pass the node's connection tracking, and
// so not get their Service address back, where br_netfilter is missing.
func cniConfig(c Config) string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipMasq": false,
    "ipam": {
      "type": "host-local",
      "dataDir": "/run/cni-addresses",
      "ranges": [[{"subnet": "%s"}]],
      "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
`, c.PodCIDR())
}

// kubeletConfig: eviction and image collection are off, for the disk is the
// developer's and may well be full to more than a node would bear.
func kubeletConfig(c Config) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[2]s/pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: %[2]s/pki/kubelet.crt
tlsPrivateKeyFile: %[2]s/pki/kubelet.key
containerRuntimeEndpoint: unix://%[3]s
cgroupDriver: cgroupfs
cgroupRoot: /%[4]s
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: true
clusterDomain: cluster.local
clusterDNS: [%[5]s]
resolvConf: /etc/resolv.conf
healthzBindAddress: 127.0.0.1
readOnlyPort: 0
podLogsDir: /var/log/pods
maxPods: 250
serializeImagePulls: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {"memory.available": "0%%", "nodefs.available": "0%%", "nodefs.inodesFree": "0%%", "imagefs.available": "0%%", "imagefs.inodesFree": "0%%"}
`, c.NodeAddress(), c.inside(), containerdSocket, c.cgroupName(), c.DNSAddress())
}

// proxyConfig: the conntrack limits are the host's and none of our business.
// clusterCIDR stays unset so that calls from the host keep their address; their
// answers come back through the node anyway.
func proxyConfig(c Config) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: %[1]s
hostnameOverride: %[2]s
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {kubeconfig: %[3]s/etc/kube-proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms}
`, c.NodeAddress(), c.nodeName(), c.inside())
}

// HostName is the name by which pods find the host.
const HostName = "host.cluster.internal"

// corefile answers for the cluster and for the host, and that there is no such
// name for everything else: no question leaves the machine. One block for each,
// for within a block CoreDNS has an order of its own.
func corefile(c Config) string {
	return fmt.Sprintf(`cluster.local in-addr.arpa {
    bind %[1]s
    errors
    cache 5 {
        disable denial
    }
    kubernetes cluster.local in-addr.arpa {
        kubeconfig %[4]s/etc/coredns.kubeconfig
        pods insecure
        ttl 5
    }
}
%[3]s {
    bind %[1]s
    errors
    hosts {
        %[2]s %[3]s
        ttl 5
    }
}
. {
    bind %[1]s
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`, c.NodeAddress(), c.HostAddress(), HostName, c.inside())
}
