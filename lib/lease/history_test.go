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

// history is a course of events that breaks a promise unless a rule forbids it.
type history struct {
	lines  []string
	holder string // who holds in the end
	// breaks are the mutants, each of which must break a promise in it: what a
	// history is about, it needs.
	breaks []string
}

func (h history) run(t *testing.T) *play {
	t.Helper()
	p := playAll(t, h.lines...)
	holds(t, p, h.holder)
	for _, name := range h.breaks {
		m := mutantOf(t, name)
		broken := script(h.lines).run(&m)
		if !broken.w.failed() {
			t.Errorf("with %q nothing breaks", name)
			continue
		}
		t.Logf("with %q: %s", name, broken.w.check.failure)
	}
	return p
}

const (
	noA2         = "live lease of another owner overwritten (A2)"
	noSet        = "replies counted instead of voters (P2)"
	lateDeadline = "deadline taken when the reply arrives (T1)"
	ownerByNode  = "owner identified by node, not incarnation"
	shortSilence = "quarantine shortened (A4, T3)"
	anyRelease   = "release ignores the ballot (A3)"
	lateRenewal  = "late renewal accepted under a released ballot (A3)"
)

var threeUp = []string{"cluster voters=(a,b,w) lease=500ms", "start a", "start b", "start w", "stand a", "stand b rank=1", "run 3s"}

func after(lines ...string) []string { return append(append([]string(nil), threeUp...), lines...) }

// The paper of 2012 lets a voter overwrite a live lease when a higher ballot
// comes. Voter w has restarted, and knows of a's lease by a renewal only. Node b,
// which a no longer reaches, has forgotten it, and asks w with a higher ballot:
// two owners, if w gave in.
func TestHistoryVoterRestartsThenRenewalArrives(t *testing.T) {
	history{after("crash w", "start w", "run 800ms", "cut a->b", "run 2s"), "a", []string{noA2}}.run(t)
}

// The same voter, if no renewal arrives: it has forgotten a's lease, and must
// keep silent until that is over.
func TestHistoryVoterRestartsAndNoRenewalArrives(t *testing.T) {
	history{after("cut a->b", "run 1s", "crash w", "cut a->w", "start w", "run 1500ms"), "b", []string{shortSilence}}.run(t)
}

// A holder that restarts is somebody else: the fence of its former life may
// still be open.
func TestHistoryHolderRestarts(t *testing.T) {
	history{after("stand b willing=no", "crash a", "start a", "run 1500ms"), "a", []string{ownerByNode}}.run(t)
}

// A release must not clear what the same owner won later: it arrives once more
// when w is the only one, besides a, that remembers a's next lease.
func TestHistoryEarlyRelease(t *testing.T) {
	history{
		after("release a to=a", "run 300ms", "cut a->b", "run 600ms", "replay 300 kind=release", "run 400ms", "replay 300 kind=release", "run 600ms"),
		"a",
		[]string{anyRelease},
	}.run(t)
}

// Votes for a renewal are under way when its holder releases the lease. They
// arrive when somebody else holds it.
func TestHistoryVotesAfterTheRelease(t *testing.T) {
	history{after("keep w->a", "keep b->a", "run 200ms", "release a to=b", "run 50ms", "hand w->a", "hand b->a", "run 300ms"), "b", []string{lateRenewal}}.run(t)
}

// More than 304 messages lay on a stopped peer, and arrive at once, the last
// first, when their sender is gone: w's votes for a dead lease count for nobody.
func TestHistoryStoppedPeerWakesToOldMessages(t *testing.T) {
	p := playAll(t, after("freeze w", "run 31s")...)
	if n := len(p.w.node("w").inbox); n < 304 {
		t.Fatalf("only %d messages were queued", n)
	}
	history{after("freeze w", "run 31s", "crash a", "run 600ms", "thaw w", "run 1s"), "b", nil}.run(t)
	// And if it is the holder that was stopped: what it finds is of no use to
	// it, whatever it says.
	history{after("freeze a", "run 31s", "thaw a", "run 1s"), "b", nil}.run(t)
}

// The last votes for a reach it when its deadline is over or nearly so, and
// none of its requests reach anybody any more: they give it nothing beyond what
// it asked for.
func TestHistoryReplyAfterTheDeadline(t *testing.T) {
	history{after("keep b->a", "keep w->a", "run 150ms", "cut a->*", "run 200ms", "hand b->a", "hand w->a", "run 1500ms"), "b", []string{lateDeadline}}.run(t)
	history{after("keep b->a", "keep w->a", "run 400ms", "cut a->*", "run 200ms", "hand b->a", "hand w->a", "run 1500ms"), "b", nil}.run(t)
}

// Two candidates that bid at the same instant, again and again: it ends.
func TestHistoryTwoCandidatesBidAtOnce(t *testing.T) {
	outbid := 0
	for seed := range 50 {
		p := playAll(t, fmt.Sprintf("cluster voters=(a,b,w) lease=500ms seed=%d", seed), "net latency=15ms", "start a", "start b", "start w", "run 1s")
		met := false
		p.w.wire = func(_ time.Duration, _, _ string, msg Message) {
			met = met || msg.Items[0].Kind == KindRefuse && msg.Items[0].Reason == PromisedHigher
		}
		for _, line := range []string{"stand a", "stand b", "run 800ms", "expect-holder"} {
			if err := p.do(line); err != nil || p.w.failed() {
				t.Fatalf("seed %d: %s: %v %s", seed, line, err, p.w.check.failure)
			}
		}
		if met {
			outbid++
		}
	}
	if outbid < 40 {
		t.Errorf("the candidates met in %d of 50 runs only", outbid)
	}
}

// The holder's clock is 1 % slow, its voters' 1 % fast: the edge. A tenth beyond
// it the promise is broken, so the edge is where it is said to be.
func TestHistoryClockAtTheEdge(t *testing.T) {
	lines := func(ppm int) []string {
		return []string{
			"cluster voters=(a,b,w) lease=10s max=10s", fmt.Sprintf("clock a ppm=%d", -ppm), fmt.Sprintf("clock b ppm=%d", ppm),
			fmt.Sprintf("clock w ppm=%d", ppm), "start a", "start b", "start w", "stand a", "run 15s", "stand b", "cut a", "run 10200ms",
		}
	}
	history{lines(10000), "b", nil}.run(t)
	if p := script(lines(11000)).run(nil); !p.w.failed() {
		t.Error("clocks that differ by 2.2 % break nothing: the edge is not where it should be")
	}
}

// A partition isolates the holder together with the witness: it keeps the
// lease. Then without it: the other side has it.
func TestHistoryHolderIsolatedWithTheWitnessThenWithout(t *testing.T) {
	history{after("cut a b", "run 2s"), "a", []string{noA2}}.run(t)
	history{after("cut a b", "run 2s", "heal", "cut a", "run 1s"), "b", []string{noSet}}.run(t)
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

// On starved machines every answer takes up to 360 ms, and a third of the
// messages is lost: half of a lease, which is how long a first bid lasts, is
// less than two round trips. Bids must last for longer until one succeeds.
func TestHistoryAnswersSlowerThanABid(t *testing.T) {
	for seed := range 20 {
		playAll(t, fmt.Sprintf("cluster voters=(a,b,w) auto seed=%d", seed), "net latency=300us jitter=1ms", "start a", "start b", "start w",
			"stand a", "stand b rank=1", "run 10s", "net latency=30ms jitter=150ms loss=300", "crash holder", "run 5s", "expect-holder")
	}
}
