package haproxy

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	// It bounds one conversation of the worker, in timeouts: one that
	// dribbles is not hung, and must end all the same.
	wholeTalk = 20
	// It bounds how often one cycle compares: ready, drain, and once more.
	passes = 4
	// It bounds how many commands stand in one log line.
	shown = 20
)

// worker observes and reconciles: one goroutine, one conversation at a time.
type worker struct {
	i      *Instance
	keeper *keeper
	log    *zap.Logger

	journal  Journal
	saved    Journal   // as it is on disk
	tried    time.Time // when it was last written, or not
	process  Process
	fromFile func(ServerID) bool // what the process may have read at its start
	table    []Server
	raw      string
	tableAt  time.Time
	calm     uint64 // edition of what was last found true, nothing being under way; else 0
	prepared uint64 // edition that the server-state file was prepared for; else 0
	kicked   time.Time
	pace     pace
	closer   closer
	claim    claim
	rival    string // another tandem that writes here; empty: none
	claimed  time.Time
	fronts   frontends
	anew     bool            // the table is to be parsed though it is as it was
	off      map[string]bool // backends of this process that are disabled in its configuration
	told     told
}

// told is what has been logged, so that it is not logged again.
type told struct {
	held    []Hold
	pending []Command
	applied uint64
	journal string
}

func newWorker(i *Instance, k *keeper) *worker {
	return &worker{
		i: i, keeper: k, log: i.log,
		fromFile: func(ServerID) bool { return false },
		pace:     pace{poll: i.cfg.Poll},
		claim:    claim{socket: i.cfg.Socket},
	}
}

func (w *worker) run(ctx context.Context) {
	w.load()
	// The watch offers a conversation each time it has asked; if it does not for
	// once, the worker looks by itself.
	patience := w.i.cadence() * 3 / 2
	defer w.claim.release()
	for {
		w.contend()
		var offered *loan
		w.i.waits(w.pace.next)
		timer := time.NewTimer(patience) // one that is set to later wakes the process at the former time too
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case offered = <-w.i.offers:
		case <-timer.C:
		case <-w.i.wake:
			w.pace.now()
		}
		timer.Stop()
		w.i.works()
		if offered != nil || w.i.Observed().Alive {
			w.cycle(ctx, offered)
		} else {
			w.prepare()
		}
	}
}

// cycle is one conversation: look, compare, send, read back.
func (w *worker) cycle(ctx context.Context, offered *loan) {
	err := w.talk(ctx, offered, func(c *conversation) error {
		if c.info.Stopping {
			return &talkError{Reason: ReasonStopping, Detail: mend(ReasonStopping, w.i.cfg.Socket)}
		}
		w.meet(c.info)
		due, err := w.pace.due(c, len(w.table), time.Now())
		if err == nil && due {
			err = w.settle(c)
		}
		if err != nil {
			return err
		}
		return w.fronts.look(c, w.tellFrontends)
	})
	if err == nil || ctx.Err() != nil {
		return
	}
	fault := classify(w.i.cfg.Socket, err)
	w.calm = 0
	w.pace.now() // what was sent may or may not have been carried out
	w.i.metrics.failed(fault.Reason)
	w.i.update(func(o *Observation) { o.Failures++ })
	w.log.Debug("conversation with haproxy failed", zap.String("reason", string(fault.Reason)), zap.Error(err))
	if time.Since(w.kicked) > w.i.cadence()/4 { // a fault that stays must not become a busy loop
		w.kicked = time.Now()
		signal(w.i.kick)
	}
}

