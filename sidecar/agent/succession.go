package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"tandem/haproxy"
	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

const (
	// The lease that a node asks for before its program is replaced: the longest
	// that leases are tuned to. Voters remember it for so long once.
	successionLease = 2 * time.Second
	// How often it is looked whether the program may be replaced.
	successionLook = 20 * time.Millisecond
	// How long a program that has taken another's place lets things be as they were
	// until HAProxy has answered it.
	settleWithin = time.Second
	settleLook   = 5 * time.Millisecond
)

// How the program of a node was replaced, as a transition tells it.
const (
	ReasonInPlace = "in-place"     // the lease went on, and nothing moved
	ReasonTooLate = "too-late"     // the lease ended meanwhile
	ReasonAfresh  = "afresh"       // the state could not be used
	ReasonNotDone = "not-replaced" // the former program goes on
)

// ErrReplaced ends Run when another program has taken this one's place.
var ErrReplaced = errors.New("replaced")

var errBusy = errors.New("not now")

// Succession is what a program is told that takes another's place in the same
// process. Config.Succession has it.
type Succession struct {
	State   State
	Taken   time.Duration // when State was taken, on the clock of the leases
	Version string        // of the former program
	Actor   string
	Count   int // how often the program of this process was replaced
}

// Replace waits until nothing is under way that could not be handed to another
// program, or for ctx, and calls pass with everything that this agent knows. From
// then on it does nothing: when pass returns nil, Run ends with [ErrReplaced] and
// lets go of nothing. When pass fails, the agent goes on as if nothing had been.
func (a *Agent) Replace(ctx context.Context, pass func(State) error) error {
	defer func() {
		_ = a.ask(context.WithoutCancel(ctx), func() { a.succeeding = false })
	}()
	look := time.NewTicker(successionLook)
	defer look.Stop()
	var busy error
	for {
		var err error
		if asked := a.ask(ctx, func() { err = a.replace(pass) }); asked != nil {
			return cmp.Or(busy, asked)
		}
		if !errors.Is(err, errBusy) {
			return err
		}
		busy = err
		select {
		case <-ctx.Done():
			return busy
		case <-look.C:
		}
	}
}

// replace is one attempt, in the loop.
func (a *Agent) replace(pass func(State) error) error {
	why := a.underWayHere()
	if a.succeeding = why == ""; a.succeeding {
		why = a.tooShort(a.deps.Now())
	}
	if why != "" {
		return fmt.Errorf("%w: %s", errBusy, why)
	}
	if err := pass(a.state()); err != nil {
		return err
	}
	a.replaced = true
	return nil
}

// Replaceable says what keeps this node's program from being replaced now, and
// hands out a state to try another program with, which is of no other use. The
// outcome of an earlier attempt is forgotten.
func (a *Agent) Replaceable(ctx context.Context) (s State, why string, err error) {
	err = a.ask(ctx, func() {
		if a.outcome = (status.Process{}); a.stopping {
			why = "it is stopping"
		}
		s = a.state()
	})
	return s, why, err
}

// underWayHere says what another program could not go on with.
func (a *Agent) underWayHere() string {
	for id, done := range a.hooksRun {
		if done == nil {
			return "the hook " + id + " runs on this node"
		}
	}
	for _, g := range a.groups {
		switch {
		case g.yielding():
			return fmt.Sprintf("connections of %s, which was handed over, are served here until they have ended, or the grace has", g.name)
		case g.predecessor != "":
			return fmt.Sprintf("connections of %s, which was handed over by %s, are sent back to it until they have ended, or the grace has", g.name, g.predecessor)
		case g.notice.open:
			return fmt.Sprintf("the notify hook is at work for %s", g.name)
		case g.moveID != "":
			return "a move of " + g.name + " is under way"
		case g.holding && a.lease.Undecided(g.resource):
			return "who holds " + g.name + " is being decided"
		}
	}
	switch {
	case a.stopping:
		return "it is stopping"
	case a.succession != nil:
		return "the program was replaced a moment ago"
	case len(a.pending) > 0 || len(a.underWay) > 0:
		return "a command is under way"
	case len(a.unsaved) > 0:
		return "the state directory cannot be written to"
	case a.decider != nil && a.lease.Undecided(ResourceSite):
		return "a site decision is under way"
	}
	return ""
}

// tooShort says which lease does not leave the next program time to start yet.
func (a *Agent) tooShort(now time.Duration) string {
	for _, l := range a.lease.Status(now) {
		if l.Self && l.Deadline-now < min(successionLease, a.cfg.MaxLease)*3/4 {
			return "the lease of " + l.Resource + " is not renewed for long enough"
		}
	}
	return ""
}

// CheckSuccession says whether an agent of this configuration could go on where
// another one stopped.
func CheckSuccession(cfg Config, s State, now time.Duration) error {
	cfg.Succession = &Succession{State: s, Taken: now}
	_, err := New(cfg, Deps{Now: func() time.Duration { return now }, Log: zap.NewNop()})
	return err
}

// succeed puts this agent in the place of the former one.
func (a *Agent) succeed() error {
	s := a.cfg.Succession
	if s == nil {
		return nil
	}
	a.succession, a.restarts = s, s.Count
	a.cfg.Succession = nil // it has served its purpose: a rehearsal begins with this configuration
	return a.restore(s.State)
}

// Keep has the addresses that this agent goes on holding kept where they are,
// and names their groups. It is called before Run, and before anything that a
// predecessor left is removed.
func (a *Agent) Keep() []string {
	var kept []string
	now := a.deps.Now()
	for _, name := range a.cfg.Groups {
		if g := a.groups[name]; g.holding && now < g.deadline {
			a.setVIP(g, g.desired())
			if a.deps.Now() < g.deadline { // else it was too late, and goes with what is left behind
				kept = append(kept, name)
			}
		}
	}
	return kept
}

