package haproxy

import (
	"context"
	"errors"
	"net"
	"time"
)

const (
	// How old the held connection gets before a fresh one takes its
	// place: HAProxy ends idle ones after `stats timeout`, 10 s by default, and
	// that must not look like a death.
	renewHeld = time.Second
	// How long after the end of the held connection HAProxy has to
	// answer a fresh one. In master-worker mode the master keeps the socket open
	// when a worker has died, so nobody refuses.
	endGrace = 30 * time.Millisecond
	// How much later than its deadline a look may end before this process is
	// taken to have stood still itself.
	stall = 60 * time.Millisecond
	// How often a socket that refuses is tried: what starts there
	// may start wrong.
	whileAway = 20 * time.Millisecond
)

// verdict is what one look of the watch found.
type verdict struct {
	alive bool
	info  Info       // of the process that answered
	fault *talkError // why not alive, or what is wrong all the same
	held  *held      // set if only this connection answers
}

// A loan is a conversation that the watch has used and the worker may use now. It
// must be given back, with the error that ended its use, or nil.
type loan struct {
	c        *conversation
	giveBack func(error)
}

// watch finds out whether HAProxy is alive, and which process it is. It never
// waits for anything but the answer to its own small question, so it is not held
// up by what goes on elsewhere.
type watch struct {
	socket  string
	timeout time.Duration
	every   time.Duration
	kick    <-chan struct{} // look now
	report  func(verdict)   // called for each look, in order
	// offer passes on a conversation that has served its purpose here, and says
	// whether somebody took it.
	offer func(*loan) bool
	// next is what whom it is offered to will ask first.
	next  func() ahead
	holds func(*held) // what is held now, for others to borrow

	held *held
	last Info // who answered last
	// only: the last fresh connection got no answer, so the next look is over a
	// fresh one too, until one does.
	only bool
}

// run looks until the context ends.
func (w *watch) run(ctx context.Context) {
	defer func() { w.held.close() }()
	grace := time.Duration(0)
	for {
		start := time.Now()
		v := w.look(ctx, grace)
		if !v.alive && v.fault.Reason == ReasonHung && time.Since(start) > w.timeout+stall {
			// It was this process that did not run: the silence proves nothing.
			v = w.look(ctx, 0)
		}
		if ctx.Err() != nil {
			return
		}
		w.report(v)
		grace = w.rest(ctx, v)
	}
}

