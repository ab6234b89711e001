package site

import (
	"slices"
	"strings"
	"time"
)

// node is a load balancer with what the decider remembers of it.
type node struct {
	NodeWorld
	viewAt    time.Duration // when its view was true
	liveAt    time.Duration // when it was last known live
	unknownAt time.Duration // since when it is live without a fresh view
	unknown   bool
	worseAt   time.Duration // since when it sees less than others
	worse     bool
}

func (d *Decider) setWorld(w World) {
	old := d.nodes
	d.nodes = nil
	for _, n := range w.Nodes {
		x := node{NodeWorld: n, viewAt: d.now - n.ViewAge, liveAt: d.now}
		if i := slices.IndexFunc(old, func(o node) bool { return o.Node == n.Node }); i >= 0 {
			o := old[i]
			x.unknownAt, x.unknown, x.worse, x.worseAt = o.unknownAt, o.unknown, o.worse, o.worseAt
			if !n.live() && !o.live() {
				x.liveAt = o.liveAt
			}
			if !n.Alive && n.Silent > 0 { // it was silent before it was missed
				x.liveAt = min(x.liveAt, d.now-n.Silent)
			}
		}
		d.nodes = append(d.nodes, x)
	}
	slices.SortFunc(d.nodes, func(a, b node) int { return strings.Compare(a.Node, b.Node) })
	d.hookable, d.heard = slices.Clone(w.Hookable), true
	// Never fewer: a site whose hooks cannot be run any more must not be taken
	// over as if it had none.
	d.cfg.Hooks = d.cfg.Hooks.or(w.Hooks)
}

// live says whether a load balancer can route now.
func (n *NodeWorld) live() bool { return n.Alive && n.HAProxyAlive }

func (d *Decider) fresh(n *node) bool {
	return n.View != nil && d.now-n.viewAt <= d.cfg.StaleAfter
}

// findWitnesses lists the load balancers whose views count: the live ones with
// a fresh view; those that cannot carry traffic only if there are no others.
func (d *Decider) findWitnesses() []*node {
	var all, able []*node
	for i := range d.nodes {
		n := &d.nodes[i]
		if !n.live() || !d.fresh(n) {
			continue
		}
		all = append(all, n)
		if !n.Barred {
			able = append(able, n)
		}
	}
	if len(able) > 0 {
		return able
	}
	return all
}

// pending names the live load balancers that may see something and have not
// said so yet. After StaleAfter they are waited for no longer.
func (d *Decider) pending() []string {
	var names []string
	for i := range d.nodes {
		n := &d.nodes[i]
		if n.live() && n.unknown && !n.Barred && d.now < n.unknownAt+d.cfg.StaleAfter {
			d.wakeAt(n.unknownAt + d.cfg.StaleAfter)
			names = append(names, n.Node)
		}
	}
	return names
}

// seen counts the load balancers that see a group's site usable.
func (d *Decider) seen(group, site string) (usable, of int) {
	for _, n := range d.witnesses {
		of++
		if n.View.usable(group, site) {
			usable++
		}
	}
	return usable, of
}

func (d *Decider) usable(group, site string) bool {
	n, _ := d.seen(group, site)
	return n > 0
}

// observe brings what depends on time and views up to date.
func (d *Decider) observe() {
	for i := range d.nodes {
		n := &d.nodes[i]
		if d.fresh(n) {
			d.wakeAt(n.viewAt + d.cfg.StaleAfter + 1)
		}
		switch unknown := n.live() && !d.fresh(n); {
		case !unknown:
			n.unknown = false
		case !n.unknown:
			n.unknown, n.unknownAt = true, d.now
			if n.View != nil { // it was given its time while the view grew stale
				n.unknownAt -= d.cfg.StaleAfter
			}
		}
	}
	d.witnesses = d.findWitnesses()
	for i := range d.cur.Groups {
		d.observeGroup(i, d.cur.Groups[i])
	}
}

func (d *Decider) observeGroup(i int, g Group) {
	m := &d.mem[i]
	_, of := d.seen(g.In(), g.Active)
	switch down := of > 0 && !d.usable(g.In(), g.Active); {
	case !down:
		m.down = false
	case !m.down || m.downSite != g.Active:
		m.down, m.downSince, m.downSite = true, d.now, g.Active
	}
	for s, site := range d.cfg.Sites {
		usable, of := d.seen(g.In(), site.Name)
		switch {
		case of == 0 || usable < of:
			m.wellSince[s] = -1
		case m.wellSince[s] < 0:
			m.wellSince[s] = d.now
		}
	}
	m.switches = slices.DeleteFunc(m.switches, func(t time.Duration) bool { return d.now >= t+d.cfg.FlapWindow })
	m.failedAt = slices.DeleteFunc(m.failedAt, func(f failure) bool { return d.now >= f.at+d.cfg.RetryAfter })
}

// failed says whether a site's takeover failed so lately that it is not tried
// again automatically. If the active site was lost only after that, the
// situation is another one, and it is.
func (d *Decider) failed(i int, site string) bool {
	m := &d.mem[i]
	for _, f := range m.failedAt {
		if f.site == site && (!m.down || m.downSince <= f.at) {
			d.wakeAt(f.at + d.cfg.RetryAfter)
			return true
		}
	}
	return false
}

