package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

const (
	// How often an order is repeated until its end is known.
	hookRepeat = 500 * time.Millisecond
	// How long a node may be silent before its hook counts as lost.
	hookLost = 3 * time.Second
	// A voter that has been silent for longer may have died, and others are
	// preferred: renewals come every 200 ms at least.
	hookHeard = 250 * time.Millisecond
	// How long a hook waits for the end of one that it overtakes: for longer than
	// it takes to kill that, or to miss its node.
	hookPatience = 8 * time.Second
	// How many hooks a node says that it has taken: there is one for each phase.
	hooksTold = 8
)

// hookWait is a hook order under way elsewhere, or here.
type hookWait struct {
	run    site.HookRun
	node   string        // "": it waits for the end of those that it overtakes
	sentAt time.Duration // or since when it waits
	since  time.Duration // since when the node is silent; 0: it is not
}

// dispatchHook sends an order to a node of the site concerned. The hooks of a
// group run one after the other, on whatever nodes: those that this one
// overtakes are ended first.
func (a *Agent) dispatchHook(now time.Duration, run site.HookRun) {
	if before := a.overtaken(run); len(before) > 0 {
		a.orders[run.ID] = hookWait{run: run, sentAt: now}
		for _, w := range before {
			a.sendHook(w.run, w.node)
		}
		return
	}
	node := a.hookNode(run, now)
	if node == "" {
		a.feedSite(now, site.HookDone{ID: run.ID, Err: site.ReasonHookNoNode, Detail: "no live node stands in site " + run.Site})
		return
	}
	a.orders[run.ID] = hookWait{run: run, node: node, sentAt: now}
	a.sendHook(run, node)
}

// overtaken lists the orders under way that run comes after, in the order of
// their epochs, and drops those that have not been sent.
func (a *Agent) overtaken(run site.HookRun) []hookWait {
	var before []hookWait
	for id, w := range a.orders {
		same := w.run.Group == run.Group && (w.run.Kind == site.HookNotify) == (run.Kind == site.HookNotify)
		switch {
		case !same || w.run.Epoch >= run.Epoch:
		case w.node == "":
			delete(a.orders, id)
		default:
			before = append(before, w)
		}
	}
	slices.SortFunc(before, func(x, y hookWait) int { return cmp.Compare(x.run.Epoch, y.run.Epoch) })
	return before
}

func (a *Agent) sendHook(run site.HookRun, node string) {
	if node == a.cfg.Node {
		a.startHook(run, node, 0)
		return
	}
	e := a.envelope(node)
	if e.Heard == 0 {
		return // it has begun anew and not reported yet: it could not tell how old the order is
	}
	a.send(node, kindHook, hookOrder{
		envelope: e, Run: run, Epoch: a.hookFence(run), Decider: bootName(a.decided.Ballot.Incarnation),
	})
}

// hookNode chooses who runs a hook: a live node that stands in the site; if no
// node says where it stands, any that has the hook. Another decider chooses the
// same one, so that what the first asked for does not run on two nodes: who says
// that it has taken the hook, else the first by name of those heard of late.
func (a *Agent) hookNode(run site.HookRun, now time.Duration) string {
	anywhere := true
	for _, n := range a.nodeNames() {
		if r := a.reportOf(n, now); r != nil && r.Site != "" {
			anywhere = false
		}
	}
	var able []string
	for _, n := range a.nodeNames() {
		r := a.reportOf(n, now)
		if r == nil || !a.alive(n, now) || !r.hasHook(run.Kind) || !anywhere && r.Site != run.Site {
			continue
		}
		if slices.Contains(r.Took, run.ID) {
			return n
		}
		able = append(able, n)
	}
	for _, n := range able {
		if a.heardLately(n, now) {
			return n
		}
	}
	if len(able) > 0 {
		return able[0]
	}
	return ""
}

// heardLately is stricter than alive, which takes a second or two to see a
// death.
func (a *Agent) heardLately(node string, now time.Duration) bool {
	if node == a.cfg.Node {
		return true
	}
	if ago, ok := a.lease.PeerHeard(now, node); ok {
		return ago <= hookHeard
	}
	p := a.peers[node]
	return p != nil && !p.voter && now-p.arrived <= reportEvery+hookHeard
}

func (r *report) hasHook(kind site.HookKind) bool {
	return slices.Contains(r.Hooks, string(kind))
}

