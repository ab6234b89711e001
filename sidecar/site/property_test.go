package site

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// judge watches a simulated cluster from outside and fails the test when one
// of the package's promises is broken. It knows nothing of the decider.
type judge struct {
	s       *sim
	settled bool                     // some site has been made ready by decision
	readyAt map[string]time.Duration // group/site → when it was last ready by decision
	autos   map[string][]time.Duration
	ran     map[string]int // hooks, by ID
	excused map[string]bool
}

func newJudge(s *sim) *judge {
	j := &judge{s: s, readyAt: map[string]time.Duration{}, autos: map[string][]time.Duration{}, ran: map[string]int{}, excused: map[string]bool{}}
	s.onDo = append(s.onDo, j.proposal, j.closing)
	s.onDone = append(s.onDone, j.count, j.served)
	s.onHook = append(s.onHook, j.hook)
	s.onInput = append(s.onInput, j.routes)
	return j
}

// seers counts the live load balancers with a fresh view, and those of them
// that see the site usable, by the world as it was told last.
func (j *judge) seers(group, site string) (usable, of int) {
	count := func(barred bool) {
		for _, n := range j.s.told.Nodes {
			if !n.Alive || !n.HAProxyAlive || n.Barred != barred || j.s.now-j.s.toldAt+n.ViewAge > 3*time.Second {
				continue
			}
			of++
			if v := n.View.Of(group, site); v != nil && v.Usable {
				usable++
			}
		}
	}
	if count(false); of == 0 {
		count(true)
	}
	return usable, of
}

// proposal checks what a decider proposes against what is decided.
func (j *judge) proposal(s *sim, before Decision, p *Decision) {
	if p.Reason == "" {
		s.t.Fatalf("a decision without a reason: %+v", p)
	}
	b, err := Encode(*p)
	if err != nil || len(b) > MaxSize {
		s.t.Fatalf("encode: %d bytes, %v", len(b), err)
	}
	for _, g := range p.Groups {
		old, _ := before.Group(g.In())
		if g.Reason == "" && !g.equal(Group{Name: g.Name}) {
			s.t.Fatalf("a group without a reason: %+v", g)
		}
		j.start(old, g)
		j.enabled(old, g)
	}
}

func (j *judge) start(old, g Group) {
	if g.Target == "" || g.Target == old.Target && old.Switching() || g.Reason.boot() || g.Forced {
		return
	}
	usable, _ := j.seers(g.In(), g.Target)
	cold := j.s.cfg.Cold && j.s.cfg.Hooks.Takeover && slices.Contains(j.s.hookable, g.Target)
	if usable == 0 && !cold {
		j.s.t.Fatalf("a switch to %s, which nobody sees usable: %+v", g.Target, g)
	}
	if g.Reason != ReasonActiveUnusable && g.Reason != ReasonNothingActive && g.Reason != ReasonFailback || g.Reason == old.Reason && g.Epoch == old.Epoch {
		return
	}
	if usable, of := j.seers(g.In(), old.Active); g.Reason == ReasonActiveUnusable && (usable > 0 || of == 0) {
		j.s.t.Fatalf("an automatic switch away from %s, which %d of %d see usable", old.Active, usable, of)
	}
}

// count counts the automatic switches that were decided.
func (j *judge) count(s *sim, before Decision) {
	for _, g := range s.cur.Groups {
		old, _ := before.Group(g.In())
		auto := g.Reason == ReasonActiveUnusable || g.Reason == ReasonNothingActive || g.Reason == ReasonFailback
		if !auto || g.Target == "" || g.Target == old.Target && g.Reason == old.Reason {
			continue
		}
		recent := slices.DeleteFunc(j.autos[g.In()], func(t time.Duration) bool { return s.now >= t+10*time.Minute })
		j.autos[g.In()] = append(recent, s.now)
		if n := len(j.autos[g.In()]); n > 3 {
			s.t.Fatalf("%d automatic switches within ten minutes", n)
		}
	}
}

// enabled checks that no site becomes ready that nobody sees usable.
func (j *judge) enabled(old, g Group) {
	for _, site := range j.s.cfg.siteNames() {
		if !g.ready(j.s.cfg, site) || old.ready(j.s.cfg, site) || g.Forced || g.Reason.boot() {
			continue
		}
		if usable, _ := j.seers(g.In(), site); usable == 0 {
			j.s.t.Fatalf("%s is made ready, which nobody sees usable: %+v → %+v", site, old, g)
		}
	}
}

