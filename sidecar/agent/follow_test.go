package agent_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/agent"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// decides is the node that holds the site lease, by the word of a node.
func (c *cluster) decides(node string) func() bool {
	return func() bool { return c.leaseOf(node, agent.ResourceSite).Holder == node }
}

// TestTheDeciderFollowsTheAddress: the address moves to lb2, and with it, when all
// is at rest, the decision. So lb2 goes on routing when the link to lb1 is cut
// and the witness hears both: it does not depend on a decider that it cannot hear.
func TestTheDeciderFollowsTheAddress(t *testing.T) {
	edit := func(_ string, c *agent.Config) { c.Sites.Order = site.Exclusive }
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, nil, func(c *cluster) {
		c.ready()
		c.until("lb1 decides", 5*time.Second, c.decides("lb1"))
		time.Sleep(10 * time.Second)
		if !c.decides("lb1")() {
			t.Fatal("the site lease left the node that carries the address")
		}
		epoch := c.nodes["lb2"].Status().Site.Epoch
		if r, err := c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "move", To: "lb2"}); err != nil || !r.OK {
			t.Fatalf("move: %+v %v", r, err)
		}
		c.until("lb2 decides", 6*time.Second, c.decides("lb2"))
		if now := c.nodes["lb2"].Status().Site; now.Epoch != epoch || now.Active != "a" {
			t.Errorf("another decision came of it: %+v, was epoch %d", now, epoch)
		}
		began := len(c.log.text())
		c.net.Cut(addresses["lb1"], addresses["lb2"])
		time.Sleep(15 * time.Second)
		if !c.nodes["lb2"].kernel.holds("default") || c.nodes["lb2"].proxy.ready() != "a-1 a-2" {
			t.Errorf("lb2 carries the address: %v; it routes to %q", c.nodes["lb2"].kernel.holds("default"), c.nodes["lb2"].proxy.ready())
		}
		if ready := c.nodes["lb1"].proxy.ready(); ready != "" {
			t.Errorf("lb1 hears no decider and routes to %q", ready)
		}
		if !c.decides("lb2")() {
			t.Error("lb2 does not decide any more")
		}
		t.Log(c.log.text()[began:])
	})
}

// TestTheDeciderDoesNotFollowInTheMiddle: what is under way would begin anew, so
// that the decision stays where it is until the switch is over.
func TestTheDeciderDoesNotFollowInTheMiddle(t *testing.T) {
	takes := map[string]time.Duration{"a": 50 * time.Millisecond, "b": 8 * time.Second}
	s := stage(map[string]string{"lb1": "a", "lb2": "b"}, takes, "takeover")
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, s.edit, s.deps, func(c *cluster) {
		c.ready()
		if r, err := c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "takeover", Site: "b", Begin: true}); err != nil || !r.OK {
			t.Fatalf("takeover: %+v %v", r, err)
		}
		if r, err := c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "move", To: "lb2"}); err != nil || !r.OK {
			t.Fatalf("move: %+v %v", r, err)
		}
		for c.nodes["lb1"].Status().Site.Phase != "" {
			if time.Sleep(50 * time.Millisecond); !c.decides("lb1")() {
				t.Fatalf("in the midst of the phase %s, lb1 does not decide any more", c.nodes["lb1"].Status().Site.Phase)
			}
		}
		c.until("site b routed", 15*time.Second, c.routed("b-1 b-2"))
		c.until("lb2 decides", 8*time.Second, c.decides("lb2"))
		if ran := s.on["lb2"].ran(); len(ran) != 1 {
			t.Errorf("lb2 ran %v, want the takeover once", ran)
		}
	})
}

// moved moves the address to lb2, and tells how often the decision was handed over
// in the time that follows.
func (c *cluster) moved(to string) {
	c.t.Helper()
	if r, err := c.nodes[to].Do(c.t.Context(), status.Command{Kind: "move", To: to}); err != nil || !r.OK {
		c.t.Fatalf("move to %s: %+v %v", to, r, err)
	}
}

// follows are the transitions of the site lease for the sake of an address, as a
// node knows them.
func (c *cluster) follows(node string) (out []status.Transition) {
	for _, h := range c.nodes[node].History(1000) {
		if h.Event == "let-go" && h.Reason == "follows-address" {
			out = append(out, h)
		}
	}
	return out
}

