package site

import (
	"slices"
	"testing"
	"time"
)

// closed names the patterns whose connections are closed now.
func closed(s *sim) []string {
	var out []string
	for _, r := range Rules(s.cfg, s.cur, true) {
		if r.Close {
			out = append(out, r.Pattern)
		}
	}
	return out
}

// A client comes back to a drained site by its cookie as long as it likes: what
// it opens is closed until the site serves again.
func TestADrainedSiteIsClosedUntilItServesAgain(t *testing.T) {
	for _, order := range []Order{Overlap, Exclusive} {
		t.Run(string(order), func(t *testing.T) {
			s := newSim(t, Config{Sites: sites("a", "b"), Order: order, IsolatedAfter: simIsolated, DrainTimeout: 2 * time.Second}, "lb1", "lb2")
			newJudge(s)
			expect := func(when string, want ...string) {
				t.Helper()
				if got := closed(s); !slices.Equal(got, want) {
					t.Fatalf("%s: %q is closed, want %q: %+v", when, got, want, s.cur)
				}
			}
			s.start(true)
			s.run(time.Second)
			expect("at first")
			s.run(2 * time.Second)
			expect("when the standby site has been drained for the time", "*/b-*")
			s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
			s.run(time.Second)
			expect("while a is given its time")
			s.run(2 * time.Second)
			if g, _ := s.cur.Group(DefaultGroup); g.Switching() || g.Active != "b" {
				t.Fatalf("the switch is not over: %+v", g)
			}
			expect("after the switch", "*/a-*")
			s.run(time.Hour)
			expect("an hour later", "*/a-*")
			s.kill(false)
			s.start(false)
			s.run(time.Second)
			expect("under another decider", "*/a-*")
			s.step(Command{ID: "2", Kind: Takeover, Site: "a"})
			s.run(10 * time.Millisecond)
			expect("once it is to serve again")
			s.run(5 * time.Second)
			expect("when it does", "*/b-*")
		})
	}
}

// A switch that comes to nothing leaves the standby site closed as it was; if
// its servers had been ready meanwhile, what they took is given its time.
func TestASwitchGivenUpKeepsTheDrainedSiteClosed(t *testing.T) {
	s := newSim(t, Config{Sites: sites("a", "b"), IsolatedAfter: simIsolated, DrainTimeout: 2 * time.Second, Hooks: Hooks{Precheck: true}}, "lb1", "lb2")
	newJudge(s)
	s.start(true)
	s.run(4 * time.Second)
	s.policy[HookPrecheck] = "exit-status"
	s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
	s.run(time.Second)
	if got := closed(s); !slices.Equal(got, []string{"*/b-*"}) {
		t.Fatalf("after a veto: %q: %+v", got, s.cur)
	}
	s.policy[HookPrecheck], s.lb("lb2").stuck = "ok", true // the phase enable lasts
	s.step(Command{ID: "2", Kind: Takeover, Site: "b"})
	s.run(time.Second)
	if g, _ := s.cur.Group(DefaultGroup); g.Phase != PhaseEnable {
		t.Fatalf("not in the phase enable: %+v", g)
	}
	s.step(Command{ID: "3", Kind: Takeover, Site: "a"})
	s.run(time.Second)
	if got := closed(s); len(got) > 0 {
		t.Fatalf("what b took a moment ago is closed: %q", got)
	}
	s.run(2 * time.Second)
	if got := closed(s); !slices.Equal(got, []string{"*/b-*"}) {
		t.Fatalf("after its time: %q: %+v", got, s.cur)
	}
}

func TestNothingIsClosedWithoutADrainTimeout(t *testing.T) {
	cfg := Config{Sites: sites("a", "b"), IsolatedAfter: simIsolated}
	s := newSim(t, cfg, "lb1", "lb2")
	s.start(true)
	s.run(time.Second)
	s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
	s.run(time.Hour)
	if got := closed(s); len(got) > 0 {
		t.Fatalf("%q", got)
	}
	s.cur.Groups[0].Close = true // decided while it was set
	if got := closed(s); len(got) > 0 {
		t.Fatalf("after it was taken out of the configuration: %q", got)
	}
}
