package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/haproxy"
	"tandem/lib/lease"
	"tandem/sidecar/agent"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// heir is what the next program of a node begins with.
type heir struct {
	agent.Succession

	count uint64
}

func (h *heir) broadcasts() uint64 {
	if h == nil {
		return 0
	}
	return h.count
}

// succeed replaces the program of a node: the next one needs so long to start.
// Meanwhile nobody listens there, and the kernel goes on by itself.
func (c *cluster) succeed(name string, needs time.Duration) {
	c.t.Helper()
	n := c.nodes[name]
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	h, count := &heir{}, n.Status().Process.Restarts
	err := n.Replace(ctx, func(s agent.State) error {
		c.wires[name].Kill() // nothing leaves any more
		text, err := json.Marshal(agent.Succession{
			State: s, Taken: time.Hour + time.Since(c.start), Version: "1", Actor: "test", Count: count + 1,
		})
		if err == nil {
			err = json.Unmarshal(text, &h.Succession)
		}
		h.count = n.network.Broadcasts()
		return err
	})
	if err != nil {
		c.t.Fatalf("replace %s: %v\n%s", name, err, c.log.text())
	}
	c.wg.Go(func() { // its gossip still leaves, unheard
		if err := <-n.done; !errors.Is(err, agent.ErrReplaced) {
			c.t.Errorf("run of %s ended with %v", name, err)
		}
	})
	c.heirs[name] = h
	if c.between != nil {
		c.between()
	}
	time.Sleep(needs)
	c.boot(c.t.Context(), name)
}

// restarts are the transitions that tell of replaced programs, as one node has
// them.
func (c *cluster) restarts(node string) (out []status.Transition) {
	for _, h := range c.nodes[node].History(1000) {
		if h.Event == "restart" {
			out = append(out, h)
		}
	}
	return out
}

