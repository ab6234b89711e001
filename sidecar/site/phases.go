package site

import (
	"slices"
	"time"
)

// sequence is the order of the phases.
func (d *Decider) sequence() []Phase {
	if d.cfg.exclusive() {
		return []Phase{PhasePrecheck, PhaseRenounce, PhaseSettle, PhaseTakeover, PhaseEnable}
	}
	return []Phase{PhasePrecheck, PhaseTakeover, PhaseEnable, PhaseRenounce, PhaseSettle}
}

// hooked says whether a group has a hook. Hooks are about sites: they start and
// stop what runs there. A broker that fails over by itself, which is what an
// independent backend is for, must not have the applications of the other site
// started; so independent groups have no hooks.
func (d *Decider) hooked(g *Group, k HookKind) bool {
	if g.In() != DefaultGroup {
		return false
	}
	h := d.cfg.Hooks
	switch k {
	case HookPrecheck:
		return h.Precheck
	case HookTakeover:
		return h.Takeover
	case HookRenounce:
		return h.Renounce
	case HookNotify:
		return h.Notify
	}
	return false
}

// has says whether a phase has content for a switch. Exclusive always drains
// first, even if no site is active: an earlier switch may have ended before
// every load balancer was known to be drained.
func (d *Decider) has(g *Group, p Phase) bool {
	switch p {
	case PhasePrecheck:
		return d.hooked(g, HookPrecheck) && !g.Forced && !g.Reason.boot()
	case PhaseTakeover:
		return d.hooked(g, HookTakeover) && !g.Reason.boot()
	case PhaseSettle:
		return d.cfg.DrainTimeout > 0 && g.From != ""
	case PhaseEnable, PhaseRenounce:
		return true
	case PhaseNone:
	}
	return false
}

// following is the next phase with content, or none.
func (d *Decider) following(g *Group, after Phase) Phase {
	seq := d.sequence()
	for _, p := range seq[slices.Index(seq, after)+1:] {
		if d.has(g, p) {
			return p
		}
	}
	return PhaseNone
}

// begin starts a switch. The caller has checked that the target may be taken.
func (d *Decider) begin(i int, g *Group, target string, r Reason, actor string) {
	g.Target, g.Reason, g.Actor, g.Forced = target, r, actor, r == ReasonForced
	if r.commanded() {
		g.Ack, g.Failed = false, nil
		d.mem[i].switches, d.mem[i].failedAt = nil, nil
	} else {
		d.mem[i].switches = append(d.mem[i].switches, d.now)
	}
	g.Switches = len(d.mem[i].switches)
	d.enter(g, d.following(g, PhaseNone))
}

// enter puts a group into a phase; this is where the active site changes. What
// is drained anew is given its time before anything is closed.
func (d *Decider) enter(g *Group, p Phase) {
	g.Phase, g.Epoch = p, d.epoch+1
	switch {
	case p == PhaseRenounce && d.cfg.exclusive():
		g.From, g.Active, g.Close = g.Active, "", false
	case p == PhaseRenounce:
		g.From, g.Close = g.Active, false
		d.activate(g)
	case p == PhaseEnable && d.cfg.exclusive():
		d.activate(g)
	}
}

func (d *Decider) activate(g *Group) {
	g.Active, g.Target, g.SinceUnixMS, g.Pinned = g.Target, "", d.wall, g.Reason.commanded()
	g.Failed = slices.DeleteFunc(g.Failed, func(s string) bool { return s == g.Active })
	if d.hooked(g, HookNotify) && !g.Reason.boot() {
		g.Notify = d.epoch + 1
	}
}

// phase moves a switch on when its present phase is complete.
func (d *Decider) phase(i int, g *Group) {
	switch g.Phase {
	case PhaseNone:
		d.rest(i, g)
	case PhasePrecheck:
		d.hookPhase(i, g, HookPrecheck, ReasonPrecheckVeto)
	case PhaseTakeover:
		d.hookPhase(i, g, HookTakeover, ReasonTakeoverFailed)
	case PhaseEnable:
		d.enablePhase(i, g)
	case PhaseRenounce:
		d.renouncePhase(i, g)
	case PhaseSettle:
		d.settlePhase(i, g)
	}
}

// hookPhase waits for a hook at the target that must succeed.
func (d *Decider) hookPhase(i int, g *Group, kind HookKind, failure Reason) {
	switch d.hook(i, g, kind, g.Target) {
	case hookPending:
		d.setStay(i, ReasonWaitHook, string(kind)+" at "+g.Target)
	case hookFailed:
		d.fail(i, g, failure)
	case hookOK:
		d.goOn(i, g)
	}
}

// enablePhase waits until the new site is ready on every live load balancer.
// In overlap a target that is lost meanwhile is given up if the old site is
// still there.
func (d *Decider) enablePhase(i int, g *Group) {
	lost := g.Target != "" && !g.Forced && !d.usable(g.In(), g.Target)
	switch {
	case lost && d.usable(g.In(), g.Active):
		d.fail(i, g, ReasonTargetLost)
	case !d.applied(i):
		d.setStay(i, ReasonWaitApply, list(d.waiting(i)))
	default:
		d.goOn(i, g)
	}
}