// settled says whether this agent may judge: after taking another's place only
// when it can be heard, its leases are renewed, and HAProxy has answered and does
// as decided. Until then everything stays as it was, but for leases that end.
func (a *Agent) settled(now time.Duration) bool {
	s := a.succession
	if s == nil {
		return true
	}
	if a.settleBy == 0 {
		a.settleBy = now + settleWithin
	}
	a.applySite(now)
	if !a.stopping && (!a.renewedAll(now) || now < a.settleBy && (len(a.deps.Network.Members()) == 0 || !a.knowsHAProxy())) {
		a.wakeAt(now + settleLook)
		return false
	}
	a.succession = nil
	a.self = a.makeReport(now)
	if a.decider != nil && !decides(a.decider) {
		a.feedSite(now, a.world(now))
		a.feedSite(now, site.Adopt{
			Decision: a.decision, Epoch: a.decided.Value.Epoch, Blank: a.decided.Value.Epoch == 0,
			PauseLeft: a.dates.pauseLeft(now, a.decision), Ages: a.dates.ages(now),
		})
	}
	a.noteSuccession(s)
	for _, n := range a.reachable() {
		a.announceTo(n) // what happened before this node could be heard
	}
	return true
}

// decides says whether a decider has begun: one of the former program's has not, one
// whose lease was won meanwhile has.
func decides(d *site.Decider) bool {
	_, _, adopted := d.Decision()
	return adopted
}

// renewedAll says whether a quorum has answered for all that this agent holds. That
// it has not ends with the lease at the latest.
func (a *Agent) renewedAll(now time.Duration) bool {
	holds := false
	for _, l := range a.lease.Status(now) {
		if l.Self && l.Renewing {
			return false
		}
		holds = holds || l.Self
	}
	if holds && a.firstRenewal == 0 {
		a.firstRenewal = now
	}
	return true
}

// knowsHAProxy says whether HAProxy, if there is one, has been asked, and does as
// decided if it answers.
func (a *Agent) knowsHAProxy() bool {
	if a.deps.LB == nil {
		return true
	}
	o := a.deps.LB.Observed()
	return !unasked(o) && (a.cfg.Sites == nil || !o.Alive || a.appliedEpoch(o) >= a.decided.Value.Epoch)
}

// unasked says whether HAProxy, or one of several, was not asked yet.
func unasked(o haproxy.Observation) bool {
	return o.Reason == haproxy.ReasonStarting || slices.ContainsFunc(o.Each, unasked)
}

// noteSuccession tells how the program was replaced.
func (a *Agent) noteSuccession(s *Succession) {
	took := (a.resumedAt - s.Taken).Round(time.Millisecond)
	t := status.Transition{
		Resource: "node", Event: "restart", From: s.Version, To: a.cfg.Version, Reason: ReasonInPlace, Actor: s.Actor,
		Detail: fmt.Sprintf("went on in place after %v; it held nothing", took),
	}
	switch {
	case len(a.late) > 0:
		t.Reason = ReasonTooLate
		t.Detail = fmt.Sprintf("the new program needed %v to start, longer than the lease: %s was let go, and moves", took, strings.Join(a.late, ", "))
	case a.firstRenewal > 0:
		t.Detail = fmt.Sprintf("went on in place after %v, and renewed after %v what it holds; nothing was let go",
			took, (a.firstRenewal - s.Taken).Round(time.Millisecond))
	}
	a.outcome = status.Process{Outcome: t.Reason, Detail: t.Detail}
	a.note(t)
}

// process is what status tells of this process.
func (a *Agent) process() status.Process {
	p := a.outcome
	p.Boot, p.Started, p.Restarts = a.boot, a.startedAt.UTC(), a.restarts
	return p
}

// NoteFailedSuccession puts into the history, and into status, that this program
// goes on and no other took its place.
func (a *Agent) NoteFailedSuccession(ctx context.Context, actor, detail string) error {
	return a.ask(ctx, func() {
		a.outcome = status.Process{Outcome: ReasonNotDone, Detail: detail}
		a.note(status.Transition{Resource: "node", Event: "restart", To: a.cfg.Version, Reason: ReasonNotDone, Actor: actor, Detail: detail})
	})
}

// noteStart tells that this node has begun anew, and if it should not have had
// to, why.
func (a *Agent) noteStart() {
	a.note(status.Transition{Resource: "node", Event: "start", To: a.cfg.Role, Reason: "started"})
	if a.cfg.Afresh == "" {
		return
	}
	t := status.Transition{
		Resource: "node", Event: "restart", To: a.cfg.Version, Reason: ReasonAfresh,
		Detail: "what this node held moves, because the new program could not go on where the former one stopped: " + a.cfg.Afresh,
	}
	a.outcome = status.Process{Outcome: t.Reason, Detail: t.Detail}
	a.note(t)
}

// newLease makes the lease machine: the one of the program whose place this one
// takes, or a new one.
func newLease(cfg Config, restored []lease.Record, now time.Duration) (*lease.Machine, error) {
	c := lease.Config{
		Node: cfg.Node, Incarnation: cfg.Incarnation, Voters: cfg.Voters, Mode: cfg.Mode,
		MaxLease: cfg.MaxLease, Tuning: cfg.Tuning, Restored: restored, Seed: seedOf(cfg.Incarnation),
	}
	if s := cfg.Succession; s != nil {
		return lease.Restore(c, s.State.Lease, now)
	}
	return lease.New(c, now)
}
