package agent

import (
	"context"
	"time"

	"tandem/lib/lease"
)

const (
	// How often standing, site and report are looked at when nothing happens. Votes
	// come and go a hundred times a second and concern the lease machine alone.
	lookEvery = 250 * time.Millisecond
	// How much earlier it may be done when the process is awake anyway.
	lookEarly = 60 * time.Millisecond
)

// turn is what follows every input: the lease machine is asked, and if
// something happened, standing, site decision and report are brought up to
// date.
func (a *Agent) turn() {
	a.stepReach()
	a.stepLease(lease.Tick{})
	now := a.deps.Now()
	if !a.dirty && now < a.due && now < a.lookAt-lookEarly {
		return
	}
	a.dirty, a.due, a.lookAt = false, now+lookEvery, now+lookEvery
	if !a.settled(now) {
		return
	}
	a.stand(now)
	a.welcome(now)
	a.stepSite(a.deps.Now())
	if a.holder(ResourceSite) != "" {
		a.dates.heard = now
	}
	a.tell(a.deps.Now())
	a.announceLeases(a.deps.Now())
	a.sweep(now)
}

// next is when the loop must turn again if nothing comes in.
func (a *Agent) next() time.Duration {
	if a.dirty {
		return 0
	}
	return min(a.leaseWake, a.due)
}

// wakeAt asks for another look at t, unless there is one earlier anyway.
func (a *Agent) wakeAt(t time.Duration) {
	if t > 0 && t < a.due {
		a.due = t
	}
}

// ask runs f in the loop and waits for it, or for ctx.
func (a *Agent) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.requests <- func() { f(); close(done) }:
	case <-a.history.closed:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
