package agent

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tandem/haproxy"
	"tandem/lib/lease"
)

// Reasons why a node may not hold an address.
const (
	reasonNotLB          = "not-a-load-balancer"
	reasonFollower       = "no-vote"
	reasonMaintenance    = "maintenance"
	reasonMaintenanceOff = "maintenance-off"
	reasonReportLate     = "report-late"
	reasonStopping       = "stopping"
	reasonNoCarrier      = "no-carrier"
	reasonCatchingUp     = "catching-up"
	reasonPath           = "path-lost"
	reasonNoDecision     = "no-decision-yet"
	reasonObserve        = "observe-only"
)

// Reasons for handing an address over.
const (
	moveCommand  lease.Reason = "command"
	moveFailback lease.Reason = "failback"
	moveFollow   lease.Reason = "follows-address"
)

// pathPatience is how long this node alone must have lost sight of the active
// site before the address moves to one that sees it: two load balancers do not
// notice the death of a site in the same instant.
const pathPatience = 500 * time.Millisecond

// eligible says whether this node may take up an address, and if not, why.
func (a *Agent) eligible(now time.Duration) (ok bool, reason, detail string) {
	switch {
	case a.cfg.Role != RoleLB:
		return false, reasonNotLB, ""
	case !slices.Contains(a.cfg.Voters, a.cfg.Node):
		return false, reasonFollower, "only nodes listed in TANDEM_PEERS can hold a lease"
	case a.barred() == reasonObserve:
		return false, reasonObserve, "this node only observes (TANDEM_OBSERVE=true) and others act"
	case a.barred() != "":
		return false, a.barred(), ""
	}
	if unserved := a.unserved(); len(a.cfg.Groups) > 0 && len(unserved) == len(a.cfg.Groups) {
		o := unserved[a.cfg.Groups[0]]
		return false, string(o.Reason), o.Detail
	}
	if lost := len(a.kernel(now).noCarrier); lost > 0 && lost == len(a.cfg.Groups) {
		return false, reasonNoCarrier, "an interface of TANDEM_VIPS is missing, down or has no carrier"
	}
	if a.cfg.Sites == nil || a.deps.LB == nil {
		return true, "", ""
	}
	if a.pathLost(now) {
		return false, reasonPath, "another load balancer sees the active site, this one does not"
	}
	if a.holdsAny() {
		return true, "", ""
	}
	if a.decided.Value.Epoch == 0 {
		return false, reasonNoDecision, ""
	}
	if o := a.deps.LB.Observed(); a.appliedEpoch(o) < a.decided.Value.Epoch {
		if o.Reason != "" { // it answers, and something keeps it from obeying
			return false, string(o.Reason), o.Detail
		}
		return false, reasonCatchingUp, "HAProxy does not yet route as decided"
	}
	return true, "", ""
}

func orWord(word, otherwise string) string {
	if word == "" {
		return otherwise
	}
	return word
}

func (a *Agent) holdsAny() bool {
	for _, g := range a.groups {
		if g.holding {
			return true
		}
	}
	return false
}

// barred says why this node must hold nothing, even if nobody else would: "" if
// it may.
func (a *Agent) barred() string {
	switch {
	case a.stopping:
		return reasonStopping
	case a.maintenance:
		return reasonMaintenance
	case a.onlooker():
		return reasonObserve
	}
	return ""
}

// onlooker says whether this node only observes beside others that act, heard or
// not: what it held nobody would serve, and whoever acts could not have it when
// it is back. Where all observe, they play the whole game among themselves and
// touch nothing.
func (a *Agent) onlooker() bool {
	if !a.cfg.Observe {
		return false
	}
	for _, p := range a.peers {
		if r := p.report; r != nil && r.Role == RoleLB && !r.Observe {
			return true
		}
	}
	return false
}

// appliedEpoch is the decision that HAProxy obeys; what only observes would
// have obeyed at once.
func (a *Agent) appliedEpoch(o haproxy.Observation) uint64 {
	if a.cfg.Observe && o.Alive {
		return a.decided.Value.Epoch
	}
	return o.Applied
}

// fit says whether a peer is worth handing a lease to; g is the group of
// addresses, or nil for the site lease.
func (a *Agent) fit(name string, g *group, now time.Duration) bool {
	r := a.fresh(name, now)
	if r == nil || !r.Eligible || r.Role != RoleLB || r.Observe && !a.cfg.Observe || g != nil && slices.Contains(r.NoCarrier, g.name) {
		return false
	}
	ago, ok := a.lease.PeerHeard(now, name)
	return ok && ago <= heardWithin
}