// TestAProgramIsReplacedAndNothingMoves: the holder's program is replaced ten
// times. It holds at every instant, nobody takes anything up or lets it go, and
// the others miss nobody.
func TestAProgramIsReplacedAndNothingMoves(t *testing.T) {
	edit := func(_ string, cfg *agent.Config) { cfg.Version = "2" }
	inBubble(t, edit, func(c *cluster) {
		t := c.t
		c.until("the site is led by lb1", 5*time.Second, func() bool { return leads(c, "lb1") })
		began, lines := time.Now(), len(strings.Split(c.log.text(), "\n"))
		away, silent, lb2 := 0, "", c.nodes["lb2"]
		ctx, stop := context.WithCancel(t.Context())
		c.wg.Go(func() {
			for ctx.Err() == nil {
				if !c.held("lb1")() {
					away++
				}
				for _, n := range lb2.Status().Nodes {
					if !n.Alive || n.Role != agent.RoleWitness && !n.Eligible {
						silent = n.Name + " " + n.Reason + " " + n.Detail
					}
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		for i := range 10 {
			c.succeed("lb1", time.Duration(20+i*20)*time.Millisecond)
			time.Sleep(1500 * time.Millisecond)
		}
		stop()
		if away > 0 || silent != "" {
			t.Errorf("not held by lb1 at %d instants; missed: %q", away, silent)
		}
		s := c.nodes["lb1"].Status()
		if s.Process.Restarts != 10 || s.Process.Outcome != agent.ReasonInPlace || s.Version != "2" || s.Health != status.Healthy {
			t.Errorf("status: %+v, version %s, %s %v", s.Process, s.Version, s.Health, s.Problems)
		}
		if p, err := c.nodes["lb1"].Plan(t.Context(), []string{"lb1=down"}); err != nil || len(p.Holders) == 0 || p.Holders[0].Holder != "lb2" {
			t.Errorf("a replaced program rehearses: %+v %v", p, err)
		}
		if !leads(c, "lb1") {
			t.Errorf("the site is not led by lb1: %+v", s.Leases)
		}
		if now := strings.Split(c.log.text(), "\n"); len(now) != lines {
			t.Errorf("something moved:\n%s", strings.Join(now[lines:], "\n"))
		}
		for _, h := range c.nodes["lb2"].History(1000) {
			if h.At.Before(began) {
				continue
			}
			if h.Event != "restart" || h.Reason != agent.ReasonInPlace || h.From != "1" || h.To != "2" || h.Actor != "test" {
				t.Errorf("the history has %+v", h)
			}
		}
		if n := len(c.restarts("lb2")); n != 10 {
			t.Errorf("lb2 knows of %d restarts, want 10", n)
		}
	})
}

func leads(c *cluster, name string) bool {
	for _, l := range c.nodes["lb2"].Status().Leases {
		if l.Resource == agent.ResourceSite {
			return l.Holder == name
		}
	}
	return false
}

// TestAProgramThatStartsTooLateFindsAnotherHolder: never two, and the history
// says why the address moved.
func TestAProgramThatStartsTooLateFindsAnotherHolder(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.succeed("lb1", 4*time.Second)
		if !c.held("lb2")() {
			t.Fatalf("holders %v, want lb2 after a restart that took longer than the lease", c.holders())
		}
		c.until("lb1 says why", 3*time.Second, func() bool { return len(c.restarts("lb2")) > 0 })
		r := c.restarts("lb2")[0]
		if r.Reason != agent.ReasonTooLate || !strings.Contains(r.Detail, "longer than the lease") || !strings.Contains(r.Detail, "vip/default") {
			t.Errorf("the history has %+v", r)
		}
		time.Sleep(3 * time.Second)
		if !c.held("lb2")() || c.nodes["lb1"].Status().Health != status.Healthy {
			t.Errorf("holders %v, status of lb1 %v", c.holders(), c.nodes["lb1"].Status().Problems)
		}
		c.nodes["lb2"].proxy.die("refused")
		c.until("lb1 takes over", time.Second, c.held("lb1"))
	})
}

// TestAVoterWhoseProgramIsReplacedVotesOn: with lb2 cut off, the witness is one of
// two, and a quarantine of its would cost the lease.
func TestAVoterWhoseProgramIsReplacedVotesOn(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.net.Isolate(addresses["lb2"])
		time.Sleep(2 * time.Second)
		for range 5 {
			c.succeed("witness", 100*time.Millisecond)
			for range 300 {
				time.Sleep(5 * time.Millisecond)
				if !c.held("lb1")() {
					t.Fatalf("holders %v\n%s", c.holders(), c.log.text())
				}
			}
		}
		if _, quiet := quarantine(c, "witness"); quiet {
			t.Error("the witness keeps silent")
		}
	})
}

func quarantine(c *cluster, name string) (int64, bool) {
	ms := c.nodes[name].Status().QuarantineMS
	return ms, ms > 0
}

// TestAPairGoesOnAsTwo: the peer of a replaced program is not thought lost.
func TestAPairGoesOnAsTwo(t *testing.T) {
	bubble(t, []string{"lb1", "lb2"}, pair, func(c *cluster) {
		t := c.t
		for _, name := range []string{"lb1", "lb2", "lb1"} {
			c.succeed(name, 100*time.Millisecond)
			for range 200 {
				time.Sleep(5 * time.Millisecond)
				if s := c.nodes["lb1"].Status(); s.Unsafe || !c.held("lb1")() {
					t.Fatalf("after %s: unsafe %v, holders %v", name, s.Unsafe, c.holders())
				}
			}
		}
	})
}

