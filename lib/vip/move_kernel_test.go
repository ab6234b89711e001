package vip

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// mover plays the agents of two nodes: it hands the group over as DESIGN §4 says.
type mover struct {
	node  map[string]*proc
	four  map[string]string
	six   map[string]string
	moves []time.Duration // when, CLOCK_BOOTTIME
	gap   time.Duration   // the longest between yielding and the successor's taking up
}

func newMover(l *lab, env ...string) *mover { return newMoverOf(l, both, env...) }

// newMoverOf moves the groups given.
func newMoverOf(l *lab, vips string, env ...string) *mover {
	m := &mover{
		node: map[string]*proc{},
		four: map[string]string{"a": "10.77.0.1", "b": "10.77.0.2"},
		six:  map[string]string{"a": "fd77::1", "b": "fd77::2"},
	}
	for _, n := range []string{"a", "b"} {
		l.server(n)
		m.node[n] = l.sidecar(n, vips, env...)
	}
	return m
}

const testLease = 500 * time.Millisecond

func (m *mover) move(from, to string, grace time.Duration) { m.moveGroup("web", from, to, grace) }

func (m *mover) moveGroup(group, from, to string, grace time.Duration) {
	yielded := m.do(from, "yield %s %s 200ms %s %s", group, grace, m.four[to], m.six[to])
	held := m.do(to, "hold %s %s %s %s %s", group, testLease, grace+time.Second, m.four[from], m.six[from])
	m.moves = append(m.moves, duration(yielded[1]))
	m.gap = max(m.gap, duration(held[1])+duration(held[2])-duration(yielded[1]))
}

// do asks a node for its part in a move.
func (m *mover) do(node, format string, args ...any) []string {
	p := m.node[node]
	p.t.Helper()
	got := p.try(format, args...)
	if strings.Contains(got, ErrLate.Error()) {
		p.t.Skip("NOT TESTED: this machine is too busy, a lease ran out while the kernel was told of it")
	}
	if strings.HasPrefix(got, "err") {
		p.t.Fatalf("%s: %s", node, got)
	}
	return strings.Fields(got)
}

func TestPlannedMoveIsNotNoticed(t *testing.T) {
	for _, to := range []string{vip4, "[" + vip6 + "]"} {
		t.Run(strings.Trim(to, "[]"), func(t *testing.T) {
			l := newLab(t, "a", "b", "c", "d")
			m := newMover(l)
			m.node["a"].ask("hold web %s", testLease)
			clients := map[string]*proc{
				"new connections":     l.client("c", "dial", to+":80", "5ms"),
				"busy connections":    l.client("c", "keep", to+":80", "50", "10ms"),
				"idle connections":    l.client("d", "keep", to+":80", "20", "1s"),
				"others' connections": l.client("d", "dial", to+":80", "5ms"),
			}
			time.Sleep(300 * time.Millisecond)
			// To and fro, some within a second of each other.
			from, next := "a", "b"
			for _, pause := range []int{400, 100, 900, 300, 2000, 250} {
				m.move(from, next, 20*time.Second)
				from, next = next, from
				time.Sleep(time.Duration(pause) * time.Millisecond)
			}
			if s := m.node["a"].status(); s.Tracking.Count != 0 {
				t.Errorf("this kernel tracks %d connections; beside a firewall is another test", s.Tracking.Count)
			}
			t.Logf("at most %s from yielding to taken up", m.gap)
			if m.gap > 180*time.Millisecond {
				t.Skip("NOT TESTED: this machine is too busy, the successor came later than the 200 ms in which the old holder takes new connections")
			}
			for n, p := range m.node {
				t.Logf("%s: %s, errors %s", n, p.ask("events"), p.ask("errors"))
			}
			for name, c := range clients {
				r := c.finish()
				t.Logf("%s: %d asked, by %v, slowest %s", name, r.Asked, r.By, r.Worst)
				if r.Failed > 0 || r.Answered < 50 {
					t.Errorf("%s: %+v, moves at %v", name, r, m.moves)
				}
				for _, how := range r.EndedBy {
					if how != "client" {
						t.Errorf("%s: a connection ended by %q", name, how)
					}
				}
				if strings.HasPrefix(name, "new") && len(r.By) != 2 {
					t.Errorf("%s: served by %v only", name, r.By)
				}
			}
		})
	}
}