// rest waits for the next look and returns how long HAProxy has to answer it if
// the held connection ended meanwhile, else 0.
func (w *watch) rest(ctx context.Context, v verdict) time.Duration {
	pause := w.every
	if !v.alive {
		pause = min(pause, whileAway)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	var ended <-chan struct{}
	if w.held != nil {
		ended = w.held.ended
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.kick:
	case <-ended:
		w.drop()
		return min(endGrace, w.timeout)
	}
	return 0
}

// look asks once: over the held connection while that is young and free, else
// over a fresh one; what does not answer over the one is asked over the other.
// Together they have the timeout: HAProxy is hung when it has been silent so
// long, not earlier.
func (w *watch) look(ctx context.Context, grace time.Duration) verdict {
	start := time.Now()
	if grace == 0 && !w.only && w.held != nil && start.Sub(w.held.since) <= renewHeld {
		v, done := w.lookHeld()
		if done {
			return v
		}
		if v.fault != nil && v.fault.Reason == ReasonDied {
			grace = min(endGrace, w.timeout)
		}
	}
	return w.lookAfresh(ctx, grace, start)
}

// lookHeld asks over the held connection, and lends it to the worker then. If
// that does not settle the matter, it must be asked afresh; the verdict has only
// the fault then.
func (w *watch) lookHeld() (v verdict, done bool) {
	h := w.held
	c := h.take(0, w.timeout*2/3)
	if c == nil && h.over() {
		w.drop()
		return verdict{fault: &talkError{Reason: ReasonDied, Detail: mend(ReasonDied, w.socket)}}, false
	}
	if c == nil {
		if h.isClosed() {
			w.drop()
		}
		return verdict{}, false // else the worker has it
	}
	c.silence = w.timeout * 2 / 3
	err := c.again(w.next())
	info := c.info
	if err == nil && (info.Stopping || info.Process != h.process) {
		h.giveBack(nil)
		w.drop() // another process takes over: it must not be kept alive
		return verdict{}, false
	}
	if err != nil {
		h.giveBack(err)
		w.drop()
		return verdict{fault: classify(w.socket, err)}, false
	}
	w.last = info
	if !w.offer(&loan{c, h.giveBack}) {
		h.giveBack(nil)
	}
	return w.approve(info), true
}

// lookAfresh asks over a fresh connection and, if that fails, over the held one.
func (w *watch) lookAfresh(ctx context.Context, grace time.Duration, start time.Time) verdict {
	silence := w.timeout - time.Since(start)
	switch {
	case grace > 0:
		silence = grace
	case w.held != nil:
		silence = silence * 2 / 3
	}
	var known *Info
	if w.held != nil {
		known = &w.last
	}
	c, err := converse(ctx, w.socket, silence, silence, known, w.next())
	if err == nil {
		return w.answered(c)
	}
	fault := classify(w.socket, err)
	if ctx.Err() != nil {
		return verdict{fault: fault}
	}
	if grace > 0 {
		if fault.Reason == ReasonHung {
			fault = &talkError{Reason: ReasonDied, Detail: mend(ReasonDied, w.socket)}
		}
		return verdict{fault: fault}
	}
	return w.askHeld(fault, start)
}

// answered judges who answered, and holds the connection open if it is the first
// to this process, or the one before is old. A connection to another process is
// closed: it would keep it alive.
func (w *watch) answered(c *conversation) verdict {
	info := c.info
	w.last, w.only = info, false
	if info.Stopping {
		c.close()
		w.drop()
		return verdict{info: info, fault: &talkError{Reason: ReasonStopping, Detail: mend(ReasonStopping, w.socket)}}
	}
	l := &loan{c, func(error) { c.close() }}
	if w.held == nil || w.held.process != info.Process || time.Since(w.held.since) > renewHeld {
		w.drop()
		w.held = keepOpen(c)
		w.holds(w.held)
		l.giveBack = w.held.giveBack
	}
	if !w.offer(l) {
		l.giveBack(nil)
	}
	return w.approve(info)
}

// approve is the verdict on a process that answers as it should.
func (w *watch) approve(info Info) verdict {
	v := verdict{alive: true, info: info}
	if info.Level != "admin" {
		v.fault = &talkError{Reason: ReasonNotAdmin, Detail: mend(ReasonNotAdmin, w.socket) + " (it is " + info.Level + ")"}
	}
	return v
}

// askHeld asks the process that answered before, for the rest of the timeout.
func (w *watch) askHeld(fault *talkError, start time.Time) verdict {
	if w.held == nil {
		return verdict{fault: fault}
	}
	rest := max(w.timeout-time.Since(start), lastChance)
	var info Info
	err := w.held.use(rest, rest, func(c *conversation) error {
		err := c.again(ahead{})
		info = c.info
		return err
	})
	switch {
	case err == nil && !info.Stopping && info.Process == w.held.process:
		w.only = true
		return verdict{alive: true, info: info, held: w.held, fault: &talkError{
			Reason: ReasonSocketGone, Detail: mendSocket(fault.Reason, w.socket), Err: fault.Err,
		}}
	case errors.Is(err, net.ErrClosed) && w.held.over() && fault.Reason == ReasonHung:
		fault = &talkError{Reason: ReasonDied, Detail: mend(ReasonDied, w.socket)}
	}
	w.drop()
	return verdict{fault: fault}
}

func (w *watch) drop() {
	w.holds(nil)
	w.held.close()
	w.held = nil
}
