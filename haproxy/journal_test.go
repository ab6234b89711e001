package haproxy

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
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
	for _, name := range worldNames {
		w.add(name, 0)
	}
	return w
}

var worldNames = []string{"a-1", "a-2", "b-1", "b-2"} // as in the configuration

// add is a server that is new, whatever was there under its name before.
func (w *world) add(name string, admin Admin) {
	w.servers = append(w.servers, Server{ServerID: ServerID{"be", name}, Admin: admin, Oper: OperRunning, Weight: 1, InitialWeight: 1})
}

// find returns the server of that name, nil if it has been deleted.
func (w *world) find(name string) *Server {
	for n := range w.servers {
		if w.servers[n].Server == name {
			return &w.servers[n]
		}
	}
	return nil
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

// TestJournalKnowsWhoseDrainItIs lets persons, decisions, restarts and losses
// happen in any order, with a look after each.
func TestJournalKnowsWhoseDrainItIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.look(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := rapid.SampledFrom(worldNames).Draw(t, "server")
			if s := w.find(name); s == nil {
				w.toAbsent(name, rapid.SampledFrom([]string{"nothing", "add", "add, drain", "add, ready"}).Draw(t, "to one deleted"))
			} else {
				w.toPresent(s, rapid.SampledFrom([]string{"nothing", "drain", "ready", "maint", "del"}).Draw(t, "to one there"))
			}
			event := rapid.SampledFrom([]string{"nothing", "switch", "reload", "crash with an old file", "keep this file", "sidecar", "lose the file", "lose the journal"}).Draw(t, "event")
			if event != "lose the journal" { // else what a person did last is in neither
				w.look(t)
			}
			switch event {
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
			case "lose the journal":
				// What a person did since the file was written is the person's, the
				// rest cannot be told any more.
				w.journal = Journal{}
				for _, s := range w.servers {
					rule, _ := w.desired.Rule(s.ServerID)
					if w.file[s.ServerID] || w.older[s.ServerID] || rule.Want == Drain {
						delete(w.person, s.ServerID)
					}
				}
			}
			w.look(t)
			for id := range w.journal.drains {
				if w.find(id.Server) == nil {
					t.Fatalf("%s is remembered, and is not there", id)
				}
			}
		}
	})
}

// toPresent is what a person does to a server.
func (w *world) toPresent(s *Server, event string) {
	id := s.ServerID
	switch event {
	case "drain":
		if !s.Admin.Has(FDrain) { // else it cannot be told from ours, by anybody
			s.Admin, w.person[id] = obey(s.Admin, Drain), true
		}
	case "ready":
		s.Admin = obey(s.Admin, Ready)
		delete(w.person, id)
	case "maint":
		s.Admin = FMaint
		delete(w.person, id)
	case "del":
		w.servers = slices.DeleteFunc(w.servers, func(s Server) bool { return s.ServerID == id })
		delete(w.person, id)
	}
}

// toAbsent is what a person does about a server that was deleted.
func (w *world) toAbsent(name, event string) {
	switch event {
	case "add":
		w.add(name, FMaint)
	case "add, ready":
		w.add(name, 0)
	case "add, drain":
		w.add(name, FDrain)
		w.person[ServerID{"be", name}] = true
	}
}

// restart is another process that starts with the servers of the configuration
// and the drains of a file. What a person had drained and is drained still is the
// person's.
func (w *world) restart(file map[ServerID]bool) {
	w.process.PID++
	for _, name := range worldNames {
		if w.find(name) == nil {
			w.add(name, 0)
		}
	}
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

// A drain on its way to a server that is deleted is waited for, and not for ever:
// until it is settled every look compares and writes anew.
func TestADrainSentToADeletedServerIsForgotten(t *testing.T) {
	id := ServerID{"be", "b-1"}
	now := time.Unix(100, 0)
	nothing := func(ServerID) bool { return false }
	sent := Journal{Process: Process{PID: 1}}.Intend([]Command{{id, Drain}}, now)
	others := []Server{{ServerID: ServerID{"be", "a-1"}}}
	if j := sent.Learn(toA, others, Process{PID: 1}, nothing, now.Add(straggler)); j.settled() || !j.Ours(id) {
		t.Error("forgotten while it may still come")
	}
	if j := sent.Learn(toA, others, Process{PID: 1}, nothing, now.Add(straggler+1)); !j.settled() {
		t.Errorf("never settled: %+v", j)
	}
	drained := []Server{{ServerID: id, Admin: FDrain}}
	seen := sent.Learn(toA, drained, Process{PID: 1}, nothing, now.Add(time.Second))
	j := seen.Learn(toA, others, Process{PID: 1}, nothing, now.Add(2*time.Second)).
		Learn(toA, drained, Process{PID: 1}, nothing, now.Add(3*time.Second))
	if j.Ours(id) || !j.Theirs(id) {
		t.Error("a server that was added anew inherits the drain of the one before")
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

// A drain that a former process sent is waited for from the start of this one,
// whatever the clock showed then.
func TestStragglersOfAFormerProcessAreWaitedForWhateverTheClock(t *testing.T) {
	server := Server{ServerID: ServerID{"be", "a-1"}}
	nothing := func(ServerID) bool { return false }
	for _, ahead := range []time.Duration{-time.Hour, 0, time.Hour} {
		path := filepath.Join(t.TempDir(), "journal.json")
		sent := Journal{Process: Process{PID: 1}}.Intend([]Command{{server.ServerID, Drain}}, time.Now().Add(ahead))
		if err := saveJournal(path, sent); err != nil {
			t.Fatal(err)
		}
		loaded, err := loadJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		look := []Server{server}
		if j := loaded.Learn(toA, look, Process{PID: 1}, nothing, time.Now()); !j.Ours(server.ServerID) {
			t.Errorf("sent by a clock %v ahead: forgotten while it may still come", ahead)
		}
		if j := loaded.Learn(toA, look, Process{PID: 1}, nothing, time.Now().Add(straggler+time.Second)); j.Ours(server.ServerID) {
			t.Errorf("sent by a clock %v ahead: never forgotten", ahead)
		}
	}
}
