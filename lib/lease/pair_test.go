package lease

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPairHasOneHolderWhileTheLinkIsUp: nodes crash, restart, hand over, and
// some messages are lost; as long as the two hear each other, or one is dead,
// there is one holder at most.
func TestPairHasOneHolderWhileTheLinkIsUp(t *testing.T) {
	for seed := range uint64(60) {
		g := &drawer{rand: random(seed), names: []string{"a", "b"}, resources: []string{"vip"}}
		g.add("cluster voters=(a,b) mode=pair lease=500ms seed=%d eager%s", seed, []string{"", " max=2600ms"}[seed%2])
		g.add("net loss=30 dup=50 jitter=4ms")
		for _, n := range g.names {
			g.add("start %s", n)
			g.add("stand %s rank=%d", n, g.below(2))
			g.add("reach %s", n)
		}
		for range 40 {
			switch n := g.name(); g.below(5) {
			case 3: // nobody wants it for a while, then both do
				g.everybody("no")
				g.add("release holder")
				g.pause(2 * time.Second)
				g.everybody("yes")
			case 0:
				g.add("crash %s", n)
				g.pause(3 * time.Second)
				g.add("start-if-down %s", n)
			case 1:
				g.add("release holder to=%s", n)
			case 2:
				g.add("propose holder value=x%d", g.below(1000))
			}
			g.pause(time.Second)
		}
		g.peace()
		p := &play{silent: true}
		for _, line := range g.lines {
			if err := p.do(line); err != nil {
				t.Fatal(err)
			}
			p.w.check.pair = false // what is shown here is exclusion, as for a quorum
			p.w.check.only = exclusion
		}
		if p.w.failed() {
			t.Errorf("seed %d: %s", seed, p.w.check.failure)
		}
		if p.w.holder("vip") == nil {
			t.Errorf("seed %d: nobody holds in the end", seed)
		}
	}
}

// TestPairEndsInOneHolderAfterTheHeal: the link is cut and healed at random
// moments; a second after the heal there is one holder, and it is one whose
// epoch was not lower.
func TestPairEndsInOneHolderAfterTheHeal(t *testing.T) {
	for seed := range uint64(60) {
		r := random(seed)
		lines := []string{
			fmt.Sprintf("cluster voters=(a,b) mode=pair lease=500ms seed=%d eager", seed), "start a", "start b",
			"stand a", "stand b rank=1", "reach a", "reach b", "run 2s",
		}
		for i := range 5 {
			lines = append(lines, "cut a b", fmt.Sprintf("run %v", r.upTo(2*time.Second)),
				fmt.Sprintf("propose %s value=y%d", []string{"a", "b"}[r.next()%2], i), "run 100ms", "heal", "run 1500ms")
		}
		p := playAll(t, lines...)
		n := 0
		for _, x := range p.w.nodes {
			if s := x.m.Status(x.local(p.w.now)); s[0].Self {
				n++
				if s[0].Alone {
					t.Errorf("seed %d: %s is still alone", seed, x.name)
				}
			}
		}
		if n != 1 {
			t.Errorf("seed %d: %d holders after the heal", seed, n)
		}
	}
}

