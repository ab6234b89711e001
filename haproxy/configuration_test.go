package haproxy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

// changed starts HAProxy with a backend, lets site a be active, and returns what
// reloads it with another configuration.
func changed(t *testing.T, backends string) (p *haproxytest.Process, i *running, reload func(backends string)) {
	t.Helper()
	p = haproxytest.Start(t, haproxytest.Global+backends)
	i = run(t, Config{Socket: p.Socket, StateFile: filepath.Join(p.Dir, "state"), JournalFile: filepath.Join(p.Dir, "journal")})
	i.applied(toA)
	return p, i, func(backends string) {
		t.Helper()
		fileSays(t, filepath.Join(p.Dir, "state"), func(table []Server) bool { return states(table) == states(i.Observed().Servers) })
		p.Configure(haproxytest.Global + backends)
		p.Reload()
		i.until("the new process as wanted", func(o Observation) bool { return o.PID == p.PID() && o.Applied == i.desired.Epoch })
	}
}

// Servers that have other names after a reload are other servers, and the old ones
// are forgotten: who comes later under such a name was not drained by tandem.
func TestServersRenamedByAReload(t *testing.T) {
	old, other := haproxytest.Backend("be", 2), strings.NewReplacer("a-2", "a-9", "b-2", "b-9").Replace(haproxytest.Backend("be", 2))
	p, i, reload := changed(t, old)
	knows := func(ours, gone string) {
		t.Helper()
		j, err := loadJournal(i.cfg.JournalFile)
		if err != nil || !j.Ours(ServerID{"be", ours}) || j.Ours(ServerID{"be", gone}) {
			t.Errorf("the journal says %+v, %v", j, err)
		}
	}
	knows("b-2", "b-9")
	reload(other)
	knows("b-9", "b-2")
	if got, want := really(t, p), "be/a-1=none be/a-9=none be/b-1=FDRAIN be/b-9=FDRAIN"; got != want {
		t.Fatalf("%s", got)
	}
	i.applied(toB)
	reload(old)
	if got := really(t, p); got != onB || len(i.Observed().Held) != 0 {
		t.Fatalf("%s, held %+v", got, i.Observed().Held)
	}
	reload(other) // b-9 and a-9 come a second time
	i.applied(Desired{Epoch: 3, Rules: toA.Rules})
	if got, want := really(t, p), "be/a-1=none be/a-9=none be/b-1=FDRAIN be/b-9=FDRAIN"; got != want {
		t.Fatalf("%s", got)
	}
	knows("b-9", "b-2")
}

// A backend that is gone after a reload is no fault, but said; one that comes back
// is as decided at once.
func TestABackendVanishesInAReload(t *testing.T) {
	one, two := haproxytest.Backend("one", 1), haproxytest.Backend("two", 1)
	p, i, reload := changed(t, one+two)
	d := Desired{Epoch: 2, Rules: []Rule{{Pattern: "one/b-*", Want: Ready}, {Pattern: "two/b-*", Want: Ready}, {Pattern: "*/a-*", Want: Drain}}}
	if o := i.applied(d); len(o.Unmatched) != 0 {
		t.Fatalf("%+v", o.Unmatched)
	}
	reload(one)
	o := i.Observed()
	if got := really(t, p); got != "one/a-1=FDRAIN one/b-1=none" || !slices.Equal(o.Unmatched, []string{"two/b-*"}) {
		t.Fatalf("%s, matching nothing: %q", got, o.Unmatched)
	}
	d.Epoch, d.Rules = 3, []Rule{{Pattern: "*/a-*", Want: Ready}, {Pattern: "one/b-*", Want: Drain}, {Pattern: "two/b-*", Want: Drain}}
	i.applied(d)
	reload(one + two)
	if got := really(t, p); got != "one/a-1=none one/b-1=FDRAIN two/a-1=none two/b-1=FDRAIN" || len(i.Observed().Held) != 0 || len(i.Observed().Unmatched) != 0 {
		t.Fatalf("%s %+v", got, i.Observed())
	}
}

