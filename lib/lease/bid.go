package lease

import (
	"fmt"
	"time"
)

// phase is where a node is with its ballot.
type phase uint8

const (
	idle      phase = iota
	preparing       // phase 1: a first bid, or a holder on its way to a higher ballot
	proposing       // phase 2: a bid; or holding, and renewing
)

const (
	never = time.Duration(1<<63 - 1)

	retryEvery = 25 * time.Millisecond
	minBid     = 100 * time.Millisecond
	unanswered = 50 * time.Millisecond // pause after a bid that too few answered
	backOff    = 25 * time.Millisecond // pause after being outbid, doubled each time
	maxBackOff = 4                     // up to 16 times

	maxPatience = 3 // a bid that nobody answered is followed by one of twice the length, up to 8 times
)

// sent is a request on its way.
type sent struct {
	seq    uint64
	asked  time.Duration // when, for rule T1
	length time.Duration
}

// bid starts phase 1 under a new ballot: higher than any that this node has
// heard of. A holder does it to win back a voter that has promised more.
func (m *Machine) bid(r *resource) {
	r.counter = max(r.counter, r.voter.threshold().Counter) + 1
	r.ballot = Ballot{Counter: r.counter, Incarnation: m.owner.Incarnation, Node: m.owner.Node}
	r.phase = preparing
	r.rebid = false
	r.best, r.found = Record{}, false
	// If answers came too late for the bids before, this one waits for longer.
	r.bidEnds = m.now + max(m.asked(r)/2, minBid)<<min(r.unanswered, maxPatience)
	if r.holding {
		// The voters' memory of the former ballot stays what it is: they
		// remember an owner.
		until := r.tally.until
		r.tally = tally{until: until}
	} else {
		r.tally = tally{}
		r.sent = r.sent[:0]
	}
	r.renewSeq = m.seq + 1
	m.sendPrepare(r)
}

func (m *Machine) sendPrepare(r *resource) {
	m.seq++
	r.base = m.now
	r.retryAt = m.now + retryEvery
	it := Item{Kind: KindPrepare, Resource: r.name, Ballot: r.ballot, Seq: m.seq}
	for i, name := range m.voters {
		switch {
		case r.tally.promises.has(i):
		case i != m.self:
			m.ask(i, r)
			m.queue(name, it)
		case m.promise(r, r.ballot) == "":
			m.addPromise(r, i, r.voter.record)
		}
	}
	m.promisesDone(r)
}

func (m *Machine) onPromise(r *resource, voter int, it *Item) {
	if r.phase != preparing || it.Ballot != r.ballot {
		m.note(r.name, StaleReply, "promise")
		return
	}
	m.addPromise(r, voter, Record{Resource: r.name, Value: it.Value, Ballot: it.Accepted, Seq: it.ValueSeq})
	m.promisesDone(r)
}

func (m *Machine) addPromise(r *resource, voter int, rec Record) {
	slot := m.rules.slot(voter, r.tally.replies)
	r.tally.replies++
	r.tally.promises = r.tally.promises.with(slot)
	r.counter = max(r.counter, rec.Ballot.Counter)
	if !rec.Ballot.IsZero() && m.rules.prefer(rec, r.best, !r.found) {
		r.best, r.found = rec, true
	}
}

// promisesDone goes on to phase 2 once a quorum has promised.
func (m *Machine) promisesDone(r *resource) {
	if r.phase != preparing || !m.enough(r, r.tally.promises) {
		return
	}
	m.adopt(r)
	r.phase = proposing
	r.valueSeq, r.commit = m.seq+1, 0
	r.renewSeq = m.seq + 1
	at := m.now
	if !r.holding {
		at = r.base // T1
	}
	m.sendPropose(r, at)
}

// adopt takes over the value that the quorum knows. A holder that comes to a
// higher ballot with a decision of its own still in flight proposes that one
// again afterwards, unless it is the one found, or a newer one waits.
func (m *Machine) adopt(r *resource) {
	own := r.value
	undecided := r.holding && r.commit != r.valueSeq
	r.value = r.best.Value
	if undecided && own.Epoch > 0 && !own.equal(r.value) && r.pending == nil && r.proposed {
		r.pending = own.Data
	}
	r.proposed = r.proposed && own.equal(r.value)
}

// sendPropose sends the lease and its value to every voter that has not
// accepted the present renewal. Seq tells the voters which request is newer;
// the value is the newest in each, so whoever accepts a later one has accepted
// the value too.
func (m *Machine) sendPropose(r *resource, asked time.Duration) {
	m.seq++
	length := m.asked(r)
	m.expireSent(r)
	r.sent = append(r.sent, sent{seq: m.seq, asked: asked, length: length})
	r.retryAt = m.now + retryEvery
	it := Item{
		Kind: KindPropose, Resource: r.name, Ballot: r.ballot, Seq: m.seq, Lease: length,
		Held: r.holding, Value: r.value, ValueSeq: r.valueSeq, Commit: r.commit,
	}
	if r.holding {
		it.Remaining = r.deadline - m.now
	}
	for i, name := range m.voters {
		switch {
		case r.tally.accepted(r.renewSeq).has(i):
		case i != m.self:
			m.ask(i, r)
			m.queue(name, it)
		default:
			m.ownVote(r, &it)
		}
	}
	m.progress(r)
}