// TestPairAsksBeforeItIsAlone: a peer that holds nothing has nothing to say, so that
// its silence while both are in quarantine, or while nobody wants the lease, is
// none. Both begin in the same instant, over a link that is whole: there is one
// holder, with both votes. And a peer that is dead is not waited for longer than
// the quarantine if it was asked meanwhile.
func TestPairAsksBeforeItIsAlone(t *testing.T) {
	const longest = " mode=pair lease=500ms max=2600ms"
	for name, lines := range map[string][]string{
		"both start":            {"start a", "start b", "stand a", "stand b", "run 4s"},
		"both start, one first": {"start a", "start b", "stand a", "stand b rank=1", "run 4s"},
		"both want it at last":  {"start a", "start b", "run 4s", "stand a", "stand b", "run 1s"},
		"both want it back":     {"start a", "start b", "stand a", "run 4s", "stand a willing=no", "release a", "run 4s", "stand a", "stand b", "run 1s"},
		"a holder that was shot and no longer wants it": {
			"start a", "start b", "stand a", "run 4s", "crash a", "stand a willing=no", "start a", "run 5s", "stand b", "stand a", "run 1s",
		},
		"a holder that was shot": {"start a", "start b", "stand a", "run 4s", "crash a", "start a", "run 4s", "stand a", "stand b", "run 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &play{}
			for _, line := range append([]string{"cluster voters=(a,b)" + longest}, lines...) {
				if err := p.do(line); err != nil {
					t.Fatal(err)
				}
				p.w.check.pair, p.w.check.only = false, exclusion
				for _, n := range p.w.nodes {
					n.reach = true
				}
			}
			if told := p.told(); p.w.failed() || p.w.holder("vip") == nil || strings.Contains(told, string(PairHealed)) {
				t.Errorf("want one holder, never alone; told:\n%s", told)
			}
		})
	}
	p := playAll(t, "cluster voters=(a,b)"+longest, "start a", "reach a", "stand a", "run 2700ms")
	holds(t, p, "a")
}

// pairUp is a pair of which a holds; both pass the isolation test, or not.
func pairUp(reach bool, lines ...string) []string {
	up := []string{"cluster voters=(a,b) mode=pair lease=500ms", "start a", "start b", "stand a", "stand b rank=1"}
	if reach {
		up = append(up, "reach a", "reach b")
	}
	return append(append(up, "run 2s"), lines...)
}

// TestPairSurvivorWaitsForTheEndOfThePeersLease: a dies, and its fence goes on to
// its deadline; b takes up after that, and soon.
func TestPairSurvivorWaitsForTheEndOfThePeersLease(t *testing.T) {
	for cut := range 20 {
		p := playAll(t, pairUp(true, fmt.Sprintf("run %dms", 13*cut))...)
		a, b := p.w.node("a"), p.w.node("b")
		deadline := a.global(a.m.resource("vip").deadline)
		died := p.w.now
		a.crash()
		for p.w.holder("vip") == nil && p.w.now < died+2*time.Second {
			p.w.run(time.Millisecond)
		}
		switch {
		case p.w.holder("vip") != b:
			t.Errorf("b has not taken up")
		case p.w.now < deadline:
			t.Errorf("b took up at %v, before a's deadline %v", p.w.now, deadline)
		case p.w.now > deadline+250*time.Millisecond:
			t.Errorf("b took up %v after a's deadline", p.w.now-deadline)
		}
		if s := b.m.Status(b.local(p.w.now)); !s[0].Alone {
			t.Error("b does not say that it is alone")
		}
	}
}

// TestPairNobodyIsAloneWithoutTheIsolationTest: neither the survivor of a dead
// peer, nor a holder, if it reaches nobody else; nor with a result from before
// the peer fell silent.
func TestPairNobodyIsAloneWithoutTheIsolationTest(t *testing.T) {
	for name, lines := range map[string][]string{
		"a candidate that reaches nobody": pairUp(false, "crash a", "run 5s"),
		"a holder that reaches nobody":    pairUp(false, "crash b", "run 5s"),
		"both, cut in two":                pairUp(false, "cut a b", "run 5s"),
	} {
		t.Run(name, func(t *testing.T) {
			p := playAll(t, lines...)
			holds(t, p, "nobody")
		})
	}
	m := pairAlone(t)
	m.m.Step(m.now, Reach{OK: true})
	m.peerSpeaks()
	if m.bidsAlone() {
		t.Error("a result from before the peer was last heard counted")
	}
	m.m.Step(m.now, Reach{OK: true})
	if !m.bidsAlone() {
		t.Error("a fresh result did not count")
	}
	for after, counts := range map[time.Duration]bool{0: false, time.Millisecond: true} {
		m := pairAlone(t)
		m.peerSpeaks()
		began := m.now + after
		m.now += 2 * time.Millisecond
		if m.m.Step(m.now, Reach{OK: true, Began: began}); m.bidsAlone() != counts {
			t.Errorf("a test that began %v after the peer's last word, and is told later: counts %v, want %v", after, !counts, counts)
		}
	}
}

