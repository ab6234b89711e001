package vip

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// neighbourhood knows this node's and other nodes' addresses on a link.
type neighbourhood interface {
	// Own is an address of this node on the virtual IP's interface that is none
	// of the virtual ones; the zero Addr if there is none.
	Own(a Address, virtual []netip.Addr) netip.Addr
	// Other is an address of the other family, on the same interface, of the
	// node that has the one given; the zero Addr if none is known.
	Other(of netip.Addr, iface string) netip.Addr
}

func (k *kernel) Own(a Address, virtual []netip.Addr) netip.Addr {
	l, err := k.link(a.Interface)
	if err != nil {
		return netip.Addr{}
	}
	list, err := k.h.AddrList(l, family(a.Prefix.Addr().Is6()))
	if err != nil {
		return netip.Addr{}
	}
	var best netip.Addr
	for _, have := range list {
		ip, ok := netip.AddrFromSlice(have.IP)
		if ip = ip.Unmap(); !ok || slices.Contains(virtual, ip) {
			continue
		}
		ones, _ := have.Mask.Size()
		near := netip.PrefixFrom(ip, ones).Contains(a.Prefix.Addr())
		if !best.IsValid() || ip.Is4() && near || ip.IsLinkLocalUnicast() && ip.Is6() {
			best = ip
		}
	}
	return best
}

func (k *kernel) Other(of netip.Addr, iface string) netip.Addr {
	l, err := k.link(iface)
	if err != nil {
		return netip.Addr{}
	}
	var hw []byte
	for _, n := range k.neighbours(l, of.Is6()) {
		if ip, _ := netip.AddrFromSlice(n.IP); ip.Unmap() == of.Unmap() {
			hw = n.HardwareAddr
		}
	}
	if len(hw) != 6 {
		return netip.Addr{}
	}
	var best netip.Addr
	for _, n := range k.neighbours(l, !of.Is6()) {
		ip, _ := netip.AddrFromSlice(n.IP)
		if bytes.Equal(n.HardwareAddr, hw) && (!best.IsValid() || ip.IsLinkLocalUnicast()) {
			best = ip.Unmap()
		}
	}
	if !best.IsValid() && !of.Is6() {
		best = eui64(hw)
	}
	return best
}

func (k *kernel) neighbours(l netlink.Link, six bool) []netlink.Neigh {
	list, err := k.h.NeighList(l.Attrs().Index, family(six))
	if err != nil {
		return nil
	}
	var out []netlink.Neigh
	for _, n := range list {
		if n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE|unix.NUD_NOARP) == 0 {
			out = append(out, n)
		}
	}
	return out
}

// eui64 is the link-local address that a node gives itself unless it was told
// otherwise (RFC 4291, appendix A).
func eui64(hw []byte) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 0, 0, 0, 0, 0, 0,
		hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5],
	})
}

// NextHops lists this node's own addresses on the interfaces of a group, for
// peers to send strays to: what a peer passes as Predecessor or Successor. The
// caller tells its peers.
func (m *Manager) NextHops(group string) (four, six netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.group(group)
	if g == nil {
		return four, six
	}
	for _, c := range g.addrs {
		own := m.sys.neighbours.Own(c.Address, m.ours("", c.ip().Is6()))
		if own.Is4() {
			four = own
		} else if own.IsValid() {
			six = own
		}
	}
	return four, six
}