// closing checks that nothing is closed at a site that serves or is about to,
// nor before the site that was left has had its time, as long as it is usable.
func (j *judge) closing(s *sim, before Decision, p *Decision) {
	for _, g := range p.Groups {
		old, _ := before.Group(g.In())
		for _, site := range s.cfg.siteNames() {
			if !g.closes(s.cfg, site) {
				continue
			}
			if g.ready(s.cfg, site) || site == g.Target {
				s.t.Fatalf("connections of %s are closed, which serves or is about to: %+v", site, g)
			}
			usable, _ := j.seers(g.In(), site)
			last, served := j.readyAt[g.In()+"/"+site]
			if served && site == g.From && !old.closes(s.cfg, site) && usable > 0 && s.now < last+s.cfg.DrainTimeout {
				s.t.Fatalf("connections of %s are closed %v after it served: %+v", site, s.now-last, g)
			}
		}
	}
}

// served notes until when a site was ready by decision.
func (j *judge) served(s *sim, before Decision) {
	for _, g := range before.Groups {
		for _, site := range s.cfg.siteNames() {
			if g.ready(s.cfg, site) {
				j.readyAt[g.In()+"/"+site] = s.now
			}
		}
	}
}

// hook checks that nothing runs twice unless a decider or a node died.
func (j *judge) hook(s *sim, h HookRun) {
	if j.ran[h.ID]++; j.ran[h.ID] > 1 && !j.excused[h.ID] && !s.lost[h.ID] && h.Kind != HookNotify {
		s.t.Fatalf("hook %s was asked for again", h.ID)
	}
	g, _ := s.cur.Group(h.Group)
	if h.Kind != HookNotify && h.Epoch != g.Epoch {
		s.t.Fatalf("hook %s of a phase that is over: %+v", h.ID, g)
	}
	delete(j.excused, h.ID)
	delete(s.lost, h.ID)
}

// died excuses the repetition of what ran so far: whether its completion was
// recorded, the check of the phase tells.
func (j *judge) died() {
	for id := range j.ran {
		j.excused[id] = true
	}
}

// routes checks that exclusive never routes to two sites, once it has decided.
func (j *judge) routes(s *sim) {
	if !s.cfg.exclusive() {
		return
	}
	for _, g := range s.cfg.Groups() {
		group, _ := s.cur.Group(g)
		j.settled = j.settled || group.Active != ""
		if on := s.routes(g); j.settled && len(on) > 1 {
			s.t.Fatalf("%v: %s is routed to %v: %+v", s.now, g, on, group)
		}
	}
}

func drawConfig(t *rapid.T) Config {
	cfg := Config{IsolatedAfter: simIsolated, RetryAfter: 20 * time.Second}
	for _, name := range []string{"a", "b", "c"}[:rapid.IntRange(2, 3).Draw(t, "sites")] {
		cfg.Sites = append(cfg.Sites, Site{Name: name, Patterns: []string{"*/" + name + "-*"}})
	}
	cfg.Order = rapid.SampledFrom([]Order{Overlap, Exclusive}).Draw(t, "order")
	if rapid.Bool().Draw(t, "independent") {
		cfg.Independent = []string{"amq"}
	}
	pick := func(name string) bool { return rapid.Bool().Draw(t, name) }
	cfg.Hooks = Hooks{Precheck: pick("precheck"), Takeover: pick("takeover"), Renounce: pick("renounce"), Notify: pick("notify")}
	cfg.Cold = pick("cold")
	if pick("failback") {
		cfg.Failback = 5 * time.Second
	}
	if pick("drain") {
		cfg.DrainTimeout = 2 * time.Second
	}
	if pick("down-after") {
		cfg.DownAfter = time.Second
	}
	return cfg
}

// world is a random sequence of events for a simulated cluster.
type chaos struct {
	s     *sim
	j     *judge
	human bool // operators give commands
	ids   int
}

