package lease

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script is a run of the simulation: lines for play, drawn from a seed.
type script []string

// draw makes a script: a cluster, an adversary for about half a minute of virtual
// time, then peace, in which somebody must hold within the bound.
func draw(seed uint64) script {
	g := &drawer{rand: random(seed * 0x9e3779b97f4a7c15)}
	g.cluster(seed)
	for range 60 + g.below(120) {
		g.act()
		if g.below(4) > 0 {
			g.add("run %v", g.rand.upTo(400*time.Millisecond).Round(100*time.Microsecond))
		}
	}
	g.peace()
	return g.lines
}

type drawer struct {
	rand      random
	lines     script
	names     []string
	resources []string
	longest   time.Duration
	value     int
}

func (g *drawer) below(n int) int           { return int(g.rand.next() % uint64(n)) }
func (g *drawer) add(f string, args ...any) { g.lines = append(g.lines, fmt.Sprintf(f, args...)) }
func (g *drawer) name() string              { return g.names[g.below(len(g.names))] }
func (g *drawer) resource() string          { return g.resources[g.below(len(g.resources))] }

// anyone is a node, or the holder rather often: that is where it hurts.
func (g *drawer) anyone() string {
	if g.below(2) == 0 {
		return "holder"
	}
	return g.name()
}

func (g *drawer) cluster(seed uint64) {
	g.names = []string{"a", "b", "c", "d", "e", "f", "g"}[:[]int{3, 3, 3, 3, 2, 5, 3, 7}[g.below(8)]]
	g.resources = []string{"vip"}
	if g.below(4) == 0 {
		g.resources = []string{"site", "vip"}
	}
	line := fmt.Sprintf("cluster seed=%d voters=(%s)", seed, strings.Join(g.names, ","))
	switch g.below(4) {
	case 0:
		g.longest = 2 * time.Second
		line += " auto"
	case 1:
		g.longest = 300 * time.Millisecond
		line += " lease=300ms"
	default:
		g.longest = 500 * time.Millisecond
		line += " lease=500ms"
	}
	if g.below(2) == 0 {
		line += " disk"
	}
	if g.below(2) == 0 {
		line += " eager"
	}
	g.add("%s", line)
	g.net()
	for i, n := range g.names {
		g.add("clock %s ppm=%d", n, []int64{-10000, 10000, 0, int64(g.below(20001)) - 10000}[g.below(4)])
		g.add("start %s", n)
		for _, r := range g.resources {
			g.add("stand %s of=%s rank=%d", n, r, i*g.below(2))
		}
	}
}

func (g *drawer) net() {
	if g.below(3) == 0 {
		g.add("net latency=1ms")
		return
	}
	g.add("net loss=%d dup=%d slow=%d latency=%v jitter=%v", g.below(300), g.below(200), g.below(100),
		g.rand.upTo(5*time.Millisecond).Round(time.Microsecond), g.rand.upTo(60*time.Millisecond).Round(time.Microsecond))
}

// act is one deed of the adversary.
func (g *drawer) act() {
	switch g.below(24) {
	case 0:
		n := g.anyone()
		g.add("crash %s", n)
	case 1, 2:
		n := g.name()
		g.add("crash %s", n)
		g.add("run %v", g.rand.upTo(300*time.Millisecond).Round(100*time.Microsecond))
		g.add("start %s", n)
	case 3:
		g.add("freeze %s", g.anyone())
	case 4, 5:
		g.add("thaw %s", g.name())
	case 6, 18:
		g.add("cut %s->%s", g.anyone(), g.name())
	case 16, 17:
		g.add("replay %d", 5+g.below(40))
	case 7:
		g.add("cut %s", g.anyone())
	case 8:
		g.add("heal")
		g.net()
	case 9:
		g.add("stand %s of=%s rank=%d willing=%s", g.name(), g.resource(), g.below(3), []string{"no", "yes", "yes"}[g.below(3)])
	case 10, 11:
		g.add("release %s of=%s to=%s", g.anyone(), g.resource(), g.name())
	case 12, 13, 14:
		g.value++
		g.add("propose %s of=%s value=v%d", g.anyone(), g.resource(), g.value)
	case 20, 21, 22, 23:
		gambits[g.below(len(gambits))](g)
	default:
		g.add("clock %s ppm=%d", g.name(), []int64{-10000, 10000, 0}[g.below(3)])
	}
}

