package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An index is taken by listening on an abstract Unix socket: the kernel lets
// one process do so at a time and frees it with the process, however it ends,
// with no file to go stale. The supervisor inherits the listener and answers
// on it for the cluster's life.

func indexAddress(index int) string { return fmt.Sprintf("@spillway-cluster-%d", index) }

// errIndexTaken says that an index cannot be had.
var errIndexTaken = errors.New("taken")

// takeIndex takes the wanted index, or with want < 0 the first free one,
// trying prefer before all others.
func takeIndex(c Config, want, prefer int) (int, *net.UnixListener, error) {
	if want >= 0 {
		listener, err := tryIndex(c, want)
		if errors.Is(err, errIndexTaken) {
			return 0, nil, fmt.Errorf("--index %d is %w; leave --index out to get a free one", want, err)
		}
		return want, listener, err
	}
	candidates := []int{prefer}
	for i := 0; i <= MaxIndex; i++ {
		candidates = append(candidates, i)
	}
	for _, i := range candidates {
		listener, err := tryIndex(c, i)
		if errors.Is(err, errIndexTaken) {
			continue
		}
		return i, listener, err
	}
	return 0, nil, fmt.Errorf("all %d cluster indexes are taken: `cluster down` what is not needed", MaxIndex+1)
}

func tryIndex(c Config, index int) (*net.UnixListener, error) {
	c.Index = index
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: indexAddress(index), Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		holder := "another cluster"
		if reply, err := ask(index, request{Do: "status"}); err == nil {
			holder = fmt.Sprintf("cluster %q (%s)", reply.Name, reply.Dir)
		}
		return nil, fmt.Errorf("%w by %s", errIndexTaken, holder)
	}
	if err != nil {
		return nil, fmt.Errorf("take index %d: %w", index, err)
	}
	if err := indexFree(c); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// indexFree checks that nobody else has the ports or addresses of an index.
func indexFree(c Config) error {
	if c.Mode == ControlPlane {
		for _, name := range []string{"kube-apiserver", "etcd", "etcd-peer", "kube-controller-manager"} {
			address := fmt.Sprintf("127.0.0.1:%d", c.port(name))
			listener, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("%w: another program listens on %s", errIndexTaken, address)
			}
			listener.Close()
		}
		return nil
	}
	_, own, err := net.ParseCIDR(c.clusterCIDR())
	if err != nil {
		return fmt.Errorf("parse the cluster's range: %w", err)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		if ones, _ := route.Dst.Mask.Size(); ones == 0 {
			continue
		}
		if own.Contains(route.Dst.IP) || route.Dst.Contains(own.IP) {
			return fmt.Errorf("%w: the host has a route to %s, inside the cluster's %s", errIndexTaken, route.Dst, own)
		}
	}
	return nil
}

// request is what the supervisor is asked, reply what it says; one line of
// JSON each.
type request struct {
	Do        string `json:"do"` // status, stop or start
	Component string `json:"component,omitempty"`
}

type reply struct {
	Error      string            `json:"error,omitempty"`
	Name       string            `json:"name"`
	Dir        string            `json:"dir"`
	Components []ComponentStatus `json:"components"`
}

// ComponentStatus is how one component fares.
type ComponentStatus struct {
	Name     string `json:"name"`
	State    string `json:"state"` // waiting, running, stopped or failed
	Restarts int    `json:"restarts"`
}

// ask sends one request to the supervisor of an index.
func ask(index int, req request) (reply, error) {
	conn, err := net.DialTimeout("unix", indexAddress(index), time.Second)
	if err != nil {
		return reply{}, fmt.Errorf("reach the cluster's supervisor: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return reply{}, fmt.Errorf("ask the cluster's supervisor: %w", err)
	}
	var answer reply
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return reply{}, fmt.Errorf("the cluster's supervisor does not answer: %w", err)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

// mayAsk admits root and the supervisor's own user: abstract sockets have no
// permissions of their own.
func mayAsk(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	allowed := false
	err = raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		allowed = err == nil && (peer.Uid == 0 || int(peer.Uid) == unix.Getuid())
	})
	return err == nil && allowed
}
