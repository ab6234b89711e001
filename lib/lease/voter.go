package lease

import "time"

// vote is the lease that a voter remembers.
type vote struct {
	ballot  Ballot
	expires time.Duration // remembered while now is before it
}

func (v vote) live(now time.Duration) bool { return !v.ballot.IsZero() && now < v.expires }

// voter is the acceptor of one resource.
type voter struct {
	promised Ballot // the highest ballot promised or accepted
	released Ballot // the highest ballot released: closed for ever
	vote     vote
	seq      uint64 // the request accepted last under vote.ballot
	record   Record // the value accepted last; outlives the vote
}

// threshold is the ballot that a bidder must exceed.
func (v *voter) threshold() Ballot {
	if v.released.Compare(v.promised) > 0 {
		return v.released
	}
	return v.promised
}

// Quarantined reports whether this voter keeps silent because it has just
// started (rule A4), and until when.
func (m *Machine) Quarantined(now time.Duration) (until time.Duration, yes bool) {
	return m.quarantineEnds, now < m.quarantineEnds
}

// promise is phase 1 of the voter. An empty reason is a promise.
//
// A bidder that meets a live lease is refused without a promise: so it cannot
// disturb the holder's renewals by bidding again and again.
func (m *Machine) promise(r *resource, ballot Ballot) Reason {
	v := &r.voter
	switch {
	case m.now < m.quarantineEnds:
		return Quarantine
	case m.rules.closed(v.released, ballot):
		return BallotReleased
	case m.rules.blocked(v.vote, ballot.Owner(), m.now):
		return LeaseLive
	case m.rules.promised(v.promised, ballot):
		return PromisedHigher
	}
	if v.promised != ballot {
		v.promised = ballot
		m.persist(r)
	}
	return ""
}

// accept is phase 2 of the voter, and renewal. An empty reason is a vote.
func (m *Machine) accept(r *resource, it *Item) Reason {
	v := &r.voter
	switch {
	case m.now < m.quarantineEnds:
		m.learn(r, it)
		return Quarantine
	case it.Lease > m.cfg.MaxLease:
		return LeaseTooLong
	case m.rules.closed(v.released, it.Ballot):
		return BallotReleased
	case m.rules.promised(v.promised, it.Ballot):
		return PromisedHigher
	case m.rules.blocked(v.vote, it.Ballot.Owner(), m.now):
		return LeaseLive
	case v.vote.ballot == it.Ballot && it.Seq < v.seq:
		return StaleRequest
	case v.vote.ballot == it.Ballot && it.Seq == v.seq:
		return "" // the same request again: the answer is the same, the memory no longer
	case m.rules.older(it.record(), v.record):
		return StaleRequest
	}
	v.promised = it.Ballot
	m.remember(v, it)
	m.keep(r, it.record())
	return ""
}

// learn is what a voter in quarantine does instead of voting: it takes the
// value, and remembers the lease without having promised so. Both can only
// make it more careful later.
func (m *Machine) learn(r *resource, it *Item) {
	v := &r.voter
	if it.Lease > m.cfg.MaxLease || m.rules.closed(v.released, it.Ballot) || v.vote.live(m.now) && it.Ballot.Compare(v.vote.ballot) < 0 {
		return
	}
	if it.Ballot.Compare(v.promised) > 0 {
		v.promised = it.Ballot // else a lower ballot could be promised later, and hide the value
	}
	m.remember(v, it)
	if rec := it.record(); rec.newer(v.record) {
		m.keep(r, rec)
	}
}

// remember notes the lease. A renewal for a shorter time does not shorten what
// was promised for the longer one: its answer may be lost, and the holder goes
// by the earlier answer.
func (m *Machine) remember(v *voter, it *Item) {
	expires := m.now + Remember(it.Lease)
	if v.vote.live(m.now) && v.vote.ballot.Owner() == it.Ballot.Owner() {
		expires = max(expires, v.vote.expires)
	}
	if v.vote.ballot != it.Ballot || it.Seq > v.seq {
		v.seq = it.Seq
	}
	v.vote = vote{ballot: it.Ballot, expires: expires}
}

// keep stores a value. Promises and new values go to disk; a renewal carries
// what is there already.
func (m *Machine) keep(r *resource, rec Record) {
	v := &r.voter
	if v.record.Ballot == rec.Ballot && v.record.Seq == rec.Seq {
		return
	}
	v.record = rec
	m.persist(r)
}

func (m *Machine) persist(r *resource) {
	rec := r.voter.record
	rec.Resource, rec.Promised = r.name, r.voter.promised
	m.out.Persist = append(m.out.Persist, rec)
}

// forget is the voter's part of a release. A release that comes late, or twice,
// finds nothing to clear, since the owner's next lease has a higher ballot.
// It is obeyed in quarantine too: what is cleared then was never voted for.
func (m *Machine) forget(v *voter, released Ballot) {
	if m.rules.clears(v.vote, released) {
		v.vote.expires = m.now
	}
	if released.Compare(v.released) > 0 {
		v.released = released
	}
}

// onRequest answers prepare, propose and release.
func (m *Machine) onRequest(r *resource, from string, it *Item) {
	if it.Ballot.Node != from || it.Ballot.Owner() != m.from {
		m.note(r.name, BallotMismatch, from)
		return
	}
	r.counter = max(r.counter, it.Ballot.Counter)
	if it.Kind == KindPropose {
		m.hear(r, it)
	}
	reply := Item{Resource: r.name, Ballot: it.Ballot, Echo: it.Seq}
	switch {
	case it.Kind == KindRelease:
		m.hearRelease(r, it)
		reply.Kind = KindReleased
	case m.self < 0:
		return // a listener has no vote
	case it.Kind == KindPrepare:
		if reply.Reason = m.promise(r, it.Ballot); reply.Reason == "" {
			reply.Kind = KindPromise
			rec := r.voter.record
			reply.Value, reply.Accepted, reply.ValueSeq = rec.Value, rec.Ballot, rec.Seq
		}
	default:
		if reply.Reason = m.accept(r, it); reply.Reason == "" {
			reply.Kind = KindAccept
		}
	}
	if reply.Reason != "" {
		m.refusal(r, &reply)
	}
	m.queue(from, reply)
}

// refusal completes a refusal with what the loser should know.
func (m *Machine) refusal(r *resource, reply *Item) {
	reply.Kind = KindRefuse
	reply.Promised = r.voter.threshold()
	switch {
	case reply.Reason == Quarantine:
		reply.Remaining = m.quarantineEnds - m.now
	case r.voter.vote.live(m.now):
		reply.Holder = r.voter.vote.ballot.Owner()
		reply.Remaining = r.voter.vote.expires - m.now
	}
	m.note(r.name, reply.Reason, reply.Ballot.String())
}
