package lease

import "time"

// rules are the decisions on which safety rests: one function for each rule of
// the protocol, so that they can be read, and broken, one by one. The machine
// only ever runs soundRules; the mutants, which the simulation must catch,
// stand in test files.
type rules struct {
	// deadline is T1: a holder may act until the lease length has passed since
	// it asked, whenever the answer came.
	deadline func(asked, answered, length time.Duration) time.Duration
	// quarantine is A4 and T3: a voter that has just started may have forgotten
	// a lease as long as the longest.
	quarantine func(longest time.Duration) time.Duration
	// slot is P2: where a reply is counted. One slot for each voter makes the
	// votes a set.
	slot func(voter, reply int) int
	// former is P2 too: an answer by another process than the one that is known
	// under a voter's name counts only to a request later than since, which is
	// the last one that was sent before the known one was heard.
	former func(since, echo uint64) bool
	// promised is A1: a voter that has promised a ballot takes nothing under a
	// lower one.
	promised func(promised, ballot Ballot) bool
	// blocked is A2: a voter that knows a live lease of another owner votes for
	// nobody else.
	blocked func(v vote, by Owner, now time.Duration) bool
	// sameOwner: a process, not a name.
	sameOwner func(a, b Owner) bool
	// clears is A3: which lease a release ends. Never one that the same owner
	// won later.
	clears func(v vote, released Ballot) bool
	// closed is A3: nothing counts any more under a released ballot.
	closed func(released, ballot Ballot) bool
	// older says that a proposal carries a value from before the one that the voter
	// keeps: it was under way for long, or is played again, and the ballot under
	// which it would be accepted is one that the voter has forgotten.
	older func(offered, kept Record) bool
	// prefer says whether the value of a promise is to be adopted rather than
	// the best one so far: the latest proposal, not the highest epoch.
	prefer func(candidate, best Record, first bool) bool
}

func soundRules(mode Mode) *rules {
	r := &rules{
		deadline: func(asked, _, length time.Duration) time.Duration { return asked + length },
		quarantine: func(longest time.Duration) time.Duration {
			return Remember(longest)
		},
		slot:      func(voter, _ int) int { return voter },
		former:    func(since, echo uint64) bool { return echo <= since },
		promised:  func(promised, ballot Ballot) bool { return ballot.Compare(promised) < 0 },
		sameOwner: func(a, b Owner) bool { return a == b },
		clears: func(v vote, released Ballot) bool {
			return v.ballot.Owner() == released.Owner() && v.ballot.Compare(released) <= 0
		},
		closed: func(released, ballot Ballot) bool { return ballot.Compare(released) <= 0 },
		older:  func(offered, kept Record) bool { return kept.newer(offered) },
		prefer: func(candidate, best Record, _ bool) bool { return candidate.newer(best) },
	}
	r.blocked = func(v vote, by Owner, now time.Duration) bool {
		return v.live(now) && !r.sameOwner(v.ballot.Owner(), by)
	}
	if mode == ModePair {
		// Each side may have decided alone while the link was cut: the higher
		// epoch wins, then the later proposal.
		r.prefer = func(candidate, best Record, _ bool) bool {
			if candidate.Value.Epoch != best.Value.Epoch {
				return candidate.Value.Epoch > best.Value.Epoch
			}
			return candidate.newer(best)
		}
	}
	return r
}