// startable says whether a site that nobody sees usable may be started by its
// takeover hooks; only the default group has any.
func (d *Decider) startable(i int, site string) bool {
	return i == 0 && d.cfg.Cold && d.cfg.Hooks.Takeover && slices.Contains(d.hookable, site)
}

// candidates lists the sites that a group may go to, best first: those that
// every load balancer sees usable, those that some do, those that their hooks
// can start; within these in order of preference.
func (d *Decider) candidates(i int, except ...string) []string {
	var every, some, cold []string
	for _, s := range d.cfg.Sites {
		usable, of := d.seen(d.groups[i], s.Name)
		switch {
		case slices.Contains(except, s.Name):
		case usable > 0 && usable == of:
			every = append(every, s.Name)
		case usable > 0:
			some = append(some, s.Name)
		case d.startable(i, s.Name):
			cold = append(cold, s.Name)
		}
	}
	return slices.Concat(every, some, cold)
}

// waiting names the load balancers that have not applied the present phase and
// must be waited for still.
func (d *Decider) waiting(i int) []string {
	var names []string
	for j := range d.nodes {
		if wait, _ := d.waitFor(i, &d.nodes[j]); wait {
			names = append(names, d.nodes[j].Node)
		}
	}
	return names
}

// waitFor says whether a load balancer must be waited for, and if one that has
// not applied the phase need not be, why.
func (d *Decider) waitFor(i int, n *node) (bool, Reason) {
	m, g := &d.mem[i], d.cur.Groups[i]
	barrier := d.cfg.exclusive() && g.Phase == PhaseRenounce // nobody may route to the old site when it is passed
	switch {
	case n.AppliedEpoch >= m.phaseEpoch:
		return false, ""
	case m.pushed:
		return false, ReasonForced
	case barrier && n.live():
		return true, ""
	case barrier:
		at := max(m.phaseAt, n.liveAt) + d.lingers(n)
		d.wakeAt(at)
		return d.now < at, ReasonIsolatedGone
	case !n.live():
		return false, ""
	default:
		at := m.phaseAt + d.cfg.ApplyTimeout
		d.wakeAt(at)
		return d.now < at, ReasonApplyTimeout
	}
}

// lingers is how long a load balancer that is not live may route on: to be
// counted from the phase, since what it hears after that tells it to drain, and
// from when it was last live.
func (d *Decider) lingers(n *node) time.Duration {
	if n.Alive || n.Lingers <= 0 {
		return d.cfg.IsolatedAfter
	}
	return min(n.Lingers, d.cfg.IsolatedAfter)
}

// applied says whether every load balancer that must be waited for has applied
// the present phase. Before the first World nobody has.
func (d *Decider) applied(i int) bool {
	if !d.heard {
		return false
	}
	m, ok := &d.mem[i], true
	for j := range d.nodes {
		n := &d.nodes[j]
		wait, why := d.waitFor(i, n)
		switch {
		case wait:
			ok = false
		case why != "" && !slices.Contains(m.skipped, n.Node):
			m.skipped = append(m.skipped, n.Node)
			g := d.cur.Groups[i]
			d.tell(Transition{Event: EventSkip, Group: g.In(), To: d.heading(g), Phase: g.Phase, Reason: why, Detail: n.Node})
		}
	}
	return ok
}

// path says which load balancers see less of the active sites than others: the
// default group decides, then the number of independent groups. It is given
// when it has been so for PathAfter.
func (d *Decider) path() *PathHint {
	nodes, best := d.witnesses, -1
	for _, n := range nodes {
		best = max(best, d.score(n))
	}
	for i := range d.nodes { // whoever is no witness now has no history
		if !slices.Contains(nodes, &d.nodes[i]) {
			d.nodes[i].worse = false
		}
	}
	hint := PathHint{}
	for _, n := range nodes {
		switch worse := d.score(n) < best; {
		case !worse:
			n.worse = false
			hint.Better = append(hint.Better, n.Node)
		case !n.worse:
			n.worse, n.worseAt = true, d.now
		}
		if !n.worse {
			continue
		}
		d.wakeAt(n.worseAt + d.cfg.PathAfter)
		if d.now >= n.worseAt+d.cfg.PathAfter {
			hint.Worse = append(hint.Worse, n.Node)
		}
	}
	if len(hint.Worse) == 0 {
		d.told = ""
		return nil
	}
	d.explain(&hint)
	if text := list(hint.Worse); text != d.told {
		d.told = text
		d.tell(Transition{Event: EventPath, Group: hint.Group, To: hint.Site, Reason: ReasonPath, Detail: "seen by " + list(hint.Better) + ", not by " + text})
	}
	return &hint
}

func (d *Decider) score(n *node) int {
	score := 0
	for i, g := range d.cur.Groups {
		switch {
		case g.Active == "" || !n.View.usable(g.In(), g.Active):
		case i == 0:
			score += len(d.cur.Groups)
		default:
			score++
		}
	}
	return score
}

// explain names the first group that a better load balancer sees and a worse
// one does not.
func (d *Decider) explain(hint *PathHint) {
	sees := func(name string, g Group) bool {
		return slices.ContainsFunc(d.nodes, func(n node) bool { return n.Node == name && n.View.usable(g.In(), g.Active) })
	}
	for _, g := range d.cur.Groups {
		if g.Active != "" && sees(hint.Better[0], g) && !sees(hint.Worse[0], g) {
			hint.Group, hint.Site = g.In(), g.Active
			return
		}
	}
}
