package site

import (
	"strconv"
	"time"
)

const (
	hookTries   = 3           // dispatches of a hook whose node is lost
	hookRetryIn = time.Second // between them
)

type hookResult uint8

const (
	hookPending hookResult = iota
	hookOK
	hookFailed
)

// hookState is what the decider knows of a hook that it asked for.
type hookState struct {
	id     string
	site   string
	kind   HookKind
	sentAt time.Duration
	tries  int
	done   bool
	ok     bool
	lost   bool // to be asked for again at retryAt
	retry  time.Duration
	doneAt time.Duration
}

// hook asks for a hook of the present phase, once, and says how it stands.
func (d *Decider) hook(i int, g *Group, kind HookKind, at string) hookResult {
	h := &d.mem[i].hook
	id := hookID(kind, g.In(), at, g.Epoch)
	switch {
	case h.id != id:
		*h = hookState{id: id, site: at, kind: kind}
		d.dispatch(h, g, kind, at, g.Epoch)
	case h.done && h.ok:
		return hookOK
	case h.done:
		return hookFailed
	case h.lost && d.now >= h.retry:
		d.dispatch(h, g, kind, at, g.Epoch)
	case h.lost:
		d.wakeAt(h.retry)
		return hookPending
	case d.now >= h.sentAt+d.cfg.HookBudget:
		h.done, h.doneAt = true, d.now
		d.tell(Transition{Event: EventHook, Group: g.In(), To: at, Phase: g.Phase, Reason: ReasonHookUnanswered, Detail: string(kind)})
		return hookFailed
	}
	d.wakeAt(h.sentAt + d.cfg.HookBudget)
	return hookPending
}

func hookID(kind HookKind, group, site string, epoch uint64) string {
	return string(kind) + "/" + group + "/" + site + "/" + strconv.FormatUint(epoch, 10)
}

func (d *Decider) dispatch(h *hookState, g *Group, kind HookKind, at string, epoch uint64) {
	h.sentAt, h.lost = d.now, false
	h.tries++
	from := g.Active
	if from == "" || from == d.heading(*g) {
		from = g.From
	}
	d.out.Hooks = append(d.out.Hooks, HookRun{
		ID: h.id, Kind: kind, Group: g.In(), Site: at, From: from, To: d.heading(*g),
		Epoch: epoch, Reason: g.Reason, Planned: g.Reason.planned(), Actor: g.Actor,
	})
}

// runNotify has the change of the active site told to the world outside. It
// holds up nothing, and is recorded until it succeeded.
func (d *Decider) runNotify(i int, g *Group) {
	if g.Notify == 0 || g.Active == "" {
		return
	}
	h := &d.mem[i].notify
	id := hookID(HookNotify, g.In(), g.Active, g.Notify)
	switch {
	case h.id != id:
		*h = hookState{id: id, site: g.Active, kind: HookNotify}
		d.dispatch(h, g, HookNotify, g.Active, g.Notify)
	case h.done && h.ok:
		g.Notify = 0
	case h.lost && d.now >= h.retry:
		d.dispatch(h, g, HookNotify, g.Active, g.Notify)
	case h.lost:
		d.wakeAt(h.retry)
	}
}

func (d *Decider) hookDone(in HookDone) {
	for i := range d.mem {
		m := &d.mem[i]
		switch in.ID {
		case m.hook.id:
			d.hookResult(i, &m.hook, in)
		case m.notify.id:
			d.hookResult(i, &m.notify, in)
		}
	}
}

// hookResult notes a result. A hook whose node is lost is asked for again, but
// for the best-effort one of a site that is left: nobody waits longer for that.
// A notification is asked for again whatever happened.
func (d *Decider) hookResult(i int, h *hookState, in HookDone) {
	if h.done || h.id == "" {
		return
	}
	gone := in.Err == ReasonHookNodeLost || in.Err == ReasonHookNoNode
	again := h.kind == HookNotify || gone && h.kind != HookRenounce && h.tries < hookTries
	reason := ReasonDone
	if !in.OK {
		reason = in.Err
		if reason == "" {
			reason = ReasonHookFailed
		}
	}
	switch {
	case in.OK:
		h.done, h.ok, h.doneAt = true, true, d.now
	case again && gone:
		h.lost, h.retry = true, d.now+hookRetryIn
	case again:
		h.lost, h.retry = true, d.now+d.cfg.RetryAfter
	default:
		h.done, h.doneAt = true, d.now
	}
	g := d.cur.Groups[i]
	d.tell(Transition{Event: EventHook, Group: g.In(), To: h.site, Phase: g.Phase, Reason: reason, Detail: in.ID + detail(in.Detail)})
}

func detail(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}