// chaseHooks repeats orders whose end is not known, and gives up those whose
// node has gone.
func (a *Agent) chaseHooks(now time.Duration) {
	for id, w := range a.orders {
		if w.node == "" {
			a.releaseHook(now, id, w)
			continue
		}
		switch {
		case a.alive(w.node, now):
			w.since = 0
		case w.since == 0:
			w.since = now
		}
		if w.since > 0 && now-w.since > hookLost {
			delete(a.orders, id)
			a.feedSite(now, site.HookDone{ID: id, Err: site.ReasonHookNodeLost, Detail: w.node + " is silent"})
			continue
		}
		again := now-w.sentAt >= hookRepeat
		if again {
			w.sentAt = now
		}
		a.orders[id] = w // before it is sent: one that runs here may end at once
		if again {
			a.sendHook(w.run, w.node)
		}
		a.wakeAt(now + hookRepeat)
	}
}

// releaseHook sends an order for whose sake others had to end first.
func (a *Agent) releaseHook(now time.Duration, id string, w hookWait) {
	before := a.overtaken(w.run)
	if len(before) > 0 && now-w.sentAt < hookPatience {
		return
	}
	for _, b := range before {
		delete(a.orders, b.run.ID)
		a.log.Warn("overtaken hook does not end", zap.String("id", b.run.ID), zap.String("at", b.node))
	}
	delete(a.orders, id)
	a.dispatchHook(now, w.run)
}

func (a *Agent) receiveHook(body []byte) {
	var m hookOrder
	if err := decode(body, &m); err != nil || m.Run.ID == "" {
		a.ignored("undecodable-hook")
		return
	}
	p := a.admitOrder(m.envelope)
	if p == nil {
		return
	}
	a.attend(p)
	if !a.sameDecision(m) {
		a.ignored("hook-of-another-decision")
		return
	}
	a.startHook(m.Run, m.From, m.Epoch)
}

// sameDecision reports whether who asks for a hook and this node go by decisions
// of the same decider and, if who asks takes the hook for one of the present
// decision, this node knows none later. Else one of the two has yet to hear
// something: that another decides, or that epochs begin again. The order is
// repeated until they agree.
func (a *Agent) sameDecision(m hookOrder) bool {
	if known := !a.decided.Ballot.IsZero(); known && m.Decider != "" && m.Decider != bootName(a.decided.Ballot.Incarnation) {
		return false
	}
	return m.Epoch > m.Run.Epoch || m.Run.Epoch >= a.hookFence(m.Run)
}

// startHook runs an order once; a repetition of one that has ended gets its
// result again. One that a later epoch has overtaken is refused, or ended.
func (a *Agent) startHook(run site.HookRun, from string, epoch uint64) {
	a.dirty = true
	epoch = max(epoch, a.hookFence(run))
	a.hookFrom[run.ID] = from
	if done, ok := a.hooksRun[run.ID]; ok {
		if done != nil {
			a.reportHook(*done, from)
		} else if run.Epoch < epoch {
			a.endHooks(run, epoch)
		}
		return
	}
	a.hooksRun[run.ID] = nil
	if run.Epoch < epoch {
		a.hookEnded(HookResult{Run: run, Err: site.ReasonHookStale, Detail: fmt.Sprintf("not run: epoch %d is older than %d", run.Epoch, epoch)})
		return
	}
	if a.hooksTaken = append(a.hooksTaken, run); len(a.hooksTaken) > hooksTold {
		a.hooksTaken = a.hooksTaken[1:]
	}
	if a.cfg.Observe {
		a.hookEnded(HookResult{Run: run, OK: true, Detail: "not run: this node only observes"})
		return
	}
	if a.deps.Hooks == nil {
		a.hookEnded(HookResult{Run: run, Err: site.ReasonHookNoNode, Detail: "no hooks are configured here"})
		return
	}
	a.deps.Hooks.Start(run)
}

// hookFence is the epoch below which an order is overtaken by the decision that
// this node knows; 0 if it knows none about the group.
func (a *Agent) hookFence(run site.HookRun) uint64 {
	g, ok := a.decision.Group(run.Group)
	switch {
	case !ok:
		return 0
	case run.Kind != site.HookNotify:
		return g.Epoch
	case g.Notify > 0:
		return g.Notify
	}
	return a.decided.Value.Epoch + 1 // all that was decided has been told
}

