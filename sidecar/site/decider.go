package site

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// proposeAgain is how long the decider waits for its proposal to be decided
// before it proposes the same again.
const proposeAgain = time.Second

// Decider decides for every group which site is active. It lives on the holder
// of the site lease, from take-up to letting go.
type Decider struct {
	cfg    Config
	groups []string
	mem    []memory // one for each group, in the same order

	now  time.Duration
	wall int64
	out  Output
	wake time.Duration

	adopted    bool
	adoptedAt  time.Duration
	epoch      uint64
	cur        Decision // decided, with all groups in order
	proposed   *Decision
	proposedAt time.Duration

	nodes     []node  // sorted by name
	witnesses []*node // those of nodes whose views count, in this step
	hookable  []string
	heard     bool // a World has come since Adopt

	pauseUntil time.Duration // monotonic; valid while cur is paused and PausedUntilMS > 0
	commands   []Command
	recent     []Reply // last reply to each command of late
	told       string  // last path hint told, as text
}

// memory is what the decider knows of a group and does not record: another
// decider finds out anew.
type memory struct {
	phaseEpoch uint64        // at least this epoch must be applied in the present phase
	phaseAt    time.Duration // when the present phase was decided

	down       bool // no live load balancer sees the active site usable …
	downSince  time.Duration
	downSite   string
	wellSince  []time.Duration // per site: since when every live load balancer sees it usable; -1: it does not
	switches   []time.Duration // automatic switches of late
	failedAt   []failure
	hook       hookState
	notify     hookState
	skipped    []string // load balancers not waited for in this phase
	pushed     bool     // an operator forced the switch on: wait for nobody in this phase
	stay       Reason
	stayDetail string
	stayTold   bool
	waiters    []waiter // commands to answer when the switch is over
}

type failure struct {
	site string
	at   time.Duration
}

// NewDecider returns a decider that does nothing until Adopt. The
// configuration must be valid.
func NewDecider(cfg Config) *Decider {
	if err := cfg.Validate(); err != nil {
		panic(fmt.Sprintf("site: %v", err))
	}
	d := &Decider{cfg: cfg.withDefaults(), groups: cfg.Groups()}
	d.reset()
	return d
}

func (d *Decider) reset() {
	d.mem = make([]memory, len(d.groups))
	for i := range d.mem {
		d.mem[i].wellSince = make([]time.Duration, len(d.cfg.Sites))
		for s := range d.mem[i].wellSince {
			d.mem[i].wellSince[s] = -1
		}
	}
}

// Step takes one input and says what to do. The time now is monotonic and
// never goes back; wallMS is the wall clock in unix milliseconds, for what people read.
func (d *Decider) Step(now time.Duration, wallMS int64, in Input) Output {
	d.now, d.wall, d.out, d.wake = now, wallMS, Output{}, 0
	switch in := in.(type) {
	case Adopt:
		d.adopt(in)
	case Decided:
		d.decided(in)
	case World:
		d.setWorld(in)
	case Command:
		d.command(in)
	case HookDone:
		d.hookDone(in)
	case Tick:
	default:
		panic(fmt.Sprintf("site: unknown input %T", in))
	}
	if d.adopted && len(d.groups) > 0 {
		d.observe()
		d.advance()
		d.out.Path = d.path()
	}
	d.out.Wake = d.wake
	return d.out
}

