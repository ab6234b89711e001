package lease

import (
	"testing"
	"time"
)

// mutant is a machine with one rule broken. The simulation must find each:
// a checker that never fails proves nothing.
type mutant struct {
	name            string
	change          func(*rules)
	sameIncarnation bool            // ballots are used again after a restart
	forget          func(*Snapshot) // what is not passed on to a new program in place
	breaks          breaks
	seeds           uint64 // within so many
	// lesson is a plan that the adversary is given, where it would take long to
	// hit upon it.
	lesson gambit
}

// mutants are the broken copies of the machine. What a rule protects is what
// its mutant must be seen to break: exclusion rests on A2, T1 to T3, P2 and A3;
// the value on A1 and on adoption.
var mutants = []mutant{
	{
		name:   "live lease of another owner overwritten (A2)",
		change: func(r *rules) { r.blocked = func(vote, Owner, time.Duration) bool { return false } },
		breaks: exclusion, seeds: 500,
	},
	{
		name:   "replies counted instead of voters (P2)",
		change: func(r *rules) { r.slot = func(_, reply int) int { return reply % MaxVoters } },
		breaks: exclusion, seeds: 500,
	},
	{
		name:   "answers of a voter's former life counted (P2)",
		change: func(r *rules) { r.former = func(_, _ uint64) bool { return false } },
		breaks: oneLife, seeds: 500,
	},
	{
		name: "deadline taken when the reply arrives (T1)",
		change: func(r *rules) {
			r.deadline = func(_, answered, length time.Duration) time.Duration { return answered + length }
		},
		breaks: exclusion, seeds: 500, lesson: lateAnswers,
	},
	{
		name:   "owner identified by node, not incarnation",
		change: func(r *rules) { r.sameOwner = func(a, b Owner) bool { return a.Node == b.Node } },
		breaks: exclusion, seeds: 500,
	},
	{
		name: "quarantine shortened (A4, T3)",
		change: func(r *rules) {
			r.quarantine = func(longest time.Duration) time.Duration { return longest / 4 }
		},
		breaks: exclusion, seeds: 500, lesson: aVoterForgets,
	},
	{
		name: "ballots used again after a restart (P1)", sameIncarnation: true,
		breaks: exclusion, seeds: 500, lesson: theSameBallots,
	},
	{
		name: "release ignores the ballot (A3)",
		change: func(r *rules) {
			r.clears = func(v vote, released Ballot) bool { return v.ballot.Owner() == released.Owner() }
		},
		breaks: exclusion, seeds: 500, lesson: aFormerRelease,
	},
	{
		name:   "renewal accepted by a voter that promised higher (A1)",
		change: func(r *rules) { r.promised = func(Ballot, Ballot) bool { return false } },
		breaks: decisions, seeds: 500,
	},
	{
		name:   "an older value accepted again under a forgotten ballot",
		change: func(r *rules) { r.older = func(_, _ Record) bool { return false } },
		breaks: decisions, seeds: 500, lesson: anOlderValueAgain,
	},
	{
		name:   "value adopted from the first reply",
		change: func(r *rules) { r.prefer = func(_, _ Record, first bool) bool { return first } },
		breaks: decisions, seeds: 500,
	},
	{
		name: "value adopted by the highest epoch",
		change: func(r *rules) {
			r.prefer = func(c, best Record, first bool) bool { return first || c.Value.Epoch > best.Value.Epoch }
		},
		breaks: decisions, seeds: 500, lesson: aDecisionOfOne,
	},
	{
		name:   "late renewal accepted under a released ballot (A3)",
		change: func(r *rules) { r.closed = func(Ballot, Ballot) bool { return false } },
		breaks: exclusion, seeds: 500,
	},
}

// TestMutantsFail shows that the simulation finds what is broken, and says how
// many seeds it took.
func TestMutantsFail(t *testing.T) {
	for i := range mutants {
		m := &mutants[i]
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			steps := 0
			for seed := uint64(1); seed <= m.seeds; seed++ {
				s := draw(seed)
				if m.lesson != nil {
					s = lesson(seed, m.lesson)
				}
				p := s.run(m)
				steps += p.w.steps
				if p.w.failed() {
					t.Logf("found with seed %d, after %d steps: %s", seed, steps, p.w.check.failure)
					return
				}
			}
			t.Errorf("not found within %d seeds, %d steps", m.seeds, steps)
		})
	}
}

// mutantOf is the mutant of a name, for a history that must break with it.
func mutantOf(t *testing.T, name string) mutant {
	t.Helper()
	for _, m := range mutants {
		if m.name == name {
			return m
		}
	}
	t.Fatalf("no mutant %q", name)
	return mutant{}
}
