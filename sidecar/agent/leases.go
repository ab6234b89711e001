package agent

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"tandem/lib/lease"
	"tandem/lib/vip"
	"tandem/sidecar/status"
)

// overlapNew is how long a node that hands an address over on purpose still
// serves new connections that reach it once the successor has taken up: until
// clients have heard the successor.
const overlapNew = 200 * time.Millisecond

// graceSlack is how much longer than the grace the gate lets pass, so that the
// resets that end the grace leave the node also where they are late: a client
// whose request has been acknowledged would wait for ever.
const graceSlack = time.Second

// yieldTold is how long a predecessor has to say that it serves what it carried.
const yieldTold = time.Second

// leftEvery is how often a node that is to stop looks whether it may.
const leftEvery = 250 * time.Millisecond

// vipValue is the value that a vip lease carries: who holds it and since when,
// so that "as before" means something after everything restarted.
type vipValue struct {
	Holder      string `json:"h"`
	SinceUnixMS int64  `json:"s"`
	Reason      string `json:"r"`
	Predecessor string `json:"p,omitempty"`
}

func decodeVIP(b []byte) (v vipValue) {
	if len(b) > 0 {
		_ = json.Unmarshal(b, &v) // an unreadable value of another version is no value
	}
	return v
}

// stepLease feeds the lease machine and obeys it. What obeying asks of the
// machine in turn waits until the output at hand is dealt with.
func (a *Agent) stepLease(in lease.Input) {
	a.inputs = append(a.inputs, in)
	if a.stepping {
		return
	}
	a.stepping = true
	for i := 0; i < len(a.inputs); i++ { // it may grow meanwhile
		now := a.deps.Now()
		a.obey(now, a.lease.Step(now, a.inputs[i]))
	}
	clear(a.inputs)
	a.inputs, a.stepping = a.inputs[:0], false
}

// obey carries out what the machine said at now, in the fixed order: let go, write,
// send, take up.
func (a *Agent) obey(now time.Duration, out lease.Output) {
	for _, l := range out.LetGo {
		a.letGo(l)
	}
	a.persist(out.Persist)
	for _, e := range out.Send {
		if e.Message.Items = a.acknowledgeable(e.Message.Items); len(e.Message.Items) == 0 {
			continue
		}
		a.countSent(now, e.Message.Items)
		if err := a.deps.Network.Send(e.To, a.encodeLease(e.Message)); err != nil {
			a.metrics.sendFailures.Inc()
		}
	}
	if len(out.Send) > 0 && a.awake != nil {
		a.awake()
	}
	for _, t := range out.TakeUp {
		a.takeUp(t)
	}
	for _, r := range out.Renewed {
		a.renewed(now, r)
	}
	for _, d := range out.Decided {
		a.leaseDecided(d)
	}
	for _, n := range out.Notes {
		a.leaseNote(n)
	}
	a.leaseWake = out.Wake
}

// persist writes what must be on disk before it is acknowledged. What could not
// be written is tried again with every output until it is.
func (a *Agent) persist(records []lease.Record) {
	if a.deps.Store == nil {
		return
	}
	for _, r := range records {
		a.unsaved[r.Resource] = r
	}
	if len(a.unsaved) == 0 {
		return
	}
	if err := a.deps.Store.SaveRecords(slices.Collect(maps.Values(a.unsaved))); err != nil {
		a.problem("state-dir", "votes are withheld: "+err.Error())
		return
	}
	clear(a.unsaved)
}

// acknowledgeable leaves out the votes on what could not be written to disk: a
// voter that forgets what it acknowledged could let a decision be lost. Nor does
// such a node bid, since its own vote would count. Who holds already goes on: a
// full disk is no reason to stop serving.
func (a *Agent) acknowledgeable(items []lease.Item) []lease.Item {
	if len(a.unsaved) == 0 {
		return items
	}
	return slices.DeleteFunc(slices.Clone(items), func(it lease.Item) bool {
		_, unsaved := a.unsaved[it.Resource]
		if !unsaved {
			return false
		}
		bid := it.Kind == lease.KindPrepare || it.Kind == lease.KindPropose
		return it.Kind == lease.KindPromise || it.Kind == lease.KindAccept || bid && !a.holds(it.Resource)
	})
}

func (a *Agent) holds(resource string) bool {
	if resource == ResourceSite {
		return a.decider != nil
	}
	g := a.groupOf(resource)
	return g != nil && g.holding
}

// groupOf is the group of a vip resource, or nil.
func (a *Agent) groupOf(resource string) *group {
	if name, ok := strings.CutPrefix(resource, vipPrefix); ok {
		return a.groups[name]
	}
	return nil
}

