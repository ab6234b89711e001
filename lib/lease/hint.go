package lease

import (
	"fmt"
	"time"
)

// hint is what a node believes of a resource without having a say in it. It is
// there to be lazy with, never to act on (rule L1).
type hint struct {
	ballot Ballot        // of the holder
	until  time.Duration // believed while now is before it
	latest Ballot        // the highest that another holder was heard under
	seq    uint64        // and the last request heard under it

	predecessor string // the last other holder
	planned     bool   // the predecessor let go by itself
	successor   string // whom it named
}

const (
	reservation = 200 * time.Millisecond // for a named successor; everybody else holds back
	rankDelay   = 50 * time.Millisecond
	rankJitter  = 25 * time.Millisecond
)

// hear takes from a proposal what is true whether or not this node votes for
// it: who holds, and what was decided. A voter believes no decision from before
// the proposal that it keeps: it may have restarted, so that it does not know
// which ones it has reported, and the message be played again.
func (m *Machine) hear(r *resource, it *Item) {
	if it.Held && it.Ballot.Compare(r.voter.released) > 0 {
		m.hearHolder(r, it)
	}
	switch kept := r.voter.record; {
	case it.Commit == 0:
	case it.Commit == it.ValueSeq && !kept.newer(it.record()):
		m.decide(r, it.record())
	case kept.Ballot == it.Ballot && kept.Seq == it.Commit:
		m.decide(r, kept)
	}
}

func (m *Machine) hearHolder(r *resource, it *Item) {
	if r.holding {
		m.conflict(r, it)
		if r.holding {
			return
		}
	}
	h := &r.hint
	if m.now < h.until && it.Ballot.Compare(h.ballot) < 0 {
		return // of a former holder, late
	}
	if !m.news(h, it) {
		return // played again, or overtaken: it does not make the lease longer
	}
	h.ballot = it.Ballot
	h.until = m.now + min(it.Remaining, m.cfg.MaxLease)
	h.predecessor, h.planned, h.successor = it.Ballot.Node, false, ""
	r.failures, r.unanswered = 0, 0
}

// news reports whether a holder says this for the first time. A node without a
// vote also believes a lower ballot, once nobody is known to hold: voters that
// have all forgotten begin to count again, and it has no other way to learn that.
func (m *Machine) news(h *hint, it *Item) bool {
	order := it.Ballot.Compare(h.latest)
	switch {
	case it.Seq == 0: // an announcement of an older version has no number
		return true
	case order < 0 && m.self >= 0, order == 0 && it.Seq <= h.seq:
		return false
	}
	h.latest, h.seq = it.Ballot, it.Seq
	return true
}

// conflict: another node says that it holds what this one holds. In a pair
// both may have gone on alone; else a clock has stood still (a machine was
// paused) or runs wrong by more than ρ, and the later ballot is the one that
// the voters know.
func (m *Machine) conflict(r *resource, it *Item) {
	theirs := Record{Value: it.Value, Ballot: it.Ballot}
	mine := Record{Value: r.value, Ballot: r.ballot}
	m.note(r.name, HoldersConflict, fmt.Sprintf("epoch %d ballot %v, here epoch %d ballot %v",
		it.Value.Epoch, it.Ballot, r.value.Epoch, r.ballot))
	switch {
	case m.cfg.Mode == ModePair && theirs.ahead(mine):
		m.letGo(r, PairHealed, "")
	case m.cfg.Mode != ModePair && it.Ballot.Compare(r.ballot) > 0:
		m.letGo(r, Superseded, "")
	}
}

// ahead orders the two holders of a pair: by epoch, then by ballot.
func (r Record) ahead(s Record) bool {
	if r.Value.Epoch != s.Value.Epoch {
		return r.Value.Epoch > s.Value.Epoch
	}
	return r.Ballot.Compare(s.Ballot) > 0
}

// hearRelease: a lease is free before its time.
func (m *Machine) hearRelease(r *resource, it *Item) {
	news := it.Ballot.Compare(r.voter.released) > 0
	m.forget(&r.voter, it.Ballot)
	h := &r.hint
	if h.ballot.Owner() == it.Ballot.Owner() && h.ballot.Compare(it.Ballot) <= 0 {
		h.until = m.now
	}
	if !news || !it.Held {
		return
	}
	h.predecessor, h.planned, h.successor = it.Ballot.Node, true, it.Successor
	if it.Successor != "" && it.Successor != m.cfg.Node {
		r.notBefore = max(r.notBefore, m.now+reservation)
	}
}

// decide reports a value that a quorum has accepted, once.
func (m *Machine) decide(r *resource, rec Record) {
	if rec.Value.Epoch == 0 || !rec.newer(r.decided) {
		return
	}
	again := rec.Ballot == r.decided.Ballot && rec.Value.Epoch == r.decided.Value.Epoch
	r.decided = rec
	if !again {
		m.out.Decided = append(m.out.Decided, Decided{Record: rec, Holder: rec.Ballot.Node})
	}
}

// free is the time from which this node knows of no live lease of another
// owner: its own voter's memory, and what it was told.
func (m *Machine) free(r *resource) time.Duration {
	var at time.Duration
	if v := r.voter.vote; !v.ballot.IsZero() && v.ballot.Owner() != m.owner {
		at = v.expires
	}
	if !r.hint.ballot.IsZero() && r.hint.ballot.Owner() != m.owner {
		at = max(at, r.hint.until)
	}
	return at
}

// bidTime is when this node bids, if nothing changes until then.
func (m *Machine) bidTime(r *resource) time.Duration {
	if !r.willing || r.holding || r.phase != idle || m.self < 0 || m.floor > m.cfg.MaxLease {
		return never
	}
	at := max(m.free(r), r.notBefore)
	if r.rank > 0 && !r.immediate && r.hint.successor != m.cfg.Node {
		at += time.Duration(r.rank)*rankDelay + r.jitter
	}
	return at
}
