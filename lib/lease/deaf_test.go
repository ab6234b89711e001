package lease

import (
	"testing"
	"time"
)

// TestPairOfWhichOneIsDeaf: a node of a pair still speaks and hears nothing, and
// its isolation test says so. The other one serves, whoever held before, and
// goes on: that it hears its peer asking must not keep it waiting for an answer
// that cannot come.
func TestPairOfWhichOneIsDeaf(t *testing.T) {
	for _, c := range []struct {
		name, sound string
		fault       []string
	}{
		{"the holder", "b", []string{"reach a ok=no", "cut b->a"}},
		{"the standby", "a", []string{"reach b ok=no", "cut a->b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := playAll(t, pairUp(true, append(c.fault, "run 2s")...)...)
			for end := p.w.now + 3*time.Second; p.w.now < end && !t.Failed(); p.w.run(5 * time.Millisecond) {
				holds(t, p, c.sound)
			}
			if n := p.w.node(c.sound); !n.m.Status(n.local(p.w.now))[0].Alone {
				t.Errorf("%s does not say that it is alone", c.sound)
			}
			for _, line := range []string{"heal", "run 300ms", "reach a", "reach b", "run 2s"} {
				if err := p.do(line); err != nil {
					t.Fatal(err)
				}
			}
			holds(t, p, c.sound)
			if n := p.w.node(c.sound); n.m.Status(n.local(p.w.now))[0].Alone {
				t.Errorf("%s is still alone after the heal", c.sound)
			}
		})
	}
}

// TestPairOfWhichOneIsDeafToTheOtherOnly: one direction of the link between two
// sound nodes is cut, and each reaches the rest of the world. The deaf one hears
// nobody and goes on alone; the other hears that it does, and has let go by then
// or does so at once.
func TestPairOfWhichOneIsDeafToTheOtherOnly(t *testing.T) {
	for cut := range 20 {
		for _, c := range []struct{ deaf, link string }{{"a", "cut b->a"}, {"b", "cut a->b"}} {
			p := playAll(t, pairUp(true, "run "+(time.Duration(cut)*13*time.Millisecond).String(), c.link)...)
			both := time.Duration(0)
			for end := p.w.now + 4*time.Second; p.w.now < end; p.w.run(time.Millisecond) {
				if holdsVIP(p.w.node("a")) && holdsVIP(p.w.node("b")) {
					both += time.Millisecond
				}
			}
			if holds(t, p, c.deaf); both > 5*time.Millisecond {
				t.Errorf("%s after %d ms: both held for %v", c.link, 13*cut, both)
			}
		}
	}
}

func holdsVIP(n *node) bool { return n.m.Status(n.local(n.w.now))[0].Self }
