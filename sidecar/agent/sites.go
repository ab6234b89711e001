package agent

import (
	"slices"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// becomeDecider starts making the site decision: this node has the site lease.
func (a *Agent) becomeDecider(t lease.TakeUp) {
	clear(a.orders) // of an earlier term: what is still needed is asked for again
	clear(a.underWay)
	a.decider, a.decidingSince = site.NewDecider(*a.cfg.Sites), a.deps.Now()
	a.following.begin(t.Predecessor)
	a.telling.note(a.decidingSince, t.Deadline-a.decidingSince, lease.Remember(a.cfg.MaxLease))
	d, err := site.Decode(t.Value.Data)
	if err != nil {
		// A value of a version that this one cannot read: better to go by what
		// the HAProxys do than to undo it.
		a.problem("site-value", err.Error())
	}
	a.note(status.Transition{Resource: ResourceSite, Event: "take-up", From: t.Predecessor, To: a.cfg.Node, Epoch: t.Value.Epoch, Reason: string(t.Reason)})
	now := a.deps.Now()
	a.feedSite(now, a.world(now))
	blank := t.Value.Epoch == 0 || err != nil
	if !blank {
		a.dates.learn(now, a.deps.Wall(), d)
	}
	a.feedSite(now, site.Adopt{Decision: d, Epoch: t.Value.Epoch, Blank: blank, PauseLeft: a.dates.pauseLeft(now, d), Ages: a.dates.ages(now)})
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
	a.endUnsure(now)
}

// feedSite steps the decider and obeys it.
func (a *Agent) feedSite(now time.Duration, in site.Input) {
	if a.decider == nil {
		return
	}
	out := a.decider.Step(now, a.deps.Wall().UnixMilli(), in)
	a.wakeAt(out.Wake)
	a.noteSiteCommands(in, out.Replies)
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
				At: a.deps.Wall().UTC(), Node: a.cfg.Node, Resource: groupResource(r.Group), Event: "progress",
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
	again := r.Value.Epoch < a.decided.Value.Epoch // all voters have forgotten
	a.decided, a.decision, a.decidedFrom = r, d, holder
	a.fenceHooks(again)
	now := a.deps.Now()
	a.dates.learn(now, a.deps.Wall(), d)
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
	better, heard := false, false
	for name, p := range a.peers {
		if r := a.fresh(name, now); r != nil && r.Eligible && a.alive(name, now) {
			v := r.View.Of(site.DefaultGroup, active)
			sees := v != nil && v.Usable
			better, heard = better || sees, heard || sees && a.heardOf(p, now)
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
	// Who died together with the site saw it to the end. The address must not go
	// to him.
	return heard
}

// heardOf says whether a peer has spoken in the later half of the patience. A
// voter does so at every renewal.
func (a *Agent) heardOf(p *peer, now time.Duration) bool {
	ago, ok := a.lease.PeerHeard(now, p.name)
	return !p.voter || ok && ago <= pathPatience/2
}

// standForSite says whether this node bids for the site lease: any load
// balancer with a vote may decide, the fit ones first. Who carries an address
// comes first, since it is then not separated from those that vote.
func (a *Agent) standForSite(now time.Duration, eligible bool) {
	holding := a.decider != nil
	willing := a.cfg.Role == RoleLB && slices.Contains(a.cfg.Voters, a.cfg.Node) && a.barred() == ""
	if holding && !willing {
		next := ""
		for _, v := range a.cfg.Voters {
			if v != a.cfg.Node && a.fit(v, nil, now) {
				next = v
				break
			}
		}
		a.stepLease(lease.Release{Resource: ResourceSite, Successor: next, Reason: lease.Reason(a.barred())})
	}
	if holding && willing {
		a.followAddress(now)
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

// known is a moment, or nil when it was never noted.
func known(at time.Time) *time.Time {
	if at.Unix() <= 0 {
		return nil
	}
	return &at
}

// siteStatus shows the decision of every group.
func (a *Agent) siteStatus(stale bool) []status.Site {
	out := []status.Site{}
	waiting := a.waiting()
	for _, g := range a.decision.Groups {
		out = append(out, status.Site{
			Group: g.In(), Active: g.Active, Phase: string(g.Phase), Target: g.Target, Epoch: a.decided.Value.Epoch,
			Reason: string(g.Reason), Actor: g.Actor, Since: known(a.date(g.SinceUnixMS, a.dates.groups[g.In()].at)),
			AckNeeded: g.Ack, Waiting: waiting[g.In()], Stale: stale,
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
