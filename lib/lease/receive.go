package lease

import (
	"fmt"
	"slices"
	"time"
)

const (
	datagram = 1200            // bytes of a message, above which it is split
	idleWake = 1 * time.Second // the longest time between two steps
)

// receive handles a message: whom it is for and who sent it first, then item
// by item.
func (m *Machine) receive(msg *Message) {
	switch {
	case msg.From == m.owner:
		m.note("", OwnMessage, "")
		return
	case msg.From.Node == m.cfg.Node:
		m.note("", NameTaken, msg.From.String())
		return
	case msg.To != m.cfg.Node && msg.To != "":
		m.note("", WrongAddressee, msg.To)
		return
	}
	m.from = msg.From
	voter := slices.Index(m.voters, msg.From.Node)
	m.meet(voter, msg)
	for i := range msg.Items {
		it := &msg.Items[i]
		if it.Kind != KindInform && msg.To == "" {
			m.note(it.Resource, WrongAddressee, "")
			continue
		}
		m.item(voter, it)
	}
}

func (m *Machine) item(voter int, it *Item) {
	if len(it.Value.Data) > MaxData || it.Lease < 0 || it.Remaining < 0 {
		m.note(it.Resource, BadItem, it.Kind.String())
		return
	}
	r := m.resource(it.Resource)
	if r == nil {
		return
	}
	if it.Kind.answers() && !m.counts(r, voter, it) {
		return
	}
	switch it.Kind {
	case KindPrepare, KindPropose, KindRelease:
		m.onRequest(r, m.from.Node, it)
	case KindInform:
		// An announcement passes from node to node and may be old. A voter hears
		// holders themselves, and must not let go for the sake of a dead one.
		if m.self < 0 && it.Ballot.Owner() == m.from {
			m.hear(r, it)
		}
	case KindPromise:
		m.onPromise(r, voter, it)
	case KindAccept:
		m.onAccept(r, voter, it)
	case KindRefuse:
		m.onRefuse(r, voter, it)
	case KindReleased:
		m.onReleased(r, voter, it)
	default:
		m.note(r.name, UnknownKind, it.Kind.String())
	}
}

// counts reports whether an answer is the word of a voter to this process. One
// life of a voter counts at a time: what it accepted and promised in a former
// one it has forgotten, unless it has a disk. (What it promised to remember of
// leases its quarantine keeps, so the deadline stands.) Incarnations have no
// order; but whoever answers a request that was sent after another was heard
// lives after that one.
func (m *Machine) counts(r *resource, voter int, it *Item) bool {
	switch {
	case voter < 0:
		m.note(r.name, NotAVoter, m.from.Node)
		return false
	case it.Ballot.Owner() != m.owner || it.Echo > m.seq:
		m.note(r.name, StaleReply, it.Kind.String())
		return false
	}
	p := &m.peers[voter]
	switch {
	case p.owner == m.from:
		return true
	case p.owner != Owner{} && m.rules.former(p.since, it.Echo):
		m.note(r.name, FormerLife, m.from.String())
		return false
	}
	p.owner, p.since = m.from, m.seq
	for _, r := range m.resources {
		r.tally.forget(voter)
	}
	return true
}

// meet notes that a node was heard.
func (m *Machine) meet(voter int, msg *Message) {
	var known *uint64
	if voter < 0 {
		s := m.strangerOf(msg.From.Node)
		s.at, known = m.now, &s.settings
	} else {
		p := &m.peers[voter]
		if !p.heard {
			p.settings = m.settings
		}
		p.heard, p.at = true, m.now
		if p.news(msg, m.owner, m.seq) {
			p.spoke(msg, m.now)
		}
		known = &p.settings
	}
	if *known != msg.Settings && msg.Settings != m.settings {
		m.note("", SettingsDiffer, msg.From.Node)
	}
	*known = msg.Settings
}

// life is what one process of a peer has said: the last of its requests, and the
// last request of ours that it answered.
type life struct {
	owner     Owner
	seq, echo uint64
}

