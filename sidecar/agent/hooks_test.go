package agent_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// killing is how long the commands of a test take to end when they are killed.
const killing = 300 * time.Millisecond

// commands are the hooks of one node. Like the real ones they run until they
// have ended or are overtaken, and need a moment to be killed.
type commands struct {
	node  string
	log   *journal
	takes func() time.Duration
	fails map[site.HookKind]site.Reason // with that word; the others succeed
	stays bool                          // they cannot be killed
	quick bool                          // they die at once when they are killed
	done  chan agent.HookResult

	mu      sync.Mutex
	started []string
	running map[string]*running
}

type running struct {
	run  site.HookRun
	kill chan struct{}
}

func newCommands(node string, log *journal, takes func() time.Duration) *commands {
	return &commands{node: node, log: log, takes: takes, done: make(chan agent.HookResult, 64), running: map[string]*running{}}
}

// Start implements agent.Hooks.
func (c *commands) Start(run site.HookRun) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = append(c.started, run.ID)
	c.log.add("%s: starts %s", c.node, run.ID)
	r := &running{run: run, kill: make(chan struct{})}
	c.running[run.ID] = r
	takes := c.takes()
	go func() { c.done <- c.live(r, takes) }() // within takes
}

func (c *commands) live(r *running, takes time.Duration) agent.HookResult {
	timer := time.NewTimer(takes)
	defer timer.Stop()
	res := agent.HookResult{Run: r.run, OK: c.fails[r.run.Kind] == "", Err: c.fails[r.run.Kind]}
	select {
	case <-timer.C:
	case <-r.kill:
		if !c.quick {
			time.Sleep(killing)
		}
		res.OK, res.Err = false, "superseded"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, r.run.ID)
	c.log.add("%s: ended %s %s", c.node, r.run.ID, res.Err)
	return res
}

// Fence implements agent.Hooks.
func (c *commands) Fence(group string, epoch, notify uint64) {
	c.end(func(r site.HookRun) bool {
		return r.Group == group && (r.Kind != site.HookNotify && r.Epoch < epoch || r.Kind == site.HookNotify && r.Epoch < notify)
	})
}

// Forget implements agent.Hooks.
func (c *commands) Forget(group string) {
	c.end(func(r site.HookRun) bool { return r.Group == group })
}

func (c *commands) end(which func(site.HookRun) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.running {
		if which(r.run) && !c.stays {
			select {
			case <-r.kill:
			default:
				close(r.kill)
			}
		}
	}
}

// Done implements agent.Hooks.
func (c *commands) Done() <-chan agent.HookResult { return c.done }

// starting lists the sites whose takeover hooks run.
func (c *commands) starting() (sites []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.running {
		if r.run.Kind == site.HookTakeover && !slices.Contains(sites, r.run.Site) {
			sites = append(sites, r.run.Site)
		}
	}
	return sites
}

// ran lists what was started, each time.
func (c *commands) ran() []string { c.mu.Lock(); defer c.mu.Unlock(); return slices.Clone(c.started) }

// staged gives nodes hooks: where they stand, and how long their commands take.
type staged struct {
	stand map[string]string // node → site
	kinds []string
	takes map[string]time.Duration // by site
	log   *journal
	on    map[string]*commands
}

func stage(stand map[string]string, takes map[string]time.Duration, kinds ...string) *staged {
	return &staged{stand: stand, kinds: kinds, takes: takes, log: &journal{}, on: map[string]*commands{}}
}

func (s *staged) edit(name string, c *agent.Config) {
	if at := s.stand[name]; at != "" {
		c.Site, c.Hooks = at, s.kinds
	}
}

func (s *staged) deps(name string, d *agent.Deps) {
	if at := s.stand[name]; at != "" {
		s.on[name] = newCommands(name, s.log, func() time.Duration { return s.takes[at] })
		d.Hooks = s.on[name]
	}
}