// TestWhatIsUnderWayIsWaitedFor: the grace of a move, a hook. When that takes too
// long, nothing happens, and it is said why.
func TestWhatIsUnderWayIsWaitedFor(t *testing.T) {
	var hooks *commands
	deps := func(name string, d *agent.Deps) {
		if name == "lb1" {
			hooks = newCommands(name, &journal{}, func() time.Duration { return 3 * time.Second })
			d.Hooks = hooks
		}
	}
	edit := func(name string, cfg *agent.Config) {
		cfg.Sites.Hooks = site.Hooks{Takeover: true}
		if name == "lb1" {
			cfg.Hooks = []string{string(site.HookTakeover)}
		}
	}
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, deps, func(c *cluster) {
		t := c.t
		c.ready()
		try := func(name string, patience time.Duration) (string, time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			err := c.nodes[name].Replace(ctx, func(agent.State) error { return errors.New("asked") })
			return err.Error(), time.Since(began)
		}
		if why, _ := try("lb1", time.Second); why != "asked" {
			t.Fatalf("at rest: %s", why)
		}
		c.do("takeover", status.Command{Kind: "takeover", Site: "b"})
		if why, _ := try("lb1", time.Second); !strings.Contains(why, "hook takeover/") {
			t.Errorf("while a hook runs: %s", why)
		}
		if why, took := try("lb1", 20*time.Second); why != "asked" || took > 10*time.Second {
			t.Errorf("waited for the hook for %v: %s", took, why)
		}
		c.until("site b", 5*time.Second, c.routed("b-1 b-2"))
		c.do("move", status.Command{Kind: "move", To: "lb2"})
		for name, words := range map[string]string{"lb1": "served here", "lb2": "sent back"} {
			if why, _ := try(name, time.Second); !strings.Contains(why, words) {
				t.Errorf("%s in the grace of a move: %s", name, why)
			}
		}
		if why, _ := try("lb1", 20*time.Second); why != "asked" {
			t.Errorf("after the grace: %s", why)
		}
		time.Sleep(3 * time.Second)
		if !c.held("lb2")() {
			t.Errorf("holders %v after attempts that failed, want lb2", c.holders())
		}
	})
}

func (c *cluster) do(what string, cmd status.Command) {
	c.t.Helper()
	if r, err := c.nodes["lb1"].Do(c.t.Context(), cmd); err != nil || !r.OK {
		c.t.Fatalf("%s: %+v %v", what, r, err)
	}
}

// TestASwitchGoesOnUnderTheNextProgram: the decider's program is replaced while a
// hook runs on another node, which runs it once.
func TestASwitchGoesOnUnderTheNextProgram(t *testing.T) {
	var hooks *commands
	deps := func(name string, d *agent.Deps) {
		if name == "lb2" {
			hooks = newCommands(name, &journal{}, func() time.Duration { return 2 * time.Second })
			d.Hooks = hooks
		}
	}
	edit := func(name string, cfg *agent.Config) {
		cfg.Sites.Hooks = site.Hooks{Takeover: true}
		if name == "lb2" {
			cfg.Hooks = []string{string(site.HookTakeover)}
		}
	}
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, deps, func(c *cluster) {
		t := c.t
		c.ready()
		c.until("the site is led by lb1", 5*time.Second, func() bool { return leads(c, "lb1") })
		c.do("takeover", status.Command{Kind: "takeover", Site: "b"})
		c.succeed("lb1", 100*time.Millisecond)
		c.until("site b", 10*time.Second, c.routed("b-1 b-2"))
		hooks.mu.Lock()
		defer hooks.mu.Unlock()
		if len(hooks.started) != 1 || !c.held("lb1")() {
			t.Errorf("hooks started: %v; holders %v", hooks.started, c.holders())
		}
	})
}

// TestADeadHAProxyIsFoundByTheNextProgram: that nothing is judged before HAProxy
// has answered lasts no longer than it takes to see that it does not.
func TestADeadHAProxyIsFoundByTheNextProgram(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		p := c.nodes["lb1"].proxy
		go func() { // while nobody looks
			time.Sleep(50 * time.Millisecond)
			p.die(haproxy.ReasonDied)
		}()
		c.succeed("lb1", 100*time.Millisecond)
		c.until("lb2 takes over", time.Second, c.held("lb2"))
	})
}

