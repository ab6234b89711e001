package vip

import (
	"strings"
	"testing"
	"time"
)

// A client may use a port again, for a connection with the other node, that it
// had with this one before the address moved.

const callersPort = "5555"

// portUsedAgain leaves a connection with b from a port that a has carried, with
// the address back at a.
func portUsedAgain(t *testing.T, l *lab, m *mover, to string) *proc {
	t.Helper()
	const grace = 20 * time.Second
	first := l.start("c", "caller", nil, to, callersPort)
	if by := first.try("hello"); by != "a" {
		t.Fatalf("answered by %q, want a", by)
	}
	if got := first.try("bye"); got != "over: EOF" { // the server closes first, as HAProxy does
		t.Fatal(got)
	}
	first.kill()
	m.move("a", "b", grace)
	time.Sleep(100 * time.Millisecond)
	second := l.start("c", "caller", nil, to, callersPort)
	if by := second.try("hello"); by != "b" {
		t.Fatalf("answered by %q, want b", by)
	}
	m.move("b", "a", grace)
	time.Sleep(100 * time.Millisecond)
	return second
}

func TestAPortUsedAgainIsNotTakenForOurs(t *testing.T) {
	for _, to := range []string{vip4 + ":80", "[" + vip6 + "]:80"} {
		t.Run(to, func(t *testing.T) {
			l := newLab(t, "a", "b", "c")
			m := newMover(l)
			m.node["a"].ask("hold web %s", testLease)
			// The first time what ended had not been noted, since nothing had moved
			// before; the second time it had.
			for _, when := range []string{"before the first move", "in a later tenure"} {
				c := portUsedAgain(t, l, m, to)
				if by := c.try("hello"); by != "b" {
					t.Errorf("%s: %q answered, want b", when, by)
				}
				if got := c.try("bye"); got != "over: EOF" {
					t.Errorf("%s: ended by %q", when, got)
				}
				c.kill()
			}
		})
	}
}

// Packets of a dead holder's connection must not be answered from what is left of
// an ended one.
func TestAPortUsedAgainIsResetWhenItsHolderDies(t *testing.T) {
	for _, to := range []string{vip4 + ":80", "[" + vip6 + "]:80"} {
		t.Run(to, func(t *testing.T) {
			l := newLab(t, "a", "b", "c")
			m := newMover(l)
			m.node["a"].ask("hold web %s", testLease)
			c := portUsedAgain(t, l, m, to)
			left := func() bool { return strings.Contains(l.in("a", "ss", "-Htan", "state", "time-wait"), ":"+callersPort) }
			if left() {
				if l.in("a", "ss", "-K", "state", "time-wait"); left() {
					t.Skip("NOT TESTED: this kernel cannot forget an ended connection")
				}
				t.Error("what a's former tenure left is still there")
			}
			l.in("b", "ip", "link", "set", "eth0", "down")
			m.node["a"].ask("hold web %s", testLease) // the agent has noticed: no predecessor any more
			if got := c.try("hello"); !strings.Contains(got, "reset") {
				t.Errorf("%s, want a reset", got)
			}
		})
	}
}
