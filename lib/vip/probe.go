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
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Stranger is somebody on the network who answers for an address of ours.
type Stranger struct {
	Address Address
	At      net.HardwareAddr
}

// probeWait is how long answers to a probe are awaited, and probeTimes how often
// it is sent in that time.
const (
	probeWait  = 600 * time.Millisecond
	probeTimes = 3
	// The constant probesAtOnce bounds the sockets that are open for it.
	probesAtOnce = 16
)

// Probe asks the network who has the addresses of a group, claiming nothing
// (RFC 5227 for IPv4), and returns who answers. It is for a
// group that nobody is known to hold: a holder answers, too. It blocks for
// about 0.6 s, or until ctx ends, and needs no lock.
func (m *Manager) Probe(ctx context.Context, group string) ([]Stranger, error) {
	g := m.group(group) // the list of groups never changes
	if g == nil {
		return nil, fmt.Errorf("probe %q: %w", group, ErrGroup)
	}
	if m.cfg.Observe {
		return nil, nil
	}
	at, errs := make([]net.HardwareAddr, len(g.addrs)), make([]error, len(g.addrs))
	var all errgroup.Group
	all.SetLimit(probesAtOnce)
	for i, c := range g.addrs {
		all.Go(func() error {
			at[i], errs[i] = Probe(ctx, c.Address)
			return nil
		})
	}
	_ = all.Wait() // the errors are collected
	var out []Stranger
	for i, c := range g.addrs {
		if at[i] != nil {
			out = append(out, Stranger{Address: c.Address, At: at[i]})
		}
	}
	return out, errors.Join(errs...)
}

// Probe asks the network of one address who has it: by ARP, or by a neighbour
// solicitation. It returns nil if nobody answers within 0.6 s, and never this
// node itself.
func Probe(ctx context.Context, a Address) (net.HardwareAddr, error) {
	at, err := probe(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", a, named(err))
	}
	return at, nil
}

func probe(ctx context.Context, a Address) (net.HardwareAddr, error) {
	ifi, err := net.InterfaceByName(a.Interface)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	if a.Prefix.Addr().Is6() {
		return probeND(ctx, ifi, a.Prefix.Addr())
	}
	return probeARP(ctx, ifi, a.Prefix.Addr())
}

func probeARP(ctx context.Context, ifi *net.Interface, ip netip.Addr) (net.HardwareAddr, error) {
	filter, err := bpf.Assemble(senderFilter([]netip.Addr{ip}))
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	frame, err := arpProbe(ip, ifi.HardwareAddr)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 2048)
	ask := func() error {
		_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
		return err
	}
	return await(ctx, conn.SetReadDeadline, ask, func() (claim, Ignored, error) {
		n, _, err := conn.ReadFrom(buf)
		c, why := arpClaim(buf[:max(n, 0)])
		return c, why, err
	}, ip, ifi.HardwareAddr)
}

func probeND(ctx context.Context, ifi *net.Interface, ip netip.Addr) (net.HardwareAddr, error) {
	conn, _, err := ndp.Listen(ifi, ndp.Unspecified)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	f := deafFilter()
	f.Accept(ipv6.ICMPTypeNeighborAdvertisement)
	err = errors.Join(conn.SetICMPFilter(f), conn.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit, true))
	if err != nil {
		return nil, err
	}
	to, err := ndp.SolicitedNodeMulticast(ip)
	if err != nil {
		return nil, err
	}
	question := &ndp.NeighborSolicitation{
		TargetAddress: ip,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: ifi.HardwareAddr}},
	}
	buf := make([]byte, 2048)
	ask := func() error { return conn.WriteTo(question, nil, to) }
	return await(ctx, conn.SetReadDeadline, ask, func() (claim, Ignored, error) {
		n, cm, _, err := conn.ReadRaw(buf)
		if err != nil || cm == nil || cm.IfIndex != ifi.Index {
			return claim{}, IgnoredOtherLink, err
		}
		c, why := ndClaim(buf[:n], cm.HopLimit)
		return c, why, nil
	}, ip, ifi.HardwareAddr)
}

// await asks a few times and reads until somebody else claims ip.
func await(ctx context.Context, until func(time.Time) error, ask func() error,
	read func() (claim, Ignored, error), ip netip.Addr, hw net.HardwareAddr,
) (net.HardwareAddr, error) {
	for i := 0; i < probeTimes && ctx.Err() == nil; i++ {
		if err := ask(); err != nil {
			return nil, err
		}
		if err := until(time.Now().Add(probeWait / probeTimes)); err != nil {
			return nil, err
		}
		for {
			c, why, err := read()
			if isTimeout(err) {
				break
			}
			if err != nil {
				return nil, err
			}
			if why == heeded && c.against([]netip.Addr{ip}, hw) == heeded {
				return c.at, nil
			}
		}
	}
	return nil, nil
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
