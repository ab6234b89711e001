package lease

import (
	"fmt"
	"testing"
	"time"
)

// tuned is what became of a lease over a time of trouble.
type tuned struct {
	lost            int           // times that the holder let go
	before, longest time.Duration // lengths asked for
}

// stall freezes a node now and then, as a starved machine does: for up to 30,
// 60, 120, 240 ms, longer the longer the trouble has lasted.
func stall(w *world, n *node, begun time.Duration) {
	worst := 30 * time.Millisecond << min((w.now-begun)/(2*time.Second), 3)
	n.frozen = true
	w.run(w.rand.upTo(worst))
	n.thaw()
	w.run(w.rand.upTo(100 * time.Millisecond))
}

// troubled lets a holder have two quiet minutes and ten bad ones.
func troubled(t *testing.T, lease, net string, seed int, stalls bool) tuned {
	t.Helper()
	p := playAll(t, fmt.Sprintf("cluster voters=(a,b,w) seed=%d %s", seed, lease), "net latency=300us jitter=1ms",
		"start a", "start b", "start w", "stand a", "stand b rank=1", "run 2m")
	w, a := p.w, p.w.node("a")
	asked := func() time.Duration { return a.m.asked(a.m.resource("vip")) }
	out := tuned{before: asked()}
	if err := p.do(net); err != nil {
		t.Fatal(err)
	}
	for begun := w.now; w.now < begun+10*time.Minute; {
		if stalls {
			stall(w, a, begun)
		} else {
			w.run(100 * time.Millisecond)
		}
		if w.failed() {
			t.Fatal(w.check.failure)
		}
		if w.holder("vip") != a {
			out.lost++
			_ = p.do("release holder to=a")
			w.run(3 * time.Second)
		}
		out.longest = max(out.longest, asked())
	}
	return out
}

// TestTheLeaseLengthensBeforeItIsLost: the tuned lease is at its shortest after
// two quiet minutes, and outlasts ten minutes of 30 % loss, and of a machine
// that stands still for up to 240 ms ten times a second, which a lease that
// stays at 300 ms does not.
func TestTheLeaseLengthensBeforeItIsLost(t *testing.T) {
	for _, c := range []struct {
		name, net string
		stalls    bool
		seeds     int
	}{
		{"30 % loss", "net latency=300us jitter=1ms loss=300", false, 1},
		{"stalls", "net latency=300us jitter=1ms", true, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			var auto, fixed tuned
			for seed := range c.seeds {
				got := troubled(t, "auto", c.net, seed, c.stalls)
				if got.before != 300*time.Millisecond {
					t.Errorf("seed %d: %v after two quiet minutes, want 300ms", seed, got.before)
				}
				auto.lost, auto.longest = auto.lost+got.lost, max(auto.longest, got.longest)
				if c.stalls {
					fixed.lost += troubled(t, "lease=300ms max=2s", c.net, seed, true).lost
				}
			}
			t.Logf("in %d minutes: tuned lost %d times, up to %v; 300 ms lost %d times", 10*c.seeds, auto.lost, auto.longest, fixed.lost)
			if auto.lost > 0 {
				t.Errorf("the tuned lease was lost %d times", auto.lost)
			}
			if c.stalls && fixed.lost == 0 {
				t.Error("a lease of 300 ms was never lost: nothing is shown here")
			}
		})
	}
}

// TestALongLeaseDoesNotKeepItselfLong: after one stall of 200 ms it is 1.25 s,
// renewed every 200 ms; a minute later it is at its shortest again.
func TestALongLeaseDoesNotKeepItselfLong(t *testing.T) {
	p := playAll(t, "cluster voters=(a,b,w) auto", "net latency=300us", "start a", "start b", "start w", "stand a", "run 2m",
		"freeze a", "run 200ms", "thaw a", "run 1s")
	a := p.w.node("a")
	r := a.m.resource("vip")
	if got := a.m.asked(r); got < time.Second || got > 1300*time.Millisecond {
		t.Errorf("after a stall of 200 ms: %v, want about 1.2s", got)
	}
	p.w.run(61 * time.Second)
	if got := a.m.asked(r); got != 300*time.Millisecond {
		t.Errorf("a quiet minute later: %v, want 300ms", got)
	}
	holds(t, p, "a")
}

// TestALateFirstStepIsNoStall: a process may take its time to start.
func TestALateFirstStepIsNoStall(t *testing.T) {
	m, err := New(Config{
		Node: "a", Incarnation: Incarnation{1}, Voters: []string{"a", "b", "w"}, MaxLease: 2 * time.Second, Tuning: Tuning{Auto: true},
	}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	m.Step(time.Hour+3*time.Second, Stand{Resource: "vip", Willing: true})
	if got := m.asked(m.resource("vip")); got != tunerFirst {
		t.Errorf("asks for %v, want %v", got, tunerFirst)
	}
}
