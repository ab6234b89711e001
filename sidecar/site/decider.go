package site

import (
	"fmt"
	"slices"
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

// Decision returns what is decided, and its epoch; false before Adopt.
func (d *Decider) Decision() (Decision, uint64, bool) { return d.cur.clone(), d.epoch, d.adopted }