// TestTheDecisionIsNotHandedToWhoCannotDecide: the other load balancer has not been
// told of the sites yet, as when they are configured on one after the other. The
// address goes there, and the decision stays.
func TestTheDecisionIsNotHandedToWhoCannotDecide(t *testing.T) {
	edit := func(name string, c *agent.Config) {
		if name == "lb2" {
			c.Sites = nil
		}
	}
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, nil, func(c *cluster) {
		c.until("site a routed", 10*time.Second, func() bool { return c.nodes["lb1"].proxy.ready() == "a-1 a-2" })
		if !c.held("lb2")() { // it waits for no decision
			c.moved("lb2")
		}
		for range 20000 {
			if time.Sleep(time.Millisecond); !c.decides("lb1")() {
				t.Fatalf("%v: lb1 does not decide any more, and lb2 cannot", time.Since(c.start))
			}
		}
	})
}

// TestWhoDoesNotTakeTheDecisionUpIsAskedLessAndLess: what keeps the carrier from
// it may last. Each try costs a moment without a decider, and two lines of history.
func TestWhoDoesNotTakeTheDecisionUpIsAskedLessAndLess(t *testing.T) {
	var full disk
	deps := func(name string, d *agent.Deps) {
		if name == "lb2" {
			d.Store = &full
		}
	}
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, nil, deps, func(c *cluster) {
		c.ready()
		c.moved("lb2")
		full.is.Store(true)
		c.nodes["lb1"].proxy.servers("b-", false)
		time.Sleep(2 * time.Minute)
		n := len(c.follows("lb1"))
		if n < 2 || n > 8 {
			t.Errorf("the decision was let go %d times in two minutes, want a few", n)
		}
		full.is.Store(false)
		c.until("lb2 decides", 3*time.Minute, c.decides("lb2"))
	})
}

// disk is a state directory on a disk that may be full.
type disk struct {
	broken

	is atomic.Bool
}

func (d *disk) SaveRecords(rs []lease.Record) error {
	if d.is.Load() {
		return d.broken.SaveRecords(rs)
	}
	return nil
}

func (*disk) AppendHistory(status.Transition) error { return nil }

// TestAFailbackThatWaitsIsNotDelayed: the address moves shortly before site a is
// taken back. Another decider would count from the beginning.
func TestAFailbackThatWaitsIsNotDelayed(t *testing.T) {
	edit := func(_ string, c *agent.Config) { c.Sites.Failback = 20 * time.Second }
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, nil, func(c *cluster) {
		c.ready()
		for _, up := range []bool{false, true} {
			c.nodes["lb1"].proxy.servers("a-", up)
			c.nodes["lb2"].proxy.servers("a-", up)
			time.Sleep(time.Second)
		}
		began := time.Now()
		if !c.routed("b-1 b-2")() {
			t.Fatal("b is not routed")
		}
		time.Sleep(15 * time.Second)
		c.moved("lb2")
		c.until("site a again", time.Minute, c.routed("a-1 a-2"))
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("site a was taken back after %v, want the 20 s that are configured", took)
		}
		c.until("lb2 decides", 5*time.Second, c.decides("lb2"))
	})
}

// TestOldSwitchesDoNotCountAgain: three automatic switches within the time that is
// looked at, and long after that the address moves. Who decides from then on may
// switch when a site dies: what is long ago has been paid for.
func TestOldSwitchesDoNotCountAgain(t *testing.T) {
	edit := func(_ string, c *agent.Config) { c.Sites.FlapWindow = 2 * time.Minute }
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, nil, func(c *cluster) {
		c.ready()
		for _, leave := range []string{"a", "b", "a"} {
			for _, up := range []bool{false, true} {
				c.nodes["lb1"].proxy.servers(leave+"-", up)
				c.nodes["lb2"].proxy.servers(leave+"-", up)
				time.Sleep(10 * time.Second)
			}
		}
		if !c.routed("b-1 b-2")() {
			t.Fatalf("b is not routed: %s", c.log.text())
		}
		time.Sleep(4 * time.Minute)
		c.moved("lb2")
		c.until("lb2 decides", 10*time.Second, c.decides("lb2"))
		time.Sleep(10 * time.Second)
		c.nodes["lb1"].proxy.servers("b-", false)
		c.nodes["lb2"].proxy.servers("b-", false)
		c.until("site a routed", 5*time.Second, c.routed("a-1 a-2"))
	})
}

