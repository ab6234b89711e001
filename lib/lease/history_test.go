package lease

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// playAll plays lines, and fails if a promise was broken.
func playAll(t *testing.T, lines ...string) *play {
	t.Helper()
	p := &play{silent: true}
	for _, line := range lines {
		if err := p.do(line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if p.w.failed() {
			t.Fatalf("%s: %s", line, p.w.check.failure)
		}
	}
	return p
}

func holds(t *testing.T, p *play, want string) {
	t.Helper()
	got := "nobody"
	if n := p.w.holder("vip"); n != nil {
		got = n.name
	}
	if got != want {
		t.Errorf("at %v %s holds, want %s", p.w.now, got, want)
	}
}

var threeUp = []string{"cluster voters=(a,b,w) lease=500ms", "start a", "start b", "start w", "stand a", "stand b rank=1", "run 3s"}

func after(lines ...string) []string { return append(append([]string(nil), threeUp...), lines...) }

// The paper of 2012 lets a voter that restarted accept a renewal, and then
// overwrite it when a higher ballot comes: two owners. Here w keeps silent, so
// that a, whom b does not hear, lets go in time.
func TestHistoryVoterRestartsThenRenewalArrives(t *testing.T) {
	playAll(t, after("cut a->b", "crash w", "start w", "run 2s")...)
}

// A release must not clear what the same owner won later.
func TestHistoryEarlyRelease(t *testing.T) {
	p := playAll(t, after("release a to=a", "run 300ms", "cut a->b", "replay 300 kind=release", "run 400ms", "replay 300 kind=release", "run 600ms")...)
	holds(t, p, "a")
}

// 304 messages lay on a stopped peer, and arrive at once, the last first.
func TestHistoryStoppedPeerWakesToOldMessages(t *testing.T) {
	p := playAll(t, after("freeze w", "run 31s")...)
	if n := len(p.w.node("w").inbox); n < 304 {
		t.Fatalf("only %d messages were queued", n)
	}
	for _, line := range []string{"crash a", "run 600ms", "thaw w", "run 1s"} {
		if err := p.do(line); err != nil || p.w.failed() {
			t.Fatal(line, err, p.w.check.failure)
		}
	}
	holds(t, p, "b")
}

// A reply that arrives after the deadline renews nothing.
func TestHistoryReplyAfterTheDeadline(t *testing.T) {
	playAll(t, after("net latency=600ms", "run 400ms", "cut a->*", "run 2s")...)
}

// Two candidates that bid at the same instant, for ever: it ends.
func TestHistoryTwoCandidatesBidAtOnce(t *testing.T) {
	for seed := range 50 {
		p := playAll(t, fmt.Sprintf("cluster voters=(a,b,w) lease=500ms seed=%d", seed), "net latency=15ms",
			"start a", "start b", "start w", "run 1s", "stand a", "stand b", "run 800ms", "expect-holder")
		if p.w.failed() {
			t.Errorf("seed %d: %s", seed, p.w.check.failure)
		}
	}
}

// The holder's clock is 1 % slow, its voters' 1 % fast: the edge.
func TestHistoryClockAtTheEdge(t *testing.T) {
	lines := append([]string{"cluster voters=(a,b,w) lease=10s max=10s", "clock a ppm=-10000", "clock b ppm=10000", "clock w ppm=10000"},
		threeUp[1:6]...)
	p := playAll(t, append(lines, "run 12s", "cut a", "run 10200ms")...)
	holds(t, p, "b")
}

// A partition isolates the holder together with the witness: it keeps the
// lease. Then without it: the other side has it.
func TestHistoryHolderIsolatedWithTheWitnessThenWithout(t *testing.T) {
	p := playAll(t, after("cut a b", "cut w b", "run 2s")...)
	holds(t, p, "a")
	p = playAll(t, after("cut a b", "cut w b", "run 2s", "heal", "cut a", "run 1s")...)
	holds(t, p, "b")
}

// Clusters of every size lose as many voters as they may, and one more.
func TestEverySizeOfClusterSurvivesItsMinority(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 7} {
		names := strings.Split("a,b,c,d,e,f,g", ",")[:n]
		lines := []string{"cluster lease=500ms voters=(" + strings.Join(names, ",") + ")"}
		for i, name := range names {
			lines = append(lines, "start "+name, fmt.Sprintf("stand %s rank=%d", name, i))
		}
		lines = append(lines, "run 2s")
		for i := range (n - 1) / 2 {
			lines = append(lines, "crash "+names[i])
		}
		p := playAll(t, append(lines, "run 1s")...)
		holds(t, p, names[(n-1)/2])
		if n > 1 {
			p.w.node(names[n-1]).crash()
			p.w.run(time.Second)
			holds(t, p, "nobody")
		}
	}
}
