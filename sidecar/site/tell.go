package site

import (
	"strings"
	"time"
)

// entered notes that a group is in a new phase, and tells it.
func (d *Decider) entered(i int, before Group) {
	g, m := d.cur.Groups[i], &d.mem[i]
	m.phaseEpoch, m.phaseAt, m.skipped, m.pushed = d.epoch, d.now, nil, false
	t := Transition{Group: g.In(), From: before.Active, To: d.heading(g), Phase: g.Phase, Reason: g.Reason, Actor: g.Actor}
	switch {
	case before.blank():
		t.Event = EventBoot
	case d.isStart(before, g):
		t.Event = EventSwitch
	case g.Switching() && g.Reason.failure() && g.Reason != before.Reason:
		t.Event = EventAbort
	case g.Switching():
		t.Event = EventPhase
	case g.Reason.failure():
		t.Event, t.From = EventAbort, before.Target
	default:
		t.Event, t.From = EventDone, g.From
	}
	d.tell(t)
	d.answerSwitch(i, t.Event)
}

// isStart says whether a switch began between two decisions.
func (d *Decider) isStart(before, g Group) bool {
	return g.Target != "" && before.Target == "" || g.Switching() && !before.Switching()
}

// heading is the site that a group is going to, or at.
func (d *Decider) heading(g Group) string {
	if g.Target != "" {
		return g.Target
	}
	return g.Active
}

func (d *Decider) tell(t Transition) {
	t.Epoch = d.epoch
	d.out.Transitions = append(d.out.Transitions, t)
}

// tellDecision tells what concerns the decision as a whole.
func (d *Decider) tellDecision(before Decision) {
	t := Transition{Reason: d.cur.Reason, Actor: d.cur.Actor}
	switch {
	case before.PausedUntilMS == d.cur.PausedUntilMS:
	case d.cur.PausedUntilMS != 0:
		t.Event = EventPause
		if d.cur.PausedForMS > 0 {
			t.Detail = "for " + (time.Duration(d.cur.PausedForMS) * time.Millisecond).String()
		}
		d.tell(t)
	default:
		t.Event = EventResume
		d.tell(t)
	}
	for i, g := range d.cur.Groups {
		if was := before.Groups[i].Ack; was != g.Ack {
			t.Event, t.Group, t.Reason = EventAck, g.In(), ReasonAck
			if g.Ack {
				t.Reason, t.Detail = ReasonFlapping, "automatic switching waits for an acknowledgement"
			}
			d.tell(t)
		}
	}
}

// setStay notes why a group does not move. It is told once for each reason, if
// it is worth telling; what a switch waits for only when it takes long.
func (d *Decider) setStay(i int, r Reason, detail string) {
	m, g := &d.mem[i], d.cur.Groups[i]
	m.stayTold = m.stayTold && m.stay == r
	m.stay, m.stayDetail = r, detail
	quiet := r == ReasonHealthy || r == ReasonBooting || g.Switching() && !d.overdue(i)
	if m.stayTold || quiet {
		return
	}
	m.stayTold = true
	d.tell(Transition{Event: EventStay, Group: g.In(), To: g.Active, Phase: g.Phase, Reason: r, Detail: detail})
}

// overdue says whether the present phase lasts longer than a load balancer
// should need: then what it waits for is worth a line.
func (d *Decider) overdue(i int) bool {
	at := d.mem[i].phaseAt + d.cfg.ApplyTimeout
	d.wakeAt(at)
	return d.now >= at
}

// GroupStatus is a group as the decider sees it now.
type GroupStatus struct {
	Decision Group
	Stay     Reason // why it does not move
	Detail   string // the same in other words
	// Returning: a preferred site is usable, and the time runs after which it is
	// switched back to.
	Returning bool
	Waiting   []string // load balancers that the present phase waits for
}

// Status tells every group's state, in order; empty before Adopt.
func (d *Decider) Status() []GroupStatus {
	var out []GroupStatus
	if !d.adopted {
		return nil
	}
	for i, g := range d.cur.Groups {
		s := GroupStatus{Decision: g, Stay: d.mem[i].stay, Detail: d.mem[i].stayDetail, Returning: d.returning(i, g)}
		if g.Switching() {
			s.Waiting = d.waiting(i)
		}
		out = append(out, s)
	}
	return out
}

func list(names []string) string { return strings.Join(names, ", ") }