// TestWhatAnAgentKnowsIsHandedOnOrFoundAnew: whoever adds a field to an agent, a
// group or a peer has to say which.
func TestWhatAnAgentKnowsIsHandedOnOrFoundAnew(t *testing.T) {
	handed := map[string]string{
		"Agent": "lease groups seq peers decided decision decidedFrom dates maintenance siteHeardAt decidingSince announcedAt hooksRun hookFrom hooksEnded hooksTaken notices seen history lbSeen boot decider",
		"group": "name resource holding deadline since epoch lastHolder told preferredOKSince unfit notice free claimed force",
		"peer":  "name voter boot seq report at arrived absent",
	}
	anew := map[string]string{
		// What it consists of; what follows from the rest, or is asked for within a
		// second; what there is none of while a program is replaced.
		"Agent": "cfg deps log inputs stepping spoken following leaseWake due dirty self told toldAt informed informedAt stopping started vips applied obeyed unsaved releasedAt announceAt telling pathSince orders pending underWay requests metrics warned doubled remarks tap outlook sure startedAt restarts succeeding replaced succession late resumedAt settleBy firstRenewal outcome awake lookAt",
		"group": "setError successor yieldUntil newUntil moveID moveTo predecessor strays straysUntil sawYield",
		"peer":  "remindedAt answering attendedAt lives",
	}
	a := reflect.TypeFor[agent.Agent]()
	groups, _ := a.FieldByName("groups")
	peers, _ := a.FieldByName("peers")
	for name, typ := range map[string]reflect.Type{"Agent": a, "group": groups.Type.Elem().Elem(), "peer": peers.Type.Elem().Elem()} {
		known := slices.Concat(strings.Fields(handed[name]), strings.Fields(anew[name]))
		for f := range typ.Fields() {
			if !slices.Contains(known, f.Name) {
				t.Errorf("%s.%s: is it in State, and StateVersion raised, or found anew? Say it here", name, f.Name)
			}
		}
		for _, k := range known {
			if _, ok := typ.FieldByName(k); !ok {
				t.Errorf("%s has no field %s", name, k)
			}
		}
	}
	if agent.StateVersion%1000 != lease.SnapshotVersion {
		t.Errorf("the version of a state %d does not contain that of a snapshot", agent.StateVersion)
	}
}

// unasked has HAProxy not answer yet, as to a program that has just started; the
// result ends that.
func (p *proxy) unasked() (answer func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := p.o
	p.o = haproxy.Observation{Reason: haproxy.ReasonStarting}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.o = is
		p.o.Applied = 0
		p.apply()
	}
}

// TestNothingIsJudgedBeforeHAProxyHasAnswered: neither does the holder hand over
// because it does not know its HAProxy yet, nor does the decider leave a site that
// it has not looked at yet.
func TestNothingIsJudgedBeforeHAProxyHasAnswered(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.until("the site is led by lb1", 5*time.Second, func() bool { return leads(c, "lb1") })
		before, lines := len(c.nodes["lb1"].History(1000)), c.log.text()
		c.net.Isolate(addresses["lb2"]) // else its view would do for the decider
		c.nodes["lb2"].proxy.servers("a-", false)
		p := c.nodes["lb1"].proxy
		c.between = func() {
			answer := p.unasked()
			c.wg.Go(func() {
				time.Sleep(350 * time.Millisecond)
				answer()
			})
		}
		for range 3 {
			c.succeed("lb1", 50*time.Millisecond)
			for range 300 {
				time.Sleep(5 * time.Millisecond)
				if !c.held("lb1")() {
					t.Fatalf("holders %v\n%s", c.holders(), c.log.text())
				}
			}
		}
		if n := len(c.restarts("lb1")); n != 3 {
			t.Errorf("%d restarts in the history", n)
		}
		for _, h := range c.nodes["lb1"].History(1000)[before:] {
			if h.Event != "restart" || h.Reason != agent.ReasonInPlace {
				t.Errorf("the history has %+v", h)
			}
		}
		if s := c.nodes["lb1"].Status(); s.Site.Active != "a" || !c.held("lb1")() {
			t.Errorf("site %+v, holders %v\n%s\nbefore:\n%s", s.Site, c.holders(), c.log.text(), lines)
		}
	})
}