// letGo ends what a lease allowed. It is the only place where this node stops
// being a holder.
func (a *Agent) letGo(l lease.LetGo) {
	a.dirty, a.releasedAt = true, a.deps.Now()
	if a.succession != nil {
		a.late = append(a.late, l.Resource)
	}
	a.metrics.renewals.ended(l.Resource)
	if l.Resource == ResourceSite {
		a.decider = nil
		clear(a.orders)
		clear(a.underWay)
		a.note(status.Transition{Resource: l.Resource, Event: "let-go", From: a.cfg.Node, To: l.Successor, Reason: string(l.Reason)})
		return
	}
	g := a.groupOf(l.Resource)
	if g == nil {
		return
	}
	g.holding = false
	if !g.yielding() {
		a.setVIP(g, vip.Desired{Role: vip.Away})
	}
	a.note(status.Transition{Resource: l.Resource, Event: "let-go", From: a.cfg.Node, To: l.Successor, Reason: string(l.Reason), Epoch: g.epoch})
	a.notifyLetGo(a.deps.Now(), g, l)
}

// takeUp begins what a lease allows. It is the only place where this node
// becomes a holder.
func (a *Agent) takeUp(t lease.TakeUp) {
	a.dirty = true
	if t.Resource == ResourceSite {
		a.becomeDecider(t)
		return
	}
	g := a.groupOf(t.Resource)
	if g == nil {
		return
	}
	now := a.deps.Now()
	again := g.holding
	g.holding, g.deadline, g.yieldUntil = true, t.Deadline, 0
	g.preferredOKSince = 0 // the delay of a failback begins anew
	g.since, g.lastHolder = now, a.cfg.Node
	g.predecessor, g.strays, g.straysUntil, g.sawYield = "", hops{}, 0, false
	if t.Planned && t.Predecessor != "" && t.Predecessor != a.cfg.Node && a.cfg.MoveGrace > 0 {
		// Until its report says otherwise, who handed over still serves what it
		// carries (see endStrays).
		g.predecessor = t.Predecessor
		g.strays, g.straysUntil = a.hopsOf(t.Predecessor, g), now+a.cfg.MoveGrace+graceSlack
	}
	a.setVIP(g, g.desired())
	a.moved(g, a.cfg.Node)
	if again {
		a.answer(g)
	}
	value, err := json.Marshal(vipValue{
		Holder: a.cfg.Node, SinceUnixMS: a.deps.Wall().UnixMilli(), Reason: string(t.Reason), Predecessor: t.Predecessor,
	})
	if err == nil {
		a.stepLease(lease.Propose{Resource: t.Resource, Data: value})
	}
	a.note(status.Transition{Resource: t.Resource, Event: "take-up", From: t.Predecessor, To: a.cfg.Node, Epoch: t.Value.Epoch + 1, Reason: string(t.Reason)})
	a.notifyTakeUp(now, g, t)
}

// renewed extends the fence to the new deadline.
func (a *Agent) renewed(now time.Duration, r lease.Renewed) {
	a.metrics.renewals.answered(r.Resource, now)
	if r.Resource == ResourceSite {
		a.telling.note(now, r.Deadline-now, lease.Remember(a.cfg.MaxLease))
	}
	if g := a.groupOf(r.Resource); g != nil && g.holding {
		g.deadline = r.Deadline
		a.setVIP(g, g.desired())
	}
}

// leaseDecided learns a value that a quorum has accepted.
func (a *Agent) leaseDecided(d lease.Decided) {
	a.dirty = true
	if d.Record.Resource == ResourceSite {
		a.siteDecided(d.Record, d.Holder)
		return
	}
	g := a.groupOf(d.Record.Resource)
	if g == nil {
		return
	}
	v := decodeVIP(d.Record.Value.Data)
	g.epoch = d.Record.Value.Epoch
	if d.Holder == "" {
		return
	}
	// A new holder first proposes again what it found, which names its
	// predecessor; its own decision follows.
	if g.told != d.Holder && v.Holder == d.Holder && g.holding == (d.Holder == a.cfg.Node) {
		// The holder itself tells the history; here it is a line in the log.
		a.log.Info("holder", zap.String("resource", g.resource), zap.String("reason", v.Reason),
			zap.String("from", g.told), zap.String("to", d.Holder), zap.Uint64("epoch", g.epoch))
		g.told = d.Holder
	}
	g.lastHolder = d.Holder
	a.moved(g, d.Holder)
	if g.yielding() && d.Holder == g.successor {
		a.succeeded(g)
	}
	if d.Holder != a.cfg.Node && g.yielding() && d.Holder != g.successor {
		// Not the node that was named: it does not send strays back to us.
		g.yieldUntil = 0
		a.setVIP(g, vip.Desired{Role: vip.Away})
	}
}

