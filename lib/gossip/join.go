package gossip

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

const (
	rejoinEvery    = 500 * time.Millisecond // a voter, for each voter that is missing
	followAlone    = 2 * time.Second        // a follower that knows no voter
	followEvery    = 10 * time.Second       // a follower that knows one
	rejoinAtLeast  = 250 * time.Millisecond // between two attempts, whatever the traffic says
	otherNameEvery = 5 * time.Second
	hintLife       = 10 * time.Second
	unresolvedWait = time.Second
)

// peer is a voter other than ourselves, or ourselves in the list of all.
type peer struct {
	name       string
	configured string
	host       string
	port       uint16

	mu      sync.Mutex
	addrs   []netip.AddrPort
	routes  []*memberlist.Node // the same, as memberlist wants it
	unknown error              // why addrs is not up to date
	joining bool
	tried   time.Time
	reason  Reason // of the last attempt
	detail  string
	hint    Reason // of the last thing from its address that the guard dropped
	hinted  time.Time
}

func newPeer(p Peer) *peer {
	host, port, _ := splitHostPort(p.Addr) // checked before
	out := &peer{name: p.Name, configured: p.Addr, host: host, port: port, reason: ReasonJoining}
	if ip, err := netip.ParseAddr(host); err == nil {
		out.resolved([]netip.Addr{ip.Unmap()}, nil)
	}
	return out
}

func (p *peer) literal() bool {
	_, err := netip.ParseAddr(p.host)
	return err == nil
}

// resolved takes the result of a lookup. Without one the old addresses stay.
func (p *peer) resolved(ips []netip.Addr, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unknown = err; err != nil {
		return
	}
	p.addrs = p.addrs[:0:0]
	p.routes = nil
	for _, ip := range ips {
		a := netip.AddrPortFrom(ip, p.port)
		p.addrs = append(p.addrs, a)
		p.routes = append(p.routes, route(p.name, a))
	}
}

func (p *peer) addresses() []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs // replaced, never changed
}

// route is the configured address to send to: the one that the node advertises
// if the name stands for several.
func (p *peer) route(advertised netip.AddrPort) (*memberlist.Node, netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.routes) == 0 {
		return nil, netip.AddrPort{}
	}
	i := max(0, slices.Index(p.addrs, advertised))
	return p.routes[i], p.addrs[i]
}

// route is an address as memberlist wants it for sending. It need not be a
// member.
func route(name string, a netip.AddrPort) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: a.Addr().AsSlice(), Port: a.Port()}
}

// due takes the right to try to join, unless it is too early.
func (p *peer) due(now time.Time, every time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason == ReasonOtherName { // it answers, so asking again in haste is of no use
		every = otherNameEvery
	}
	if p.joining || len(p.addrs) == 0 || now.Sub(p.tried) < every {
		return false
	}
	p.joining, p.tried = true, now
	return true
}

// joined takes the result of an attempt, and the name of who answered if it was
// not the peer.
func (p *peer) joined(err error, other string) Reason {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.joining = false
	switch {
	case err != nil:
		p.reason, p.detail = classify(err), oneLine(err.Error())
	case other != "":
		p.reason, p.detail = ReasonOtherName, "the node at this address is called "+other
	default:
		p.reason, p.detail = ReasonJoining, "" // until the membership says so
	}
	return p.reason
}

// joinLoop tries, for as long as it runs, to join the peers that are missing:
// each in a goroutine of its own, because an attempt at one that does not
// answer takes the whole time-out.
func (g *Gossip) joinLoop(ctx context.Context, m *memberlist.Memberlist) {
	var attempts sync.WaitGroup
	defer attempts.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		every := rejoinAtLeast
		select {
		case <-ctx.Done():
			return
		case <-g.poke:
		case <-timer.C:
			every = 0
			timer.Reset(jitter(g.rejoinInterval()))
		}
		now := time.Now()
		for _, p := range g.candidates() {
			if p.due(now, every) {
				attempts.Go(func() { g.join(m, p) })
			}
		}
		if every == 0 {
			g.lookForSource(ctx)
		}
		g.lookForClashes(now)
	}
}

// candidates are the peers to be joined now: for a voter all that are missing,
// for a follower one of them by chance, so that a thousand followers of a dead
// voter do not all knock every half second.
func (g *Gossip) candidates() []*peer {
	var missing []*peer
	for _, p := range g.peers {
		if _, ok := g.table.get(p.name); !ok && p.name != g.cfg.Node {
			missing = append(missing, p)
		}
	}
	if !g.voter && len(missing) > 1 {
		i := rand.IntN(len(missing))
		missing = missing[i : i+1]
	}
	return missing
}