func TestConnectionsLeftAfterTheGraceAreReset(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	m := newMover(l)
	m.node["a"].ask("hold web %s", testLease)
	c4 := l.client("c", "keep", vip4+":80", "20", "200ms")
	c6 := l.client("c", "keep", "["+vip6+"]:80", "20", "200ms")
	time.Sleep(300 * time.Millisecond)
	m.move("a", "b", 2*time.Second)
	time.Sleep(2500 * time.Millisecond)
	if l.has("a", vip4) || l.has("a", vip6) {
		t.Error("the old holder still has the addresses after the grace")
	}
	for _, c := range []*proc{c4, c6} {
		r := c.finish()
		if r.By["b"] > 0 || r.By["a"] < 20*7 {
			t.Errorf("old connections served by %v", r.By)
		}
		if len(r.EndedBy) != 20 || r.Worst > 500*time.Millisecond {
			t.Errorf("want 20 connections reset at once: %d ended, slowest %s, %v", len(r.EndedBy), r.Worst, r.Errors)
		}
	}
	if got := m.node["a"].ask("events"); !strings.Contains(got, string(ReasonMoveEnded)) {
		t.Error(got)
	}
}

func TestMoveWithoutTheGateLosesOnlyOldConnections(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	m := newMover(l, "NOGATE=1")
	m.node["a"].ask("hold web %s", minLease6)
	clients := map[string]*proc{"IPv4": l.client("c", "dial", vip4+":80", "5ms"), "IPv6": l.client("c", "dial", "["+vip6+"]:80", "5ms")}
	time.Sleep(300 * time.Millisecond)
	m.move("a", "b", 20*time.Second)
	time.Sleep(time.Second)
	if l.has("a", vip4) || l.has("a", vip6) {
		t.Error("without the gate the old holder must let go after 200 ms")
	}
	if s := m.node["a"].status(); s.Grace.Available || s.Grace.Reason == "" {
		t.Errorf("%+v", s.Grace)
	}
	for family, c := range clients {
		r := c.finish()
		t.Logf("%s: %+v", family, r)
		if r.Failed > 2 || r.By["b"] == 0 {
			t.Errorf("%s: %+v", family, r)
		}
	}
}

func TestOldHolderDiesInTheGrace(t *testing.T) {
	for _, to := range []string{vip4, "[" + vip6 + "]"} {
		t.Run(strings.Trim(to, "[]"), func(t *testing.T) {
			l := newLab(t, "a", "b", "c")
			m := newMover(l)
			m.node["a"].ask("hold web %s", testLease)
			c := l.client("c", "keep", to+":80", "5", "50ms")
			time.Sleep(200 * time.Millisecond)
			m.move("a", "b", 20*time.Second)
			time.Sleep(200 * time.Millisecond)
			l.in("a", "ip", "link", "set", "eth0", "down")
			m.node["b"].ask("hold web %s", testLease) // the agent has noticed: no predecessor any more
			time.Sleep(time.Second)
			if r := c.finish(); len(r.EndedBy) != 5 || slices.Contains(r.EndedBy, "client") {
				t.Errorf("connections of a dead holder must be reset by the new one: %+v", r)
			}
		})
	}
}

func TestSuccessorDiesAndTheOldHolderTakesUpAgain(t *testing.T) {
	for _, to := range []string{vip4, "[" + vip6 + "]"} {
		t.Run(strings.Trim(to, "[]"), func(t *testing.T) {
			l := newLab(t, "a", "b", "c")
			m := newMover(l)
			m.node["a"].ask("hold web %s", testLease)
			c := l.client("c", "keep", to+":80", "5", "50ms")
			time.Sleep(200 * time.Millisecond)
			m.move("a", "b", 20*time.Second)
			time.Sleep(300 * time.Millisecond)
			l.in("b", "ip", "link", "set", "eth0", "down")
			time.Sleep(300 * time.Millisecond)
			m.node["a"].ask("hold web %s", testLease)
			d := l.client("c", "dial", to+":80", "10ms")
			time.Sleep(time.Second)
			if r := c.finish(); r.Failed > 0 || r.By["b"] > 0 || r.By["a"] == 0 {
				t.Errorf("old connections: %+v", r)
			}
			if r := d.finish(); r.Failed > 0 || r.By["a"] < 50 {
				t.Errorf("new connections: %+v", r)
			}
		})
	}
}

