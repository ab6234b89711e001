package site

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestADeciderMayDieAtEveryPoint kills the decider at every millisecond of a
// switch, commanded or automatic, with its proposal lost or accepted, and has
// another one finish. No phase is repeated, and no hook whose completion was
// recorded.
func TestADeciderMayDieAtEveryPoint(t *testing.T) {
	all := Hooks{Precheck: true, Takeover: true, Renounce: true, Notify: true}
	for name, cfg := range map[string]Config{
		"overlap":              {},
		"overlap with hooks":   {Hooks: all, DrainTimeout: 30 * time.Millisecond},
		"exclusive":            {Order: Exclusive},
		"exclusive with hooks": {Order: Exclusive, Hooks: all, DrainTimeout: 30 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Sites, cfg.IsolatedAfter = sites("a", "b"), simIsolated
			for _, auto := range []bool{false, true} {
				whole := switchOver(t, cfg, auto, -1, false)
				for at := range int(whole/time.Millisecond) + 2 {
					switchOver(t, cfg, auto, at, false)
					switchOver(t, cfg, auto, at, true)
				}
			}
		})
	}
}

func sites(names ...string) []Site {
	var out []Site
	for _, n := range names {
		out = append(out, Site{Name: n, Patterns: []string{"*/" + n + "-*"}})
	}
	return out
}

// switchOver plays a takeover of b, by command or because a has died, and says
// how long it took. The decider is killed at a millisecond of it, unless that is
// negative.
func switchOver(t *testing.T, cfg Config, auto bool, at int, accepted bool) time.Duration {
	t.Helper()
	s := newSim(t, cfg, "lb1", "lb2")
	j := newJudge(s)
	var recorded []string // IDs of hooks whose phase has been left
	s.onHook = append(s.onHook, func(_ *sim, h HookRun) {
		if slices.Contains(recorded, h.ID) && h.Kind != HookNotify {
			t.Fatalf("automatic %v, killed at %d ms, accepted %v: %s ran again", auto, at, accepted, h.ID)
		}
	})
	s.start(true)
	s.run(time.Second)
	s.decided = nil
	begin := s.now
	if auto {
		s.set("*", DefaultGroup, "a", false)
		s.tell()
	} else {
		s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
	}
	if at >= 0 {
		s.run(time.Duration(at) * time.Millisecond)
		j.died()
		s.kill(accepted)
		for id := range j.ran {
			if !strings.HasSuffix(id, fmt.Sprintf("/%d", s.phaseEpoch())) {
				recorded = append(recorded, id)
			}
		}
		s.run(20 * time.Millisecond)
		s.start(false)
	}
	s.run(5 * time.Second)
	g, _ := s.cur.Group(DefaultGroup)
	if len(s.decided) == 0 && at >= 0 && !auto { // killed before anything was decided: the command is lost, and nothing else
		return 0
	}
	if g.Active != "b" || g.Switching() || g.Notify != 0 || !slices.Equal(s.routes(DefaultGroup), []string{"b"}) {
		t.Fatalf("automatic %v, killed at %d ms, accepted %v: %+v, routed to %v", auto, at, accepted, g, s.routes(DefaultGroup))
	}
	checkPhases(t, cfg, s.decided)
	return s.doneAt - begin
}

// checkPhases checks that the phases were decided in their order, each once.
func checkPhases(t fataler, cfg Config, decided []Group) {
	t.Helper()
	var got []string
	for _, g := range decided {
		p := string(g.Phase)
		if g.Close {
			p += "+close"
		}
		if len(got) == 0 || got[len(got)-1] != p {
			got = append(got, p)
		}
	}
	want := []string{"precheck+close", "takeover+close", "enable+close", "renounce", "settle", "settle+close", "+close"}
	if cfg.exclusive() {
		want = []string{"precheck+close", "renounce", "settle", "settle+close", "takeover+close", "enable+close", "+close"}
	}
	if !cfg.Hooks.Takeover {
		if want = []string{"enable", "renounce", ""}; cfg.exclusive() {
			want = []string{"renounce", "enable", ""}
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("phases %q, want %q", got, want)
	}
}

// TestTheJudgeCatches shows that the checks of these tests do fail: on load
// balancers that say they have drained and have not, on a decider whose
// configuration is not the one it is judged by, and on one that forgets.
func TestTheJudgeCatches(t *testing.T) {
	for name, tc := range map[string]struct {
		play func(*sim)
		want string
	}{
		"two sites at once": {func(s *sim) {
			s.lb("lb2").liar = true
			s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
		}, "is routed to [a b]"},
		"too many switches": {func(s *sim) {
			s.d.cfg.FlapMax, s.twin.cfg.FlapMax = 9, 9
			for i := range 8 {
				s.set("*", DefaultGroup, "a", i%2 == 1)
				s.set("*", DefaultGroup, "b", i%2 == 0)
				s.tell()
				s.run(time.Second)
			}
		}, "automatic switches within"},
		"a switch without need": {func(s *sim) {
			s.d.cfg.StaleAfter, s.twin.cfg.StaleAfter = time.Millisecond, time.Millisecond
			s.lb("lb2").stale = true
			s.run(100 * time.Millisecond)
			s.set("lb1", DefaultGroup, "a", false)
			s.tell()
		}, "an automatic switch away from a"},
		"a hook asked for again": {func(s *sim) {
			s.cfg.Hooks.Takeover, s.policy[HookTakeover] = true, "wait"
			s.kill(true)
			s.start(false)
			s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
			s.run(time.Second)
			s.d.mem[0].hook, s.twin.mem[0].hook = hookState{}, hookState{}
			s.tell()
		}, "was asked for again"},
		"a phase repeated": {func(s *sim) {
			before := s.cur
			s.decided = nil
			s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
			for g := (Group{}); g.Phase != PhaseEnable; g, _ = s.cur.Group(DefaultGroup) {
				s.run(time.Millisecond)
			}
			s.kill(true)
			s.cur = before
			s.start(false)
			s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
			s.run(5 * time.Second)
			checkPhases(s.t, s.cfg, s.decided)
		}, `phases ["renounce" "enable" "renounce"`},
		"connections closed too early": {func(s *sim) {
			s.cfg.DrainTimeout = time.Minute
			s.d.cfg.DrainTimeout, s.twin.cfg.DrainTimeout = time.Millisecond, time.Millisecond
			s.step(Command{ID: "1", Kind: Takeover, Site: "b"})
		}, "connections of a are closed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &caught{}
			s := newSim(f, Config{Sites: sites("a", "b"), Order: Exclusive, IsolatedAfter: simIsolated}, "lb1", "lb2")
			newJudge(s)
			func() {
				defer func() {
					if r := recover(); r != nil && r != f {
						panic(r)
					}
				}()
				s.start(true)
				s.run(2 * time.Second)
				tc.play(s)
				s.run(5 * time.Second)
			}()
			if !strings.Contains(f.text, tc.want) {
				t.Fatalf("caught %q, want %q", f.text, tc.want)
			}
		})
	}
}

// caught notes the first failure and ends the simulation.
type caught struct{ text string }

func (c *caught) Helper() {}

func (c *caught) Fatalf(format string, args ...any) {
	c.text = fmt.Sprintf(format, args...)
	panic(c)
}
