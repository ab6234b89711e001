package lease

import (
	"slices"
	"time"
)

// voterSet is a set of distinct voters, by their place in the sorted list
// (rule P2: a quorum is a set, so a reply that arrives twice counts once).
type voterSet uint8

func (s voterSet) with(i int) voterSet { return s | 1<<i }

func (s voterSet) without(i int) voterSet { return s &^ (1 << i) }

func (s voterSet) has(i int) bool { return s&(1<<i) != 0 }

func (s voterSet) size() int {
	n := 0
	for ; s != 0; s &= s - 1 {
		n++
	}
	return n
}

// tally is what the voters have answered to one ballot, a slot for each voter.
type tally struct {
	replies  int // of all, for rules.slot
	promises voterSet
	seq      [MaxVoters]uint64        // the latest request that the voter accepted
	until    [MaxVoters]time.Duration // the voter remembers the lease until after this, on our clock
	silent   [MaxVoters]uint64        // the latest request that it left undecided, being in quarantine
	other    [MaxVoters]Owner         // for whom it refused the last request; zero: it did not
}

// forget strikes out what a voter said in a former life.
func (t *tally) forget(voter int) {
	t.promises = t.promises.without(voter)
	t.seq[voter], t.silent[voter], t.other[voter] = 0, 0, Owner{}
}

// accepted is the set of voters that have accepted request seq or a later one.
func (t *tally) accepted(seq uint64) voterSet {
	var s voterSet
	for i, at := range t.seq {
		if at >= seq && at != 0 {
			s = s.with(i)
		}
	}
	return s
}

// remembered is the time until which at least n voters remember the lease.
func (t *tally) remembered(n int) time.Duration {
	until := t.until
	slices.Sort(until[:])
	return until[MaxVoters-n]
}

// supporters is the largest number of voters that refused for one other owner.
func (t *tally) supporters() int {
	most := 0
	for i, o := range t.other {
		if o.Node == "" {
			continue
		}
		n := 0
		for _, p := range t.other[i:] {
			if p == o {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}
