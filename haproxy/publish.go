package haproxy

import (
	"slices"

	"go.uber.org/zap"
)

// publish tells what was found, logs what is new in it, and returns what is
// missing. With a failure nothing counts as applied: something was not carried
// out, or was and has not been read back.
func (w *worker) publish(desired Desired, set bool, failure error) []Command {
	var missing []Command
	var held []Hold
	var unmatched []string
	applied := uint64(0)
	if set {
		missing = Diff(desired, w.table, w.journal)
		held = Holds(desired, w.table, w.journal)
		unmatched = desired.Unmatched(w.table)
		if len(missing) == 0 && failure == nil && !w.tableAt.IsZero() {
			applied = desired.Epoch
		}
		w.i.metrics.table(desired, w.table, held)
	}
	if len(missing) > 0 {
		w.pace.now()
	}
	w.file(missing)
	w.i.metrics.applied.Set(float64(applied))
	w.i.metrics.left.Set(float64(w.closer.left))
	w.i.update(func(o *Observation) {
		o.Servers, o.ServersAt = w.table, w.tableAt
		o.Pending, o.Held, o.Unmatched = missing, held, unmatched
		o.Applied = applied
		if !o.Alive || o.PID != w.process.PID {
			o.Applied = 0 // the watch knows better
		}
		o.SessionsLeft, o.SessionsClosed = w.closer.left, w.closer.closed
	})
	w.tell(missing, held, applied)
	return missing
}

// tell logs what changed since it last did.
func (w *worker) tell(missing []Command, held []Hold, applied uint64) {
	for _, h := range held {
		if !slices.Contains(w.told.held, h) {
			w.log.Info("server left alone", zap.Stringer("server", h.ServerID), zap.String("reason", string(h.Kind)), zap.String("detail", h.Detail))
		}
	}
	for _, h := range w.told.held {
		if !slices.ContainsFunc(held, func(o Hold) bool { return o.ServerID == h.ServerID }) {
			w.log.Info("server given back", zap.Stringer("server", h.ServerID), zap.String("reason", string(h.Kind)))
		}
	}
	w.told.held = held
	if !w.writes() && !slices.Equal(missing, w.told.pending) && len(missing) > 0 {
		w.log.Info("would set servers", zap.Int("servers", len(missing)), zap.Strings("commands", show(missing)))
	}
	w.told.pending = missing
	if applied != w.told.applied && applied != 0 {
		w.log.Info("servers are as wanted", zap.Uint64("epoch", applied))
	}
	w.told.applied = applied
}