// apps are the settings of a cluster in which app-b is a machine of the
// applications, without a vote and without a HAProxy.
func (s *staged) apps(order site.Order) (func(string, *agent.Config), func(string, *agent.Deps)) {
	edit := func(name string, c *agent.Config) {
		s.edit(name, c)
		c.Sites.Order = order
		if c.Voters = []string{"lb1", "lb2", "witness"}; name == "app-b" {
			c.Role = agent.RoleSite
		}
	}
	return edit, func(name string, d *agent.Deps) {
		if s.deps(name, d); name == "app-b" {
			d.LB, d.Addresses = nil, nil
		}
	}
}

// withApps are the nodes of such a cluster.
var withApps = []string{"lb1", "lb2", "witness", "app-b"}

// order checks that lines with these beginnings are there, in this order.
func (s *staged) order(t *testing.T, want ...string) {
	t.Helper()
	rest := strings.Split(s.log.text(), "\n")
	for _, w := range want {
		i := slices.IndexFunc(rest, func(l string) bool { return strings.HasPrefix(l, w) })
		if i < 0 {
			t.Fatalf("no %q after those before it, want %q:\n%s", w, want, s.log.text())
		}
		rest = rest[i+1:]
	}
}

// ready waits until the cluster of a story with hooks is at rest on site a.
func (c *cluster) ready() {
	c.t.Helper()
	c.until("first holder", 8*time.Second, c.held("lb1"))
	c.until("site a routed", 5*time.Second, c.routed("a-1 a-2"))
	c.until("all healthy", 5*time.Second, func() bool { return c.nodes["lb1"].Status().Health == status.Healthy })
}

func (c *cluster) takeover(s string) {
	c.t.Helper()
	r, err := c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "takeover", Site: s, Actor: "test"})
	if err != nil || !r.OK {
		c.t.Fatalf("takeover %s: %+v %v", s, r, err)
	}
}

func (s *staged) started(node, prefix string) func() bool {
	return func() bool {
		return slices.ContainsFunc(s.on[node].ran(), func(id string) bool { return strings.HasPrefix(id, prefix) })
	}
}

// TestACancelledTakeoverIsStopped: the hook that starts site b runs at lb2 when
// an operator takes site a back. It is killed, and has ended before the hook at
// lb1 starts site a again: applications that must not run twice do not.
func TestACancelledTakeoverIsStopped(t *testing.T) {
	s := stage(map[string]string{"lb1": "a", "lb2": "b"}, map[string]time.Duration{"a": 50 * time.Millisecond, "b": time.Minute}, "takeover")
	edit := func(name string, c *agent.Config) { s.edit(name, c); c.Sites.Order = site.Exclusive }
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, s.deps, func(c *cluster) {
		c.ready()
		c.takeover("b")
		c.until("b is being started", 3*time.Second, s.started("lb2", "takeover/default/b"))
		took := time.Now()
		c.takeover("a")
		c.until("site a routed again", 5*time.Second, c.routed("a-1 a-2"))
		if d := time.Since(took); d > 2*time.Second {
			t.Errorf("it took %v, want little more than the hook that is killed", d)
		}
		s.order(t, "lb2: starts takeover/default/b", "lb2: ended takeover/default/b", "lb1: starts takeover/default/a", "lb1: ended takeover/default/a")
		if !strings.Contains(s.log.text(), "superseded") {
			t.Errorf("want the hook at lb2 killed:\n%s", s.log.text())
		}
		time.Sleep(5 * time.Second)
		if n := len(s.on["lb2"].ran()); n != 1 {
			t.Errorf("%d hooks ran at lb2, want 1:\n%s", n, s.log.text())
		}
	})
}

