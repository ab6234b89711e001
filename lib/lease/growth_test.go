package lease

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// growing is a cluster whose voters change by a rolling restart.
type growing struct {
	*play
	t    *testing.T
	seed int
	rand random
}

func (g *growing) do(format string, args ...any) {
	g.t.Helper()
	line := fmt.Sprintf(format, args...)
	if err := g.play.do(line); err != nil {
		g.t.Fatalf("%s: %v", line, err)
	}
	if g.w.failed() {
		g.t.Fatalf("seed %d: %s: %s", g.seed, line, g.w.check.failure)
	}
}

// to makes names the voters: the new one is started, the others are restarted
// one by one, the holder last. Meanwhile decisions are made, links are cut and
// healed, and the holder hands over.
func (g *growing) to(names ...string) {
	g.t.Helper()
	before := g.w.voters
	g.do("voters (%s)", strings.Join(names, ","))
	for _, n := range names {
		if !slices.Contains(before, n) {
			g.do("start %s", n)
			g.do("stand %s rank=2", n)
			g.trouble()
		}
	}
	order := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(before, n) })
	slices.SortStableFunc(order, func(a, b string) int {
		holds := func(n string) int {
			if h := g.w.holder("vip"); h != nil && h.name == n {
				return 1
			}
			return 0
		}
		return holds(a) - holds(b)
	})
	differed := false
	for _, n := range order {
		g.do("release %s", n) // an orderly stop
		g.do("crash %s", n)
		g.do("run 100ms")
		g.do("start %s", n)
		g.trouble()
		for _, m := range g.w.nodes {
			differed = differed || m.m != nil && len(m.m.Differing()) > 0
		}
	}
	if !differed {
		g.t.Errorf("seed %d: nobody showed that the lists differ", g.seed)
	}
	for _, n := range before {
		if !slices.Contains(names, n) {
			g.do("crash %s", n)
		}
	}
	g.do("run 7s")
	g.do("expect-holder")
	for _, n := range names {
		if d := g.w.node(n).m.Differing(); len(d) > 0 {
			g.t.Errorf("seed %d: %s still sees that %v differ", g.seed, n, d)
		}
	}
}

// trouble is what happens between two restarts: it ends before the next.
func (g *growing) trouble() {
	g.t.Helper()
	g.do("run 800ms")
	for range 4 {
		n := g.w.voters[g.rand.next()%uint64(len(g.w.voters))]
		switch g.rand.next() % 4 {
		case 0:
			g.do("cut %s", n)
		case 1:
			g.do("cut holder->%s", n)
		case 2:
			g.do("release holder to=%s", n)
		default:
			g.do("propose holder value=v%d", g.rand.next()%1000)
		}
		g.do("run %v", g.rand.upTo(700*ms))
	}
	g.do("heal")
	g.do("run 1500ms")
}

// TestVotersChangeOneAtATime: from three voters to five and back to three, one
// at a time by a rolling restart, with and without a disk; among cuts and
// hand-overs nobody ever finds two holders, and what was decided stays.
func TestVotersChangeOneAtATime(t *testing.T) {
	for seed := range 20 {
		g := &growing{play: &play{silent: true}, t: t, seed: seed, rand: random(seed)}
		disk := []string{"disk", ""}[seed%2]
		g.do("cluster voters=(a,b,c) lease=500ms seed=%d eager %s", seed, disk)
		g.do("net loss=30 dup=50 jitter=3ms")
		for i, n := range g.w.voters {
			g.do("start %s", n)
			g.do("stand %s rank=%d", n, i)
		}
		g.do("run 2s")
		g.to("a", "b", "c", "d")
		g.to("a", "b", "c", "d", "e")
		g.to("a", "b", "d", "e") // not the one that came last goes first
		g.to("b", "d", "e")
		if g.w.check.takeUps < 8 || g.w.check.decided < 20 {
			t.Errorf("seed %d: only %d take-ups and %d decisions", seed, g.w.check.takeUps, g.w.check.decided)
		}
	}
}

// TestTwoVotersAtOnceIsUnsafe shows why the package comment says one at a time:
// two of three and three of five need have nobody in common.
func TestTwoVotersAtOnceIsUnsafe(t *testing.T) {
	p := script{
		"cluster voters=(a,b,c) lease=500ms", "start a", "start b", "start c", "stand a", "run 2s",
		"voters (a,b,c,d,e)", "crash c", "start c", "start d", "start e", "stand d", "run 600ms",
		"cut a c", "cut a d", "cut a e", "cut b c", "cut b d", "cut b e", "run 2s",
	}.run(nil)
	if !strings.Contains(p.w.check.failure, "TWO HOLDERS") {
		t.Errorf("got %q, want two holders: the package comment warns of them", p.w.check.failure)
	}
}