// endHooks ends what of a hook's kind and group is below an epoch.
func (a *Agent) endHooks(run site.HookRun, epoch uint64) {
	switch {
	case a.deps.Hooks == nil:
	case run.Kind == site.HookNotify:
		a.deps.Hooks.Fence(run.Group, 0, epoch)
	default:
		a.deps.Hooks.Fence(run.Group, epoch, 0)
	}
}

// fenceHooks ends what runs here of earlier decisions, whoever asked for it.
// Again says that epochs begin again.
func (a *Agent) fenceHooks(again bool) {
	if again {
		clear(a.hooksRun)
		clear(a.hookFrom)
		a.hooksEnded, a.hooksTaken = nil, nil
	}
	a.hooksTaken = slices.DeleteFunc(a.hooksTaken, func(run site.HookRun) bool { return run.Epoch < a.hookFence(run) })
	for _, g := range a.decision.Groups {
		if a.deps.Hooks == nil {
			return
		}
		if again {
			a.deps.Hooks.Forget(g.In())
		}
		notify := a.hookFence(site.HookRun{Group: g.In(), Kind: site.HookNotify})
		a.deps.Hooks.Fence(g.In(), g.Epoch, notify)
	}
}

// endUnsure ends, in exclusive order, the hooks that run here when this node has
// heard of no decider for as long as a load balancer would go on routing: by now
// another site may be active, or another node run the same.
func (a *Agent) endUnsure(now time.Duration) {
	if a.deps.Hooks == nil || a.cfg.Sites.Order != site.Exclusive {
		return
	}
	quorate := a.quorate(now)
	ended := false
	for _, run := range a.hooksTaken {
		if done, ok := a.hooksRun[run.ID]; !ok || done != nil || quorate {
			continue
		}
		a.problem("hooks-ended", "no decider is heard: the "+string(run.Kind)+" hook for site "+run.Site+" is ended")
		a.deps.Hooks.Forget(run.Group)
		ended = true
	}
	if ended {
		a.fenceHooks(false)
	}
}

// hooksKept bounds how many results are remembered for repetitions.
const hooksKept = 256

// hookEnded records the end of a hook that ran here and tells who asked.
func (a *Agent) hookEnded(r HookResult) {
	if r.Err == site.ReasonSuperseded && r.Run.Epoch >= a.hookFence(r.Run) {
		// No decision that is known here has overtaken it: if it is still wanted,
		// it is asked for again.
		delete(a.hooksRun, r.Run.ID)
		delete(a.hookFrom, r.Run.ID)
		a.hooksTaken = slices.DeleteFunc(a.hooksTaken, func(run site.HookRun) bool { return run.ID == r.Run.ID })
		return
	}
	a.hooksEnded = append(a.hooksEnded, r.Run.ID)
	if len(a.hooksEnded) > hooksKept {
		delete(a.hooksRun, a.hooksEnded[0])
		delete(a.hookFrom, a.hooksEnded[0])
		a.hooksEnded = a.hooksEnded[1:]
	}
	a.hooksRun[r.Run.ID] = &r
	reason := "succeeded"
	if !r.OK {
		reason = orWord(string(r.Err), string(site.ReasonHookFailed))
	}
	a.note(status.Transition{
		Resource: groupResource(r.Run.Group), Event: "hook-" + string(r.Run.Kind), From: r.Run.From, To: r.Run.To,
		Epoch: r.Run.Epoch, Reason: reason, Detail: r.Detail,
	})
	a.reportHook(r, a.hookFrom[r.Run.ID])
}

func (a *Agent) reportHook(r HookResult, to string) {
	if to == a.cfg.Node || to == "" {
		a.hookResult(site.HookDone{ID: r.Run.ID, OK: r.OK, Err: r.Err, Detail: r.Detail})
		return
	}
	a.send(to, kindHookDone, hookDone{envelope: a.envelope(to), ID: r.Run.ID, OK: r.OK, Err: r.Err, Detail: r.Detail})
}

func (a *Agent) receiveHookDone(body []byte) {
	var m hookDone
	if err := decode(body, &m); err != nil {
		a.ignored("undecodable-hook-result")
		return
	}
	if _, ok := a.admit(m.envelope); ok {
		a.hookResult(site.HookDone{ID: m.ID, OK: m.OK, Err: m.Err, Detail: m.Detail})
	}
}

func (a *Agent) hookResult(d site.HookDone) {
	if _, waiting := a.orders[d.ID]; !waiting {
		return
	}
	delete(a.orders, d.ID)
	a.dirty = true // another order may wait for this
	a.feedSite(a.deps.Now(), d)
}