// TestWhoIsCutOffEndsItsHooks: the same, and lb2 is cut off. It ends the hook by
// itself, before lb1 has waited for it for long enough.
func TestWhoIsCutOffEndsItsHooks(t *testing.T) {
	s := stage(map[string]string{"lb1": "a", "lb2": "b"}, map[string]time.Duration{"a": 50 * time.Millisecond, "b": time.Minute}, "takeover")
	edit := func(name string, c *agent.Config) { s.edit(name, c); c.Sites.Order = site.Exclusive }
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, s.deps, func(c *cluster) {
		c.ready()
		c.takeover("b")
		c.until("b is being started", 3*time.Second, s.started("lb2", "takeover/default/b"))
		c.net.Isolate(addresses["lb2"])
		c.takeover("a")
		c.until("lb1 routes to site a again", 10*time.Second, func() bool { return c.nodes["lb1"].proxy.ready() == "a-1 a-2" })
		s.order(t, "lb2: starts takeover/default/b", "lb2: ended takeover/default/b", "lb1: starts takeover/default/a")
		c.net.Heal()
		c.until("lb2 follows", 10*time.Second, c.routed("a-1 a-2"))
		time.Sleep(5 * time.Second)
		if n := len(s.on["lb2"].ran()); n != 1 {
			t.Errorf("%d hooks ran at lb2, want 1:\n%s", n, s.log.text())
		}
	})
}

// TestALongHookIsLeftInPeace: on a machine of the applications, which has no
// vote, a takeover runs for longer than any lease; and the witness is away.
func TestALongHookIsLeftInPeace(t *testing.T) {
	s := stage(map[string]string{"app-b": "b"}, map[string]time.Duration{"b": 20 * time.Second}, "takeover")
	edit, deps := s.apps(site.Exclusive)
	bubbleWith(t, withApps, edit, deps, func(c *cluster) {
		c.ready()
		c.takeover("b")
		c.until("b is being started", 3*time.Second, s.started("app-b", "takeover/default/b"))
		c.net.Isolate(addresses["witness"])
		c.until("b routed", 25*time.Second, c.routed("b-1 b-2"))
		if ran := s.on["app-b"].ran(); len(ran) != 1 || strings.Contains(s.log.text(), "superseded") {
			t.Errorf("want one takeover, not ended by anybody:\n%s", s.log.text())
		}
	})
}

// TestAHookThatWasEndedIsRunAgain: lb2 was cut off for long enough to end its
// hook, and is back before it counts as lost: the switch goes on.
func TestAHookThatWasEndedIsRunAgain(t *testing.T) {
	s := stage(map[string]string{"lb1": "a", "lb2": "b"}, map[string]time.Duration{"a": 50 * time.Millisecond, "b": 10 * time.Second}, "takeover")
	edit := func(name string, c *agent.Config) { s.edit(name, c); c.Sites.Order = site.Exclusive }
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, s.deps, func(c *cluster) {
		c.ready()
		c.takeover("b")
		c.until("b is being started", 3*time.Second, s.started("lb2", "takeover/default/b"))
		c.net.Isolate(addresses["lb2"])
		c.until("lb2 ends it", 3*time.Second, func() bool { return strings.Contains(s.log.text(), "lb2: ended takeover/default/b") })
		c.net.Heal()
		c.until("b routed", 20*time.Second, c.routed("b-1 b-2"))
		if ran := s.on["lb2"].ran(); len(ran) != 2 || ran[0] != ran[1] {
			t.Errorf("lb2 ran %v, want the takeover of b once more", ran)
		}
	})
}

// TestTheLastNotificationIsTheLast: the platform that is told does not answer
// lb2, which would tell it of site b for ever; meanwhile site a is active again
// and lb1 tells so. What lb2 tells ends before that.
func TestTheLastNotificationIsTheLast(t *testing.T) {
	s := stage(map[string]string{"lb1": "a", "lb2": "b"}, map[string]time.Duration{"a": 50 * time.Millisecond, "b": time.Hour}, "notify")
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, s.edit, s.deps, func(c *cluster) {
		c.ready()
		c.takeover("b")
		c.until("b is told", 3*time.Second, s.started("lb2", "notify/default/b"))
		time.Sleep(5 * time.Second) // it is asked for again meanwhile
		c.takeover("a")
		c.until("a is told", 5*time.Second, func() bool { return strings.Contains(s.log.text(), "lb1: ended notify/default/a") })
		s.order(t, "lb2: starts notify/default/b", "lb2: ended notify/default/b", "lb1: starts notify/default/a")
		time.Sleep(5 * time.Second)
		if one, two := s.on["lb1"].ran(), s.on["lb2"].ran(); len(one) != 1 || len(two) != 1 {
			t.Errorf("lb1 ran %v, lb2 %v, want one each", one, two)
		}
	})
}

