package lease

import "time"

// mayBeAlone reports whether, in a pair, this node's own vote is enough: the
// peer has been silent for so long that its lease, if it had one, is over, and
// the isolation test has passed since; or the peer has just answered that it
// is in quarantine, and therefore holds nothing.
//
// A holder goes on alone earlier than a candidate would begin, after half of
// its lease: else it would let go of what nobody else may have yet.
//
// A peer that speaks and answers nothing is deaf: it will never vote. Who bids
// goes on alone then, but later than the deaf one would, which hears nobody and
// may be sound but for the link between the two; if it holds, this node's own
// voter knows its lease, and forbids the bid. A holder lets go first, for the
// same reason.
func (m *Machine) mayBeAlone(r *resource) bool {
	if m.self < 0 || m.now < m.quarantineEnds {
		return false
	}
	peer := 1 - m.self
	if s := r.tally.silent[peer]; s != 0 && s >= r.renewSeq && r.phase != idle {
		return true
	}
	return m.now >= m.aloneFrom(r) && m.reachable(r)
}

// aloneFrom is until when the peer's silence says nothing. A peer that holds
// something speaks all the time; one that holds nothing has nothing to say until it
// is asked, so that a candidate then waits from its first question. So does one
// that comes long after a holder fell silent, which may have restarted since.
func (m *Machine) aloneFrom(r *resource) time.Duration {
	wait := m.patience(r)
	from := m.peerSince() + wait
	switch p := &m.peers[1-m.self]; {
	case r.holding:
	case p.asked == 0:
		from = never
	case !p.holds() || p.asked > p.fresh+2*wait:
		from = max(p.asked, p.fresh) + wait
	}
	if asked := m.unansweredSince(r); asked > 0 {
		from = min(from, asked+2*wait)
	}
	return from
}

// spoke notes something new from a peer.
func (p *peer) spoke(msg *Message, now time.Duration) {
	p.fresh = now
	if p.holder != msg.From {
		p.held = 0
	}
	for i := range msg.Items {
		switch it := &msg.Items[i]; {
		case it.Kind == KindPropose && it.Held:
			p.held, p.holder = now, msg.From
		case it.Kind == KindRelease:
			p.held = 0
		}
	}
}

// holds reports whether a peer held something when it was last heard: it says so
// with every renewal, of which one may be lost.
func (p *peer) holds() bool { return p.held > 0 && p.fresh-p.held <= 2*maxRenewal }

// patience is how long a silent peer is waited for.
func (m *Machine) patience(r *resource) time.Duration {
	if r.holding {
		return m.asked(r) / 2
	}
	return Remember(m.asked(r))
}

// peerSince is when the peer last said something new; if never, when this node
// started.
func (m *Machine) peerSince() time.Duration {
	if p := &m.peers[1-m.self]; p.fresh > 0 {
		return p.fresh
	}
	return m.started
}

// unansweredSince is since when the peer answers no request, as far as that counts
// for a lease: to a candidate, and to a holder that is alone already. 0 if it
// does answer, or was not asked.
func (m *Machine) unansweredSince(r *resource) time.Duration {
	if r.holding && !r.alone {
		return 0
	}
	return m.peers[1-m.self].asked
}

func (m *Machine) reachable(r *resource) bool {
	since := m.peerSince()
	if asked := m.unansweredSince(r); asked > 0 {
		since = min(since, asked)
	}
	return m.reachOK && m.reachAt > since && m.now < m.reachAt+m.cfg.MaxLease
}

// ask notes that a voter is asked something. Requests that lie further apart
// than a lease are no row of them.
func (m *Machine) ask(voter int, r *resource) {
	p := &m.peers[voter]
	if p.asked == 0 || m.now-p.askedAt > m.asked(r) {
		p.asked = m.now
	}
	p.askedAt = m.now
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