func (g *Gossip) rejoinInterval() time.Duration {
	if g.voter {
		return rejoinEvery
	}
	for _, p := range g.peers {
		if _, ok := g.table.get(p.name); ok {
			return followEvery
		}
	}
	return followAlone
}

// jitter is d ± 20 %.
func jitter(d time.Duration) time.Duration {
	return d*8/10 + rand.N(d*4/10)
}

func (g *Gossip) join(m *memberlist.Memberlist, p *peer) {
	addrs := p.addresses()
	seeds := make([]string, len(addrs))
	for i, a := range addrs {
		seeds[i] = a.String()
	}
	_, err := m.Join(seeds)
	other := ""
	if _, member := g.table.get(p.name); err == nil && !member {
		other = g.table.at(addrs)
	}
	if reason := p.joined(err, other); reason != ReasonJoining {
		g.counts.joins.add(reason)
	}
}

// heard is told of everything that the guard lets in. A peer that talks though
// it is no member is joined at once.
func (g *Gossip) heard(from netip.AddrPort) {
	name, ok := (*g.byAddr.Load())[from]
	if !ok {
		return
	}
	if _, member := g.table.get(name); member {
		return
	}
	select {
	case g.poke <- struct{}{}:
	default:
	}
}

// dropped is told of everything that the guard does not let in. If it comes
// from a peer's address it explains why the peer is no member.
func (g *Gossip) dropped(from netip.AddrPort, reason Reason) {
	if reason != ReasonOtherCluster && reason != ReasonNotEncrypted && reason != ReasonEncrypted {
		return
	}
	name, ok := (*g.byAddr.Load())[from]
	if !ok { // a stream has a port of its own; its address will do if it is one peer's only
		name, ok = (*g.byIP.Load())[from.Addr()]
	}
	if !ok || name == "" {
		return
	}
	for _, p := range g.peers {
		if p.name == name {
			p.mu.Lock()
			p.hint, p.hinted = reason, time.Now()
			p.mu.Unlock()
		}
	}
}

// index makes the addresses of the other peers known to the guard.
func (g *Gossip) index() {
	g.indexMu.Lock()
	defer g.indexMu.Unlock()
	byAddr, byIP := map[netip.AddrPort]string{}, map[netip.Addr]string{}
	for _, p := range g.peers {
		if p.name == g.cfg.Node {
			continue
		}
		for _, a := range p.addresses() {
			byAddr[a] = p.name
			if other, taken := byIP[a.Addr()]; taken && other != p.name {
				byIP[a.Addr()] = "" // several peers behind one address
				continue
			}
			byIP[a.Addr()] = p.name
		}
	}
	g.byAddr.Store(&byAddr)
	g.byIP.Store(&byIP)
}

// lookupLoop keeps the addresses of one peer up to date.
func (g *Gossip) lookupLoop(ctx context.Context, p *peer) {
	for {
		ips, err := g.resolve(ctx, p.host)
		if ctx.Err() != nil {
			return
		}
		p.resolved(ips, err)
		g.index()
		wait := lookupEvery
		if err != nil {
			wait = unresolvedWait
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(wait)):
		}
	}
}

// watch writes a line for each peer that comes or goes. It does it here and not
// where memberlist tells of it, because a log that is slow would stop
// memberlist there.
func (g *Gossip) watch(ctx context.Context) {
	known := map[string]Member{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.delegate.moved:
		}
		now := map[string]Member{}
		for _, p := range g.peers {
			if m, ok := g.table.get(p.name); ok && !m.Self {
				now[p.name] = m
			}
		}
		for name, m := range now {
			if old, ok := known[name]; !ok || old.Boot != m.Boot {
				g.log.Info("peer joined", zap.String("peer", name), zap.String("boot", m.Boot), zap.Stringer("address", m.Addr))
			}
		}
		for name, m := range known {
			if _, ok := now[name]; !ok {
				g.log.Info("peer gone", zap.String("peer", name), zap.String("boot", m.Boot), zap.Stringer("address", m.Addr))
			}
		}
		known = now
	}
}

// oneLine makes memberlist's list of errors readable in a table.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if _, rest, ok := strings.Cut(s, "occurred: * "); ok {
		s = rest
	}
	if len(s) > 300 {
		s = s[:300]
	}
	return strings.ToValidUTF8(s, "?")
}