// TestDeciderDiesWhileHooksRun: at site b a load balancer and a machine of the
// applications have the hooks, and the decider, which stands at site a, dies at
// any moment of a switch. Whoever decides next does not have takeover.sh run a
// second time.
func TestDeciderDiesWhileHooksRun(t *testing.T) {
	for name, auto := range map[string]bool{"commanded": false, "automatic": true} {
		t.Run(name, func(t *testing.T) {
			switched, shared := 0, 0
			for at := time.Duration(0); at < 240*time.Millisecond; at += 10 * time.Millisecond {
				s := deciderDies(t, auto, at)
				all := append(s.on["app-b"].ran(), s.on["lb2"].ran()...)
				n := 0
				for _, id := range all {
					if strings.HasPrefix(id, "takeover/") {
						n++
					}
				}
				if n > 1 {
					t.Fatalf("killed after %v: the takeover of b ran %d times\n%s", at, n, s.log.text())
				}
				switched += n
				if slices.ContainsFunc(s.on["lb1"].ran(), func(id string) bool { return strings.HasPrefix(id, "renounce/") }) {
					shared++
				}
			}
			t.Logf("%d takeovers, %d renounced at a before the decider died", switched, shared)
			if switched < 15 || shared == 0 || shared == switched {
				t.Errorf("%d takeovers, of which %d were over: the decider was not killed at every moment", switched, shared)
			}
		})
	}
}

func deciderDies(t *testing.T, auto bool, at time.Duration) *staged {
	t.Helper()
	takes := map[string]time.Duration{"a": 50 * time.Millisecond, "b": 50 * time.Millisecond}
	s := stage(map[string]string{"lb1": "a", "lb2": "b", "app-b": "b"}, takes, "precheck", "takeover", "renounce", "notify")
	edit, deps := s.apps(site.Overlap)
	bubbleWith(t, withApps, edit, deps, func(c *cluster) {
		c.ready()
		time.Sleep(time.Second)
		if auto {
			c.nodes["lb1"].proxy.servers("a-", false)
			c.nodes["lb2"].proxy.servers("a-", false)
		} else {
			c.wg.Go(func() {
				ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
				defer cancel()
				_, _ = c.nodes["lb1"].Do(ctx, status.Command{Kind: "takeover", Site: "b"}) // its node may die
			})
		}
		time.Sleep(at)
		c.wires["lb1"].Kill()
		c.nodes["lb1"].cancel()
		done := func() bool { return c.nodes["lb2"].proxy.ready() == "b-1 b-2" }
		if auto || at >= 20*time.Millisecond {
			c.until("site b routed", 10*time.Second, done)
		}
		time.Sleep(5 * time.Second)
	})
	return s
}