// news reports whether a message is none that was heard before: a peer that is
// dead must not seem to live because somebody plays its messages again. An
// answer that is new ends the row of requests that were not answered.
func (p *peer) news(msg *Message, self Owner, asked uint64) bool {
	i := slices.IndexFunc(p.lives[:], func(l life) bool { return l.owner == msg.From })
	if i < 0 {
		copy(p.lives[1:], p.lives[:])
		i, p.lives[0] = 0, life{owner: msg.From}
	}
	l := &p.lives[i]
	fresh := false
	for k := range msg.Items {
		it := &msg.Items[k]
		switch {
		case !it.Kind.answers() && it.Seq > l.seq:
			l.seq, fresh = it.Seq, true
		case it.Kind.answers() && it.Ballot.Owner() == self && it.Echo > l.echo && it.Echo <= asked:
			l.echo, fresh = it.Echo, true
			p.asked = 0
		}
	}
	return fresh
}

// strangerOf finds or makes the entry of a node without a vote. Only the last
// few are kept: they are followers of which nothing depends.
func (m *Machine) strangerOf(name string) *stranger {
	const limit = 32
	for i := range m.strangers {
		if m.strangers[i].name == name {
			return &m.strangers[i]
		}
	}
	if len(m.strangers) >= limit {
		m.strangers = slices.Delete(m.strangers, 0, 1)
	}
	m.strangers = append(m.strangers, stranger{name: name, settings: m.settings})
	return &m.strangers[len(m.strangers)-1]
}

// queue puts an item into the message for a node.
func (m *Machine) queue(to string, it Item) {
	if i := slices.Index(m.voters, to); i >= 0 {
		m.outbox[i] = append(m.outbox[i], it)
		return
	}
	m.others = append(m.others, Envelope{To: to, Message: m.message(to, []Item{it})})
}

func (m *Machine) message(to string, items []Item) Message {
	return Message{From: m.owner, To: to, Settings: m.settings, Items: items}
}

// flush packs what was queued into messages and computes the next wake-up.
func (m *Machine) flush() {
	for i, name := range m.voters {
		for box := m.outbox[i]; len(box) > 0; {
			n := fit(m.message(name, box))
			m.out.Send = append(m.out.Send, Envelope{To: name, Message: m.message(name, box[:n:n])})
			box = box[n:]
		}
		m.outbox[i] = m.outbox[i][:0]
	}
	m.out.Send = append(m.out.Send, m.others...)
	m.others = m.others[:0]
	wake := m.now + idleWake
	for _, r := range m.resources {
		wake = min(wake, m.next(r))
	}
	m.out.Wake, m.wake = wake, wake
}

// fit is how many of the items of a message a datagram holds, at least one.
func fit(msg Message) int {
	size := headerSize(&msg)
	for i := range msg.Items {
		size += itemSize(&msg.Items[i])
		if size > datagram && i > 0 {
			return i
		}
	}
	return len(msg.Items)
}

// PeerHeard tells how long ago the last message of another voter arrived.
func (m *Machine) PeerHeard(now time.Duration, node string) (ago time.Duration, ok bool) {
	i := slices.Index(m.voters, node)
	if i < 0 || !m.peers[i].heard {
		return 0, false
	}
	return now - m.peers[i].at, true
}

// Differing names the nodes whose last message came from other settings than
// this node's: other voters, mode or longest lease. It is empty except during
// a rolling change; see the package comment for what such a change must keep
// to. What was heard more than 5 s ago is left out: the holder hears every
// voter, and every voter the holder, several times a second, and a node that
// was removed is not heard again.
func (m *Machine) Differing() []string {
	const recent = 5 * time.Second
	var names []string
	for i := range m.voters {
		if p := m.peers[i]; p.heard && m.now-p.at <= recent && p.settings != m.settings {
			names = append(names, m.voters[i])
		}
	}
	for _, s := range m.strangers {
		if m.now-s.at <= recent && s.settings != m.settings {
			names = append(names, s.name)
		}
	}
	slices.Sort(names)
	return names
}

// fingerprint is FNV-1a over what all nodes must agree on.
func fingerprint(cfg Config, voters []string) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(fmt.Sprintf("%q %v %d", voters, cfg.Mode, cfg.MaxLease)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}
