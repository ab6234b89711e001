package lease

import (
	"errors"
	"fmt"
	"time"
)

// Version is the first byte of each encoded message. A node that meets another
// version ignores the message: votes are only exchanged between nodes that mean
// the same by them.
const Version = 1

// MaxMessage is the longest message that Decode looks at, in bytes. Machines
// send datagrams of at most 1200, unless a single value needs more.
const MaxMessage = 64 << 10

// What Decode returns, wrapped.
var (
	ErrVersion   = errors.New("unknown protocol version")
	ErrMalformed = errors.New("malformed message")
)

const maxReason = 32

// maxCounter bounds the counter of a ballot and the epoch of a value: the one
// grows by one with each bid, the other with each decision, and neither must ever
// begin again at zero.
const maxCounter = 1 << 62

// Which of the optional parts of an item follow.
const (
	hasLease = 1 << iota
	isHeld
	hasRemaining
	hasValue
	hasAccepted
	hasCommit
	hasPromised
	hasHolder
	hasReason
	hasSuccessor
	knownParts = 1<<iota - 1
)

// parts is what of an item is not zero.
func (it *Item) parts() uint64 {
	var p uint64
	set := func(bit uint64, present bool) {
		if present {
			p |= bit
		}
	}
	set(hasLease, it.Lease != 0)
	set(isHeld, it.Held)
	set(hasRemaining, it.Remaining != 0)
	set(hasValue, it.Value.Epoch != 0 || len(it.Value.Data) > 0 || it.ValueSeq != 0)
	set(hasAccepted, !it.Accepted.IsZero())
	set(hasCommit, it.Commit != 0)
	set(hasPromised, !it.Promised.IsZero())
	set(hasHolder, it.Holder != Owner{})
	set(hasReason, it.Reason != "")
	set(hasSuccessor, it.Successor != "")
	return p
}

// Encode appends the encoding of m to dst. Numbers are unsigned varints, texts
// and bytes have their length before them, durations are nanoseconds, and the
// parts of an item that are zero are left out.
func Encode(dst []byte, m Message) []byte {
	dst = append(dst, Version)
	dst = appendOwner(dst, m.From)
	dst = appendText(dst, m.To)
	dst = appendNumber(dst, m.Settings)
	for i := range m.Items {
		dst = appendItem(dst, &m.Items[i])
	}
	return dst
}

func appendItem(dst []byte, it *Item) []byte {
	parts := it.parts()
	dst = append(dst, byte(it.Kind))
	dst = appendNumber(dst, parts)
	dst = appendText(dst, it.Resource)
	dst = appendBallot(dst, it.Ballot)
	dst = appendNumber(dst, it.Seq)
	dst = appendNumber(dst, it.Echo)
	if parts&hasLease != 0 {
		dst = appendNumber(dst, uint64(it.Lease))
	}
	if parts&hasRemaining != 0 {
		dst = appendNumber(dst, uint64(it.Remaining))
	}
	if parts&hasValue != 0 {
		dst = appendNumber(dst, it.Value.Epoch)
		dst = appendText(dst, it.Value.Data)
		dst = appendNumber(dst, it.ValueSeq)
	}
	if parts&hasAccepted != 0 {
		dst = appendBallot(dst, it.Accepted)
	}
	if parts&hasCommit != 0 {
		dst = appendNumber(dst, it.Commit)
	}
	if parts&hasPromised != 0 {
		dst = appendBallot(dst, it.Promised)
	}
	if parts&hasHolder != 0 {
		dst = appendOwner(dst, it.Holder)
	}
	if parts&hasReason != 0 {
		dst = appendText(dst, it.Reason)
	}
	if parts&hasSuccessor != 0 {
		dst = appendText(dst, it.Successor)
	}
	return dst
}

func appendNumber(dst []byte, n uint64) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendText[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(appendNumber(dst, uint64(len(s))), s...)
}

func appendOwner(dst []byte, o Owner) []byte {
	return append(appendText(dst, o.Node), o.Incarnation[:]...)
}

func appendBallot(dst []byte, b Ballot) []byte {
	return appendOwner(appendNumber(dst, b.Counter), b.Owner())
}

// headerSize and itemSize are upper bounds of what Encode needs.
func headerSize(m *Message) int { return 32 + len(m.From.Node) + len(m.To) }