// A backend that is `disabled` in the configuration takes no requests, though its
// servers are listed as up; HAProxy refuses to set them. That holds up nothing, is
// tried once in each process, and is over when it is enabled.
func TestABackendDisabledInTheConfiguration(t *testing.T) {
	on, off := haproxytest.Backend("two", 2), strings.Replace(haproxytest.Backend("two", 2), "\n", "\n  disabled\n", 1)
	p := haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("one", 1)+off)
	relay := haproxytest.StartRelay(t, p.Socket)
	var tried atomic.Int32
	relay.Before(func(piece string) { tried.Add(int32(strings.Count(piece, "set server two/"))) }) //nolint:gosec // few
	i := run(t, Config{Socket: relay.Socket, StateFile: filepath.Join(p.Dir, "state"), JournalFile: filepath.Join(p.Dir, "journal")})
	o := i.applied(toA)
	asRefused := func(o Observation) bool {
		return len(o.Held) == 4 && !slices.ContainsFunc(o.Held, func(h Hold) bool { return h.Backend != "two" || h.Kind != HoldBackend })
	}
	if got := really(t, p); !asRefused(o) || !strings.HasPrefix(got, "one/a-1=none one/b-1=FDRAIN two/") || strings.Count(got, "FDRAIN") != 1 {
		t.Fatalf("%s, held %+v", got, o.Held)
	}
	time.Sleep(500 * time.Millisecond) // some looks
	if o := i.applied(toB); !asRefused(o) || tried.Load() != 2 {
		t.Errorf("%d commands, held %+v", tried.Load(), o.Held)
	}
	p.Configure(haproxytest.Global + haproxytest.Backend("one", 1) + on)
	p.Reload()
	o, _ = i.until("the new process as wanted", func(o Observation) bool { return o.PID == p.PID() && o.Applied == 2 })
	if got := really(t, p); len(o.Held) != 0 || got != "one/a-1=FDRAIN one/b-1=none two/a-1=FDRAIN two/a-2=FDRAIN two/b-1=none two/b-2=none" {
		t.Errorf("%s, held %+v", got, o.Held)
	}
	p.Configure(haproxytest.Global + haproxytest.Backend("one", 1) + off)
	p.Reload()
	i.until("disabled again", func(o Observation) bool { return o.PID == p.PID() && o.Applied == 2 })
	i.Set(Desired{Epoch: 3, Rules: toA.Rules})
	o, _ = i.until("applied", func(o Observation) bool { return o.Applied == 3 })
	if !asRefused(o) {
		t.Errorf("held %+v", o.Held)
	}
}

// HAProxy takes the port of a server out of the server-state file, whatever its
// configuration says, and the address out of its configuration (measured, and read
// in its source). So a port that was changed there must be set at the socket too.
func TestAPortChangedInTheConfiguration(t *testing.T) {
	p, i, reload := changed(t, haproxytest.Backend("be", 1))
	at := func() string {
		s := serverOf(i.Observed(), "a-1")
		return fmt.Sprintf("%s:%d", s.Addr, s.Port)
	}
	reload(strings.Replace(haproxytest.Backend("be", 1), "a-1 127.0.0.1:9", "a-1 127.0.0.2:7", 1))
	if at() != "127.0.0.2:9" {
		t.Fatalf("at %s: the documentation says otherwise", at())
	}
	p.Do("set server be/a-1 addr 127.0.0.2 port 7")
	i.until("moved", func(Observation) bool { return at() == "127.0.0.2:7" })
	fileSays(t, i.cfg.StateFile, func(table []Server) bool {
		return slices.ContainsFunc(table, func(s Server) bool { return s.Server == "a-1" && s.Port == 7 })
	})
	reload(strings.Replace(haproxytest.Backend("be", 1), "a-1 127.0.0.1:9", "a-1 127.0.0.2:7", 1))
	if at() != "127.0.0.2:7" {
		t.Fatalf("at %s", at())
	}
}

// A configuration that names another socket leaves nobody to talk to, and says so;
// the servers stay as they were, by the server-state file.
func TestTheSocketIsMovedByAReload(t *testing.T) {
	p, i, _ := changed(t, haproxytest.Backend("be", 2))
	here := p.Socket
	fileSays(t, i.cfg.StateFile, func(table []Server) bool { return states(table) == onA })
	p.Socket += "2"
	p.Configure(haproxytest.Global + haproxytest.Backend("be", 2))
	old := p.PID()
	p.Reload()
	gonePID(t, old)
	o, _ := i.until("nobody there", func(o Observation) bool {
		return !o.Alive && (o.Reason == ReasonRefused || o.Reason == ReasonNoSocket)
	})
	if !strings.Contains(o.Detail, "configuration") || really(t, p) != onA {
		t.Errorf("%s: %s; %s", o.Reason, o.Detail, really(t, p))
	}
	i.Set(toB)
	p.Socket = here
	p.Configure(haproxytest.Global + haproxytest.Backend("be", 2))
	p.Reload()
	i.until("all as wanted", func(o Observation) bool { return o.PID == p.PID() && o.Applied == 2 })
	if got := really(t, p); got != onB {
		t.Error(got)
	}
}

