package agent_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// teller is the notify hook of one node: a script that takes its time. It notes
// what it was told, and when.
type teller struct {
	mu    sync.Mutex
	takes time.Duration
	fails bool
	told  []told
	open  int
	piled bool // it was told that the address is held while it was still at work
	ended chan agent.NoticeResult
}

type told struct {
	agent.Notice

	at time.Time
}

func newTeller(takes time.Duration) *teller {
	return &teller{takes: takes, ended: make(chan agent.NoticeResult, 256)}
}

func (n *teller) Notify(x agent.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, told{x, time.Now()})
	n.piled = n.piled || x.Event == agent.NoticeHold && n.open > 0
	n.open++
	r := agent.NoticeResult{ID: x.ID, Group: x.Group, OK: !n.fails}
	if n.fails {
		r.Reason = "exit-status"
	}
	time.AfterFunc(n.takes, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open--
		n.ended <- r
	})
}

func (n *teller) Notified() <-chan agent.NoticeResult { return n.ended }

func (n *teller) heard() []told { n.mu.Lock(); defer n.mu.Unlock(); return slices.Clone(n.told) }

func (n *teller) events() string {
	var all []string
	for _, x := range n.heard() {
		all = append(all, x.Event)
	}
	return strings.Join(all, " ")
}

func (n *teller) fail(yes bool) { n.mu.Lock(); defer n.mu.Unlock(); n.fails = yes }

// tellers tells a story in which both load balancers have a notify hook that
// takes so long. It begins when lb1 holds and has heard of it.
func tellers(t *testing.T, takes time.Duration, story func(c *cluster, lb1, lb2 *teller)) {
	t.Helper()
	hooks := map[string]*teller{}
	cloud := func(_ string, c *agent.Config) { c.VIPs = map[string][]string{"default": {"10.0.0.100", "10.0.0.101"}} }
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, cloud, func(name string, d *agent.Deps) {
		if name != "witness" {
			hooks[name] = newTeller(takes)
			d.Notifier = hooks[name]
		}
	}, func(c *cluster) {
		c.until("lb1 hears of it", 10*time.Second, func() bool { return hooks["lb1"].events() == "take-up" })
		c.until("all healthy", 5*time.Second, func() bool { return c.nodes["lb1"].Status().Health == status.Healthy })
		story(c, hooks["lb1"], hooks["lb2"])
	})
}

// notified are the entries of a node's notify hook in the history, by reason.
func (c *cluster) notified(by string) []string {
	var all []string
	for _, t := range c.nodes[by].History(1000) {
		if t.Node == by && t.Event == "hook-notify" {
			event, _, _ := strings.Cut(t.Detail, "\n")
			all = append(all, event+" "+t.Reason)
		}
	}
	return all
}

// TestTheNotifyHookHearsOfTheAddress: at once when this node takes it up, every
// 10 s while it holds it, and nothing after it has let it go.
func TestTheNotifyHookHearsOfTheAddress(t *testing.T) {
	tellers(t, 50*time.Millisecond, func(c *cluster, lb1, lb2 *teller) {
		t := c.t
		began := lb1.heard()[0].at
		time.Sleep(35*time.Second - time.Since(began))
		if got := lb1.events(); got != "take-up hold hold hold" || lb2.events() != "" {
			t.Fatalf("in 35 s lb1 heard %q, lb2 %q", got, lb2.events())
		}
		for i, x := range lb1.heard() {
			if late := x.at.Sub(began) - time.Duration(i)*10*time.Second; late < 0 || late > 50*time.Millisecond {
				t.Errorf("%s came %s late", x.ID, late)
			}
			if x.Group != "default" || x.To != "lb1" || x.Epoch != 1 || x.Reason != "acquired" || !slices.Equal(x.Addresses, []string{"10.0.0.100", "10.0.0.101"}) {
				t.Errorf("%+v", x)
			}
		}
		if r, err := c.nodes["lb1"].Do(t.Context(), status.Command{Kind: "move", To: "lb2"}); err != nil || !r.OK {
			t.Fatalf("move: %+v %v", r, err)
		}
		time.Sleep(25 * time.Second)
		if got := lb1.events(); got != "take-up hold hold hold let-go" {
			t.Fatalf("lb1 heard %q", got)
		}
		if got := lb2.events(); got != "take-up hold hold" {
			t.Fatalf("lb2 heard %q", got)
		}
		left, came := lb1.heard()[4], lb2.heard()[0]
		if left.From != "lb1" || left.To != "lb2" || !left.Planned || left.Reason != "command" || left.Epoch != 1 {
			t.Errorf("let go: %+v", left)
		}
		if came.From != "lb1" || came.To != "lb2" || !came.Planned || came.Epoch != 2 || came.at.Before(left.at) {
			t.Errorf("taken up: %+v", came)
		}
		if got, want := c.notified("lb1"), []string{"take-up succeeded", "let-go succeeded"}; !slices.Equal(got, want) {
			t.Errorf("the history of lb1 has %q, want %q: what goes well every 10 s is no news", got, want)
		}
	})
}

// TestASlowNotifyHookDoesNotPileUp: while it runs it is not told again that the
// address is held; that it is gone, at once; and no lease waits for it.
func TestASlowNotifyHookDoesNotPileUp(t *testing.T) {
	tellers(t, 25*time.Second, func(c *cluster, lb1, lb2 *teller) {
		t := c.t
		began := lb1.heard()[0].at
		time.Sleep(65*time.Second - time.Since(began))
		if got := lb1.events(); got != "take-up hold hold" || lb1.piled {
			t.Fatalf("lb1 heard %q in 65 s; told while it ran: %v", got, lb1.piled)
		}
		c.nodes["lb1"].proxy.die("refused")
		if took := c.until("lb2 takes over", time.Second, c.held("lb2")); took > 20*time.Millisecond {
			t.Errorf("the hand-over took %s", took)
		}
		if got := lb1.events() + ", " + lb2.events(); got != "take-up hold hold let-go, take-up" {
			t.Errorf("heard %q, want both to hear of the hand-over at once", got)
		}
	})
}

