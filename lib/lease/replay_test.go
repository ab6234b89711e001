package lease

import (
	"testing"
	"time"
)

// playing plays lines one after the other, with the test ending at a wrong one.
func playing(t *testing.T, p *play) func(lines ...string) {
	t.Helper()
	return func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			if err := p.do(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
}

// sentTo is the last message to a node that fits.
func sentTo(t *testing.T, p *play, name string, fits func(it *Item) bool) (last Message) {
	t.Helper()
	n := p.w.node(name)
	for _, e := range p.w.history {
		if it := &e.msg.Items[0]; e.node == n.id && fits(it) && (last.Items == nil || it.Seq > last.Items[0].Seq) {
			last = *e.msg
		}
	}
	if last.Items == nil {
		t.Fatalf("nothing of the kind was sent to %s", name)
	}
	return last
}

// A voter has the decision y on disk. It restarts with the holder, whose earlier
// proposal of x, under the same ballot, arrives again when the voter's quarantine
// is over: neither the promise nor a live lease stands in its way.
func TestHistoryOldProposalAfterARestart(t *testing.T) {
	run := func(m *mutant) *play {
		p := &play{silent: true, mutant: m}
		do := playing(t, p)
		do("cluster voters=(a,b,w) lease=500ms disk", "start a", "start b", "start w", "stand a", "run 3s", "propose a value=x", "run 300ms")
		old := sentTo(t, p, "w", func(it *Item) bool { return it.Kind == KindPropose && string(it.Value.Data) == "x" })
		do("cut a b", "propose a value=y", "run 50ms", "crash a", "crash w", "start w", "run 600ms")
		p.w.node("w").deliver(old)
		do("stand b", "run 2s", "propose b value=z", "run 1s")
		return p
	}
	p := run(nil)
	if p.w.failed() {
		t.Error(p.w.check.failure)
	}
	holds(t, p, "b")
	if got := string(p.w.node("b").m.resource("vip").decided.Value.Data); got != "z" {
		t.Errorf("b decided %q last, want z", got)
	}
	m := mutantOf(t, "an older value accepted again under a forgotten ballot")
	if broken := run(&m); !broken.w.failed() {
		t.Error("with the mutant nothing breaks")
	} else {
		t.Log(broken.w.check.failure)
	}
}

// A stranger who has recorded what the holder said cannot keep its lease alive in
// the eyes of the others after its death.
func TestADeadHolderIsNotKeptAliveByReplays(t *testing.T) {
	p := &play{silent: true}
	do := playing(t, p)
	do("cluster voters=(a,b,w) lease=500ms", "start a", "start b", "start w", "stand a", "stand b rank=1", "run 3s")
	b, w := p.w.node("b"), p.w.node("w")
	held := func(it *Item) bool { return it.Kind == KindPropose && it.Held }
	toB, toW := sentTo(t, p, "b", held), sentTo(t, p, "w", held)
	do("crash a")
	for range 100 {
		do("run 20ms")
		b.deliver(toB)
		w.deliver(toW)
	}
	holds(t, p, "b")
}

// The same in a pair: the survivor goes on alone although the dead one's messages
// are played to it for ever.
func TestADeadPeerIsNotKeptAliveByReplays(t *testing.T) {
	p := &play{silent: true}
	do := playing(t, p)
	do("cluster voters=(a,b) mode=pair lease=500ms", "start a", "start b", "stand a", "stand b rank=1", "run 4s")
	holds(t, p, "a")
	b := p.w.node("b")
	old := sentTo(t, p, "b", func(it *Item) bool { return it.Kind == KindPropose && it.Held })
	do("crash a")
	for range 150 {
		do("run 20ms", "reach b")
		b.deliver(old)
	}
	holds(t, p, "b")
}

// A bid that has been promised and then not answered for longer than the lease it
// asked for cannot be won any more; it must not go on being remembered.
func TestABidThatCannotBeWonEnds(t *testing.T) {
	p := &play{silent: true}
	do := playing(t, p)
	do("cluster voters=(a,b,w) lease=2s", "net latency=5ms", "start a", "start b", "start w", "run 3s", "cut a", "stand a", "run 7500ms", "heal")
	for r := p.w.node("a").m.resource("vip"); r.phase != proposing; {
		p.w.run(time.Millisecond)
	}
	do("cut b->a", "cut w->a", "run 2100ms", "heal", "net latency=1ms")
	healed := p.w.now
	for p.w.holder("vip") == nil && p.w.now < healed+30*time.Second {
		p.w.run(time.Millisecond)
	}
	if took, bound := p.w.now-healed, Remember(2*time.Second)+time.Second; took > bound {
		t.Errorf("somebody held %v after the heal, want within a lease and a second (%v)", took, bound)
	}
}

// A ballot that begins again at zero would be used twice, and so would an epoch.
func TestACounterThatCouldWrapIsRefused(t *testing.T) {
	o := Owner{Node: "a", Incarnation: Incarnation{1}}
	for _, c := range []struct {
		name  string
		count func(it *Item, rec *Record) *uint64
	}{
		{"ballot", func(it *Item, _ *Record) *uint64 { return &it.Ballot.Counter }},
		{"epoch", func(it *Item, _ *Record) *uint64 { return &it.Value.Epoch }},
		{"ballot on disk", func(_ *Item, rec *Record) *uint64 { return &rec.Promised.Counter }},
		{"epoch on disk", func(_ *Item, rec *Record) *uint64 { return &rec.Value.Epoch }},
	} {
		it := Item{Kind: KindPropose, Resource: "vip", Seq: 1, Ballot: Ballot{Incarnation: o.Incarnation, Node: "a"}}
		rec := Record{Resource: "vip"}
		taken := func() bool {
			_, err := Decode(Encode(nil, Message{From: o, To: "b", Items: []Item{it}}))
			_, err2 := New(Config{
				Node: "b", Incarnation: Incarnation{2}, Voters: []string{"a", "b", "w"}, MaxLease: time.Second,
				Tuning: Tuning{Fixed: 500 * time.Millisecond}, Restored: []Record{rec},
			}, 0)
			return err == nil && err2 == nil
		}
		n := c.count(&it, &rec)
		if *n = maxCounter; !taken() {
			t.Errorf("%s: the highest was refused", c.name)
		}
		if *n++; taken() {
			t.Errorf("%s: one beyond the highest was taken", c.name)
		}
	}
}

// A voter that has restarted does not know which decisions it has reported; one
// from before the proposal that is on its disk is not reported again, though a
// stranger plays to it what the holder said at the time.
func TestARestartedVoterBelievesNoOlderDecision(t *testing.T) {
	p := &play{silent: true}
	do := playing(t, p)
	do("cluster voters=(a,b,w) lease=500ms disk", "start a", "start b", "start w", "stand a", "run 3s", "propose a value=x", "run 300ms")
	old := sentTo(t, p, "w", func(it *Item) bool {
		return it.Kind == KindPropose && string(it.Value.Data) == "x" && it.Commit == it.ValueSeq
	})
	do("propose a value=y", "run 300ms")
	told := sentTo(t, p, "w", func(it *Item) bool {
		return it.Kind == KindPropose && string(it.Value.Data) == "y" && it.Commit == it.ValueSeq
	})
	do("cut w", "crash w", "start w")
	w := p.w.node("w")
	w.deliver(old)
	if got := w.m.resource("vip").decided.Value; got.Epoch != 0 {
		t.Errorf("w reports %s after its restart, and keeps %s", show(got), show(w.m.resource("vip").voter.record.Value))
	}
	w.deliver(told)
	if got := string(w.m.resource("vip").decided.Value.Data); got != "y" {
		t.Errorf("w reports %q, want y", got)
	}
}

// An announcement of a holder of an earlier time, which a follower passes on when
// all voters have forgotten it, does not make the present holder let go.
func TestAVoterLetsGoForNoAnnouncement(t *testing.T) {
	p := &play{silent: true}
	do := playing(t, p)
	do("cluster voters=(a,b,w) lease=500ms", "start a", "start b", "start w", "stand b", "run 3s", "propose b value=x", "run 100ms")
	b := p.w.node("b")
	old, ok := b.m.Announcement(b.local(p.w.now))
	if !ok {
		t.Fatal("b announces nothing")
	}
	old.Items[0].Ballot.Counter = 100 // so that it is the higher one
	do("crash a", "crash b", "crash w", "run 1s", "start a", "start b", "start w", "stand b willing=no", "stand a", "run 3s")
	holds(t, p, "a")
	p.w.node("a").deliver(old)
	holds(t, p, "a")
	if got := p.w.node("a").m.resource("vip").decided; got.Value.Epoch != 0 {
		t.Errorf("a believes %v, of which it was only told", got)
	}
}
