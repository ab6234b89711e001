package agent

import (
	"slices"
	"time"

	"tandem/lib/lease"
	"tandem/lib/vip"
	"tandem/sidecar/status"
)

// group is one lease of virtual IPs as this node lives it.
type group struct {
	name, resource string
	holding        bool
	deadline       time.Duration
	since          time.Duration
	epoch          uint64
	lastHolder     string
	told           string // the holder last noted
	setError       string

	// After a planned hand-over by this node:
	successor  string
	yieldUntil time.Duration
	newUntil   time.Duration // until when new connections are served here all the same
	moveID     string        // the command that asked for it, and for whom
	moveTo     string
	// After a planned hand-over to this node:
	predecessor string
	strays      hops
	straysUntil time.Duration
	sawYield    bool // it has said that it serves what it carried

	preferredOKSince time.Duration // since when the preferred node could take the address back
	unfit            string        // the reason last logged for keeping it as last resort

	notice noticed // what the notify hook was told

	free    bool   // no stranger had it when this node first looked, or a node of the cluster has held it since
	claimed string // the strangers that answer for it, as last noted
	force   bool   // an operator wants it all the same
}

func (g *group) yielding() bool { return g.yieldUntil > 0 }

func (g *group) desired() vip.Desired {
	return vip.Desired{
		Role: vip.Holding, Deadline: g.deadline,
		Predecessor: g.strays.Four, Predecessor6: g.strays.Six, StraysUntil: g.straysUntil,
	}
}

// order lists the voters in the order in which they should hold a group: who
// held it last if it does not come back by itself, the preferred one, the rest.
func (a *Agent) order(g *group) []string {
	var out []string
	add := func(n string) {
		if n != "" && slices.Contains(a.cfg.Voters, n) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if a.cfg.VIPFailback == 0 {
		add(g.lastHolder)
	}
	add(a.cfg.Prefer[g.name])
	add(g.lastHolder)
	for _, v := range a.cfg.Voters {
		add(v)
	}
	return out
}

// rank counts the nodes that should come before this one and seem able to. The
// holder is not among them: when its lease has run out it is not able to.
func (a *Agent) rank(g *group, now time.Duration) int {
	n := 0
	holder := a.holder(g.resource)
	for _, v := range a.order(g) {
		if v == a.cfg.Node {
			return n
		}
		if v != holder && a.soonFit(v, g, now) {
			n++
		}
	}
	return n
}

// successor is the best node to hand a group to, or "".
func (a *Agent) successor(g *group, now time.Duration) string {
	for _, v := range a.order(g) {
		if v != a.cfg.Node && a.fit(v, g, now) {
			return v
		}
	}
	return ""
}

// preferred is the node that a group should rest with: the configured one,
// else the first load balancer among the peers.
func (a *Agent) preferred(g *group) string {
	if p := a.cfg.Prefer[g.name]; p != "" {
		return p
	}
	for _, v := range a.cfg.Voters {
		if v == a.cfg.Node && a.cfg.Role == RoleLB {
			return v
		}
		if p := a.peers[v]; p != nil && p.report != nil && p.report.Role == RoleLB {
			return v
		}
	}
	return ""
}

// lastResort says whether this node should go on, or bid, although it is not
// eligible: it held the address last and nobody better is there.
func (a *Agent) lastResort(g *group, now time.Duration) bool {
	if a.wakesOld(now, g) {
		return false
	}
	if g.holding {
		return true // until failOver finds a successor
	}
	if g.lastHolder != a.cfg.Node || now-a.started < freshReport {
		return false
	}
	return a.successor(g, now) == ""
}

// failOver hands a group over because this node is not fit to hold it. HAProxy
// may be dead, so nothing is kept for the sake of old connections; only a lost
// path leaves them worth keeping.
func (a *Agent) failOver(now time.Duration, g *group, reason, detail string) {
	next := a.successor(g, now)
	if next == "" && a.wakesOld(now, g) {
		a.handOver(now, g, "", lease.Reason(reason), false)
		return
	}
	if next == "" {
		if g.unfit != reason {
			g.unfit = reason
			a.note(status.Transition{Resource: g.resource, Event: "last-resort", To: a.cfg.Node, Epoch: g.epoch, Reason: reason, Detail: detail})
		}
		return
	}
	a.handOver(now, g, next, lease.Reason(reason), reason == reasonPath)
}

// giveUp hands a group over because the operator wants this node out.
func (a *Agent) giveUp(now time.Duration, g *group, reason string) {
	a.handOver(now, g, a.successor(g, now), lease.Reason(reason), true)
}

// failBack moves a group to the preferred node once that has been fit for the
// configured time.
func (a *Agent) failBack(now time.Duration, g *group) {
	p := a.preferred(g)
	if a.cfg.VIPFailback == 0 || p == "" || p == a.cfg.Node || !a.fit(p, g, now) || a.paused() {
		g.preferredOKSince = 0
		return
	}
	if g.preferredOKSince == 0 {
		g.preferredOKSince = now
	}
	if due := g.preferredOKSince + a.cfg.VIPFailback; now < due {
		a.wakeAt(due)
		return
	}
	g.preferredOKSince = 0
	a.handOver(now, g, p, moveFailback, true)
}
