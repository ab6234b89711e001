package lease

import (
	"slices"
	"testing"
)

// keep makes the network hold back what goes one way, or deliver what it held
// back.
func (w *world) keep(way [2]int, on bool) {
	if on {
		if w.kept == nil {
			w.kept = map[[2]int][]event{}
		}
		w.kept[way] = []event{}
		return
	}
	for _, e := range w.kept[way] {
		e.at = w.now
		w.push(e)
	}
	delete(w.kept, way)
}

// lives checks that a machine that has had an answer of a voter's present life
// counts nothing more of a former one: a voter without a disk has forgotten what
// it accepted and promised then. What it returns is called after the step.
func (c *checker) lives(n *node, msg *Message) (after func()) {
	voter := slices.Index(c.w.voters, msg.From.Node)
	answers := slices.ContainsFunc(msg.Items, func(it Item) bool { return it.Kind.answers() && it.Ballot.Owner() == n.m.owner })
	if voter < 0 || !answers {
		return func() {}
	}
	life := int(msg.From.Incarnation[1])
	if life >= n.met[voter] {
		// An answer to a request from before the former life was heard is not
		// counted, and then it is the former life that counts on.
		m := n.m
		return func() {
			if p := slices.Index(m.voters, msg.From.Node); p >= 0 && m.peers[p].owner == msg.From {
				n.met[voter] = life
			}
		}
	}
	m, before := n.m, n.votesOf(voter)
	return func() {
		for i, r := range m.resources {
			if i < len(before) && (r.tally.seq[voter] > before[i].seq || r.tally.promises.has(voter) && !before[i].promised) {
				c.fail(oneLife, "VOTE OF A FORMER LIFE: %v counted %v of %s, which had answered it as start %d", m.owner, msg.From, r.name, n.met[voter])
			}
		}
	}
}

type votes struct {
	seq      uint64
	promised bool
}

func (n *node) votesOf(voter int) []votes {
	out := make([]votes, len(n.m.resources))
	for i, r := range n.m.resources {
		out[i] = votes{r.tally.seq[voter], r.tally.promises.has(voter)}
	}
	return out
}

// w accepts a decision and dies, and its vote is late. In its next life it
// answers a request from before the decision, and knows nothing. If the late
// vote counted now, a would tell everybody of a decision that nobody but a
// itself knows; and b decides something else in the same epoch when a is gone.
func TestHistoryVoteOfAFormerLife(t *testing.T) {
	told, y := formerLife(t, nil)
	if told || y.Epoch != 1 {
		t.Errorf("decision told: %v; b decided %s: want that nothing was told, and epoch 1", told, show(y))
	}
	broken := mutantOf(t, "answers of a voter's former life counted (P2)")
	broken.breaks = decisions // the checker must not end the play
	if told, y = formerLife(t, &broken); !told || y.Epoch != 1 {
		t.Errorf("mutant: decision told: %v; b decided %s: want epoch 1 decided twice", told, show(y))
	}
}

// formerLife plays it, and returns whether a told of its decision, and what b
// decided later.
func formerLife(t *testing.T, m *mutant) (told bool, y Value) {
	t.Helper()
	p := &play{silent: true, mutant: m}
	do := func(lines ...string) {
		for _, line := range lines {
			if err := p.do(line); err != nil {
				t.Fatal(err)
			}
		}
	}
	do("cluster voters=(a,b,w) lease=2s", "start a", "start b", "start w", "stand a", "stand b rank=1", "run 5s",
		"cut a b", "keep a->w", "keep w->a", "run 400ms")
	a, b, w := p.w.node("a"), p.w.node("b"), p.w.node("w")
	there, back := [2]int{a.id, w.id}, [2]int{w.id, a.id}
	renewal := p.w.kept[there] // is still under way; the decision overtakes it
	do("keep a->w", "propose a value=x", "hand a->w", "run 1ms", "keep a->w")
	if w.m.resource("vip").voter.record.Value.Epoch != 1 {
		t.Fatal("w has not accepted the decision")
	}
	vote := p.w.kept[back]
	do("keep w->a", "crash w", "start w")
	for _, e := range renewal {
		w.deliver(*e.msg)
	}
	for _, e := range append(p.w.kept[back], vote...) {
		a.deliver(*e.msg)
	}
	told = a.m.resource("vip").decided.Value.Epoch == 1
	do("crash a", "hand w->a", "keep a->w", "hand a->w", "run 6s") // what a had sent is lost
	if b.m.resource("vip").voter.record.Value.Epoch == 1 {
		t.Fatal("b knows of the decision")
	}
	do("propose b value=y", "run 1s")
	return told, b.m.resource("vip").decided.Value
}
