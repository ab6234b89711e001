package gossip

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	inboxLength = 1024
	largeLength = 16 << 10 // of a message, in bytes
	largeInbox  = 16       // how many messages may wait before a large one is refused
)

// delegate is what memberlist calls. Everything in it is quick, and nothing in
// it calls memberlist: the events come while memberlist holds its lock, and a
// call back would wait for that lock for ever.
type delegate struct {
	meta    []byte
	table   *table
	spread  *spread
	counts  *counters
	inbox   chan []byte
	changed chan struct{} // for the user
	moved   chan struct{} // for ourselves
	state   atomic.Pointer[[]byte]
}

func newDelegate(meta []byte, t *table, counts *counters, number uint64) *delegate {
	return &delegate{
		meta:    slices.Clone(meta),
		table:   t,
		spread:  newSpread(t.count, number),
		counts:  counts,
		inbox:   make(chan []byte, inboxLength),
		changed: make(chan struct{}, 1),
		moved:   make(chan struct{}, 1),
	}
}

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(int) []byte { return d.meta }

// NotifyMsg implements memberlist.Delegate. It is called concurrently, and the
// bytes belong to memberlist.
func (d *delegate) NotifyMsg(b []byte) {
	b = slices.Clone(b)
	f, err := decodeFrame(b)
	if err != nil {
		d.counts.messages.add(ReasonFrame)
		return
	}
	if !f.broadcast {
		d.deliver(f.payload)
		return
	}
	if f.origin != d.table.self && d.spread.first(f, b) {
		d.deliver(slices.Clone(f.payload)) // the frame itself is handed on
	}
}

// deliver puts a message into the inbox. When the inbox is full the oldest
// message makes room: in what we carry the newest is worth most. Large messages
// are only let in while few wait, so that they cannot fill the memory.
func (d *delegate) deliver(b []byte) {
	if len(b) > largeLength && len(d.inbox) >= largeInbox {
		d.counts.messages.add(ReasonFull)
		return
	}
	for {
		select {
		case d.inbox <- b:
			d.counts.received.add(received)
			return
		default:
		}
		select {
		case <-d.inbox:
			d.counts.messages.add(ReasonFull)
		default:
		}
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.spread.take(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte {
	if s := d.state.Load(); s != nil {
		return *s
	}
	return nil
}

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	if len(b) > 0 {
		d.deliver(slices.Clone(b))
	}
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses members whose
// name is not of our form, who are of some other program with our key.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if _, _, ok := splitName(n.Name); !ok {
		return fmt.Errorf("name %.80q is not node.boot", n.Name)
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) {
	d.table.put(n)
	d.signal()
}

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.NotifyJoin(n) }

// NotifyLeave implements memberlist.EventDelegate. Leaving and dying look alike.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.table.remove(n.Name)
	d.signal()
}

// NotifyConflict implements memberlist.ConflictDelegate: two addresses claim
// one name on the wire, which includes the boot. Only a copied process does it.
func (d *delegate) NotifyConflict(known, other *memberlist.Node) {
	d.counts.clashes.add(ReasonNameClash)
	d.table.conflict(known, other, time.Now())
}

func (d *delegate) signal() {
	for _, c := range []chan struct{}{d.changed, d.moved} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
