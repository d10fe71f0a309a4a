package rig

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// The node hangs on the host by one cable. The host's end is where pods reach
// the host, and the host has routes through it to pods and Services. There is
// no way from the node to anywhere else.

const nodeLink = "eth0"

// connectHost makes the cable, or what is missing of it, from the host's side.
func connectHost(c Config, supervisor process) error {
	link, err := netlink.LinkByName(c.linkName())
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: c.linkName()},
			PeerName:  nodeLink, PeerNamespace: netlink.NsPid(supervisor.PID),
		}
		if err := netlink.LinkAdd(veth); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("make the link %s: %w", c.linkName(), err)
		}
		link, err = netlink.LinkByName(c.linkName())
	}
	if err != nil {
		return fmt.Errorf("find the link %s: %w", c.linkName(), err)
	}
	if err := addAddress(link, c.HostAddress()+"/24"); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", c.linkName(), err)
	}
	for _, cidr := range []string{c.PodCIDR(), c.ServiceCIDR()} {
		if err := addRoute(link, cidr, c.NodeAddress()); err != nil {
			return err
		}
	}
	return nil
}

// disconnectHost removes the cable if the end of the node has not yet done so.
func disconnectHost(c Config) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		link, err := netlink.LinkByName(c.linkName())
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil
		}
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil && time.Now().After(deadline) {
			return fmt.Errorf("remove the link %s: %w", c.linkName(), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// configureNodeNetwork waits for the host to plug the cable in and sets the
// node's end up. It runs inside the node.
func configureNodeNetwork(c Config) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the node's loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring the node's loopback up: %w", err)
	}
	var link netlink.Link
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if link, err = netlink.LinkByName(nodeLink); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("the host did not connect the node within a minute: run `cluster up` again")
		}
	}
	if err := addAddress(link, c.NodeAddress()+"/24"); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring the node's link up: %w", err)
	}
	// Calls that start on the node (the API server's, to webhooks) need a route
	// to a Service before kube-proxy's rules turn them to a pod.
	if err := addRoute(link, c.ServiceCIDR(), c.HostAddress()); err != nil {
		return err
	}
	// The node's own network namespace: the host's setting is not touched.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("let the node forward: %w", err)
	}
	return nil
}

func addAddress(link netlink.Link, address string) error {
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return fmt.Errorf("parse %s: %w", address, err)
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link.Attrs().Name, address, err)
	}
	return nil
}

func addRoute(link netlink.Link, cidr, via string) error {
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		return fmt.Errorf("parse %s: %w", cidr, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.ParseIP(via)}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s by %s: %w", cidr, via, err)
	}
	return nil
}
