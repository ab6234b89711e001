package agent

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tandem/haproxy"
	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// becomeDecider starts making the site decision: this node has the site lease.
func (a *Agent) becomeDecider(t lease.TakeUp) {
	clear(a.orders) // of an earlier term: what is still needed is asked for again
	clear(a.underWay)
	a.decider, a.decidingSince = site.NewDecider(*a.cfg.Sites), a.deps.Now()
	d, err := site.Decode(t.Value.Data)
	if err != nil {
		// A value of a version that this one cannot read: better to go by what
		// the HAProxys do than to undo it.
		a.problem("site-value", err.Error())
	}
	a.note(status.Transition{Resource: ResourceSite, Event: "take-up", From: t.Predecessor, To: a.cfg.Node, Epoch: t.Value.Epoch, Reason: string(t.Reason)})
	now := a.deps.Now()
	a.feedSite(now, a.world(now))
	a.feedSite(now, site.Adopt{Decision: d, Epoch: t.Value.Epoch, Blank: t.Value.Epoch == 0 || err != nil})
}

// stepSite tells the decider what the world looks like now.
func (a *Agent) stepSite(now time.Duration) {
	if a.cfg.Sites == nil {
		return
	}
	if a.decider != nil {
		a.feedSite(now, a.world(now))
		a.chaseHooks(now)
		a.answerBegun(now)
	}
	a.applySite(now)
}

// feedSite steps the decider and obeys it.
func (a *Agent) feedSite(now time.Duration, in site.Input) {
	if a.decider == nil {
		return
	}
	out := a.decider.Step(now, time.Now().UnixMilli(), in)
	a.wakeAt(out.Wake)
	for _, t := range out.Transitions {
		a.note(status.Transition{
			Resource: groupResource(t.Group), Event: string(t.Event), From: t.From, To: t.To, Phase: string(t.Phase),
			Epoch: t.Epoch, Reason: string(t.Reason), Actor: t.Actor, Detail: t.Detail,
		})
	}
	for _, h := range out.Hooks {
		a.dispatchHook(now, h)
	}
	for _, r := range out.Replies {
		result := status.Result{OK: r.OK, Reason: string(r.Reason), Message: r.Text, Epoch: r.Epoch}
		if r.Done {
			a.finish(r.ID, result)
		} else {
			a.begun(now, r.ID, result)
			a.history.tell(status.Event{CommandID: r.ID, Transition: status.Transition{
				At: time.Now().UTC(), Node: a.cfg.Node, Resource: groupResource(r.Group), Event: "progress",
				Phase: string(r.Phase), Epoch: r.Epoch, Reason: string(r.Reason), Detail: r.Text,
			}})
		}
	}
	if out.Propose == nil {
		return
	}
	data, err := site.Encode(*out.Propose)
	if err != nil {
		a.problem("site-value", err.Error())
		return
	}
	a.stepLease(lease.Propose{Resource: ResourceSite, Data: data})
}

// groupResource names a group of backends as the history shows it.
func groupResource(group string) string {
	if group == "" || group == site.DefaultGroup {
		return ResourceSite
	}
	return ResourceSite + "/" + group
}

// siteDecided acts on a decision that a quorum has accepted, and tells those
// that have no vote.
func (a *Agent) siteDecided(r lease.Record, holder string) {
	d, err := site.Decode(r.Value.Data)
	if err != nil {
		a.problem("site-value", err.Error())
		return
	}
	a.decided, a.decision, a.decidedFrom = r, d, holder
	now := a.deps.Now()
	a.applySite(now)
	if holder == a.cfg.Node {
		a.metrics.decisions.Inc()
		if b, err := encode(kindDecision, a.decisionMessage("")); err == nil {
			if err := a.deps.Network.Broadcast(ResourceSite, b); err != nil {
				a.problem("broadcast", err.Error())
			}
		}
	}
	a.feedSite(now, site.Decided{Decision: d, Epoch: r.Value.Epoch})
}

func (a *Agent) decisionMessage(to string) decision {
	return decision{
		envelope: a.envelope(to), Holder: a.decidedFrom, Epoch: a.decided.Value.Epoch,
		Ballot: a.decided.Ballot, Version: a.decided.Seq, Data: a.decided.Value.Data,
	}
}

func (a *Agent) sendDecision(to string) { a.send(to, kindDecision, a.decisionMessage(to)) }

