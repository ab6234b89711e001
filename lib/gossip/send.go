package gossip

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

// Errors of Send.
var (
	ErrNotRunning  = errors.New("gossip is not running")
	ErrUnknownNode = errors.New("node has no known address")
	ErrTooLarge    = errors.New("message is too large")
	ErrBusy        = errors.New("too many large messages are on their way")
)

const (
	maxKinds   = 8  // messages that wait for one node, one of each first byte
	maxWorkers = 32 // nodes that large messages are being sent to at a time
)

// Send gives a message to one node, once, without waiting and without knowing
// whether it arrives. Up to MaxDatagram bytes go as a datagram. Longer ones, up
// to MaxMessage, go over a stream, one after the other for each node; one that
// still waits is replaced by a newer one with the same first byte.
//
// A voter is sent to at its configured address, whatever the membership says of
// it, and at the address that it advertises too if that is another one. Other
// nodes are sent to while they are members.
func (g *Gossip) Send(node string, b []byte) error {
	m := g.list.Load()
	if m == nil {
		return fmt.Errorf("send to %s: %w", node, ErrNotRunning)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("send to %s: %d bytes: %w", node, len(b), ErrTooLarge)
	}
	routes := g.routes(node)
	if len(routes) == 0 {
		return fmt.Errorf("send to %s: %w", node, ErrUnknownNode)
	}
	raw := directFrame(b)
	if len(b) > MaxDatagram {
		return g.outboxes.put(node, raw)
	}
	var errs []error
	for _, to := range routes {
		errs = append(errs, m.SendBestEffort(to, raw))
	}
	if !slices.Contains(errs, nil) {
		return fmt.Errorf("send to %s: %w", node, errors.Join(errs...))
	}
	g.counts.sent.add(sent)
	return nil
}

// routes are the addresses of a node: one, or two if configuration and
// membership do not agree.
func (g *Gossip) routes(node string) []*memberlist.Node {
	if node == g.cfg.Node {
		return nil
	}
	m, member := g.table.get(node)
	var out []*memberlist.Node
	if p := g.byName[node]; p != nil {
		to, at := p.route(m.Addr)
		if to != nil {
			out = append(out, to)
			member = member && at != m.Addr
		}
	}
	if member {
		out = append(out, route(node, m.Addr))
	}
	return out
}

// outboxes sends large messages, for each node one at a time.
type outboxes struct {
	deliver func(node string, raw []byte)
	counts  *counters

	mu      sync.Mutex
	closed  bool
	boxes   map[string]*outbox // of nodes with a worker
	workers sync.WaitGroup
}

type outbox struct {
	waiting [][]byte // frames; the first byte of the message is the second of the frame
}

func newOutboxes(counts *counters, deliver func(node string, raw []byte)) *outboxes {
	return &outboxes{deliver: deliver, counts: counts, boxes: map[string]*outbox{}}
}

// put queues a frame and starts a worker if the node has none.
func (o *outboxes) put(node string, raw []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return fmt.Errorf("send to %s: %w", node, ErrNotRunning)
	}
	box := o.boxes[node]
	if box == nil {
		if len(o.boxes) >= maxWorkers {
			o.counts.sends.add(ReasonBusy)
			return fmt.Errorf("send to %s: %w", node, ErrBusy)
		}
		box = &outbox{}
		o.boxes[node] = box
		o.workers.Go(func() { o.work(node, box) })
	}
	box.waiting = slices.DeleteFunc(box.waiting, func(old []byte) bool { return old[1] == raw[1] })
	if len(box.waiting) >= maxKinds {
		box.waiting = slices.Delete(box.waiting, 0, 1)
		o.counts.sends.add(ReasonFull)
	}
	box.waiting = append(box.waiting, raw)
	return nil
}

// work sends what waits for a node and ends when nothing does.
func (o *outboxes) work(node string, box *outbox) {
	for {
		o.mu.Lock()
		if o.closed || len(box.waiting) == 0 {
			delete(o.boxes, node)
			o.mu.Unlock()
			return
		}
		raw := box.waiting[0]
		box.waiting = slices.Delete(box.waiting, 0, 1)
		o.mu.Unlock()
		o.deliver(node, raw)
	}
}

// close refuses further messages; wait returns when the last worker has ended.
func (o *outboxes) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
}

func (o *outboxes) wait() { o.workers.Wait() }

// sendReliable hands one frame to a node over a stream. The stream ends within
// streamTime whatever the other side does.
func (g *Gossip) sendReliable(node string, raw []byte) {
	m := g.list.Load()
	if m == nil {
		return
	}
	err := ErrUnknownNode
	for _, to := range slices.Backward(g.routes(node)) { // the advertised one first
		if err = m.SendReliable(to, raw); err == nil {
			g.counts.sent.add(sent)
			return
		}
	}
	g.counts.sends.add(ReasonSendFailed)
	g.log.Debug("large message not sent", zap.String("peer", node), zap.Int("bytes", len(raw)), zap.Error(err))
}
