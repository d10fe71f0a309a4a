// Command cluster is a real single-node Kubernetes for tests and the demo,
// without Docker: one binary that is every component, started by hand.
//
// Called as, or with the first argument, kube-apiserver, kubelet, etcd,
// kubectl and so on it is that program; otherwise it is the tool of the
// README.
package main

import (
	"os"
	"path/filepath"

	"spillway.dev/cluster/internal/rig"
)

func main() {
	if run, ok := programs[filepath.Base(os.Args[0])]; ok {
		run()
		return
	}
	os.Exit(rig.Main(os.Args[1:], kubectl))
}