// announceLeases tells the nodes without a vote who holds what.
func (a *Agent) announceLeases(now time.Duration) {
	if !a.followed() {
		return
	}
	m, ok := a.lease.Announcement(now)
	if !ok {
		return
	}
	a.wakeAt(now + announceEvery)
	if err := a.deps.Network.Broadcast("leases/"+a.cfg.Node, lease.Encode([]byte{kindLease}, m)); err != nil {
		a.problem("broadcast", err.Error())
	}
}

// announceEvery is how often a holder tells the nodes without a vote: well
// within the shortest lease.
const announceEvery = 150 * time.Millisecond

// followed says whether any member has no vote.
func (a *Agent) followed() bool {
	for name := range a.peers {
		if !a.peers[name].voter {
			return true
		}
	}
	return false
}

// receiveDecision is how a node without a vote learns of a decision. A voter
// learns it from the lease.
func (a *Agent) receiveDecision(body []byte) {
	var m decision
	if err := decode(body, &m); err != nil {
		a.ignored("undecodable-decision")
		return
	}
	p, ok := a.admit(m.envelope)
	if !ok || a.cfg.Sites == nil || slices.Contains(a.cfg.Voters, a.cfg.Node) {
		return
	}
	known := a.decided
	newer := m.Ballot.Compare(known.Ballot) > 0 || m.Ballot == known.Ballot && m.Version > known.Seq
	// When all voters have forgotten, epochs begin again: the live incarnation of
	// the present holder is believed all the same.
	reborn := m.From == m.Holder && m.Ballot.Owner() != known.Ballot.Owner() &&
		bootName(m.Ballot.Incarnation) == p.boot && a.holder(ResourceSite) == m.From
	if !reborn && (m.Epoch < known.Value.Epoch || m.Epoch == known.Value.Epoch && !newer) {
		return
	}
	a.siteDecided(lease.Record{
		Resource: ResourceSite, Ballot: m.Ballot, Seq: m.Version, Value: lease.Value{Epoch: m.Epoch, Data: m.Data},
	}, m.Holder)
}

// applySite tells HAProxy what it must do. It is idempotent: the same again
// costs nothing.
func (a *Agent) applySite(now time.Duration) {
	if a.cfg.Sites == nil || a.deps.LB == nil || a.cfg.Role != RoleLB {
		return
	}
	quorate := a.quorate(now)
	if a.decided.Value.Epoch == 0 && quorate {
		return // nothing has been decided: HAProxy stays as it is
	}
	rules := site.Rules(*a.cfg.Sites, a.decision, quorate)
	if quorate == a.applied.quorate && a.decided.Value.Epoch == a.applied.epoch && a.applied.set {
		return
	}
	d := haproxy.Desired{
		Epoch: a.decided.Value.Epoch, Map: a.decision.Map(), DrainFirst: a.cfg.Sites.Order == site.Exclusive,
	}
	for _, r := range rules {
		want := haproxy.Ready
		if r.Want == site.Drain {
			want = haproxy.Drain
		}
		d.Rules = append(d.Rules, haproxy.Rule{Pattern: r.Pattern, Want: want, Close: r.Close})
	}
	if a.applied.set && quorate != a.applied.quorate {
		reason := "quorum-back"
		if !quorate {
			reason = "quorum-lost"
		}
		a.note(status.Transition{Resource: ResourceSite, Event: "routing", Reason: reason, Epoch: d.Epoch})
	}
	a.applied.set, a.applied.quorate, a.applied.epoch = true, quorate, d.Epoch
	a.deps.LB.Set(d)
}

// appliedState is what HAProxy was last told.
type appliedState struct {
	set     bool
	quorate bool
	epoch   uint64
}

// QuorumGrace is how long a node in exclusive order goes on routing when it
// knows of no live holder of the site lease: time for another to take it up.
const QuorumGrace = time.Second

