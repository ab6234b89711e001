package gossip

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

const (
	clashAfter    = 20 * time.Second
	clashLogAgain = 10 * time.Minute
	// How long the two addresses of one boot are remembered: each exchange of state, one
	// every 10 s, finds them again.
	copyLife  = 30 * time.Second
	maxCopies = 16
)

// Clash is a node name that two live processes have. Voting, both vote with one
// voice, so that two majorities need no voter in common any more.
type Clash struct {
	Node string
	At   []netip.AddrPort // where they are, as far as it is known, in order
}

// copied is one process, by its boot, that two addresses claim to be.
type copied struct {
	node string
	at   [2]netip.AddrPort
	last time.Time
}

// clashes are the nodes of which two processes at two addresses have been
// members for so long that the death of a predecessor would have been noticed.
// One that has this node's name clashes at whatever address: with a copied
// configuration it says that it is at this one's. The source is where this
// process really is.
func (t *table) clashes(now time.Time, source netip.AddrPort) []Clash {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := map[string][]netip.AddrPort{}
	if len(t.all) != len(t.latest) {
		for _, e := range t.all {
			l := t.latest[e.Node]
			if e == l || e.Addr == l.Addr && !l.Self || now.Sub(e.since) <= clashAfter || now.Sub(l.since) <= clashAfter {
				continue
			}
			at := l.Addr
			if l.Self && source.IsValid() {
				at = source
			}
			found[e.Node] = append(found[e.Node], e.Addr, at)
		}
	}
	t.copies = slices.DeleteFunc(t.copies, func(c copied) bool { return now.Sub(c.last) > copyLife })
	for _, c := range t.copies {
		found[c.node] = append(found[c.node], c.at[:]...)
	}
	var out []Clash
	for node, at := range found {
		slices.SortFunc(at, netip.AddrPort.Compare)
		out = append(out, Clash{Node: node, At: slices.Compact(at)})
	}
	slices.SortFunc(out, func(a, b Clash) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// conflict notes that two addresses claim one name on the wire, boot and all.
func (t *table) conflict(known, other *memberlist.Node, now time.Time) {
	c := copied{last: now}
	var ok bool
	if c.node, _, ok = splitName(known.Name); !ok {
		return
	}
	for i, n := range []*memberlist.Node{known, other} {
		ip, _ := netip.AddrFromSlice(n.Addr)
		c.at[i] = netip.AddrPortFrom(ip.Unmap(), n.Port)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.copies = slices.DeleteFunc(t.copies, func(o copied) bool { return o.node == c.node && o.at == c.at })
	if t.copies = append(t.copies, c); len(t.copies) > maxCopies {
		t.copies = t.copies[1:]
	}
}

// lookForClashes warns of nodes of which two live processes exist.
func (g *Gossip) lookForClashes(now time.Time) {
	found := g.table.clashes(now, g.Source())
	g.clashMu.Lock()
	defer g.clashMu.Unlock()
	for _, c := range found {
		known := slices.ContainsFunc(g.clashing, func(o Clash) bool { return o.Node == c.Node })
		if known && now.Sub(g.clashLogged) < clashLogAgain {
			continue
		}
		g.counts.clashes.add(ReasonNameClash)
		g.clashLogged = now
		g.log.Warn("two processes have one node name", zap.String("peer", c.Node), zap.Stringers("addresses", c.At), zap.String("reason", string(ReasonNameClash)))
	}
	g.clashing = found
}

// Clashes are the node names that two live processes have. It takes up to
// 20 s to tell one from a restart.
func (g *Gossip) Clashes() []Clash {
	g.clashMu.Lock()
	defer g.clashMu.Unlock()
	return slices.Clone(g.clashing)
}

// Source is the address that this process sends from, which others may know it
// by no more than by what it advertises; invalid until it is known.
func (g *Gossip) Source() netip.AddrPort {
	if a := g.source.Load(); a != nil {
		return *a
	}
	return netip.AddrPort{}
}
