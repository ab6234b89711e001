package agent

import (
	"slices"
	"time"

	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

const (
	// How often an order is repeated until its end is known.
	hookRepeat = 500 * time.Millisecond
	// How long a node may be silent before its hook counts as lost.
	hookLost = 3 * time.Second
)

// hookWait is a hook order under way elsewhere, or here.
type hookWait struct {
	run    site.HookRun
	node   string
	sentAt time.Duration
	since  time.Duration // since when the node is silent; 0: it is not
}

// dispatchHook sends an order to a node of the site concerned.
func (a *Agent) dispatchHook(now time.Duration, run site.HookRun) {
	node := a.hookNode(run, now)
	if node == "" {
		a.feedSite(now, site.HookDone{ID: run.ID, Err: site.ReasonHookNoNode, Detail: "no live node stands in site " + run.Site})
		return
	}
	a.orders[run.ID] = hookWait{run: run, node: node, sentAt: now}
	a.sendHook(run, node)
}

func (a *Agent) sendHook(run site.HookRun, node string) {
	if node == a.cfg.Node {
		a.startHook(run, node)
		return
	}
	a.send(node, kindHook, hookOrder{envelope: a.envelope(node), Run: run})
}

// hookNode chooses who runs a hook: a live node that stands in the site, this
// one first; if no node says where it stands, any node that has the hook.
func (a *Agent) hookNode(run site.HookRun, now time.Duration) string {
	anywhere := true
	for _, n := range a.nodeNames() {
		if r := a.reportOf(n, now); r != nil && r.Site != "" {
			anywhere = false
		}
	}
	names := append([]string{a.cfg.Node}, a.nodeNames()...)
	for _, n := range names {
		r := a.reportOf(n, now)
		if r == nil || !a.alive(n, now) || !r.hasHook(run.Kind) {
			continue
		}
		if anywhere || r.Site == run.Site {
			return n
		}
	}
	return ""
}

func (r *report) hasHook(kind site.HookKind) bool {
	return slices.Contains(r.Hooks, string(kind))
}

// chaseHooks repeats orders whose end is not known, and gives up those whose
// node has gone.
func (a *Agent) chaseHooks(now time.Duration) {
	for id, w := range a.orders {
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

func (a *Agent) receiveHook(body []byte) {
	var m hookOrder
	if err := decode(body, &m); err != nil || m.Run.ID == "" {
		a.ignored("undecodable-hook")
		return
	}
	if _, ok := a.admit(m.envelope); !ok {
		return
	}
	if m.ToBoot != a.boot {
		a.ignored("earlier-boot") // an order without the addressee's boot could be a replay
		return
	}
	a.startHook(m.Run, m.From)
}

// startHook runs an order once; a repetition of one that has ended gets its
// result again.
func (a *Agent) startHook(run site.HookRun, from string) {
	if done, ok := a.hooksRun[run.ID]; ok {
		if done != nil {
			a.reportHook(*done, from)
		}
		a.hookFrom[run.ID] = from
		return
	}
	a.hooksRun[run.ID] = nil
	a.hookFrom[run.ID] = from
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

// hooksKept bounds how many results are remembered for repetitions.
const hooksKept = 256

// hookEnded records the end of a hook that ran here and tells who asked.
func (a *Agent) hookEnded(r HookResult) {
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
	a.feedSite(a.deps.Now(), d)
}
