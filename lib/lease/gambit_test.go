package lease

import "time"

// gambit is a short plan of the adversary's, for what single deeds seldom hit
// upon.
type gambit func(*drawer)

var gambits = []gambit{answersToAFormerLife, aFormerRelease, lateAnswers, anOlderValueAgain, aDecisionOfOne, aVoterForgets, theSameBallots}

// lesson makes a script of one gambit in a calm cluster of three: in the midst of
// everything else few of them are carried out as they were meant. Every other
// cluster has disks.
func lesson(seed uint64, plan gambit) script {
	g := &drawer{rand: random(seed * 0x9e3779b97f4a7c15), names: []string{"a", "b", "c"}, resources: []string{"vip"}, longest: 500 * time.Millisecond}
	g.add("cluster seed=%d voters=(a,b,c) lease=500ms%s", seed, []string{" disk", ""}[seed%2])
	g.add("net latency=1ms")
	for i, n := range g.names {
		g.add("start %s", n)
		g.add("stand %s rank=%d", n, i)
	}
	g.add("run 3s")
	plan(g)
	g.pause(time.Second)
	g.peace()
	return g.lines
}

// pause lets some time pass, up to d.
func (g *drawer) pause(d time.Duration) {
	g.add("run %v", g.rand.upTo(d).Round(100*time.Microsecond))
}

// answersToAFormerLife: a holder that comes back meets them.
func answersToAFormerLife(g *drawer) {
	n := g.name()
	g.add("release holder to=%s", n)
	g.pause(time.Second)
	g.add("crash %s", n)
	g.pause(100 * time.Millisecond)
	g.add("start %s", n)
	for range 4 {
		g.pause(60 * time.Millisecond)
		g.add("replay 40 kind=promise")
		g.add("replay 40 kind=accept")
	}
}

// aFormerRelease arrives again under the same owner's next lease.
func aFormerRelease(g *drawer) {
	n := g.name()
	g.add("release holder to=%s", n)
	g.pause(200 * time.Millisecond)
	g.add("release holder to=%s", n)
	g.pause(500 * time.Millisecond)
	g.add("cut holder->%s", g.name())
	g.pause(800 * time.Millisecond)
	g.add("replay 60 kind=release")
}

// lateAnswers reach a holder whose requests no longer reach anybody.
func lateAnswers(g *drawer) {
	g.add("net slow=%d latency=1ms jitter=300ms", 100+g.below(400))
	g.pause(300 * time.Millisecond)
	g.add("cut holder->*")
	g.add("net latency=1ms")
	g.pause(time.Second)
}

// anOlderValueAgain: a voter that has a decision on disk meets an older one.
func anOlderValueAgain(g *drawer) {
	at := g.below(len(g.names))
	role := func(i int) string { return g.names[(at+i)%len(g.names)] }
	g.add("net latency=1ms")
	g.add("release holder to=%s", role(0))
	g.pause(500 * time.Millisecond)
	g.value += 2
	g.add("propose %s of=vip value=v%d", role(0), g.value-1)
	g.add("run 600ms")
	g.add("cut %s %s", role(0), role(2))
	g.add("propose %s of=vip value=v%d", role(0), g.value)
	g.add("run 60ms")
	g.everybody("no") // so that nobody writes to the voter before
	g.add("crash %s", role(0))
	g.add("crash %s", role(1))
	g.add("start %s", role(1))
	g.add("heal")
	g.add("run %v", slowest)
	g.add("replay %d kind=propose", 1+g.below(3)) // more would bring the later one back
	g.add("run 30ms")                             // before a new ballot is promised
	g.everybody("yes")
}

// aDecisionOfOne: only the holder's own voter takes it, another node holds and
// decides, and the first one comes back.
func aDecisionOfOne(g *drawer) {
	n := g.name()
	g.add("release holder to=%s", n)
	g.pause(300 * time.Millisecond)
	g.value += 2
	g.add("cut %s", n)
	g.add("propose %s of=vip value=v%d", n, g.value-1)
	g.pause(1200 * time.Millisecond)
	g.add("propose holder of=vip value=v%d", g.value)
	g.pause(200 * time.Millisecond)
	g.add("heal")
	g.pause(200 * time.Millisecond)
	g.add("release holder to=%s", n)
}

// aVoterForgets the lease of a holder that reaches nobody any more, and the other
// one has forgotten it already.
func aVoterForgets(g *drawer) {
	at := g.below(len(g.names))
	n, other := g.names[at], g.names[(at+1)%len(g.names)]
	g.add("cut holder->%s", other)
	g.add("run 1s")
	g.add("crash %s", n)
	g.add("cut holder->%s", n)
	g.add("start %s", n)
	g.pause(time.Second)
}

// theSameBallots: everything has restarted, so that ballots begin at one; the
// first holder restarts, and hears nothing but the answers to its former life.
func theSameBallots(g *drawer) {
	at := g.below(len(g.names))
	n, other := g.names[at], g.names[(at+1)%len(g.names)]
	g.everybody("no")
	for _, name := range g.names {
		g.add("crash %s", name)
	}
	for _, name := range g.names {
		g.add("start %s", name)
	}
	g.add("run %v", slowest)
	g.add("stand %s of=vip", n)
	g.pause(500 * time.Millisecond)
	g.add("crash %s", n)
	g.add("stand %s of=vip", other)
	g.add("run 1s")
	g.add("cut %s", n)
	g.add("start %s", n)
	for range 4 {
		g.pause(60 * time.Millisecond)
		g.add("replay 40 kind=promise")
		g.add("replay 40 kind=accept")
	}
}

// everybody has all stand, or nobody.
func (g *drawer) everybody(willing string) {
	for _, n := range g.names {
		for _, r := range g.resources {
			g.add("stand %s of=%s willing=%s", n, r, willing)
		}
	}
}
