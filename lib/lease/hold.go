package lease

import (
	"slices"
	"time"
)

const (
	minRenewal = 50 * time.Millisecond
	maxRenewal = 200 * time.Millisecond
)

// rhythm is how often a lease of length d is renewed.
func rhythm(d time.Duration) time.Duration { return min(max(d/5, minRenewal), maxRenewal) }

// needed is how many votes make a quorum now. In a pair that is both, or this
// node's own when it may go on alone.
func (m *Machine) needed(r *resource) int {
	if m.cfg.Mode == ModePair && m.mayBeAlone(r) {
		return 1
	}
	return m.majority
}

// enough reports whether a set of votes is a quorum.
func (m *Machine) enough(r *resource, votes voterSet) bool {
	if votes.size() >= m.majority {
		return true
	}
	return votes.has(m.self) && votes.size() >= m.needed(r)
}

// secured is the deadline that the votes counted so far give.
func (m *Machine) secured(r *resource) time.Duration {
	until := r.tally.remembered(m.majority)
	if m.needed(r) == 1 {
		until = max(until, r.tally.until[m.self])
	}
	return until
}

// progress draws the conclusions from the votes counted so far: a lease won or
// renewed, a value decided.
func (m *Machine) progress(r *resource) {
	deadline := m.secured(r)
	if deadline <= m.now || !r.holding && len(r.sent) == 0 {
		return
	}
	switch {
	case !r.holding:
		m.becomeHolder(r, deadline)
	case deadline > r.deadline:
		r.deadline = deadline
		m.out.Renewed = append(m.out.Renewed, Renewed{Resource: r.name, Deadline: deadline})
	}
	if r.phase != proposing {
		return
	}
	m.settle(r)
	if r.retryAt != never && m.enough(r, r.tally.accepted(r.renewSeq)) {
		r.retryAt = never
		m.renewalDone(r)
	}
	if r.alone {
		m.pairProgress(r) // the vote of a peer that is back may come after this node's own was enough
	}
}

// renewalDone tells the tuner how long a quorum's answer was due, and notices
// when a pair is two again.
func (m *Machine) renewalDone(r *resource) {
	m.tuner.Answered(m.now, m.now-r.renewDue)
	m.pairProgress(r)
}

// becomeHolder is the one place where a lease is taken up.
func (m *Machine) becomeHolder(r *resource, deadline time.Duration) {
	r.holding, r.phase = true, proposing
	r.deadline = deadline
	r.failures, r.unanswered = 0, 0
	m.tuner.Answered(m.now, m.now-r.base)
	r.renewDue = m.now
	r.pending, r.proposed = nil, false
	h := &r.hint
	up := TakeUp{
		Resource: r.name, Reason: Acquired, Deadline: deadline, Value: r.value,
		Predecessor: h.predecessor, Planned: h.planned,
	}
	if h.planned {
		up.Reason = HandedOver
	}
	m.out.TakeUp = append(m.out.TakeUp, up)
	*h = hint{ballot: r.ballot, latest: h.latest, seq: h.seq}
	r.closing = closing{}
	r.renewAt = m.now // tell everybody at once
	m.pairProgress(r)
}

// settle: is the value decided? Then everybody is told at once, and what
// waited is proposed.
func (m *Machine) settle(r *resource) {
	if r.commit == r.valueSeq || !m.enough(r, r.tally.accepted(r.valueSeq)) {
		return
	}
	r.commit = r.valueSeq
	r.proposed = false
	m.decide(r, Record{Resource: r.name, Value: r.value, Ballot: r.ballot, Seq: r.valueSeq})
	r.renewAt = m.now
	if r.pending != nil {
		m.propose(r, r.pending)
	}
}

// propose puts a new decision on its way with the next renewal, which is now.
func (m *Machine) propose(r *resource, data []byte) {
	r.pending = nil
	r.value = Value{Epoch: r.value.Epoch + 1, Data: data}
	r.valueSeq = m.seq + 1
	r.proposed = true
	r.renewAt = m.now
}

// onPropose is the caller's wish for a new decision.
func (m *Machine) onPropose(r *resource, data []byte) {
	switch {
	case !r.holding:
		m.note(r.name, NotHolder, "propose")
	case len(data) > MaxData:
		m.note(r.name, ValueTooLarge, "propose")
	case r.phase == proposing && r.commit == r.valueSeq:
		m.propose(r, slices.Clip(data))
	default:
		r.pending = slices.Clip(data)
		if r.pending == nil {
			r.pending = []byte{}
		}
	}
}

// renew starts a renewal: phase 2 alone, or phase 1 again if a voter has
// promised a higher ballot meanwhile.
func (m *Machine) renew(r *resource) {
	r.renewDue = min(m.now, r.renewAt)
	r.renewAt = m.now + rhythm(m.asked(r))
	r.tally.other = [MaxVoters]Owner{}
	if r.rebid {
		m.note(r.name, HigherBallot, r.voter.threshold().String())
		m.bid(r)
		return
	}
	r.renewSeq = m.seq + 1
	m.sendPropose(r, m.now)
}

// letGo is the one place where a lease is let go.
func (m *Machine) letGo(r *resource, reason Reason, successor string) {
	if !r.holding {
		panic("lease: let go without holding " + r.name)
	}
	m.out.LetGo = append(m.out.LetGo, LetGo{Resource: r.name, Reason: reason, Successor: successor, Deadline: r.deadline})
	r.holding = false
	r.alone = false
	r.pending = nil
	r.deadline = 0
	m.withdraw(r, true, successor, reason)
	r.notBefore = max(r.notBefore, m.now)
	r.jitter = m.rand.upTo(rankJitter)
}

// onRelease hands a lease over.
func (m *Machine) onRelease(in Release) {
	r := m.resource(in.Resource)
	switch {
	case r == nil:
	case r.holding:
		m.letGo(r, in.Reason, in.Successor)
		r.notBefore = m.now + reservation
	case r.phase != idle:
		m.withdraw(r, false, "", Withdrawn)
		r.notBefore = m.now + reservation
	default:
		m.note(r.name, NotHolder, "release")
	}
}
