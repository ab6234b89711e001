package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
)

// Node is a machine of the lab.
type Node struct {
	Name string
	NS   string // its network namespace
	Dir  string // its disk: it outlives a power failure
	IP   netip.Addr
	IP6  netip.Addr
	MAC  net.HardwareAddr

	off   bool
	procs map[string]*Proc
	order []string
}

// place is a node that there is to be: its name, and the last byte of its
// addresses.
type place struct {
	name string
	host byte
}

// Followers come after these.
var fixed = []place{
	{"lb1", 11},
	{"lb2", 12},
	{"witness", 13},
	{"a", 21},
	{"b", 22},
	{"client", 50},
	{"referee", 60},
}

// Address is where a node is reached, in every lab; it panics for a name that is
// none.
func Address(node string) netip.Addr {
	for _, p := range fixed {
		if p.name == node {
			return address(p.host)
		}
	}
	panic("lab: no node " + node)
}

// LBs are the names of the load balancers.
func LBs() []string { return []string{"lb1", "lb2"} }

// Other is the other load balancer.
func Other(lb string) string {
	if lb == "lb1" {
		return "lb2"
	}
	return "lb1"
}

// Sites are the names of the sites, the preferred one first.
func Sites() []string { return []string{"a", "b"} }

const netmask, netmask6 = 24, 64

func address(host byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, host}) }

func address6(host byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 15: host})
}

func hardware(host byte) net.HardwareAddr { return net.HardwareAddr{2, 0x77, 0, 0, 0, host} }

// VIP and VIP6 are the virtual addresses of the lab.
func VIP() netip.Addr { return address(100) }

// VIP6 is the virtual address of the lab in IPv6.
func VIP6() netip.Addr { return address6(100) }

func (l *Lab) newNode(name string, host byte) (*Node, error) {
	n := &Node{
		Name: name, NS: l.name + "-" + name, Dir: filepath.Join(l.Dir, name),
		IP: address(host), IP6: address6(host), MAC: hardware(host),
		procs: map[string]*Proc{},
	}
	if err := os.Mkdir(n.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory of %s: %w", name, err)
	}
	return n, nil
}

// connect makes the node's namespace and its cable to the bridge.
func (l *Lab) connect(ctx context.Context, n *Node) error {
	if _, err := run(ctx, "", "ip", "netns", "add", n.NS); err != nil {
		return err
	}
	err := ipBatch(ctx, l.bridge, fmt.Sprintf("link add name %s type veth peer name eth0 address %s netns %s", n.Name, n.MAC, n.NS))
	if err != nil {
		return err
	}
	lines := []string{
		"link set lo up",
		"link set eth0 up",
		fmt.Sprintf("addr add %s/%d dev eth0", n.IP, netmask),
		fmt.Sprintf("addr add %s/%d dev eth0 nodad", n.IP6, netmask6),
	}
	err = ipBatch(ctx, n.NS, append(lines, l.neighbours(n)...)...)
	return errors.Join(err, ipBatch(ctx, l.bridge, fmt.Sprintf("link set dev %s master br0 up", n.Name)))
}

// disconnect takes the node's namespace and its cable away.
func (l *Lab) disconnect(ctx context.Context, n *Node) error {
	err := ipBatch(ctx, l.bridge, "link del dev "+n.Name)
	return errors.Join(err, dropNS(ctx, n.NS))
}