// lonely is one machine of a pair whose peer says only what the test says.
type lonely struct {
	m   *Machine
	now time.Duration
	seq uint64
}

func pairAlone(t *testing.T) *lonely {
	t.Helper()
	m, err := New(Config{
		Node: "a", Incarnation: Incarnation{1}, Voters: []string{"a", "b"}, Mode: ModePair, MaxLease: time.Second,
		Tuning: Tuning{Fixed: 500 * time.Millisecond},
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &lonely{m: m, now: 5 * time.Second}
}

func (l *lonely) peerSpeaks() {
	l.seq++
	l.now += time.Millisecond
	b := Owner{"b", Incarnation{2}}
	l.m.Step(l.now, Receive{Message{From: b, To: "a", Settings: l.m.settings, Items: []Item{
		{Kind: KindInform, Resource: "vip", Ballot: Ballot{Counter: 1, Incarnation: b.Incarnation, Node: b.Node}, Seq: l.seq},
	}}})
}

// bidsAlone says whether the machine takes a lease up within the second that
// the last result of its isolation test counts for.
func (l *lonely) bidsAlone() bool {
	l.m.Step(l.now, Stand{Resource: "vip", Willing: true})
	for end := l.now + 900*time.Millisecond; l.now < end; l.now += 10 * time.Millisecond {
		l.m.Step(l.now, Tick{})
		if l.m.Status(l.now)[0].Self {
			return true
		}
	}
	return false
}

// TestPairHealEndsInTheHigherEpoch: both have held; whoever decided more stays,
// whichever that is, and is told to announce again; the other lets go for the
// reason pair-healed, within a renewal of the heal.
func TestPairHealEndsInTheHigherEpoch(t *testing.T) {
	for _, winner := range []string{"a", "b"} {
		p := playAll(t, pairUp(true, "propose a value=x", "run 100ms", "cut a b", "run 1s",
			"propose "+winner+" value=y", "run 200ms")...)
		for _, name := range []string{"a", "b"} {
			n := p.w.node(name)
			if s := n.m.Status(n.local(p.w.now)); !s[0].Self || !s[0].Alone {
				t.Fatalf("%s: %+v, want that it holds alone", name, s[0])
			}
		}
		var told []string
		p.w.tell = func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }
		for _, line := range []string{"heal", "run 250ms"} {
			if err := p.do(line); err != nil {
				t.Fatal(err)
			}
		}
		holds(t, p, winner)
		loser := map[string]string{"a": "b", "b": "a"}[winner]
		var again, gone bool
		for _, line := range told {
			again = again || strings.Contains(line, winner+"   takes up vip: pair-healed")
			gone = gone || strings.Contains(line, loser+"   lets go of vip: pair-healed")
		}
		if !again || !gone {
			t.Errorf("%s has decided more; told:\n%s", winner, strings.Join(told, "\n"))
		}
		n := p.w.node(winner)
		if s := n.m.Status(n.local(p.w.now)); s[0].Alone || string(s[0].Value.Data) != "y" {
			t.Errorf("after the heal: %+v, want y, not alone", s[0])
		}
	}
}

// TestPairBothAgreeWhileBothAreHeard: a peer that answers, and says no, is not
// gone, whatever else this node reaches.
func TestPairBothAgreeWhileBothAreHeard(t *testing.T) {
	p := playAll(t, pairUp(true, "release a", "stand a willing=no", "stand b willing=no", "run 1s")...)
	a, b := p.w.node("a"), p.w.node("b")
	// b remembers a lease of somebody else.
	b.m.resource("vip").voter.vote = vote{ballot: Ballot{Counter: 9, Incarnation: Incarnation{9}, Node: "z"}, expires: b.local(p.w.now) + 5*time.Second}
	a.stand(Stand{Resource: "vip", Willing: true})
	p.w.run(4 * time.Second)
	holds(t, p, "nobody")
	p.w.run(2 * time.Second)
	holds(t, p, "a")
}
