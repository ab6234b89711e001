package lease

import "time"

// mayBeAlone reports whether, in a pair, this node's own vote is enough: the
// peer has been silent for so long that its lease, if it had one, is over, and
// the isolation test has passed since; or the peer has just answered that it
// is in quarantine, and therefore holds nothing.
//
// A holder goes on alone earlier than a candidate would begin, after half of
// its lease: else it would let go of what nobody else may have yet.
func (m *Machine) mayBeAlone(r *resource) bool {
	if m.self < 0 || m.now < m.quarantineEnds {
		return false
	}
	peer := 1 - m.self
	if s := r.tally.silent[peer]; s != 0 && s >= r.renewSeq && r.phase != idle {
		return true
	}
	return m.now >= m.aloneFrom(r) && m.reachable()
}

func (m *Machine) aloneFrom(r *resource) time.Duration {
	if r.holding {
		return m.peerSince() + m.asked(r)/2
	}
	return m.peerSince() + Remember(m.asked(r))
}

// peerSince is when the peer last said something new; if never, when this node
// started.
func (m *Machine) peerSince() time.Duration {
	if p := &m.peers[1-m.self]; p.fresh > 0 {
		return p.fresh
	}
	return m.started
}

func (m *Machine) reachable() bool {
	return m.reachOK && m.reachAt >= m.peerSince() && m.now < m.reachAt+m.cfg.MaxLease
}

// pairProgress keeps account of who voted for the renewal that has just
// succeeded.
func (m *Machine) pairProgress(r *resource) {
	if m.cfg.Mode != ModePair {
		return
	}
	both := r.tally.accepted(r.renewSeq).size() == 2
	switch {
	case !both && !r.alone:
		r.alone = true
		m.note(r.name, Alone, m.voters[1-m.self])
	case both && r.alone:
		r.alone = false
		m.note(r.name, PeerBack, m.voters[1-m.self])
		m.out.TakeUp = append(m.out.TakeUp, TakeUp{
			Resource: r.name, Reason: PairHealed, Deadline: r.deadline, Value: r.value,
		})
	}
}