// TestAPrecheckMayVeto: nothing is drained and nothing else is run, who asked is
// told why, and force does without the precheck.
func TestAPrecheckMayVeto(t *testing.T) {
	for _, order := range []site.Order{site.Overlap, site.Exclusive} {
		t.Run(string(order), func(t *testing.T) {
			takes := map[string]time.Duration{"a": 50 * time.Millisecond, "b": 50 * time.Millisecond}
			s := stage(map[string]string{"lb1": "a", "lb2": "b"}, takes, "precheck", "takeover", "renounce")
			edit := func(name string, c *agent.Config) { s.edit(name, c); c.Sites.Order = order }
			bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, s.deps, func(c *cluster) {
				c.ready()
				s.on["lb2"].fails = map[site.HookKind]site.Reason{site.HookPrecheck: "exit-status"}
				began := len(c.log.text())
				r, err := c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "takeover", Site: "b"})
				if err != nil || r.OK || r.Reason != "precheck-veto" || !strings.Contains(r.Message, "a is active") {
					t.Errorf("got %+v %v, want refused by the precheck", r, err)
				}
				time.Sleep(3 * time.Second)
				for line := range strings.SplitSeq(c.log.text()[began:], "\n") {
					if _, ready, ok := strings.Cut(line, "ready "); ok && ready != "a-1 a-2" {
						t.Errorf("a veto, and %s", line)
					}
				}
				if two := s.on["lb2"].ran(); len(two) != 1 || len(s.on["lb1"].ran()) != 0 {
					t.Errorf("hooks run after the veto:\n%s", s.log.text())
				}
				if r, err = c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "takeover", Site: "b", Force: true}); err != nil || !r.OK {
					t.Fatalf("takeover by force: %+v %v", r, err)
				}
				c.until("b routed", 5*time.Second, c.routed("b-1 b-2"))
				s.order(t, "lb2: starts precheck/default/b", "lb2: starts takeover/default/b")
				if n := strings.Count(s.log.text(), "starts precheck"); n != 1 {
					t.Errorf("the precheck was asked %d times, want once: force does without", n)
				}
			})
		})
	}
}

