package site

import (
	"slices"
	"time"
)

func (d *Decider) adopt(in Adopt) {
	d.adopted, d.adoptedAt, d.epoch = true, d.now, in.Epoch
	d.proposed, d.told = nil, ""
	d.dropWaiters()
	d.reset()
	in.Decision.Groups = slices.Clone(in.Decision.Groups)
	if in.Blank {
		in.Decision = Decision{}
	}
	d.cur = d.normal(in.Decision)
	for i, g := range d.cur.Groups {
		m := &d.mem[i]
		m.phaseEpoch, m.phaseAt = in.Epoch, d.now
		for range g.Switches {
			m.switches = append(m.switches, d.now-max(in.Ages[g.In()], 0))
		}
		for _, s := range g.Failed {
			m.failedAt = append(m.failedAt, failure{s, d.now})
		}
		if g.Switching() {
			d.tell(Transition{Event: EventAdopt, Group: g.In(), From: g.Active, To: d.heading(g), Phase: g.Phase, Reason: g.Reason, Actor: g.Actor})
		}
	}
	if d.cur.PausedUntilMS > 0 {
		d.pauseUntil = d.now + min(max(in.PauseLeft, 0), time.Duration(d.cur.PausedForMS)*time.Millisecond)
	}
}

// normal brings a decision, possibly of another configuration, into the form
// that this one needs: every group once, in order; no unknown site. A group
// that makes no sense any more is blank and goes through the boot again.
func (d *Decider) normal(in Decision) Decision {
	out := in.clone()
	out.Groups = out.Groups[:0]
	for _, name := range d.groups {
		g, ok := in.Group(name)
		known := func(s string) bool { return s == "" || d.cfg.hasSite(s) }
		if ok && !d.consistent(g) { // decided under the other order: only who is active still means something
			g.Target, g.Phase, g.Close = "", PhaseNone, false
		}
		if !ok || !known(g.Active) || !known(g.Target) || g.Active == "" && g.Target == "" && (!g.Reason.failure() || !d.cfg.exclusive()) {
			g = Group{}
		}
		if !known(g.From) {
			g.From = ""
		}
		g.Failed = slices.DeleteFunc(slices.Clone(g.Failed), func(s string) bool { return !d.cfg.hasSite(s) })
		g.Name = name
		if name == DefaultGroup {
			g.Name = ""
		}
		out.Groups = append(out.Groups, g)
	}
	return out
}

// consistent says whether a group's phase makes sense in the order configured.
func (d *Decider) consistent(g Group) bool {
	between := g.Active == "" && g.Target != ""
	before := g.Active != "" && g.Target != ""
	after := g.Active != "" && g.Target == ""
	switch g.Phase {
	case PhaseNone:
		return g.Target == ""
	case PhasePrecheck:
		return g.Target != ""
	case PhaseTakeover:
		return before && !d.cfg.exclusive() || between && d.cfg.exclusive()
	case PhaseEnable:
		return before && !d.cfg.exclusive() || after && d.cfg.exclusive()
	case PhaseRenounce, PhaseSettle:
		return after && !d.cfg.exclusive() || between && d.cfg.exclusive()
	}
	return false
}