// peace ends everything that the adversary did. The bound: the longest lease
// remembered, or a quarantine, and a second for bids.
func (g *drawer) peace() {
	g.add("heal")
	g.add("net latency=1ms")
	for _, n := range g.names {
		g.add("start-if-down %s", n)
		g.add("thaw %s", n)
		for _, r := range g.resources {
			g.add("stand %s of=%s", n, r)
		}
	}
	g.add("run %v", slowest+Remember(Remember(g.longest))+time.Second)
	for _, r := range g.resources {
		g.add("expect-holder of=%s", r)
	}
}

// run plays a script until it ends or a promise is broken.
func (s script) run(m *mutant) *play {
	p := &play{silent: true, mutant: m}
	for _, line := range s {
		if err := p.do(line); err != nil {
			panic(line + ": " + err.Error())
		}
		if p.w.failed() {
			break
		}
	}
	return p
}

// shrink leaves out of a failing script whatever it also fails without, in the
// same way.
func (s script) shrink(m *mutant, budget int) script {
	kind := func(p *play) string {
		_, after, _ := strings.Cut(p.w.check.failure, ": ")
		return strings.Join(strings.Fields(after)[:min(2, len(strings.Fields(after)))], " ")
	}
	want := kind(s.run(m))
	for size := len(s) / 2; size > 0; size /= 2 {
		for at := 1; at < len(s) && budget > 0; {
			budget--
			shorter := slices.Delete(slices.Clone(s), at, min(at+size, len(s)))
			if p := shorter.run(m); p.w.failed() && kind(p) == want {
				s = shorter
			} else {
				at += size
			}
		}
	}
	return s
}

// transcript replays a script and tells what happened, in the form of a story.
func (s script) transcript(m *mutant) string {
	p := &play{mutant: m}
	var b strings.Builder
	for _, line := range s {
		if err := p.do(line); err != nil {
			panic(line + ": " + err.Error())
		}
		fmt.Fprintf(&b, "%s\n----\n%s\n\n", line, strings.TrimRight(p.told(), "\n"))
		if p.w.failed() {
			break
		}
	}
	return b.String()
}

// report fails the test with a shrunk transcript.
func (s script) report(t *testing.T, seed uint64) {
	t.Helper()
	short := s.shrink(nil, 400)
	t.Errorf("seed %d breaks a promise; shrunk from %d lines to %d, to be put into testdata/stories:\n\n%s",
		seed, len(s), len(short), short.transcript(nil))
}

// firstSeed is TANDEM_TEST_SEED, or 1.
func firstSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("TANDEM_TEST_SEED")
	if text == "" {
		return 1
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("TANDEM_TEST_SEED=%q: want a number such as 17", text)
	}
	return seed
}

// TestNoTwoHolders is the simulation: at least a million steps, or as many as
// fit into TANDEM_TEST_SOAK (a duration), from TANDEM_TEST_SEED on.
func TestNoTwoHolders(t *testing.T) {
	const million = 1_000_000
	seed := firstSeed(t)
	begin := time.Now()
	enough := func(steps int) bool { return steps >= million }
	if text := os.Getenv("TANDEM_TEST_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("TANDEM_TEST_SOAK=%q: want a duration such as 10m", text)
		}
		enough = func(int) bool { return time.Since(begin) >= d }
	}
	var steps, takeUps, renewals, decided, risks int
	first := seed
	for ; !enough(steps) && !t.Failed(); seed++ {
		for _, s := range []script{draw(seed), lesson(seed, gambits[seed%uint64(len(gambits))])} {
			p := s.run(nil)
			c := p.w.check
			steps, takeUps, renewals = steps+p.w.steps, takeUps+c.takeUps, renewals+c.renewals
			decided, risks = decided+c.decided, risks+c.risks
			if p.w.failed() {
				s.report(t, seed)
			}
		}
	}
	t.Logf("seeds %d to %d: %d steps (%.0f a second), %d take-ups, %d renewals, %d decisions heard, %d times too few remembered one",
		first, seed-1, steps, float64(steps)/time.Since(begin).Seconds(), takeUps, renewals, decided, risks)
}
