package hook

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// lane runs jobs one after the other.
type lane struct {
	r    *Runner
	name string
	wake chan struct{}

	mu      sync.Mutex
	epoch   uint64 // highest seen
	queue   []Job
	refused []Result // to be handed out by the lane's goroutine
	running *Job
	cancel  context.CancelCauseFunc // of the running job
	command string
	attempt int
	nextTry time.Time
	last    []Result
}

// submit never blocks: whatever has to be waited for is done in run.
func (l *lane) submit(j Job) {
	defer poke(l.wake)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch i := slices.IndexFunc(l.last, func(r Result) bool { return r.OK && r.Job.ID == j.ID }); {
	case j.ID != "" && l.pending(j.ID):
	case j.ID != "" && i >= 0:
		again := l.last[i]
		again.Repeated = true
		l.refused = append(l.refused, again)
	case j.Epoch < l.epoch && !j.Newest:
		l.refuse(j, ReasonStale, fmt.Sprintf("epoch %d is older than %d", j.Epoch, l.epoch))
	case len(j.Commands) == 0:
		l.refuse(j, ReasonNoCommand, "there is no command")
	default:
		if j.Newest {
			l.clear()
		}
		l.fence(j.Epoch)
		if len(l.queue) >= l.r.cfg.Queue {
			l.refuse(j, ReasonFull, fmt.Sprintf("%d jobs are waiting", len(l.queue)))
			return
		}
		l.queue = append(l.queue, j)
	}
}

// pending says whether a job is queued or running.
func (l *lane) pending(id string) bool {
	return l.running != nil && l.running.ID == id || slices.ContainsFunc(l.queue, func(q Job) bool { return q.ID == id })
}

func (l *lane) refuse(j Job, r Reason, detail string) {
	l.refused = append(l.refused, Result{Job: j, Reason: r, Detail: detail, Started: time.Now()})
}

// fence notes an epoch; whatever belongs to an earlier one is superseded.
func (l *lane) fence(epoch uint64) {
	if epoch <= l.epoch {
		return
	}
	l.epoch = epoch
	l.queue = slices.DeleteFunc(l.queue, func(q Job) bool {
		if q.Epoch >= epoch {
			return false
		}
		l.refuse(q, ReasonSuperseded, "a later decision came before it was run")
		return true
	})
	if l.running != nil && l.running.Epoch < epoch {
		l.cancel(errSuperseded)
	}
}

// clear supersedes whatever is queued or running.
func (l *lane) clear() {
	for _, q := range l.queue {
		l.refuse(q, ReasonSuperseded, "something later came before it was run")
	}
	l.queue = nil
	if l.running != nil {
		l.cancel(errSuperseded)
	}
}

// run runs the lane's jobs until ctx ends.
func (l *lane) run(ctx context.Context) {
	for ctx.Err() == nil {
		refused, j, jobCtx := l.take(ctx)
		for _, res := range refused {
			l.hand(ctx, res)
		}
		if j == nil {
			select {
			case <-ctx.Done():
			case <-l.wake:
			}
			continue
		}
		res := l.do(jobCtx, *j)
		l.done(res)
		l.hand(ctx, res)
	}
}

// take removes what is next from the queues.
func (l *lane) take(ctx context.Context) ([]Result, *Job, context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	refused := l.refused
	l.refused = nil
	if len(l.queue) == 0 {
		return refused, nil, nil
	}
	j := l.queue[0]
	l.queue = l.queue[1:]
	jobCtx, cancel := context.WithCancelCause(ctx)
	l.running, l.cancel = &j, cancel
	return refused, &j, jobCtx
}

func (l *lane) done(res Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel(nil)
	l.running, l.cancel, l.command, l.attempt, l.nextTry = nil, nil, "", 0, time.Time{}
	if l.last = append(l.last, res); len(l.last) > maxHistory {
		l.last = slices.Delete(l.last, 0, 1)
	}
}

// hand gives a result to whoever reads Results.
func (l *lane) hand(ctx context.Context, res Result) {
	log := l.r.log.Info
	switch {
	case !res.OK:
		log = l.r.log.Warn
	case res.Job.Quiet:
		log = l.r.log.Debug
	}
	log("hook", zap.String("id", res.Job.ID), zap.String("event", res.Job.Event), zap.String("group", res.Job.Group), zap.String("site", res.Job.Site),
		zap.Uint64("epoch", res.Job.Epoch), zap.String("reason", string(res.Reason)), zap.String("detail", res.Detail),
		zap.Int("attempts", res.Attempts), zap.Duration("duration", res.Duration), zap.Bool("repeated", res.Repeated))
	select {
	case l.r.results <- res:
	case <-ctx.Done():
	}
}

// do runs the commands of a job in order.
func (l *lane) do(ctx context.Context, j Job) Result {
	res := Result{Job: j, Started: time.Now(), OK: true, Reason: ReasonOK}
	for _, text := range j.Commands {
		c := l.insist(ctx, j, text, &res)
		if c.Reason != ReasonOK {
			res.OK, res.Reason, res.Detail = false, c.Reason, c.sentence()
			break
		}
	}
	res.Duration = time.Since(res.Started)
	return res
}

// insist runs a command until it succeeds, or as often as the job allows.
func (l *lane) insist(ctx context.Context, j Job, text string, res *Result) Command {
	wait := l.r.newBackoff()
	for attempt := 1; ; attempt++ {
		l.note(text, attempt, time.Time{})
		if !l.sure(ctx, j) {
			return Command{Text: text, Attempt: attempt, ExitCode: -1, Reason: endReason(ctx)}
		}
		c := l.r.exec(ctx, j, text, attempt)
		l.r.runs.WithLabelValues(j.Event, string(c.Reason)).Inc()
		l.r.seconds.WithLabelValues(j.Event).Observe(c.Duration.Seconds())
		res.Attempts = attempt
		if res.Commands = append(res.Commands, c); len(res.Commands) > maxRecorded {
			res.Commands = slices.Delete(res.Commands, 0, 1)
		}
		over := c.Reason == ReasonOK || c.Reason == ReasonSuperseded || c.Reason == ReasonStopped
		if over || j.Attempts > 0 && attempt >= j.Attempts {
			return c
		}
		pause := wait.NextBackOff()
		l.note(text, attempt, time.Now().Add(pause))
		l.r.log.Warn("hook command failed, will be run again", zap.String("id", j.ID), zap.String("detail", c.sentence()),
			zap.Int("attempt", attempt), zap.Duration("in", pause), zap.String("output", c.Output))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			c.Reason = endReason(ctx)
			return c
		}
	}
}

// surePoll is how often a guarded job asks again.
const surePoll = 20 * time.Millisecond

// sure waits until a guarded job may go on; false: it is ended first.
func (l *lane) sure(ctx context.Context, j Job) bool {
	if !j.Guarded || l.r.cfg.Sure == nil || l.r.cfg.Sure() {
		return true
	}
	l.r.log.Warn("hook command waits: no decider is heard", zap.String("id", j.ID))
	again := time.NewTicker(surePoll)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
			if l.r.cfg.Sure() {
				return true
			}
		}
	}
}

func (l *lane) note(command string, attempt int, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.command, l.attempt, l.nextTry = command, attempt, next
}

func (l *lane) status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Lane: l.name, Epoch: l.epoch, Command: l.command, Attempt: l.attempt, NextTry: l.nextTry, Waiting: len(l.queue), Last: slices.Clone(l.last)}
	if l.running != nil {
		j := *l.running
		s.Running = &j
	}
	return s
}
