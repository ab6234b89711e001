package agent_test

import (
	"testing"
	"time"

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