// A reload that takes the level from the socket is noticed, and one that gives it
// back.
func TestTheLevelIsChangedByAReload(t *testing.T) {
	p, i, _ := changed(t, haproxytest.Backend("be", 2))
	fileSays(t, i.cfg.StateFile, func(table []Server) bool { return states(table) == onA })
	p.Configure(strings.Replace(haproxytest.Global, "level admin", "level operator", 1) + haproxytest.Backend("be", 2))
	p.Reload()
	i.until("not-admin", func(o Observation) bool { return o.Alive && o.PID == p.PID() && o.Reason == ReasonNotAdmin })
	i.Set(toB)
	i.until("what is missing", func(o Observation) bool { return len(o.Pending) == 4 && o.Applied == 0 })
	if got := really(t, p); got != onA {
		t.Error(got)
	}
	p.Configure(haproxytest.Global + haproxytest.Backend("be", 2))
	p.Reload()
	i.until("all as wanted", func(o Observation) bool { return o.PID == p.PID() && o.Applied == 2 })
	if got := really(t, p); got != onB || i.Observed().Reason != "" {
		t.Errorf("%s %s", got, i.Observed().Reason)
	}
}

// What a person asks for counters or sessions changes nothing.
func TestCountersClearedByHand(t *testing.T) {
	c := startLong(t)
	i := run(t, Config{Socket: c.p.Socket})
	i.applied(toA)
	answer := c.ask("a-1", "1")
	before := i.applied(closing(2))
	c.cut(answer)
	i.until("counted", func(o Observation) bool { return o.SessionsClosed == 1 })
	commands, next := []string{"clear counters", "clear counters all"}, "1" // the first since
	if c.p.AtLeast(3, 4) && !c.p.AtLeast(3, 5) {
		commands, next = commands[:1], "2" // 3.4.0 crashes at the first session after the second of them
	}
	for _, command := range commands {
		if said := strings.TrimSpace(c.p.Do(command)); said != "" {
			t.Fatalf("%s: %s", command, said)
		}
	}
	c.cut(c.ask("a-1", next))
	o, _ := i.until("counted too", func(o Observation) bool { return o.SessionsClosed == 2 })
	if states(o.Servers) != states(before.Servers) || o.Changes != before.Changes || len(o.Held) != 0 {
		t.Errorf("%+v", o)
	}
}

// Ten thousand servers, in maintenance by hand here and there, over a switch, a
// reload with the file and one without.
func TestTenThousandServers(t *testing.T) {
	const (
		backends = 100
		each     = 50 // of each site
	)
	config := haproxytest.Global
	for n := range backends {
		config += haproxytest.Backend(fmt.Sprintf("be%d", n), each)
	}
	p := haproxytest.Start(t, config)
	i := run(t, Config{Socket: p.Socket, StateFile: filepath.Join(p.Dir, "state"), Timeout: 5 * time.Second})
	i.applied(toA)
	byHand := []string{"be0/a-1", "be50/a-7", "be99/b-50"}
	for _, id := range byHand {
		p.Do("set server " + id + " state maint")
	}
	i.until("by hand", func(o Observation) bool { return len(o.Held) == len(byHand) })
	right := func(drained string) func(Observation) bool {
		return func(o Observation) bool {
			for _, s := range o.Servers {
				want := Admin(0)
				if strings.HasPrefix(s.Server, drained) {
					want = FDrain
				}
				if slices.Contains(byHand, s.String()) {
					want = FMaint
				}
				if s.Admin != want {
					return false
				}
			}
			return len(o.Servers) == 2*backends*each && len(o.Held) == len(byHand)
		}
	}
	i.Set(toB)
	o, d := i.until("switched", func(o Observation) bool { return o.Applied == 2 })
	t.Logf("switched in %v", d)
	if !right("a-")(o) {
		t.Fatal("not as wanted")
	}
	fileSays(t, i.cfg.StateFile, func(table []Server) bool { return right("a-")(Observation{Servers: table, Held: o.Held}) })
	before := o.Changes
	p.Reload()
	o, _ = i.until("reloaded", func(o Observation) bool { return o.PID == p.PID() && o.Applied == 2 })
	if !right("a-")(o) || o.Changes != before {
		t.Errorf("%d commands after a reload with the file", o.Changes-before)
	}
	p.Signal(syscall.SIGKILL)
	<-p.Exited()
	i.until("death", gone)
	p.Configure(strings.Replace(config, "load-server-state-from-file global", "load-server-state-from-file none", 1))
	p.Start()
	i.until("as wanted without the file", func(o Observation) bool {
		return o.PID == p.PID() && o.Applied == 2 && count(o.Servers, true, "a-") == backends*each && count(o.Servers, false, "b-") == backends*each
	})
}
