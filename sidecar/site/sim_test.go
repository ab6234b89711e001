package site

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// fataler is what the simulation needs of a test, a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// The simulation's lease: an isolated load balancer drains after simLease at
// the latest, the decider hears of a death after simHeard. How long it waits
// for one that is silent it is told, or goes by simIsolated.
const (
	simLease    = time.Second
	simLingers  = simLease + 10*time.Millisecond
	simIsolated = 1500 * time.Millisecond
	simHeard    = 300 * time.Millisecond
	simWall     = 1_700_000_000_000
)

type event struct {
	at  time.Duration
	seq int
	run func()
}

// simLB is a load balancer: a HAProxy that obeys rules, and a sidecar that is
// heard of or not.
type simLB struct {
	name    string
	up      map[string]bool // group/site → servers are up
	ready   map[string]bool // group/site → routed to
	applied uint64
	known   Decision
	cut     bool // neither hears nor is heard
	mute    bool // hears, and is not heard
	dead    bool // powered off
	haproxy bool // the process answers
	woken   bool // it did not answer, and has not been brought up to date: it carries no address
	barred  bool
	stuck   bool // answers, and does not do as it is told
	liar    bool // says that it has done it, and has not
	stale   bool // its view is not refreshed any more
	view    View
	viewAt  time.Duration
	lostAt  time.Duration // when it was last heard
}

func (l *simLB) reachable() bool { return !l.cut && !l.dead }
func (l *simLB) heard() bool     { return l.reachable() && !l.mute }

// sim is a cluster around one decider: a lease that decides what is proposed,
// load balancers that obey what is decided, nodes that run hooks.
type sim struct {
	t     fataler
	cfg   Config
	now   time.Duration
	seq   int
	queue []event
	d     *Decider
	twin  *Decider // gets the same inputs: must give the same outputs
	gen   int      // of the decider

	lbs      []*simLB
	cur      Decision
	epoch    uint64
	inFlight *Decision
	hooks    []HookRun       // dispatched and not answered
	lost     map[string]bool // hooks whose node was lost
	policy   map[HookKind]string
	hookable []string
	lingers  time.Duration
	decideIn time.Duration
	applyIn  time.Duration
	path     *PathHint
	wake     time.Duration
	decided  []Group       // of the default group, at each decision
	doneAt   time.Duration // when the last switch was over; 0: it is not
	told     World         // to the decider, last
	toldAt   time.Duration

	print   func(format string, args ...any)
	onDo    []func(*sim, Decision, *Decision) // checks at each proposal: decided before, proposed
	onDone  []func(*sim, Decision)            // checks at each decision: decided before
	onHook  []func(*sim, HookRun)
	onInput []func(*sim)
}

func newSim(t fataler, cfg Config, lbs ...string) *sim {
	s := &sim{
		t: t, cfg: cfg, policy: map[HookKind]string{}, lost: map[string]bool{}, hookable: cfg.siteNames(),
		decideIn: 10 * time.Millisecond, applyIn: 5 * time.Millisecond, print: func(string, ...any) {},
	}
	for _, name := range lbs {
		l := &simLB{name: name, up: map[string]bool{}, ready: map[string]bool{}, haproxy: true}
		for _, g := range cfg.Groups() {
			for _, site := range cfg.Sites {
				l.up[g+"/"+site.Name], l.ready[g+"/"+site.Name] = true, true
			}
		}
		s.lbs = append(s.lbs, l)
		s.look(l)
	}
	return s
}

func (s *sim) lb(name string) *simLB {
	for _, l := range s.lbs {
		if l.name == name {
			return l
		}
	}
	s.t.Fatalf("no load balancer %q", name)
	return nil
}

// after runs fn later.
func (s *sim) after(d time.Duration, fn func()) {
	s.seq++
	s.queue = append(s.queue, event{s.now + d, s.seq, fn})
}

