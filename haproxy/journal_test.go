package haproxy

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world is a second, dumb account of who drained what: it is told by whom each
// change is made, which HAProxy never tells.
type world struct {
	servers []Server
	person  map[ServerID]bool // drained by a person
	file    map[ServerID]bool // drained in the server-state file
	older   map[ServerID]bool // the same, of an earlier time
	journal Journal
	desired Desired
	process Process
	now     time.Time
}

func newWorld() *world {
	w := &world{person: map[ServerID]bool{}, process: Process{PID: 1, Start: 1}, desired: toA, now: time.Unix(1, 0)}
	for _, name := range []string{"a-1", "a-2", "b-1", "b-2"} {
		w.servers = append(w.servers, Server{ServerID: ServerID{"be", name}, Oper: OperRunning, Weight: 1, InitialWeight: 1})
	}
	return w
}

// look is a cycle of the worker: learn, carry out, read back, until nothing is
// missing; then the file is written.
func (w *world) look(t *rapid.T) {
	fromFile := func(id ServerID) bool { return w.file[id] || w.older[id] }
	w.now = w.now.Add(100 * time.Millisecond)
	w.journal = w.journal.Learn(w.desired, w.servers, w.process, fromFile, w.now)
	for range 3 {
		step := firstStep(Diff(w.desired, w.servers, w.journal))
		if len(step) == 0 {
			break
		}
		w.journal = w.journal.Intend(step, w.now)
		for _, c := range step {
			for n := range w.servers {
				if w.servers[n].ServerID != c.ServerID {
					continue
				}
				if c.Want == Ready && w.person[c.ServerID] {
					t.Fatalf("%s: a person drained it", c)
				}
				w.servers[n].Admin = obey(w.servers[n].Admin, c.Want)
			}
		}
		w.journal = w.journal.Learn(w.desired, w.servers, w.process, fromFile, w.now)
	}
	if rest := Diff(w.desired, w.servers, w.journal); len(rest) > 0 {
		t.Fatalf("left: %v", rest)
	}
	w.file = drainedOf(w.servers)
	for _, s := range w.servers {
		rule, _ := w.desired.Rule(s.ServerID)
		if rule.Want == Ready && s.Admin.Has(FDrain) && !w.person[s.ServerID] {
			t.Fatalf("%s stays drained, and no person did it", s.ServerID)
		}
	}
}

// TestJournalKnowsWhoseDrainItIs lets persons, decisions and restarts happen in
// any order, with a look after each.
func TestJournalKnowsWhoseDrainItIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.look(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			n := rapid.IntRange(0, len(w.servers)-1).Draw(t, "server")
			s := &w.servers[n]
			switch rapid.SampledFrom([]string{"drain", "ready", "maint", "switch", "reload", "crash with an old file", "keep this file", "sidecar", "lose the file"}).Draw(t, "event") {
			case "drain":
				if !s.Admin.Has(FDrain) { // else it cannot be told from ours, by anybody
					s.Admin, w.person[s.ServerID] = obey(s.Admin, Drain), true
				}
			case "ready":
				s.Admin = obey(s.Admin, Ready)
				delete(w.person, s.ServerID)
			case "maint":
				s.Admin = FMaint
				delete(w.person, s.ServerID)
			case "switch":
				if w.desired.Epoch == toA.Epoch {
					w.desired = toB
				} else {
					w.desired = toA
				}
			case "keep this file":
				w.older = w.file
			case "lose the file":
				w.file = nil
				w.restart(nil)
			case "reload":
				w.restart(w.file)
			case "crash with an old file":
				w.file = w.older
				w.restart(w.older)
			case "sidecar":
				b, err := json.Marshal(w.journal)
				if err != nil {
					t.Fatal(err)
				}
				w.journal = Journal{}
				if err := json.Unmarshal(b, &w.journal); err != nil {
					t.Fatal(err)
				}
			}
			w.look(t)
		}
	})
}

// restart is another process that starts with the drains of a file. What a
// person had drained and is drained still is the person's.
func (w *world) restart(file map[ServerID]bool) {
	w.process.PID++
	for n := range w.servers {
		s := &w.servers[n]
		s.Admin = 0
		if file[s.ServerID] {
			s.Admin = FDrain
		} else {
			delete(w.person, s.ServerID)
		}
	}
}

func TestStragglersAreRememberedForAWhile(t *testing.T) {
	server := Server{ServerID: ServerID{"be", "a-1"}}
	now := time.Unix(100, 0)
	nothing := func(ServerID) bool { return false }
	j := Journal{Process: Process{PID: 1}}.Intend([]Command{{server.ServerID, Drain}}, now)
	for _, c := range []struct {
		after time.Duration
		ours  bool
	}{{time.Second, true}, {4 * time.Second, true}, {6 * time.Second, false}} {
		got := j.Learn(toA, []Server{server}, Process{PID: 1}, nothing, now.Add(c.after))
		drained := server
		drained.Admin = FDrain // the straggler arrives after all
		got = got.Learn(toA, []Server{drained}, Process{PID: 1}, nothing, now.Add(c.after))
		if got.Ours(server.ServerID) != c.ours {
			t.Errorf("after %v: ours is %v", c.after, !c.ours)
		}
	}
}

func ExampleDiff() {
	desired := Desired{Rules: []Rule{{Pattern: "*/b-*", Want: Ready}, {Pattern: "*/a-*", Want: Drain}}}
	observed := []Server{
		{ServerID: ServerID{"be", "a-1"}},
		{ServerID: ServerID{"be", "a-2"}, Admin: FMaint}, // a person's
		{ServerID: ServerID{"be", "b-1"}, Admin: FDrain}, // ours
		{ServerID: ServerID{"be", "b-2"}, Admin: FDrain}, // a person's
		{ServerID: ServerID{"be", "monitor"}},            // matches no rule
	}
	journal := Journal{}.Intend([]Command{{ServerID{"be", "b-1"}, Drain}}, time.Unix(1, 0))
	for _, c := range Diff(desired, observed, journal) {
		fmt.Println(c)
	}
	for _, h := range Holds(desired, observed, journal) {
		fmt.Println(h.ServerID, h.Kind)
	}
	// Output:
	// set server be/b-1 state ready
	// set server be/a-1 state drain
	// be/a-2 maintenance
	// be/b-2 drain
}

// HAProxy sets one bit and then clears the other when a person changes drain
// into maintenance or back, and a look may fall between the two.
func TestALookInTheMiddleOfAPersonsChange(t *testing.T) {
	w := newWorld()
	seen := func(admin Admin) {
		w.servers[2].Admin = admin
		w.journal = w.journal.Learn(toA, w.servers, w.process, func(ServerID) bool { return false }, w.now)
	}
	id := w.servers[2].ServerID
	w.journal = w.journal.Intend([]Command{{id, Drain}}, w.now)
	seen(FDrain)
	if !w.journal.Ours(id) {
		t.Fatal("not ours at the start")
	}
	seen(FDrain | FMaint)
	seen(FDrain)
	if w.journal.Ours(id) || !w.journal.Theirs(id) {
		t.Error("a person's drain passes for ours")
	}
}