// TestStatusSaysThatTheNotifyHookFails: for as long as it does, and the history
// says when that began and ended.
func TestStatusSaysThatTheNotifyHookFails(t *testing.T) {
	tellers(t, 50*time.Millisecond, func(c *cluster, lb1, _ *teller) {
		t := c.t
		says := func() bool {
			s := c.nodes["lb1"].Status()
			return s.Health == status.Degraded && strings.Contains(strings.Join(s.Problems, "\n"), "lb1: notify-hook: the notify hook failed to tell the hold of default: exit-status")
		}
		lb1.fail(true)
		c.until("status says so", 15*time.Second, says)
		time.Sleep(25 * time.Second)
		if !says() {
			t.Errorf("it still fails: %v", c.nodes["lb1"].Status().Problems)
		}
		lb1.fail(false)
		c.until("status says that it is well", 15*time.Second, func() bool { return c.nodes["lb1"].Status().Health == status.Healthy })
		if got, want := c.notified("lb1"), []string{"take-up succeeded", "hold exit-status", "hold succeeded"}; !slices.Equal(got, want) {
			t.Errorf("the history has %q, want %q", got, want)
		}
	})
}

// TestStatusSaysThatTheNotifyHookHangs: a take-up that has not been told is an
// address that is not here.
func TestStatusSaysThatTheNotifyHookHangs(t *testing.T) {
	tellers(t, 40*time.Second, func(c *cluster, _, _ *teller) {
		c.until("status says so", 15*time.Second, func() bool {
			return strings.Contains(strings.Join(c.nodes["lb2"].Status().Problems, "\n"), "lb1: notify-hook: the notify hook has not yet told the take-up of default")
		})
		c.until("status says that it is well", 40*time.Second, func() bool { return c.nodes["lb2"].Status().Health == status.Healthy })
	})
}

// TestAStopWaitsForTheNotifyHook: it gets the time to say that the address is
// gone, and not for ever; the successor does not wait.
func TestAStopWaitsForTheNotifyHook(t *testing.T) {
	for takes, want := range map[time.Duration]time.Duration{2 * time.Second: 2 * time.Second, time.Minute: 5 * time.Second} {
		tellers(t, takes, func(c *cluster, lb1, _ *teller) {
			t := c.t
			began := time.Now()
			c.nodes["lb1"].cancel()
			if took := c.until("lb2 takes over", time.Second, c.held("lb2")); took > 20*time.Millisecond {
				t.Errorf("the hand-over took %s", took)
			}
			if err := <-c.nodes["lb1"].done; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took < want || took > want+500*time.Millisecond {
				t.Errorf("a hook that takes %s: the node left after %s, want %s", takes, took, want)
			}
			if got := lb1.events(); !strings.HasSuffix(got, "let-go") {
				t.Errorf("lb1 heard %q", got)
			}
		})
	}
}

// TestAfterTheHealThePairsWinnerTellsAgain: both told the provider that they
// hold the address, and whose word came last is not known.
func TestAfterTheHealThePairsWinnerTellsAgain(t *testing.T) {
	hooks := map[string]*teller{}
	bubbleWith(t, []string{"lb1", "lb2"}, pair, func(name string, d *agent.Deps) {
		hooks[name] = newTeller(50 * time.Millisecond)
		d.Notifier = hooks[name]
	}, func(c *cluster) {
		t := c.t
		c.until("lb1 hears of it", 10*time.Second, func() bool { return strings.HasSuffix(hooks["lb1"].events(), "take-up") })
		c.until("all healthy", 5*time.Second, func() bool { return c.nodes["lb1"].Status().Health == status.Healthy })
		c.net.Isolate(addresses["lb1"])
		c.alone = true // the link is cut, both live: the price of two voters
		c.until("lb2 goes on alone", 5*time.Second, func() bool { return hooks["lb2"].events() == "take-up" })
		healed := time.Now()
		c.net.Heal()
		c.until("one holder after the heal", 5*time.Second, func() bool { return len(c.holders()) == 1 })
		time.Sleep(2 * time.Second)
		for name, h := range hooks {
			all := h.heard()
			last, want := all[len(all)-1], agent.NoticeLetGo
			if c.held(name)() {
				want = agent.NoticeTakeUp
			}
			if last.Event != want || last.at.Before(healed) || last.Reason != "pair-healed" {
				t.Errorf("%s heard %s (%s) last, %s after the heal, want %s", name, last.Event, last.Reason, last.at.Sub(healed), want)
			}
		}
	})
}

// TestAnObserverRunsNoNotifyHook: it touches nothing.
func TestAnObserverRunsNoNotifyHook(t *testing.T) {
	hooks := []*teller{}
	observe := func(_ string, c *agent.Config) { c.Observe = true }
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, observe, func(name string, d *agent.Deps) {
		if name != "witness" {
			hooks = append(hooks, newTeller(0))
			d.Notifier = hooks[len(hooks)-1]
		}
	}, func(c *cluster) {
		c.until("lb1 would hold", 10*time.Second, func() bool {
			l := c.nodes["lb1"].Status().Leases
			return len(l) > 0 && l[0].Holder == "lb1"
		})
		time.Sleep(15 * time.Second)
		for _, h := range hooks {
			if got := h.events(); got != "" {
				c.t.Errorf("an observer's hook heard %q", got)
			}
		}
	})
}