// talk uses the conversation that is offered, or opens one, or uses the one that
// is held if no new one is to be had.
func (w *worker) talk(ctx context.Context, offered *loan, f func(*conversation) error) error {
	whole := wholeTalk * w.i.cfg.Timeout
	if offered != nil {
		offered.c.silence, offered.c.until = w.i.cfg.Timeout, time.Now().Add(whole)
		err := f(offered.c)
		offered.giveBack(err)
		return err
	}
	spare, only := w.i.spare()
	if only && spare != nil {
		return spare.use(w.i.cfg.Timeout, whole, f)
	}
	if done, err := w.borrow(spare, whole, f); done {
		return err
	}
	c, err := converse(ctx, w.i.cfg.Socket, w.i.cfg.Timeout, whole, nil, w.first())
	if err != nil {
		return err
	}
	defer c.close()
	return f(c)
}

// borrow uses the connection that is held, if it is free: there is nothing to
// open, and it answers when the socket takes no new one. It is not done if that
// is over, or belongs to a process that is about to end.
func (w *worker) borrow(h *held, whole time.Duration, f func(*conversation) error) (done bool, err error) {
	if h == nil {
		return false, nil
	}
	c := h.take(0, whole)
	if c == nil {
		return false, nil
	}
	c.silence = w.i.cfg.Timeout
	if err = c.again(w.first()); err == nil && !c.info.Stopping {
		done, err = true, f(c)
	}
	h.giveBack(err)
	return done || err != nil && classify(w.i.cfg.Socket, err).Reason == ReasonHung, err
}

// first is what a conversation of the worker's own begins with.
func (w *worker) first() ahead {
	_, edition := w.i.wanted()
	return ahead{askTable, edition, time.Now()}
}

// meet notices another process.
func (w *worker) meet(info Info) {
	if w.process == info.Process {
		return
	}
	w.claimed = time.Time{}
	w.contend()
	if w.process != (Process{}) {
		signal(w.i.kick) // the watch still holds a connection to the one before
	}
	w.process = info.Process
	w.off, w.anew = nil, true
	w.told.applied, w.calm = 0, 0
	w.pace.now()
	w.i.metrics.processes.Inc()
	if w.i.cfg.StateFile != "" {
		w.fromFile = w.keeper.lately()
		w.keeper.look()
	}
}

// settle reads the table, carries out what is missing, a step at a time, reading
// back after each, and tells what came of it. When nothing has changed since all
// was found true, reading is all it does.
func (w *worker) settle(c *conversation) error {
	start := time.Now()
	desired, edition := w.i.wanted()
	if c.ahead.edition != edition || c.ahead.at.Before(w.tableAt) { // what was wanted later is judged by what was read later
		if err := c.skip(); err != nil {
			return err
		}
	}
	same, err := w.read(c)
	if err != nil {
		return err
	}
	took := time.Since(start)
	w.pace.cost(took)
	w.i.metrics.observed(took)
	if same && edition != 0 && edition == w.calm && !w.closer.due(desired, w.tableAt) && w.i.Observed().Applied == desired.Epoch {
		if w.tableAt.Sub(w.tried) > saveAgain {
			w.save() // the disk did not take it
		}
		w.i.seen(w.tableAt)
		return nil
	}
	if edition != 0 {
		w.learn(c, desired)
		if w.writes() && c.info.Level == "admin" {
			err = w.reconcile(c, desired)
		}
	}
	missing := w.publish(desired, edition != 0, err)
	w.calm = 0
	if err == nil && len(missing) == 0 && w.journal.settled() {
		w.calm = edition
	}
	return err
}

// reconcile carries out what is missing.
func (w *worker) reconcile(c *conversation, desired Desired) error {
	tried := make(map[Command]bool)
	for range passes {
		step := firstStep(remaining(desired, Diff(desired, w.table, w.journal), tried))
		if len(step) == 0 {
			break
		}
		if err := w.carryOut(c, desired, step); err != nil {
			return err
		}
	}
	return w.closer.run(c, w, desired)
}

// remaining leaves out what this cycle has sent already and what did not come
// true, so that one server that will not become ready does not keep the drains
// back for ever. With DrainFirst nothing is left out: there the one must not
// happen without the other.
func remaining(desired Desired, commands []Command, tried map[Command]bool) []Command {
	if desired.DrainFirst {
		return commands
	}
	left := slices.DeleteFunc(commands, func(c Command) bool { return tried[c] })
	for _, c := range firstStep(left) {
		tried[c] = true
	}
	return left
}

