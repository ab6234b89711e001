package gossip

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Health is what can be told about the state of gossip.
type Health struct {
	Running   bool
	Advertise netip.AddrPort // what others are told; invalid until it is known
	Fault     string         // why gossip does not run yet, for example that no own address is found
	Members   int            // live processes, this one included
	Score     int            // memberlist's: 0 best, 7 worst; how late this node itself is
	Keys      []string       // KeyID of each key, the first encrypts
	Peers     []PeerHealth   // the other voters, by name

	Clashes []Clash // node names that two live processes have

	Dropped         map[Reason]uint64 // by the guard, since the start
	MessagesDropped map[Reason]uint64 // authentic, but too many or not understood
	SendsFailed     map[Reason]uint64
	JoinsFailed     map[Reason]uint64
	NameClashes     uint64
}

// PeerHealth says whether a voter is a member, and why not.
type PeerHealth struct {
	Name    string
	Addr    string           // as configured
	Resolve []netip.AddrPort // what it stands for now
	Member  bool
	Boot    string
	Reason  Reason // empty for a member
	Detail  string // the text of the last error, if there is one; Reason.Mend says what to do
	Tried   time.Time
}

// KeyID names a key without showing it: 8 hexadecimal digits of its hash.
func KeyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("gossip key id\x00"), key...))
	return hex.EncodeToString(sum[:4])
}

// Keys names the keys in force, the one that encrypts first. None without
// encryption.
func (g *Gossip) Keys() []string {
	if g.ring == nil {
		return nil
	}
	var ids []string
	for _, k := range g.ring.GetKeys() {
		ids = append(ids, KeyID(k))
	}
	return ids
}

// Health is a snapshot. It does not wait.
func (g *Gossip) Health() Health {
	h := Health{
		Members:         g.table.count(),
		Dropped:         g.counts.guard.all(),
		MessagesDropped: g.counts.messages.all(),
		SendsFailed:     g.counts.sends.all(),
		JoinsFailed:     g.counts.joins.all(),
		NameClashes:     g.counts.clashes.all()[ReasonNameClash],
	}
	if m := g.list.Load(); m != nil {
		h.Running = true
		h.Score = m.GetHealthScore()
	}
	if a := g.advertise.Load(); a != nil {
		h.Advertise = *a
	}
	if f := g.fault.Load(); f != nil {
		h.Fault = *f
	}
	h.Keys = g.Keys()
	h.Clashes = g.Clashes()
	for _, p := range g.peers {
		if p.name != g.cfg.Node {
			h.Peers = append(h.Peers, g.peerHealth(p))
		}
	}
	slices.SortFunc(h.Peers, func(a, b PeerHealth) int { return strings.Compare(a.Name, b.Name) })
	return h
}

func (g *Gossip) peerHealth(p *peer) PeerHealth {
	m, member := g.table.get(p.name)
	p.mu.Lock()
	defer p.mu.Unlock()
	h := PeerHealth{Name: p.name, Addr: p.configured, Resolve: slices.Clone(p.addrs), Member: member, Boot: m.Boot, Tried: p.tried}
	switch {
	case member:
	case len(p.addrs) == 0 && p.unknown != nil:
		h.Reason, h.Detail = ReasonUnresolved, oneLine(p.unknown.Error())
	case p.reason != ReasonWrongKey && p.hint != ReasonNone && time.Since(p.hinted) < hintLife:
		h.Reason = p.hint
	default:
		h.Reason, h.Detail = p.reason, p.detail
	}
	return h
}
