package agent

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"tandem/lib/gossip"
)

const (
	// How long two processes of one name must have been heard beside each other.
	// What a process said before it was started again may arrive after its
	// successor's first word, but not by as much.
	besideFor = 2 * time.Second
	// How long a process that is not heard any more counts as alive.
	// A report comes every second.
	lifeMemory = 5 * time.Second
	// So many of a name are remembered, the latest.
	maxLives = 4
)

// life is what this node has heard from one process of a node's name.
type life struct {
	boot        string
	seq         uint64 // of the latest report
	first, last time.Duration
	at          netip.AddrPort // where it is, by its own word
}

// meetLife notes which process a report is from. Membership is not asked whether
// it knows that one: two with a copied configuration call themselves by one
// address, and membership takes now the one for the node and now the other.
func (a *Agent) meetLife(p *peer, r *report, now time.Duration) {
	i := slices.IndexFunc(p.lives, func(l life) bool { return l.boot == r.Boot })
	if i < 0 {
		if len(p.lives) >= maxLives {
			p.lives = p.lives[1:]
		}
		p.lives = append(p.lives, life{boot: r.Boot, first: now})
		i = len(p.lives) - 1
	}
	if l := &p.lives[i]; r.Seq > l.seq { // else it is late, or repeated by somebody
		l.seq, l.last, l.at = r.Seq, now, r.At
	}
	if len(p.lives) > 1 {
		a.doubled[p.name] = p
	}
}

// beside are the processes of one name that have lately been heard beside each
// other.
func (p *peer) beside(now time.Duration) []life {
	p.lives = slices.DeleteFunc(p.lives, func(l life) bool { return now-l.last > lifeMemory })
	var out []life
	for _, l := range p.lives {
		if slices.ContainsFunc(p.lives, func(o life) bool {
			return o.boot != l.boot && min(l.last, o.last)-max(l.first, o.first) >= besideFor
		}) {
			out = append(out, l)
		}
	}
	return out
}

// namesakes says of each node name that two processes have it: by what they
// report here, and by what gossip has found. Whoever finds it tells the others
// with its report, for of the two at most one hears them.
func (a *Agent) namesakes(now time.Duration) []string {
	at := map[string][]netip.AddrPort{}
	for _, c := range a.deps.Network.Clashes() {
		at[c.Node] = slices.Clone(c.At) // gossip goes on using its own
	}
	for name, p := range a.doubled {
		for _, l := range p.beside(now) {
			at[name] = append(at[name], l.at)
		}
		if len(p.lives) < 2 {
			delete(a.doubled, name)
		}
	}
	var out []string
	for name, addrs := range at {
		out = append(out, string(gossip.ReasonNameClash)+": "+clashText(name, addrs))
	}
	return out
}

// clashText is the same on every node that knows the same.
func clashText(name string, at []netip.AddrPort) string {
	var places []string
	for _, addr := range at {
		if addr.IsValid() { // else of a version that does not tell
			places = append(places, addr.String())
		}
	}
	slices.Sort(places)
	places = slices.Compact(places)
	text := "two processes are called " + name
	switch len(places) {
	case 0:
	case 1:
		text += ", one of them at " + places[0]
	default:
		text += ", at " + strings.Join(places, " and ")
	}
	return text + ": give each a TANDEM_NODE of its own, and start it again"
}