// Two groups of one Manager move by themselves: what one of them does is not
// noticed in the other, wherever that is.
func TestTwoGroupsMoveByThemselves(t *testing.T) {
	const api4, api6 = "10.77.0.101", "fd77::101"
	l := newLab(t, "a", "b", "c", "d")
	m := newMoverOf(l, both+";api="+api4+"/32@eth0,"+api6+"/128@eth0")
	clients := map[string]*proc{}
	for _, g := range []string{"web", "api"} {
		m.node["a"].ask("hold %s %s", g, testLease)
	}
	for name, to := range map[string]string{"web, IPv4": vip4, "web, IPv6": "[" + vip6 + "]", "api, IPv4": api4, "api, IPv6": "[" + api6 + "]"} {
		clients["kept by "+name] = l.client("c", "keep", to+":80", "10", "50ms")
		clients["new to "+name] = l.client("d", "dial", to+":80", "20ms")
	}
	time.Sleep(300 * time.Millisecond)
	at := map[string]string{"web": "a", "api": "a"}
	for _, step := range []struct{ group, from, to string }{
		{"web", "a", "b"},
		{"api", "a", "b"},
		{"web", "b", "a"},
		{"api", "b", "a"},
		{"api", "a", "b"},
		{"web", "a", "b"}, // in the other order, within a second
	} {
		m.moveGroup(step.group, step.from, step.to, 20*time.Second)
		at[step.group] = step.to
		for i, g := range []string{"web", "api"} {
			if got := m.node[at[g]].status().Groups[i].Role; got != Holding {
				t.Errorf("%s on %s: %s after the move of %s", g, at[g], got, step.group)
			}
		}
		time.Sleep(400 * time.Millisecond)
	}
	t.Logf("at most %s from yielding to taken up", m.gap)
	if m.gap > 180*time.Millisecond {
		t.Skip("NOT TESTED: this machine is too busy, the successor came later than the 200 ms in which the old holder takes new connections")
	}
	for name, c := range clients {
		r := c.finish()
		t.Logf("%s: %d asked, by %v, slowest %s", name, r.Asked, r.By, r.Worst)
		if r.Failed > 0 || r.Answered < 50 {
			t.Errorf("%s: %+v, moves at %v", name, r, m.moves)
		}
		if strings.HasPrefix(name, "kept") && (r.By["b"] > 0 || slices.ContainsFunc(r.EndedBy, func(how string) bool { return how != "client" })) {
			t.Errorf("%s: by %v, ended by %v", name, r.By, r.EndedBy)
		}
		if strings.HasPrefix(name, "new") && len(r.By) != 2 {
			t.Errorf("%s: served by %v only", name, r.By)
		}
	}
}

// A neighbour's entry runs out during the grace, and the old holder has to ask
// for it: in its own name.
func TestYieldingNodeAsksNeighboursInItsOwnName(t *testing.T) {
	for _, to := range []string{vip4, "[" + vip6 + "]"} {
		t.Run(strings.Trim(to, "[]"), func(t *testing.T) {
			l := newLab(t, "a", "b", "c")
			m := newMover(l)
			m.node["a"].ask("hold web %s", testLease)
			c := l.client("c", "keep", to+":80", "3", "50ms")
			m.move("a", "b", 20*time.Second)
			time.Sleep(300 * time.Millisecond)
			mac := strings.Fields(l.in("b", "cat", "/sys/class/net/eth0/address"))[0]
			for range 5 {
				l.in("a", "ip", "neigh", "flush", "dev", "eth0")
				time.Sleep(100 * time.Millisecond)
				if out := l.in("c", "ip", "neigh", "show", strings.Trim(to, "[]")); !strings.Contains(out, mac) {
					t.Fatalf("the old holder moved the client's cache: %s, want %s", out, mac)
				}
			}
			if r := c.finish(); r.Failed > 0 || r.By["b"] > 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}