// quorate says whether this node knows of a live holder of the site lease. In
// exclusive order a node that does not must stop routing: by now another site
// may be active.
func (a *Agent) quorate(now time.Duration) bool {
	if a.cfg.Sites.Order != site.Exclusive {
		return true
	}
	for _, s := range a.lease.Status(now) {
		if s.Resource != ResourceSite {
			continue
		}
		expires := s.Expires
		if s.Self {
			expires = s.Deadline
		}
		if s.Holder != "" && expires > now {
			a.siteHeardAt = now
			a.wakeAt(expires)
		}
	}
	if a.siteHeardAt == 0 {
		return false
	}
	// A change of holder takes a moment in which nobody holds the lease; the
	// decider waits this much longer for a load balancer that it cannot hear.
	end := a.siteHeardAt + QuorumGrace
	if now < end {
		a.wakeAt(end)
		return true
	}
	return false
}

// world is what the decider is told of the load balancers.
func (a *Agent) world(now time.Duration) site.World {
	w := site.World{Hooks: a.hooksAbout(now)}
	standing := false
	sites := map[string]bool{}
	for _, n := range a.nodeNames() {
		r := a.reportOf(n, now)
		if r != nil && r.Site != "" {
			standing = true
			sites[r.Site] = sites[r.Site] || a.alive(n, now)
		}
		p := a.peers[n]
		switch {
		case n == a.cfg.Node && a.cfg.Role != RoleLB:
		case n != a.cfg.Node && p.report == nil && !p.voter:
		case n != a.cfg.Node && p.report != nil && p.report.Role != RoleLB:
		default:
			w.Nodes = append(w.Nodes, a.nodeWorld(n, r, now))
		}
	}
	for _, s := range a.cfg.Sites.Sites {
		if !standing || sites[s.Name] {
			w.Hookable = append(w.Hookable, s.Name)
		}
	}
	return w
}

// hooksAbout says which hooks some node has commands for: they may stand on the
// machines of the applications alone.
func (a *Agent) hooksAbout(now time.Duration) site.Hooks {
	var h site.Hooks
	for _, n := range a.nodeNames() {
		if r := a.reportOf(n, now); r != nil {
			h.Precheck = h.Precheck || r.hasHook(site.HookPrecheck)
			h.Takeover = h.Takeover || r.hasHook(site.HookTakeover)
			h.Renounce = h.Renounce || r.hasHook(site.HookRenounce)
			h.Notify = h.Notify || r.hasHook(site.HookNotify)
		}
	}
	return h
}

func (a *Agent) reportOf(node string, now time.Duration) *report {
	if node == a.cfg.Node {
		return &a.self
	}
	return a.fresh(node, now)
}

func (a *Agent) nodeWorld(name string, r *report, now time.Duration) site.NodeWorld {
	n := site.NodeWorld{Node: name, Alive: a.alive(name, now)}
	if r == nil {
		return n
	}
	n.Barred = r.Maintenance || r.Reason == reasonNoCarrier || r.Reason == reasonObserve
	n.HAProxyAlive = r.HAProxy != nil && r.HAProxy.Alive
	n.AppliedEpoch = r.Applied
	if n.HAProxyAlive {
		n.View = r.View
	}
	if p := a.peers[name]; p != nil {
		n.ViewAge = now - p.at
	}
	return n
}

// view is what this node's HAProxy sees of each site.
func (a *Agent) view(o haproxy.Observation) *site.View {
	if a.cfg.Sites == nil || !o.Alive {
		return nil
	}
	held := map[haproxy.ServerID]bool{}
	for _, h := range o.Held {
		switch h.Kind {
		case haproxy.HoldDrain, haproxy.HoldWeight, haproxy.HoldMaintenance:
			held[h.ServerID] = true // takes no new connection until a person lets go of it
		case haproxy.HoldTracked, haproxy.HoldUnresolved, haproxy.HoldAgent, haproxy.HoldName:
		}
	}
	servers := make([]site.ServerState, 0, len(o.Servers))
	for _, s := range o.Servers {
		servers = append(servers, site.ServerState{
			Backend: s.Backend, Server: s.Server, Up: s.Up, Held: held[s.ServerID], Drained: s.Admin.Has(haproxy.FDrain | haproxy.IDrain),
		})
	}
	v := site.NewView(*a.cfg.Sites, a.cfg.Node, servers)
	return &v
}

