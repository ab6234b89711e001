package lease

import "time"

// Status tells what this node knows of each resource, sorted by name.
func (m *Machine) Status(now time.Duration) []Status {
	all := make([]Status, 0, len(m.resources))
	for _, r := range m.resources {
		s := Status{
			Resource: r.name, State: Following,
			Value: r.decided.Value, Epoch: r.decided.Value.Epoch, Asked: m.asked(r),
		}
		switch {
		case r.holding && now < r.deadline:
			s.State, s.Self, s.Holder, s.Deadline, s.Alone = Holding, true, m.cfg.Node, r.deadline, r.alone
			s.Renewing = r.retryAt != never
		case r.closing.active() && r.closing.item.Held:
			s.State = Releasing
		case r.phase != idle && !r.holding:
			s.State = Bidding
		case m.self < 0:
			s.State = Listening
		}
		if !s.Self {
			s.Holder, s.Expires = m.believed(r, now)
			if h := r.hint; now < h.until && h.ballot.Owner() != m.owner {
				s.Told = h.until
			}
		}
		all = append(all, s)
	}
	return all
}

// believed is whom this node takes for the holder: what the holder said itself,
// else what its own voter voted for.
func (m *Machine) believed(r *resource, now time.Duration) (string, time.Duration) {
	if h := r.hint; now < h.until && h.ballot.Owner() != m.owner {
		return h.ballot.Node, h.until
	}
	if v := r.voter.vote; v.live(now) && v.ballot.Owner() != m.owner {
		return v.ballot.Node, v.expires
	}
	return "", 0
}

// Announcement is the news for nodes without a vote, to be broadcast by the
// caller as often as it likes: the leases that this node holds, with the values
// decided. It reports false if this node holds nothing.
func (m *Machine) Announcement(now time.Duration) (Message, bool) {
	msg := m.message("", nil)
	for _, r := range m.resources {
		if !r.holding || now >= r.deadline {
			continue
		}
		it := Item{Kind: KindInform, Resource: r.name, Ballot: r.ballot, Seq: m.seq, Held: true, Remaining: r.deadline - now}
		if d := r.decided; d.Ballot == r.ballot {
			it.Value, it.ValueSeq, it.Commit = d.Value, d.Seq, d.Seq
		}
		msg.Items = append(msg.Items, it)
	}
	return msg, len(msg.Items) > 0
}