// soonFit says whether a peer is fit, or will be in a moment: one that has just
// started is not to lose its place to who was a millisecond earlier.
func (a *Agent) soonFit(name string, g *group, now time.Duration) bool {
	r := a.fresh(name, now)
	if r == nil || r.Role != RoleLB || r.Observe && !a.cfg.Observe || g != nil && slices.Contains(r.NoCarrier, g.name) {
		return false
	}
	soon := r.Eligible || r.Reason == reasonNoDecision || r.Reason == reasonCatchingUp
	if !a.votesHeard(now) { // nobody holds anything yet: a report is all there is
		return soon && a.alive(name, now)
	}
	ago, ok := a.lease.PeerHeard(now, name)
	return soon && ok && ago <= heardWithin
}

// votesHeard says whether any other voter spoke of leases of late.
func (a *Agent) votesHeard(now time.Duration) bool {
	for _, v := range a.cfg.Voters {
		if ago, ok := a.lease.PeerHeard(now, v); ok && v != a.cfg.Node && ago <= heardWithin {
			return true
		}
	}
	return false
}

// stand tells the lease machine for what this node bids, and hands over what
// it should no longer hold.
func (a *Agent) stand(now time.Duration) {
	a.stepLease(lease.Floor{Min: a.minLease(now)})
	able, why, whyDetail := a.eligible(now)
	unserved, barred := a.unserved(), a.barred() != ""
	for _, name := range a.cfg.Groups {
		g := a.groups[name]
		a.endYield(now, g)
		ok, reason, detail := able, why, whyDetail
		if o, sick := unserved[name]; ok && sick {
			ok, reason, detail = false, string(o.Reason), o.Detail
		}
		if ok && a.kernel(now).noCarrier[name] {
			ok, reason = false, reasonNoCarrier
		}
		switch {
		case g.holding && barred:
			a.giveUp(now, g, reason)
		case g.holding && !ok:
			a.failOver(now, g, reason, detail)
		case g.holding:
			g.unfit = ""
			a.endStrays(now, g)
			a.failBack(now, g)
		}
		if g.holding {
			a.notifyHold(now, g)
		}
		free := a.unclaimed(now, g)
		willing := a.cfg.Role == RoleLB && !barred && free && (ok || a.lastResort(g, now))
		a.stepLease(lease.Stand{Resource: g.resource, Willing: willing, Rank: a.rank(g, now)})
	}
	if a.cfg.Sites != nil {
		a.standForSite(now, able)
	}
}

// minLease is the shortest lease that every load balancer's fence allows.
func (a *Agent) minLease(now time.Duration) time.Duration {
	var d time.Duration
	if a.deps.Addresses != nil {
		d = a.kernel(now).status.MinLease
	}
	for name := range a.peers {
		if r := a.fresh(name, now); r != nil {
			d = max(d, r.MinLease)
		}
	}
	if a.succeeding {
		d = max(d, successionLease)
	}
	return min(d, a.cfg.MaxLease)
}

// stepReach tells the lease machine the result of pair mode's isolation test,
// before it decides anything by an older one.
func (a *Agent) stepReach() {
	if a.cfg.Mode == lease.ModePair {
		ok, began := a.reaches()
		a.stepLease(lease.Reach{OK: ok, Began: began})
	}
}

// reaches is pair mode's isolation test, and when it began; 0: now.
func (a *Agent) reaches() (ok bool, began time.Duration) {
	if a.cfg.Probe != nil {
		began = a.cfg.Probe()
		return began > 0, began
	}
	if a.deps.LB == nil {
		return false, 0
	}
	return slices.ContainsFunc(a.deps.LB.Observed().Servers, func(s haproxy.Server) bool { return s.Up }), 0
}

// carried lists the addresses that this node answers for now. Those that it
// has handed over and serves to the end of their connections are not among
// them: another node answers for them.
func (a *Agent) carried() []string {
	var out []string
	for _, name := range a.cfg.Groups {
		if g := a.groups[name]; g.holding {
			out = append(out, a.cfg.VIPs[name]...)
		}
	}
	return out
}

// beginStop starts the orderly end: hand everything over, then leave.
func (a *Agent) beginStop() {
	a.stopping, a.dirty = true, true
	a.log.Info("stopping", zap.Bool("holding", a.holdsAny()))
}

// releaseTail is how long a node stays after its last release, so that the
// repetitions go out: a datagram may be lost.
const releaseTail = 40 * time.Millisecond

// allLetGo says whether nothing keeps this node from leaving.
func (a *Agent) allLetGo() bool {
	now := a.deps.Now()
	for _, g := range a.groups {
		if g.holding || now < g.yieldUntil {
			return false
		}
		if until := g.tellingUntil(); now < until {
			a.wakeAt(until)
			return false
		}
	}
	if a.decider != nil || now < a.releasedAt+releaseTail {
		a.wakeAt(a.releasedAt + releaseTail)
		return false
	}
	return true
}