// TestHooksRunAgainWhenAllVotersHaveForgotten: the machine of the applications
// lives on while all voters, without a state directory, start again. Epochs
// begin again with them, and what bears the number of an old job is another one.
func TestHooksRunAgainWhenAllVotersHaveForgotten(t *testing.T) {
	s := stage(map[string]string{"app-b": "b"}, map[string]time.Duration{"b": 50 * time.Millisecond}, "takeover")
	edit, deps := s.apps(site.Overlap)
	bubbleWith(t, withApps, edit, deps, func(c *cluster) {
		voters := withApps[:3]
		c.ready()
		c.takeover("b")
		c.until("b routed", 5*time.Second, c.routed("b-1 b-2"))
		time.Sleep(time.Second)
		for _, n := range voters {
			c.nodes[n].cancel()
			if err := <-c.nodes[n].done; err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range voters {
			c.boot(c.t.Context(), n)
		}
		c.until("first holder", 8*time.Second, c.held("lb1"))
		c.until("site a routed", 5*time.Second, c.routed("a-1 a-2"))
		c.until("app-b is heard", 10*time.Second, func() bool {
			return slices.ContainsFunc(c.nodes["lb1"].Status().Nodes, func(n status.Node) bool { return n.Name == "app-b" && n.Alive && n.Role == agent.RoleSite })
		})
		c.takeover("b")
		c.until("b routed again", 5*time.Second, c.routed("b-1 b-2"))
		if ran := s.on["app-b"].ran(); len(ran) != 2 || ran[0] != ran[1] {
			t.Errorf("app-b ran %v, want the takeover of b twice, by the same id", ran)
		}
	})
}

// TestASiteWithoutANodeForItsHooksIsToldOf: the machine of the applications of b
// is gone. Its servers may answer, and nothing else is wrong; but b could not be
// taken over, and somebody should know before it must be.
func TestASiteWithoutANodeForItsHooksIsToldOf(t *testing.T) {
	s := stage(map[string]string{"lb1": "a", "app-b": "b"}, map[string]time.Duration{"a": 50 * time.Millisecond, "b": 50 * time.Millisecond}, "takeover")
	edit, deps := s.apps(site.Exclusive)
	bubbleWith(t, withApps, edit, deps, func(c *cluster) {
		c.ready()
		c.net.Isolate(addresses["app-b"])
		c.until("it is said", 10*time.Second, func() bool {
			st := c.nodes["lb1"].Status()
			return st.Health == status.Degraded && strings.Contains(strings.Join(st.Problems, "\n"), "no live node stands in site b")
		})
		c.net.Heal()
		c.until("all is well", 10*time.Second, func() bool { return c.nodes["lb1"].Status().Health == status.Healthy })
	})
}

// TestWhoHearsNoDeciderIsNotSure: the runner asks before each command, and must
// not be told yes by a sidecar that stood still.
func TestWhoHearsNoDeciderIsNotSure(t *testing.T) {
	s := stage(map[string]string{"app-b": "b"}, map[string]time.Duration{"b": 50 * time.Millisecond}, "takeover")
	for order, fenced := range map[site.Order]bool{site.Exclusive: true, site.Overlap: false} {
		edit, deps := s.apps(order)
		bubbleWith(t, withApps, edit, deps, func(c *cluster) {
			c.ready()
			sure := func(node string) bool { return c.nodes[node].Sure() }
			for range 50 {
				if time.Sleep(100 * time.Millisecond); !sure("app-b") || !sure("lb1") || !sure("lb2") {
					t.Fatalf("%s: not sure though all is well: app-b %v, lb1 %v, lb2 %v", order, sure("app-b"), sure("lb1"), sure("lb2"))
				}
			}
			c.net.Isolate(addresses["app-b"])
			time.Sleep(5 * time.Second)
			if sure("app-b") == fenced || !sure("lb1") {
				t.Errorf("%s: app-b, which is cut off, is sure: %v; lb1: %v", order, sure("app-b"), sure("lb1"))
			}
			c.net.Heal()
			c.until("app-b is sure again", 10*time.Second, func() bool { return sure("app-b") })
		})
	}
}

// TestAnOrderFromBeforeItStoodStillIsNotRun: app-b stands still while it starts
// site b. The decider gives it up and takes site a back; but when app-b wakes, all
// that was sent to it meanwhile is there to be read, the oldest first: that the
// decider lives, and the order again and again.
func TestAnOrderFromBeforeItStoodStillIsNotRun(t *testing.T) {
	takes := map[string]time.Duration{"a": 50 * time.Millisecond, "b": 9 * time.Second}
	s := stage(map[string]string{"lb1": "a", "app-b": "b"}, takes, "takeover")
	edit, deps := s.apps(site.Exclusive)
	bubbleWith(t, withApps, edit, deps, func(c *cluster) {
		c.ready()
		app := s.on["app-b"]
		app.quick = true
		c.wg.Go(func() {
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			defer cancel()
			_, _ = c.nodes["lb1"].Do(ctx, status.Command{Kind: "takeover", Site: "b"}) // it will fail, later
		})
		c.until("app-b starts site b", 5*time.Second, func() bool { return len(app.ran()) == 1 })
		time.Sleep(300 * time.Millisecond)
		var unread mailbox
		c.net.Tap(unread.keep)
		c.net.Isolate(addresses["app-b"])
		c.until("a routed again", 20*time.Second, c.routed("a-1 a-2"))
		c.net.Tap(nil)
		unread.deliver(c, "app-b", func() {
			if c.nodes["app-b"].Sure() {
				t.Fatal("app-b takes old word of the decider for new, and would run its next command")
			}
		})
		c.net.Heal()
		time.Sleep(5 * time.Second)
		if ran := app.ran(); len(ran) != 1 {
			t.Errorf("app-b ran %v, want one takeover\n%s", ran, s.log.text())
		}
		if unread.orders < 5 {
			t.Errorf("%d orders were unread, want some", unread.orders)
		}
		c.takeover("b") // and it is not left out for good
	})
}

// mailbox is what has arrived at a process that stands still.
type mailbox struct {
	mu     sync.Mutex
	mail   []letter
	orders int
}

type letter struct {
	from, to string
	body     []byte
}

func (m *mailbox) keep(from, to string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mail = append(m.mail, letter{from, to, b})
}

// deliver has a node read its mail, letter by letter.
func (m *mailbox) deliver(c *cluster, node string, each func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.mail {
		if l.to != addresses[node] {
			continue
		}
		if strings.Contains(string(l.body), `"run":{`) {
			m.orders++
		}
		c.net.Inject(l.from, l.to, l.body)
		time.Sleep(time.Millisecond)
		each()
	}
}
