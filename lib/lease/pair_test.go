package lease

import (
	"fmt"
	"testing"
	"time"
)

// TestPairHasOneHolderWhileTheLinkIsUp: nodes crash, restart, hand over, and
// some messages are lost; as long as the two hear each other, or one is dead,
// there is one holder at most.
func TestPairHasOneHolderWhileTheLinkIsUp(t *testing.T) {
	for seed := range uint64(60) {
		g := &drawer{rand: random(seed), names: []string{"a", "b"}, resources: []string{"vip"}}
		g.add("cluster voters=(a,b) mode=pair lease=500ms seed=%d eager", seed)
		g.add("net loss=30 dup=50 jitter=4ms")
		for _, n := range g.names {
			g.add("start %s", n)
			g.add("stand %s rank=%d", n, g.below(2))
			g.add("reach %s", n)
		}
		for range 40 {
			switch n := g.name(); g.below(4) {
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
