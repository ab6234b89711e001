package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"go.uber.org/zap"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// retryEvery is how long after a failure the network is listened to again.
const retryEvery = time.Second

// listen hears what others announce until ctx ends; hear returns when it can
// hear no more, because the interface is down or not there yet.
func (m *Manager) listen(ctx context.Context, what string, hear func(context.Context) error) error {
	last := ""
	for ctx.Err() == nil {
		err := hear(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			m.log.Warn("virtual IPs: cannot listen", zap.String("what", what), zap.Error(named(err)))
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
	return nil
}

// ours lists the addresses of a family, on one interface or (name "") on all.
func (m *Manager) ours(name string, six bool) []netip.Addr {
	var out []netip.Addr
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if c.ip().Is6() == six && (name == "" || c.Interface == name) {
				out = append(out, c.ip())
			}
		}
	}
	return out
}

// hearARP reads ARP packets whose sender address is one of ours; the kernel
// filters out the rest, so that a busy network costs nothing.
func (m *Manager) hearARP(ctx context.Context, name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("listen to ARP on %s: %w", name, err)
	}
	ours := m.ours(name, false)
	filter, err := bpf.Assemble(senderFilter(ours))
	if err != nil {
		return fmt.Errorf("assemble ARP filter: %w", err)
	}
	conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: filter})
	if err != nil {
		return fmt.Errorf("listen to ARP on %s: %w", name, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("read ARP on %s: %w", name, err)
		}
		if c, why := arpClaim(buf[:n]); why == heeded {
			m.heard(c, ours, name)
		}
	}
}

// senderFilter passes the ARP packets whose sender is one of the addresses. With
// more of them than a jump can span it passes all.
func senderFilter(ours []netip.Addr) []bpf.Instruction {
	const senderIP = etherHeader + 14
	if len(ours) > 200 {
		return []bpf.Instruction{bpf.RetConstant{Val: 2048}}
	}
	out := []bpf.Instruction{bpf.LoadAbsolute{Off: senderIP, Size: 4}}
	for i, ip := range ours {
		b := ip.As4()
		val := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: val, SkipTrue: uint8(len(ours) - i)})
	}
	return append(out, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: 2048})
}

// deafFilter blocks all ICMPv6: for sockets that only send.
func deafFilter() *ipv6.ICMPFilter {
	var f ipv6.ICMPFilter
	f.SetAll(true)
	return &f
}

// hearND reads neighbour advertisements on all interfaces.
func (m *Manager) hearND(ctx context.Context) error {
	ours := m.ours("", true)
	names := m.interfaces()
	ifi, err := net.InterfaceByName(names[0])
	if err != nil {
		return fmt.Errorf("listen to neighbour discovery: %w", err)
	}
	conn, _, err := ndp.Listen(ifi, ndp.Unspecified)
	if err != nil {
		return fmt.Errorf("listen to neighbour discovery: %w", err)
	}
	defer conn.Close()
	f := deafFilter()
	f.Accept(ipv6.ICMPTypeNeighborAdvertisement)
	if err := errors.Join(conn.SetICMPFilter(f),
		conn.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit, true)); err != nil {
		return fmt.Errorf("listen to neighbour discovery: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 2048)
	for {
		n, cm, _, err := conn.ReadRaw(buf)
		if err != nil {
			return fmt.Errorf("read neighbour discovery: %w", err)
		}
		if cm == nil {
			continue
		}
		c, why := ndClaim(buf[:n], cm.HopLimit)
		if why != heeded {
			continue
		}
		if on, err := net.InterfaceByIndex(cm.IfIndex); err == nil {
			m.heard(c, ours, on.Name)
		}
	}
}

// heard deals with a claim that came in on an interface.
func (m *Manager) heard(c claim, ours []netip.Addr, iface string) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return // it has just gone
	}
	why := c.against(ours, ifi.HardwareAddr)
	if why == heeded {
		why = m.contradict(c, iface)
	}
	if why != heeded {
		m.log.Debug("virtual IPs: announcement ignored", zap.String("reason", string(why)),
			zap.Stringer("address", c.ip), zap.Stringer("at", c.at), zap.String("interface", iface))
	}
}

// interfaces lists the interfaces that carry addresses, each once, in order.
func (m *Manager) interfaces() []string {
	var out []string
	seen := map[string]bool{}
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if !seen[c.Interface] {
				seen[c.Interface] = true
				out = append(out, c.Interface)
			}
		}
	}
	return out
}