// renouncePhase waits until the old site is drained, then runs its hooks,
// whose failure changes nothing.
func (d *Decider) renouncePhase(i int, g *Group) {
	if !d.applied(i) {
		d.setStay(i, ReasonWaitApply, list(d.waiting(i)))
		return
	}
	if d.hooked(g, HookRenounce) && g.From != "" && d.hook(i, g, HookRenounce, g.From) == hookPending {
		d.setStay(i, ReasonWaitHook, string(HookRenounce)+" at "+g.From)
		return
	}
	d.goOn(i, g)
}

// settlePhase gives the connections left on the old site their time, then has
// them closed, from then on and until it serves again. A site that is not usable
// is given none.
func (d *Decider) settlePhase(i int, g *Group) {
	end := d.mem[i].phaseAt + d.cfg.DrainTimeout
	switch {
	case g.Close && !d.applied(i):
		d.setStay(i, ReasonWaitApply, list(d.waiting(i)))
	case g.Close:
		d.goOn(i, g)
	case d.now < end && d.usable(g.In(), g.From):
		d.setStay(i, ReasonWaitDrain, g.From)
		d.wakeAt(end)
	default:
		g.Close, g.Epoch = true, d.epoch+1
	}
}

// rest has closed what is left on drained sites where no switch has done that:
// after the boot, after a switch that was given up, after TANDEM_DRAIN_TIMEOUT
// was set.
func (d *Decider) rest(i int, g *Group) {
	if d.cfg.DrainTimeout <= 0 || g.Close || len(d.cfg.Sites) < 2 {
		return
	}
	if due := d.mem[i].phaseAt + d.cfg.DrainTimeout; d.now < due {
		d.wakeAt(due)
		return
	}
	g.Close = true
}

// goOn enters the next phase, or ends the switch. Nothing is enabled that no
// load balancer sees usable, unless by force.
func (d *Decider) goOn(i int, g *Group) {
	next := d.following(g, g.Phase)
	if next == PhaseEnable && !g.Forced && !g.Reason.boot() && !d.usable(g.In(), g.Target) {
		if until := d.startUntil(i, g); d.now < until {
			d.setStay(i, ReasonWaitTarget, g.Target)
			d.wakeAt(until)
			return
		}
		d.fail(i, g, ReasonTargetLost)
		return
	}
	d.enter(g, next)
}

// startUntil is how long the target has to become usable after its takeover
// hooks; without hooks it has no time, since it was usable before.
func (d *Decider) startUntil(i int, g *Group) time.Duration {
	if g.Phase != PhaseTakeover {
		return 0
	}
	return d.mem[i].hook.doneAt + d.cfg.StartWithin
}

// fail ends a switch whose target cannot be had. While the old site is active,
// it stays. In exclusive it may have been drained already: then another site,
// the old one first, is switched to, and if there is none, none is active.
func (d *Decider) fail(i int, g *Group, r Reason) {
	failed := g.Target
	if r != ReasonCancelled && (r != ReasonTargetLost || d.hooked(g, HookTakeover)) {
		d.mem[i].failedAt = append(d.mem[i].failedAt, failure{failed, d.now})
		if !slices.Contains(g.Failed, failed) {
			g.Failed = append(g.Failed, failed)
		}
	}
	g.Reason, g.Forced = r, false
	if g.Active != "" {
		d.stop(g)
		return
	}
	to := d.candidates(i, append(slices.Clone(g.Failed), failed)...)
	if len(to) == 0 {
		g.From = ""
		d.stop(g)
		return
	}
	next := to[0]
	if slices.Contains(to, g.From) {
		next = g.From
	}
	d.redirect(g, next)
}

// stop ends a switch. A target that was ready in overlap is drained again, and
// given its time.
func (d *Decider) stop(g *Group) {
	g.Close = g.Close && (g.Phase != PhaseEnable || d.cfg.exclusive())
	g.Target, g.Phase, g.Epoch = "", PhaseNone, d.epoch+1
}

// redirect gives an exclusive switch, with the old site drained or draining,
// another target. Whatever the takeover hooks of the former target started is
// renounced first. Going back to the site just left needs no further waiting:
// who has not drained it yet routes to it alone.
func (d *Decider) redirect(g *Group, to string) {
	was := g.Target
	g.Target = to
	switch {
	case g.Phase == PhaseTakeover && d.hooked(g, HookRenounce):
		g.From, g.Phase, g.Close, g.Epoch = was, PhaseRenounce, false, d.epoch+1
	case g.Phase == PhaseTakeover, to == g.From:
		p := PhaseEnable
		if d.has(g, PhaseTakeover) {
			p = PhaseTakeover
		}
		d.enter(g, p)
	}
}