func itemSize(it *Item) int {
	size := 48 + len(it.Resource) + len(it.Ballot.Node)
	size += 10 + 10 + 10 + 10 + 3 + 10 + len(it.Value.Data)
	size += 28 + len(it.Accepted.Node) + 28 + len(it.Promised.Node) + 18 + len(it.Holder.Node)
	return size + 2 + len(it.Reason) + 2 + len(it.Successor)
}

// Decode is the reverse of Encode. The message shares no memory with b. It
// returns ErrVersion for another protocol version and ErrMalformed for what is no
// message, or has numbers and texts beyond the limits.
func Decode(b []byte) (Message, error) {
	if len(b) == 0 || len(b) > MaxMessage {
		return Message{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	if b[0] != Version {
		return Message{}, fmt.Errorf("%w %d, want %d", ErrVersion, b[0], Version)
	}
	d := decoder{rest: b[1:]}
	m := Message{From: d.owner(), To: d.text(MaxName), Settings: d.number()}
	if m.From.Node == "" {
		d.fail("no sender")
	}
	for len(d.rest) > 0 && d.bad == "" {
		m.Items = append(m.Items, d.item())
	}
	if d.bad != "" {
		return Message{}, fmt.Errorf("%w: %s at byte %d of %d", ErrMalformed, d.bad, len(b)-len(d.rest), len(b))
	}
	return m, nil
}

// decoder reads from rest; after the first fault it yields zeros.
type decoder struct {
	rest []byte
	bad  string
}

func (d *decoder) fail(what string) {
	if d.bad == "" {
		d.bad = what
	}
}

func (d *decoder) take(n int) []byte {
	if d.bad != "" || n > len(d.rest) {
		d.fail("truncated")
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) number() uint64 {
	var n uint64
	for shift := 0; ; shift += 7 {
		b := d.take(1)
		if b == nil {
			return 0
		}
		if shift == 63 && b[0] > 1 {
			d.fail("number too large")
			return 0
		}
		n |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return n
		}
	}
}

func (d *decoder) duration() time.Duration {
	n := d.number()
	if n > uint64(maxAsked)*2 {
		d.fail("duration too long")
		return 0
	}
	return time.Duration(n)
}

func (d *decoder) bytes(limit int) []byte {
	n := d.number()
	if n > uint64(limit) {
		d.fail("text too long")
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) text(limit int) string { return string(d.bytes(limit)) }

func (d *decoder) owner() (o Owner) {
	o.Node = d.text(MaxName)
	copy(o.Incarnation[:], d.take(len(o.Incarnation)))
	return o
}

func (d *decoder) ballot() Ballot {
	n := d.number()
	if n > maxCounter {
		d.fail("ballot too high")
	}
	o := d.owner()
	return Ballot{Counter: n, Incarnation: o.Incarnation, Node: o.Node}
}

func (d *decoder) item() (it Item) {
	if k := d.take(1); k != nil {
		it.Kind = Kind(k[0])
	}
	parts := d.number()
	if it.Kind == 0 || parts&^knownParts != 0 {
		d.fail("unknown part")
	}
	it.Resource = d.text(MaxResource)
	if it.Resource == "" {
		d.fail("no resource")
	}
	it.Ballot, it.Seq, it.Echo = d.ballot(), d.number(), d.number()
	it.Held = parts&isHeld != 0
	if parts&hasLease != 0 {
		it.Lease = d.duration()
	}
	if parts&hasRemaining != 0 {
		it.Remaining = d.duration()
	}
	if parts&hasValue != 0 {
		if it.Value.Epoch = d.number(); it.Value.Epoch > maxCounter {
			d.fail("epoch too high")
		}
		if b := d.bytes(MaxData); len(b) > 0 {
			it.Value.Data = append([]byte(nil), b...)
		}
		it.ValueSeq = d.number()
	}
	if parts&hasAccepted != 0 {
		it.Accepted = d.ballot()
	}
	if parts&hasCommit != 0 {
		it.Commit = d.number()
	}
	if parts&hasPromised != 0 {
		it.Promised = d.ballot()
	}
	if parts&hasHolder != 0 {
		it.Holder = d.owner()
	}
	if parts&hasReason != 0 {
		it.Reason = Reason(d.text(maxReason))
	}
	if parts&hasSuccessor != 0 {
		it.Successor = d.text(MaxName)
	}
	return it
}