// read reads the table and says whether it is as it was.
func (w *worker) read(c *conversation) (same bool, err error) {
	before := w.raw
	if w.anew {
		before = ""
	}
	table, raw, err := c.servers(w.table, before)
	if err != nil {
		return false, err
	}
	w.anew = false
	for n := range table {
		if w.off[table[n].Backend] && !table[n].Off {
			table[n].Off = true // it was parsed anew, and nobody else has it yet
		}
	}
	same = (sameSlice(table, w.table) || slices.Equal(table, w.table)) && !w.tableAt.IsZero()
	if !same {
		w.table = table
	}
	w.raw, w.tableAt, w.prepared = raw, time.Now(), 0
	return same, nil
}

// learn brings the journal up to date with the table.
func (w *worker) learn(c *conversation, desired Desired) {
	w.journal = w.journal.Learn(desired, w.table, c.info.Process, w.fromFile, time.Now())
	w.save()
}

// carryOut sends one step and reads back.
func (w *worker) carryOut(c *conversation, desired Desired, step []Command) error {
	start := time.Now()
	w.journal = w.journal.Intend(step, start)
	w.save()
	lines := make([]string, len(step))
	for n, command := range step {
		lines[n] = command.String()
	}
	complaints, err := c.send(lines)
	w.i.metrics.sent(step)
	w.report(step, complaints, err)
	if err != nil {
		return err
	}
	if err := w.disabled(c, step, complaints); err != nil {
		return err
	}
	if _, err = w.read(c); err != nil {
		return err
	}
	w.learn(c, desired)
	w.i.metrics.took(time.Since(start))
	return nil
}

// disabled learns which backends are disabled in the configuration: HAProxy lists
// their servers as up and refuses to set them. So does a process that is on its way
// out, which is another matter.
func (w *worker) disabled(c *conversation, step []Command, complaints []Complaint) error {
	var off []string
	for _, complaint := range complaints {
		if !strings.Contains(complaint.Text, "Proxy is disabled") {
			continue
		}
		n := slices.IndexFunc(step, func(s Command) bool { return s.String() == complaint.Command })
		if n >= 0 && !slices.Contains(off, step[n].Backend) {
			off = append(off, step[n].Backend)
		}
	}
	if len(off) == 0 {
		return nil
	}
	if err := c.again(ahead{}); err != nil {
		return err
	}
	if c.info.Stopping {
		return &talkError{Reason: ReasonStopping, Detail: mend(ReasonStopping, w.i.cfg.Socket)}
	}
	if w.off == nil {
		w.off = map[string]bool{}
	}
	for _, backend := range off {
		w.off[backend] = true
	}
	w.anew = true
	return nil
}

func (w *worker) report(step []Command, complaints []Complaint, err error) {
	w.i.update(func(o *Observation) {
		o.Changes += uint64(len(step) - len(complaints))
		o.Failures += uint64(len(complaints))
	})
	fields := []zap.Field{
		zap.String("want", step[0].Want.String()), zap.Int("servers", len(step)),
		zap.Strings("commands", show(step)),
	}
	if len(complaints) > 0 {
		w.i.metrics.failed("command-refused")
		fields = append(fields, zap.Int("refused", len(complaints)), zap.String("answer", complaints[0].Text))
	}
	if err != nil {
		w.log.Warn("servers not set, or not known to be", append(fields, zap.Error(err))...)
		return
	}
	w.log.Info("servers set", fields...)
}

func show(commands []Command) []string {
	lines := make([]string, 0, min(len(commands), shown+1))
	for n, c := range commands {
		if n == shown {
			return append(lines, "…")
		}
		lines = append(lines, c.String())
	}
	return lines
}