// run lets time pass.
func (s *sim) run(d time.Duration) {
	end := s.now + d
	for {
		best := -1
		for i, e := range s.queue {
			if e.at <= end && (best < 0 || e.at < s.queue[best].at || e.at == s.queue[best].at && e.seq < s.queue[best].seq) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		e := s.queue[best]
		s.queue = slices.Delete(s.queue, best, best+1)
		s.now = max(s.now, e.at)
		e.run()
	}
	s.now = end
}

// servers is what HAProxy of l shows: one server for each group and site.
func (s *sim) servers(l *simLB) []ServerState {
	var out []ServerState
	for _, g := range s.cfg.Groups() {
		for _, site := range s.cfg.Sites {
			backend := g
			if g == DefaultGroup {
				backend = "web"
			}
			key := g + "/" + site.Name
			out = append(out, ServerState{Backend: backend, Server: site.Name + "-1", Up: l.up[key], Drained: !l.ready[key]})
		}
	}
	return out
}

func (s *sim) look(l *simLB) {
	if !l.stale && !l.dead {
		l.view, l.viewAt = NewView(s.cfg, l.name, s.servers(l)), s.now
	}
}

func (s *sim) world() World {
	w := World{Hookable: s.hookable}
	for _, l := range s.lbs {
		if l.heard() {
			s.look(l)
			l.lostAt = s.now
		}
		view := l.view
		n := NodeWorld{
			Node: l.name, Alive: s.now < l.lostAt+simHeard, HAProxyAlive: l.haproxy, Barred: l.barred,
			View: &view, ViewAge: s.now - l.viewAt, AppliedEpoch: l.applied,
		}
		if !n.Alive {
			n.Silent, n.Lingers = s.now-l.lostAt, s.lingers
		}
		w.Nodes = append(w.Nodes, n)
	}
	return w
}

// tell gives the decider the world as it is.
func (s *sim) tell() { s.step(s.world()) }

// start makes a node the holder of the site lease, and has it told of the
// world every second.
func (s *sim) start(blank bool) {
	s.gen++
	gen := s.gen
	s.d, s.twin, s.inFlight, s.hooks = NewDecider(s.cfg), NewDecider(s.cfg), nil, nil
	s.tell()
	left := time.Duration(s.cur.PausedUntilMS-simWall)*time.Millisecond - s.now
	s.step(Adopt{Decision: s.cur, Epoch: s.epoch, Blank: blank, PauseLeft: left})
	var beat func()
	beat = func() {
		if gen == s.gen && s.d != nil {
			s.tell()
			s.after(time.Second, beat)
		}
	}
	s.after(time.Second, beat)
}

// kill ends the decider; what it proposed may have been accepted by a quorum
// all the same.
func (s *sim) kill(accepted bool) {
	p := s.inFlight
	s.gen++
	s.d, s.twin, s.inFlight = nil, nil, nil
	if p != nil && accepted {
		s.decide(*p)
	}
}

func (s *sim) step(in Input) {
	if s.d == nil {
		return
	}
	for _, check := range s.onInput {
		check(s)
	}
	gen := s.gen
	if w, ok := in.(World); ok {
		s.told, s.toldAt = w, s.now
	}
	out := s.d.Step(s.now, simWall+s.now.Milliseconds(), in)
	if twin := s.twin.Step(s.now, simWall+s.now.Milliseconds(), in); !reflect.DeepEqual(out, twin) {
		s.t.Fatalf("the same inputs gave different outputs:\n%+v\n%+v", out, twin)
	}
	for _, x := range out.Transitions {
		s.print("%s", transitionLine(x))
	}
	for _, r := range out.Replies {
		s.print("%s", replyLine(r))
	}
	if !reflect.DeepEqual(out.Path, s.path) {
		s.path = out.Path
		if s.path == nil {
			s.print("path: fine again")
		}
	}
	for _, h := range out.Hooks {
		s.dispatch(h)
	}
	if out.Propose != nil {
		s.propose(*out.Propose)
	}
	if s.wake = out.Wake; out.Wake > 0 {
		if out.Wake <= s.now {
			s.t.Fatalf("wake %v is not later than now %v", out.Wake, s.now)
		}
		s.after(out.Wake-s.now, func() {
			if gen == s.gen && s.wake == out.Wake { // no later output asked for another time
				s.step(Tick{})
			}
		})
	}
}

func (s *sim) propose(p Decision) {
	for _, check := range s.onDo {
		check(s, s.cur, &p)
	}
	s.inFlight = &p
	gen := s.gen
	s.after(s.decideIn, func() {
		if gen == s.gen && s.inFlight == &p {
			s.inFlight = nil
			s.decide(p)
		}
	})
}

func (s *sim) decide(p Decision) {
	b, err := Encode(p)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	before := s.cur
	if s.cur, err = Decode(b); err != nil {
		s.t.Fatalf("%v", err)
	}
	s.epoch++
	for _, check := range s.onDone {
		check(s, before)
	}
	g, _ := s.cur.Group(DefaultGroup)
	s.decided = append(s.decided, g)
	if g.Switching() {
		s.doneAt = 0
	}
	if !g.Switching() && s.doneAt == 0 {
		s.doneAt = s.now
	}
	for _, l := range s.lbs {
		s.inform(l)
	}
	s.step(Decided{s.cur, s.epoch})
}

// phaseEpoch is the epoch of the present phase of the default group.
func (s *sim) phaseEpoch() uint64 {
	g, _ := s.cur.Group(DefaultGroup)
	return g.Epoch
}

// inform brings a load balancer up to date, if it can be reached.
func (s *sim) inform(l *simLB) {
	d, epoch := s.cur, s.epoch
	s.after(s.applyIn, func() {
		if !l.reachable() || epoch < s.epoch || epoch == 0 {
			return
		}
		l.known = d
		if !l.haproxy || l.stuck || epoch <= l.applied && l.applied > 0 {
			return
		}
		if !l.liar {
			l.obey(s.cfg, Rules(s.cfg, d, true))
		}
		l.applied = epoch
		if l.heard() {
			s.tell()
		}
	})
}

// hang stops the process of HAProxy, or wakes it.
func (s *sim) hang(l *simLB, hung bool) {
	l.haproxy, l.woken, l.applied = !hung, true, 0
	s.inform(l)
}

func (l *simLB) obey(cfg Config, rules []Rule) {
	l.woken = false
	for _, g := range cfg.Groups() {
		for _, site := range cfg.Sites {
			backend := g
			if g == DefaultGroup {
				backend = "web"
			}
			for _, r := range rules {
				if matches(r.Pattern, backend, site.Name+"-1") {
					l.ready[g+"/"+site.Name] = r.Want == Ready
					break
				}
			}
		}
	}
}

// sever cuts a load balancer off. By the end of the lease it drains.
func (s *sim) sever(l *simLB) {
	l.cut = true
	s.after(simLease, func() {
		if l.cut && !l.dead && l.haproxy && s.now >= l.lostAt+simLease {
			l.obey(s.cfg, Rules(s.cfg, l.known, false))
			l.applied = 0
		}
	})
}

func (s *sim) heal(l *simLB) {
	l.cut, l.mute = false, false
	s.inform(l)
	s.tell()
}

// powerOff stops a load balancer; it comes back drained and knowing nothing.
func (s *sim) powerOff(l *simLB) {
	l.dead, l.applied, l.known = true, 0, Decision{}
	for k := range l.ready {
		l.ready[k] = false
	}
}

func (s *sim) powerOn(l *simLB) {
	l.dead = false
	s.heal(l)
}

func (s *sim) dispatch(h HookRun) {
	s.print("hook: %s at %s (from %q to %q, planned %v, %s)", h.ID, h.Site, h.From, h.To, h.Planned, h.Reason)
	for _, check := range s.onHook {
		check(s, h)
	}
	s.hooks = append(s.hooks, h)
	what, gen := s.policy[h.Kind], s.gen
	if what == "wait" {
		return
	}
	s.after(20*time.Millisecond, func() {
		if gen == s.gen {
			s.answer(h, what)
		}
	})
}

// answer reports what became of a hook: ok (or empty), or an error's word.
func (s *sim) answer(h HookRun, what string) {
	i := slices.IndexFunc(s.hooks, func(o HookRun) bool { return o.ID == h.ID })
	if i < 0 {
		return
	}
	s.hooks = slices.Delete(s.hooks, i, i+1)
	ok := what == "" || what == "ok"
	done := HookDone{ID: h.ID, OK: ok}
	if !ok {
		done.Err = Reason(what)
		s.lost[h.ID] = done.Err == ReasonHookNodeLost || done.Err == ReasonHookNoNode
	}
	s.step(done)
}

// set makes servers up or down for some load balancers, e.g. ("*", "a", false).
func (s *sim) set(lb, group, site string, up bool) {
	for _, l := range s.lbs {
		if lb == "*" || lb == l.name {
			l.up[group+"/"+site] = up
		}
	}
}

// routes names the sites of a group to which some load balancer routes.
func (s *sim) routes(group string) []string {
	var sites []string
	for _, site := range s.cfg.Sites {
		for _, l := range s.lbs {
			if !l.dead && l.haproxy && !l.woken && l.ready[group+"/"+site.Name] && !slices.Contains(sites, site.Name) {
				sites = append(sites, site.Name)
			}
		}
	}
	return sites
}

func transitionLine(x Transition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", x.Event)
	if x.Group != "" && x.Group != DefaultGroup {
		fmt.Fprintf(&b, " [%s]", x.Group)
	}
	if x.Phase != "" {
		fmt.Fprintf(&b, " %s", x.Phase)
	}
	switch {
	case x.From != "" && x.To != "" && x.From != x.To:
		fmt.Fprintf(&b, " %s→%s", x.From, x.To)
	case x.To != "":
		fmt.Fprintf(&b, " %s", x.To)
	case x.From != "":
		fmt.Fprintf(&b, " %s", x.From)
	}
	fmt.Fprintf(&b, ": %s", x.Reason)
	if x.Actor != "" {
		fmt.Fprintf(&b, " by %s", x.Actor)
	}
	if x.Detail != "" {
		fmt.Fprintf(&b, " (%s)", x.Detail)
	}
	return b.String()
}

func replyLine(r Reply) string {
	word := "…"
	switch {
	case r.Done && r.OK:
		word = "ok"
	case r.Done:
		word = "refused"
	}
	return fmt.Sprintf("reply %s: %s: %s: %s", r.ID, word, r.Reason, r.Text)
}