// TestTheDeciderFollowsWhoSeesTheSite: lb1 has lost sight of site a, and the
// address has gone to lb2 for that. So shall the decision.
func TestTheDeciderFollowsWhoSeesTheSite(t *testing.T) {
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, exclusiveOrder, nil, func(c *cluster) {
		c.ready()
		c.nodes["lb1"].proxy.servers("a-", false)
		c.until("lb2 holds", 5*time.Second, c.held("lb2"))
		c.until("lb2 decides", 5*time.Second, c.decides("lb2"))
	})
}

// TestADecisionUnderWayIsNotLeftToAnother: an operator pauses the automatic shortly
// before the decision follows the address, and votes take their time. Who began it
// ends it, and tells it.
func TestADecisionUnderWayIsNotLeftToAnother(t *testing.T) {
	for at := 1900 * time.Millisecond; at < 2150*time.Millisecond; at += 10 * time.Millisecond {
		bubbleWith(t, []string{"lb1", "lb2", "witness"}, nil, nil, func(c *cluster) {
			c.ready()
			c.net.Latency(25*time.Millisecond, 25*time.Millisecond)
			time.Sleep(5 * time.Second)
			c.moved("lb2")
			time.Sleep(at)
			r, err := c.nodes["witness"].Do(c.t.Context(), status.Command{Kind: "pause", Duration: 5 * time.Second})
			if err != nil || !r.OK {
				t.Fatalf("pause: %+v %v", r, err)
			}
			time.Sleep(2 * time.Second)
			told := slices.ContainsFunc(c.nodes["witness"].History(1000), func(h status.Transition) bool { return h.Event == "pause" })
			if c.nodes["witness"].Status().PausedUntil == nil || !told {
				t.Errorf("%v after the move: paused until %v, told: %v", at, c.nodes["witness"].Status().PausedUntil, told)
			}
		})
	}
}

// TestAPlanBeginsWhenTheDecisionHasFollowed: right after a move, that the decision
// is about to follow is no consequence of whatever might fail.
func TestAPlanBeginsWhenTheDecisionHasFollowed(t *testing.T) {
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, nil, nil, func(c *cluster) {
		c.ready()
		time.Sleep(3 * time.Second)
		c.moved("lb2")
		for range 9 {
			p, err := c.nodes["lb1"].Plan(c.t.Context(), []string{"witness=down"})
			if err != nil || len(p.Moves) > 0 {
				t.Errorf("%q %v %v", p.Sentence, p.Notes, err)
			}
			if note := strings.Join(p.Notes, "\n"); c.decides("lb1")() != strings.Contains(note, "site is about to change by itself, from lb1 to lb2") {
				t.Errorf("lb1 decides: %v; notes: %q", c.decides("lb1")(), note)
			}
			time.Sleep(300 * time.Millisecond)
		}
		if !c.decides("lb2")() {
			t.Error("lb2 does not decide yet")
		}
	})
}

// TestACommandAroundTheHandOverIsCarriedOutOnce: whoever it is asked of, and however
// near to the moment in which the decision follows the address.
func TestACommandAroundTheHandOverIsCarriedOutOnce(t *testing.T) {
	handed := map[string]int{}
	for _, node := range []string{"lb1", "lb2", "witness"} {
		for at := 1990 * time.Millisecond; at < 2020*time.Millisecond; at += 2 * time.Millisecond {
			bubbleWith(t, []string{"lb1", "lb2", "witness"}, exclusiveOrder, nil, func(c *cluster) {
				c.ready()
				c.net.Latency(time.Millisecond, 2*time.Millisecond)
				time.Sleep(3 * time.Second)
				c.moved("lb2")
				time.Sleep(at)
				if r, err := c.nodes[node].Do(c.t.Context(), status.Command{Kind: "takeover", Site: "b"}); err != nil || !r.OK {
					t.Errorf("%v after the move, asked of %s: %+v %v", at, node, r, err)
				}
				c.until("b routed", 3*time.Second, c.routed("b-1 b-2"))
				time.Sleep(time.Second)
				switches := 0
				for _, h := range c.nodes["witness"].History(1000) {
					if h.Event == "switch" {
						switches++
						handed[h.Node]++
					}
				}
				if switches != 1 {
					t.Errorf("%v after the move, asked of %s: %d switches", at, node, switches)
				}
			})
		}
	}
	if handed["lb1"] < 10 || handed["lb2"] < 10 {
		t.Errorf("decided by %v: the commands did not come on both sides of the hand-over", handed)
	}
}