// leaseNote counts what the machine refused or ignored, and logs what an
// operator should know.
func (a *Agent) leaseNote(n lease.Note) {
	a.metrics.leaseNotes.WithLabelValues(string(n.Reason)).Inc()
	switch {
	case slices.Contains([]lease.Reason{lease.Alone, lease.PeerBack, lease.HoldersConflict}, n.Reason):
		a.note(status.Transition{Resource: orWord(n.Resource, "node"), Event: "pair", Reason: string(n.Reason), Detail: n.Detail})
	case slices.Contains([]lease.Reason{lease.SettingsDiffer, lease.NameTaken, lease.FloorTooHigh}, n.Reason):
		a.problem(string(n.Reason), n.Detail)
	default:
		a.log.Debug("lease note", zap.String("resource", n.Resource), zap.String("reason", string(n.Reason)), zap.String("detail", n.Detail))
	}
}

// handOver gives a lease to successor on purpose; an empty successor leaves it
// to whoever bids. With grace, connections that this node carries go on here.
func (a *Agent) handOver(now time.Duration, g *group, successor string, reason lease.Reason, grace bool) {
	if !g.holding {
		return
	}
	if grace && successor != "" && a.cfg.MoveGrace > 0 && a.graceWorks() {
		g.successor = successor
		g.yieldUntil = now + a.cfg.MoveGrace
		g.newUntil = g.deadline
		a.yield(g)
	} else if grace && successor != "" {
		g.successor = successor
		g.yieldUntil = min(now+overlapNew, g.deadline)
		g.newUntil = g.yieldUntil
		a.setVIP(g, vip.Desired{Role: vip.Yielding, Deadline: g.yieldUntil, NewUntil: g.yieldUntil})
	}
	a.stepLease(lease.Release{Resource: g.resource, Successor: successor, Reason: reason})
}

// yield serves what this node carries to its end, and new connections for a
// while.
func (a *Agent) yield(g *group) {
	to := a.hopsOf(g.successor, g)
	a.setVIP(g, vip.Desired{
		Role: vip.Yielding, Deadline: g.yieldUntil + graceSlack, NewUntil: g.newUntil, Successor: to.Four, Successor6: to.Six,
	})
}

// succeeded is that the successor of a planned move holds the address.
func (a *Agent) succeeded(g *group) {
	if until := a.deps.Now() + overlapNew; until < g.newUntil {
		g.newUntil = until
		a.yield(g)
	}
}

func (a *Agent) graceWorks() bool { return a.kernel(a.deps.Now()).status.Grace.Available }

// endStrays stops sending connections of the predecessor back to it when it no
// longer serves them: it did not hand over for the sake of its connections, has
// ended the grace, or is gone. They meet the local stack then, which resets
// them, so that clients connect again at once.
func (a *Agent) endStrays(now time.Duration, g *group) {
	if g.predecessor == "" {
		return
	}
	p := a.peers[g.predecessor]
	serves := p != nil && a.alive(p.name, now)
	if serves && p.report != nil {
		yields := slices.Contains(p.report.Yielding, g.name)
		g.sawYield = g.sawYield || yields
		// A report from before the hand-over may come after it: without having
		// seen one that says so, only a HAProxy that is gone, or silence about it
		// for a second, tells that nothing is served there.
		early := !g.sawYield && now-g.since < yieldTold && p.report.HAProxy != nil && p.report.HAProxy.Alive
		serves = yields || early
	}
	if serves && now < g.straysUntil {
		a.wakeAt(g.straysUntil)
		if now < g.since+yieldTold {
			a.wakeAt(g.since + yieldTold)
		}
		return
	}
	a.log.Info("predecessor serves no more", zap.String("group", g.name), zap.String("predecessor", g.predecessor))
	g.predecessor, g.strays, g.straysUntil = "", hops{}, 0
	a.setVIP(g, g.desired())
}

// endYield lets an address go whose grace has ended.
func (a *Agent) endYield(now time.Duration, g *group) {
	if g.yieldUntil == 0 {
		return
	}
	if now < g.yieldUntil && (!a.stopping || a.carriesOn(now, g)) {
		a.wakeAt(g.yieldUntil)
		return
	}
	g.yieldUntil = 0
	a.setVIP(g, vip.Desired{Role: vip.Away})
	a.log.Info("grace ended", zap.String("group", g.name), zap.String("successor", g.successor))
}

// carriesOn says whether connections are left on a group that was handed over:
// a node that is to stop need not wait for the end of the grace without them.
func (a *Agent) carriesOn(now time.Duration, g *group) bool {
	if now < g.newUntil || a.deps.Addresses == nil {
		a.wakeAt(g.newUntil)
		return now < g.newUntil
	}
	n, err := a.deps.Addresses.Left(g.name)
	if err != nil {
		a.problem("connections", err.Error())
	}
	a.wakeAt(now + leftEvery)
	return n > 0 || err != nil
}