// lbChanged notes when HAProxy comes or goes.
func (a *Agent) lbChanged() {
	a.dirty = true
	o := a.deps.LB.Observed()
	a.self.View = a.view(o)
	a.tellHold(o)
	if o.Alive == a.lbAlive && o.PID == a.lbPID {
		return
	}
	reason := string(o.Reason)
	switch {
	case o.Alive && a.lbAlive:
		reason = "reloaded"
	case o.Alive:
		reason = "answers"
	}
	event := map[bool]string{true: "up", false: "down"}[o.Alive]
	if o.Alive != a.lbAlive || o.Alive {
		a.note(status.Transition{Resource: "haproxy", Event: event, Reason: reason, Detail: o.Detail})
	}
	a.lbAlive, a.lbPID = o.Alive, o.PID
}

// pathLost says whether this load balancer has lost sight of the active site
// while another still sees it: the path is broken, and the address belongs
// there.
func (a *Agent) pathLost(now time.Duration) bool {
	active := ""
	if g, ok := a.decision.Group(site.DefaultGroup); ok {
		active = g.Active
	}
	mine := a.self.View.Of(site.DefaultGroup, active)
	if active == "" || mine == nil || mine.Usable {
		a.pathSince = 0
		return false
	}
	better := false
	for name := range a.peers {
		if r := a.fresh(name, now); r != nil && r.Eligible && a.alive(name, now) {
			v := r.View.Of(site.DefaultGroup, active)
			better = better || v != nil && v.Usable
		}
	}
	if !better {
		a.pathSince = 0
		return false
	}
	if a.pathSince == 0 {
		a.pathSince = now
	}
	if due := a.pathSince + pathPatience; now < due {
		a.wakeAt(due)
		return false
	}
	return true
}

// standForSite says whether this node bids for the site lease: any load
// balancer with a vote may decide, the fit ones first. Who carries an address
// comes first, since it is then not separated from those that vote.
func (a *Agent) standForSite(now time.Duration, eligible bool) {
	holding := a.decider != nil
	willing := a.cfg.Role == RoleLB && slices.Contains(a.cfg.Voters, a.cfg.Node) && !a.stopping && !a.maintenance && !a.onlooker(now)
	if holding && !willing {
		next := ""
		for _, v := range a.cfg.Voters {
			if v != a.cfg.Node && a.fit(v, nil, now) {
				next = v
				break
			}
		}
		reason := reasonMaintenance
		if a.stopping {
			reason = reasonStopping
		}
		a.stepLease(lease.Release{Resource: ResourceSite, Successor: next, Reason: lease.Reason(reason)})
	}
	rank, holder := 0, a.holder(ResourceSite)
	for _, v := range a.cfg.Voters {
		if v == a.cfg.Node {
			break
		}
		if v != holder && a.soonFit(v, nil, now) {
			rank++
		}
	}
	if !eligible {
		rank += 2
	}
	a.stepLease(lease.Stand{Resource: ResourceSite, Willing: willing, Rank: rank})
}

// paused says whether an operator has stopped automatic decisions.
func (a *Agent) paused() bool {
	until, yes := a.decision.Paused()
	return yes && (until == 0 || time.Now().UnixMilli() < until)
}

// siteStatus shows the decision of every group.
func (a *Agent) siteStatus() []status.Site {
	out := []status.Site{}
	waiting := a.waiting()
	for _, g := range a.decision.Groups {
		out = append(out, status.Site{
			Group: g.In(), Active: g.Active, Phase: string(g.Phase), Target: g.Target, Epoch: a.decided.Value.Epoch,
			Reason: string(g.Reason), Actor: g.Actor, Since: time.UnixMilli(g.SinceUnixMS).UTC(),
			AckNeeded: g.Ack, Waiting: waiting[g.In()],
		})
	}
	return out
}

// waiting says for each group why it stays although something is not well, or
// what its switch waits for. Only the decider knows.
func (a *Agent) waiting() map[string]string {
	out := map[string]string{}
	if a.decider == nil {
		return out
	}
	for _, g := range a.decider.Status() {
		if g.Stay != "" && g.Stay != site.ReasonHealthy {
			out[g.Decision.In()] = string(g.Stay)
		}
	}
	return out
}

// membersChanged drops followers that are gone for good, so that a thousand
// that came and went do not stay in every status.
func (a *Agent) membersChanged() {
	a.dirty = true
	now := a.deps.Now()
	for name, p := range a.peers {
		if !p.voter && now-p.arrived > 10*time.Minute {
			delete(a.peers, name)
		}
	}
	a.sweep(now)
	a.log.Debug("membership changed", zap.Int("members", len(a.deps.Network.Members())))
}