// ownVote asks the voter in this process: the same rules, no message.
func (m *Machine) ownVote(r *resource, it *Item) {
	reason := m.accept(r, it)
	if reason == "" {
		m.addAccept(r, m.self, it.Seq)
	}
	if reason == PromisedHigher || reason == BallotReleased {
		m.outbid(r)
	}
}

// onAccept counts a vote. A vote under a released ballot comes too late for
// anything, and so does one for a request that is no longer known.
func (m *Machine) onAccept(r *resource, voter int, it *Item) {
	if m.rules.closed(r.voter.released, it.Ballot) || it.Ballot != r.ballot || !m.addAccept(r, voter, it.Echo) {
		m.note(r.name, StaleReply, "accept")
		return
	}
	m.progress(r)
}

func (m *Machine) addAccept(r *resource, voter int, seq uint64) bool {
	for _, s := range r.sent {
		if s.seq != seq {
			continue
		}
		t := &r.tally
		slot := m.rules.slot(voter, t.replies)
		t.replies++
		t.seq[slot] = max(t.seq[slot], seq)
		t.until[slot] = max(t.until[slot], m.rules.deadline(s.asked, m.now, s.length))
		t.other[slot] = Owner{}
		return true
	}
	return false
}

// expireSent drops the requests whose answer could no longer help.
func (m *Machine) expireSent(r *resource) {
	keep := r.sent[:0]
	for _, s := range r.sent {
		if m.now < s.asked+s.length {
			keep = append(keep, s)
		}
	}
	r.sent = keep
}

// onRefuse learns from a refusal what to do next.
func (m *Machine) onRefuse(r *resource, voter int, it *Item) {
	r.counter = max(r.counter, it.Promised.Counter)
	if it.Ballot != r.ballot || r.phase == idle || it.Echo < r.renewSeq {
		m.note(r.name, StaleReply, "refuse")
		return
	}
	switch it.Reason { //nolint:exhaustive // the other reasons are not given for a refusal, or teach nothing
	case PromisedHigher, BallotReleased:
		m.outbid(r)
	case LeaseLive:
		m.obstructed(r, voter, it)
	case Quarantine:
		r.tally.silent[voter] = it.Echo
		m.unheard(r, it.Remaining)
	case LeaseTooLong:
		m.note(r.name, LeaseTooLong, fmt.Sprintf("%s refused %v", m.voters[voter], m.asked(r)))
	default: // it was an older request than the last: nothing to learn
	}
}

// outbid: a voter has promised a higher ballot. A candidate gives way for a
// random while, so that two candidates do not outbid each other for ever; a
// holder takes a higher ballot with its next renewal.
func (m *Machine) outbid(r *resource) {
	if r.holding {
		r.rebid = true
		return
	}
	m.failBid(r, backOff<<r.failures)
	r.failures = min(r.failures+1, maxBackOff)
}

// obstructed: a voter knows a live lease of another owner. If that ends while
// this bid lasts, the bid asks again just then.
func (m *Machine) obstructed(r *resource, voter int, it *Item) {
	r.tally.other[voter] = it.Holder
	if r.holding {
		if r.tally.supporters() >= m.majority {
			m.letGo(r, Superseded, "")
		}
		return
	}
	if over := m.now + it.Remaining + time.Millisecond; over < r.bidEnds {
		r.retryAt = min(r.retryAt, over)
	}
}

// unheard: a voter is in quarantine. In a pair this node may then go on by
// itself; a bid that no quorum can answer waits until one can.
func (m *Machine) unheard(r *resource, remaining time.Duration) {
	m.promisesDone(r)
	m.progress(r)
	silent := 0
	for _, seq := range r.tally.silent {
		if seq >= r.renewSeq && seq != 0 {
			silent++
		}
	}
	if own := m.quarantineEnds - m.now; own > 0 {
		silent++
		remaining = min(remaining, own)
	}
	if r.phase == preparing && !r.holding && len(m.voters)-silent < m.needed(r) {
		m.failBid(r, 0)
		r.notBefore = m.now + remaining + time.Millisecond
	}
}

// failBid gives a bid up and pauses for half to three halves of wait.
func (m *Machine) failBid(r *resource, wait time.Duration) {
	m.withdraw(r, false, "", Withdrawn)
	r.notBefore = m.now + wait/2 + m.rand.upTo(wait)
	r.jitter = m.rand.upTo(rankJitter)
}