func (c *chaos) act(t *rapid.T) {
	s := c.s
	lb := s.lbs[rapid.IntRange(0, len(s.lbs)-1).Draw(t, "lb")]
	group := rapid.SampledFrom(s.cfg.Groups()).Draw(t, "group")
	site := rapid.SampledFrom(s.cfg.siteNames()).Draw(t, "site")
	switch rapid.IntRange(0, 13).Draw(t, "what") {
	case 0, 1:
		lb.up[group+"/"+site] = !lb.up[group+"/"+site]
	case 2, 3:
		s.set("*", group, site, rapid.Bool().Draw(t, "up"))
	case 4:
		if lb.cut {
			s.heal(lb)
		} else {
			s.sever(lb)
		}
	case 5:
		if lb.dead {
			s.powerOn(lb)
		} else {
			s.powerOff(lb)
		}
	case 6:
		lb.mute = !lb.mute
	case 7:
		s.hang(lb, lb.haproxy)
	case 8:
		lb.stale = !lb.stale
	case 9:
		lb.barred = !lb.barred
	case 10:
		c.j.died()
		s.kill(rapid.Bool().Draw(t, "accepted"))
		s.run(time.Duration(rapid.IntRange(0, 2000).Draw(t, "gap")) * time.Millisecond)
		s.start(s.epoch == 0)
	case 11:
		kind := rapid.SampledFrom([]HookKind{HookPrecheck, HookTakeover, HookRenounce, HookNotify}).Draw(t, "hook")
		s.policy[kind] = rapid.SampledFrom([]string{"ok", "wait", "timeout", "node-lost", "no-node"}).Draw(t, "result")
	case 12:
		c.command(t, group, site)
	case 13:
		for _, h := range slices.Clone(s.hooks) {
			what := rapid.SampledFrom([]string{"ok", "timeout", "node-lost"}).Draw(t, "answer")
			s.answer(h, what)
		}
	}
	s.tell()
	s.run(time.Duration(rapid.SampledFrom([]int{1, 7, 16, 40, 300, 2000, 10000}).Draw(t, "ms")) * time.Millisecond)
}

func (c *chaos) command(t *rapid.T, group, site string) {
	if !c.human {
		return
	}
	c.ids++
	cmd := Command{ID: fmt.Sprint(c.ids), Group: group, Site: site, Actor: "ann"}
	cmd.Kind = rapid.SampledFrom([]CommandKind{Takeover, Takeover, Takeover, Renounce, Pause, Resume, Ack}).Draw(t, "command")
	if cmd.Kind == Pause {
		cmd.Duration = time.Duration(rapid.IntRange(0, 20).Draw(t, "pause")) * time.Second
	}
	cmd.Force = c.s.cfg.Order == Overlap && rapid.IntRange(0, 3).Draw(t, "force") == 0
	c.j.autos = map[string][]time.Duration{} // a person looks at it
	c.s.step(cmd)
}

// TestPromisesHoldWhateverHappens drives random clusters through random
// events and checks every promise at every step; then everything is mended,
// and a usable site must become active.
func TestPromisesHoldWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t, drawConfig(t), []string{"lb1", "lb2", "lb3"}[:rapid.IntRange(1, 3).Draw(t, "lbs")]...)
		s.print = func(format string, args ...any) { t.Logf("%v "+format, append([]any{s.now}, args...)...) }
		c := &chaos{s: s, j: newJudge(s), human: rapid.Bool().Draw(t, "human")}
		s.lingers = rapid.SampledFrom([]time.Duration{0, simLingers}).Draw(t, "lingers")
		s.policy[HookTakeover] = rapid.SampledFrom([]string{"ok", "wait"}).Draw(t, "hooks")
		s.start(true)
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			c.act(t)
		}
		c.mend(t)
	})
}

// mend ends every trouble and checks that the cluster comes to rest with a
// usable site active.
func (c *chaos) mend(t *rapid.T) {
	s := c.s
	s.policy = map[HookKind]string{}
	for _, l := range s.lbs {
		l.stale, l.barred, l.dead = false, false, false
		s.hang(l, false)
		for k := range l.up {
			l.up[k] = true
		}
		s.heal(l)
	}
	c.j.died()
	s.kill(true)
	s.start(s.epoch == 0)
	c.j.autos = map[string][]time.Duration{}
	c.ids++
	s.step(Command{ID: fmt.Sprint(c.ids), Kind: Resume})
	for range 8 {
		s.run(20 * time.Second)
		for _, g := range s.cur.Groups {
			if g.Ack {
				c.ids++
				s.step(Command{ID: fmt.Sprint(c.ids), Kind: Ack, Group: g.In()})
			}
		}
	}
	for _, g := range s.cur.Groups {
		if g.Switching() || g.Active == "" {
			t.Fatalf("all is well, and %s is not at rest: %+v, %+v", g.In(), g, s.d.Status())
		}
		if on := s.routes(g.In()); !slices.Equal(on, []string{g.Active}) {
			t.Fatalf("all is well, %s is active, and %v are routed to", g.Active, on)
		}
	}
}

// TestNoOscillation lets sites come and go as views please, with nobody
// looking: after FlapMax switches all is quiet. (The judge counts.)
func TestNoOscillation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		s := newSim(t, cfg, "lb1", "lb2")
		newJudge(s)
		s.start(true)
		s.run(time.Second)
		for range 60 {
			s.set("*", DefaultGroup, rapid.SampledFrom(cfg.siteNames()).Draw(t, "site"), rapid.Bool().Draw(t, "up"))
			s.tell()
			s.run(time.Duration(rapid.IntRange(1, 5000).Draw(t, "ms")) * time.Millisecond)
		}
	})
}