// wakeAt asks to be called again at t, or earlier.
func (d *Decider) wakeAt(t time.Duration) {
	if t > d.now && (d.wake == 0 || t < d.wake) {
		d.wake = t
	}
}

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
			m.switches = append(m.switches, d.now)
		}
		for _, s := range g.Failed {
			m.failedAt = append(m.failedAt, failure{s, d.now})
		}
		if g.Switching() {
			d.tell(Transition{Event: EventAdopt, Group: g.In(), From: g.Active, To: d.heading(g), Phase: g.Phase, Reason: g.Reason, Actor: g.Actor})
		}
	}
	if d.cur.PausedUntilMS > 0 { // the wall clock may be wrong, but no pause gets longer by that
		left := time.Duration(d.cur.PausedUntilMS-d.wall) * time.Millisecond
		d.pauseUntil = d.now + min(max(left, 0), time.Duration(d.cur.PausedForMS)*time.Millisecond)
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

func (d *Decider) decided(in Decided) {
	if !d.adopted || in.Epoch <= d.epoch {
		return
	}
	before := d.cur
	d.cur, d.epoch, d.proposed = d.normal(in.Decision), in.Epoch, nil
	if d.cur.PausedUntilMS != before.PausedUntilMS {
		d.pauseUntil = d.now + time.Duration(d.cur.PausedForMS)*time.Millisecond
	}
	for i := range d.cur.Groups {
		if d.cur.Groups[i].Epoch != before.Groups[i].Epoch || d.cur.Groups[i].Phase != before.Groups[i].Phase {
			d.entered(i, before.Groups[i])
		}
	}
	d.tellDecision(before)
}

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

// advance runs what the decided phases ask for and proposes the next decision,
// one at a time.
func (d *Decider) advance() {
	if d.proposed != nil {
		if d.now < d.proposedAt+proposeAgain {
			d.wakeAt(d.proposedAt + proposeAgain)
			return
		}
		d.propose(*d.proposed)
		return
	}
	next := d.cur.clone()
	d.runCommands(&next)
	for i := range next.Groups {
		d.advanceGroup(i, &next.Groups[i], &next)
	}
	if d.cur.PausedUntilMS > 0 && next.PausedUntilMS == d.cur.PausedUntilMS {
		if d.now >= d.pauseUntil {
			next.PausedUntilMS, next.PausedForMS = 0, 0
			because(&next, ReasonPauseOver, "")
		}
		d.wakeAt(d.pauseUntil)
	}
	if !d.cur.equal(next) {
		d.propose(next)
	}
}

func (d *Decider) propose(next Decision) {
	d.proposed, d.proposedAt = &next, d.now
	copied := next.clone()
	d.out.Propose = &copied
	d.wakeAt(d.now + proposeAgain)
}

// because records why the decision as a whole changes.
func because(d *Decision, r Reason, actor string) { d.Reason, d.Actor = r, actor }

func (d Decision) equal(o Decision) bool {
	return d.PausedUntilMS == o.PausedUntilMS && d.PausedForMS == o.PausedForMS && d.Reason == o.Reason &&
		slices.EqualFunc(d.Groups, o.Groups, Group.equal)
}

func (d *Decider) advanceGroup(i int, g *Group, next *Decision) {
	if !d.sameStep(i, *g) { // a command changed it: nothing more in this step
		because(next, g.Reason, g.Actor)
		return
	}
	before := *g
	d.runNotify(i, g)
	switch {
	case g.blank():
		d.boot(i, g)
	case g.Target != "" || g.Phase == PhaseRenounce && d.cfg.exclusive():
		d.phase(i, g)
	default:
		if !d.automatic(i, g) {
			d.phase(i, g)
		}
	}
	switch {
	case before.equal(*g):
	case g.Epoch != before.Epoch || g.Reason != before.Reason:
		because(next, g.Reason, g.Actor)
	case g.Ack != before.Ack:
		because(next, ReasonFlapping, "")
	case g.Forced != before.Forced:
		because(next, ReasonSeenUsable, "")
	case g.Notify != before.Notify:
		because(next, ReasonNotified, "")
	}
}

// sameStep says whether no command has changed the group in this step.
func (d *Decider) sameStep(i int, g Group) bool { return g.equal(d.cur.Groups[i]) }

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
	Stay     Reason   // why it does not move
	Detail   string   // the same in other words
	Waiting  []string // load balancers that the present phase waits for
}

// Status tells every group's state, in order; empty before Adopt.
func (d *Decider) Status() []GroupStatus {
	var out []GroupStatus
	if !d.adopted {
		return nil
	}
	for i, g := range d.cur.Groups {
		s := GroupStatus{Decision: g, Stay: d.mem[i].stay, Detail: d.mem[i].stayDetail}
		if g.Switching() {
			s.Waiting = d.waiting(i)
		}
		out = append(out, s)
	}
	return out
}

// Decision returns what is decided, and its epoch; false before Adopt.
func (d *Decider) Decision() (Decision, uint64, bool) { return d.cur.clone(), d.epoch, d.adopted }

func list(names []string) string { return strings.Join(names, ", ") }
