package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	lookupTimeout = 2 * time.Second
	lookupEvery   = 15 * time.Second
)

// guessAfter is how often the own name is looked up before the address is
// guessed: a load balancer must come up although the name server does not.
const guessAfter = 3

// advertised finds the address that others are told, given the port that is
// listened on.
func (g *Gossip) advertised(ctx context.Context, bind netip.AddrPort, port uint16, tries int) (netip.AddrPort, error) {
	if g.cfg.Advertise != "" {
		return netip.ParseAddrPort(g.cfg.Advertise)
	}
	if !bind.Addr().IsUnspecified() {
		return netip.AddrPortFrom(bind.Addr().Unmap(), port), nil
	}
	for _, p := range g.peers {
		if p.name != g.cfg.Node {
			continue
		}
		ips, err := g.resolve(ctx, p.host)
		if err == nil {
			return netip.AddrPortFrom(ips[0], p.port), nil
		}
		if tries < guessAfter {
			return netip.AddrPort{}, fmt.Errorf("find own address: %w", err)
		}
	}
	for _, p := range g.peers {
		if p.name == g.cfg.Node {
			continue
		}
		if ips, err := g.resolve(ctx, p.host); err == nil {
			if ip, ok := sourceFor(ctx, netip.AddrPortFrom(ips[0], p.port)); ok {
				return netip.AddrPortFrom(ip, port), nil
			}
		}
	}
	if ip, ok := privateAddr(); ok {
		return netip.AddrPortFrom(ip, port), nil
	}
	return netip.AddrPort{}, fmt.Errorf("find own address: no route to a peer and no private address; bind to an address or name one to advertise")
}

// lookForSource finds the address that this process sends from: the one that it
// is bound to, or what the kernel chooses on the way to a peer. Nobody is asked,
// so it costs little; it may change while the process runs.
func (g *Gossip) lookForSource(ctx context.Context) {
	bind := netip.MustParseAddrPort(g.cfg.Bind) // checked before
	port := bind.Port()
	if port == 0 {
		port = g.advertise.Load().Port()
	}
	if ip := bind.Addr().Unmap(); !ip.IsUnspecified() {
		g.setSource(netip.AddrPortFrom(ip, port))
		return
	}
	for _, p := range g.peers {
		if addrs := p.addresses(); p.name != g.cfg.Node && len(addrs) > 0 {
			if ip, ok := sourceFor(ctx, addrs[0]); ok {
				g.setSource(netip.AddrPortFrom(ip, port))
				return
			}
		}
	}
}

func (g *Gossip) setSource(a netip.AddrPort) {
	if old := g.source.Load(); old == nil || *old != a {
		g.source.Store(&a)
	}
}

// sourceFor is the address from which the kernel would talk to a peer. Nothing
// is sent.
func sourceFor(ctx context.Context, to netip.AddrPort) (netip.Addr, bool) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", to.String())
	if err != nil {
		return netip.Addr{}, false
	}
	ip := addrPort(conn.LocalAddr()).Addr()
	_ = conn.Close()
	return ip, ip.IsValid() && !ip.IsUnspecified()
}

// privateAddr is the first private address of an interface that is up.
func privateAddr() (netip.Addr, bool) {
	links, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, l := range links {
		if l.Flags&net.FlagUp == 0 || l.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap().IsPrivate() {
				return p.Addr().Unmap(), true
			}
		}
	}
	return netip.Addr{}, false
}

// resolve is a host's addresses, IPv4 first. It ends within lookupTimeout.
func (g *Gossip) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := g.cfg.lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	var four, six []netip.Addr
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.Is4() {
			four = append(four, ip)
		} else {
			six = append(six, ip)
		}
	}
	if ips = append(four, six...); len(ips) == 0 {
		return nil, fmt.Errorf("resolve %s: no address", host)
	}
	return ips, nil
}
