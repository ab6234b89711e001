package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"tandem/sidecar/status"
)

// historyLength bounds what is kept in memory: a month of quiet, or the night
// that somebody has to understand.
const historyLength = 1000

// toldLength is how many events somebody who comes back can still be given.
const toldLength = 128

var errStopped = errors.New("the agent has stopped")

// history holds the transitions of all nodes in the order in which they happened.
// It is the one thing here that several goroutines share.
type history struct {
	node  string
	store Store
	start string // of this process: begins the IDs of events

	mu       sync.Mutex
	items    []status.Transition
	told     []status.Event // the last of them, in the order in which they came
	count    uint64         // of all that were told
	watchers map[chan status.Event]struct{}
	closed   chan struct{}
}

func newHistory(node string, store Store) *history {
	return &history{
		node: node, store: store, start: rand.Text()[:10],
		watchers: map[chan status.Event]struct{}{}, closed: make(chan struct{}),
	}
}

func (h *history) load() error {
	items, err := h.store.History()
	if err != nil {
		return fmt.Errorf("load history: %w", err)
	}
	h.items = items
	return nil
}

// onTheWay is how much later than a transition another one may be known here, and
// still have come before it: more than a message takes, less than a clock is set
// by that was wrong.
const onTheWay = 10 * time.Second

// add inserts t unless it is known, and tells those who watch. It reports
// whether t was new. What has just happened comes last, or before what came in
// sooner and is dated a little later; dates that are later by more are those of
// a clock that has been set back since, or of another node's that is ahead. What
// happened before this node was there to hear it goes by its date alone.
func (h *history) add(e status.Event, old bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := e.Transition
	if slices.Contains(h.items, t) {
		return false
	}
	i := len(h.items)
	for ; i > 0; i-- {
		if later := h.items[i-1].At.Sub(t.At); later <= 0 || !old && later > onTheWay {
			break
		}
	}
	h.items = slices.Insert(h.items, i, t)
	if n := len(h.items) - historyLength; n > 0 {
		h.items = slices.Delete(h.items, 0, n)
	}
	h.count++
	e.ID = h.start + "-" + strconv.FormatUint(h.count, 10)
	if h.told = append(h.told, e); len(h.told) > toldLength {
		h.told = slices.Delete(h.told, 0, len(h.told)-toldLength)
	}
	h.tellLocked(e)
	return true
}

// sinceLocked gives what was told behind the event with that ID, or all that is
// kept if it is of another process, or too long ago.
func (h *history) sinceLocked(id string) []status.Event {
	i := slices.IndexFunc(h.told, func(e status.Event) bool { return e.ID == id })
	return h.told[i+1:]
}

// tell gives an event to those who watch without keeping it.
func (h *history) tell(e status.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tellLocked(e)
}

func (h *history) tellLocked(e status.Event) {
	for w := range h.watchers {
		select {
		case w <- e:
		default: // a watcher that does not read misses; the loop never waits
		}
	}
}

// last returns up to n of the newest transitions, oldest first.
func (h *history) last(n int) []status.Transition {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.items[max(0, len(h.items)-n):])
}

// own returns up to n of this node's newest transitions.
func (h *history) own(n int) []status.Transition {
	var out []status.Transition
	for _, t := range slices.Backward(h.last(historyLength)) {
		if t.Node == h.node && len(out) < n {
			out = append(out, t)
		}
	}
	slices.Reverse(out)
	return out
}

func (h *history) watch(ctx context.Context, after string) <-chan status.Event {
	in := make(chan status.Event, 2*toldLength)
	h.mu.Lock()
	if after != "" {
		for _, e := range h.sinceLocked(after) {
			in <- e // there is room for more than can be kept
		}
	}
	h.watchers[in] = struct{}{}
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, in)
		close(in)
	})
	return in
}

// note records a transition: one log line, one count, one history entry, and a
// message to the others.
func (a *Agent) note(t status.Transition) { a.noteFor(t, "") }

func (a *Agent) noteFor(t status.Transition, commandID string) {
	t.At, t.Node = a.deps.Wall().UTC(), a.cfg.Node
	fields := []zap.Field{zap.String("resource", t.Resource), zap.String("reason", t.Reason)}
	for _, f := range []struct{ key, value string }{
		{"from", t.From},
		{"to", t.To},
		{"phase", t.Phase},
		{"actor", t.Actor},
		{"detail", t.Detail},
	} {
		if f.value != "" {
			fields = append(fields, zap.String(f.key, f.value))
		}
	}
	if t.Epoch > 0 {
		fields = append(fields, zap.Uint64("epoch", t.Epoch))
	}
	a.log.Info(t.Event, fields...)
	a.metrics.transitions.WithLabelValues(t.Resource, t.Event, t.Reason).Inc()
	a.history.add(status.Event{Transition: t, CommandID: commandID}, false)
	if a.tap != nil {
		a.tap(t)
	}
	if a.deps.Store != nil {
		if err := a.deps.Store.AppendHistory(t); err != nil {
			a.problem("state-dir", err.Error())
		}
	}
	for _, n := range a.reachable() {
		a.send(n, kindTransition, transition{envelope: a.envelope(n), Items: []status.Transition{t}})
	}
}

// announceTo gives a node that has just appeared what happened here lately.
func (a *Agent) announceTo(node string) {
	if items := a.history.own(20); len(items) > 0 {
		a.send(node, kindTransition, transition{envelope: a.envelope(node), Items: items, Old: true})
	}
}

func (a *Agent) receiveTransition(body []byte) {
	var m transition
	if err := decode(body, &m); err != nil {
		a.ignored("undecodable-transition")
		return
	}
	if _, ok := a.admit(m.envelope); !ok {
		return
	}
	for _, t := range m.Items {
		if t.Node != m.From {
			a.ignored("foreign-transition")
			continue
		}
		if a.history.add(status.Event{Transition: t}, m.Old || len(m.Items) > 1) && a.deps.Store != nil {
			if err := a.deps.Store.AppendHistory(t); err != nil {
				a.problem("state-dir", err.Error())
			}
		}
	}
}

// problem warns once a minute for each kind of trouble.
func (a *Agent) problem(kind, text string) {
	now := a.deps.Now()
	if last, ok := a.warned[kind]; ok && now-last < time.Minute {
		return
	}
	a.warned[kind] = now
	a.log.Warn("problem", zap.String("kind", kind), zap.String("detail", text))
}

// ignored counts a message that was not acted on.
func (a *Agent) ignored(reason string) { a.metrics.ignored.WithLabelValues(reason).Inc() }
