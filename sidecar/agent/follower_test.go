package agent_test

import (
	"testing"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/site"
)

// TestAFollowerThatIsCutOffExpires: a load balancer without a vote follows the
// decision, routes nowhere when it has been cut off for too long in exclusive
// order, disturbs nobody when it dies, and follows again when it is back.
func TestAFollowerThatIsCutOffExpires(t *testing.T) {
	edit := func(_ string, cfg *agent.Config) {
		cfg.Sites.Order = site.Exclusive
		cfg.Voters = []string{"lb1", "lb2", "witness"}
	}
	bubble(t, []string{"lb1", "lb2", "witness", "lb3"}, edit, func(c *cluster) {
		ready := func(want string) func() bool {
			return func() bool { return c.nodes["lb3"].proxy.ready() == want }
		}
		c.until("lb3 follows", 5*time.Second, ready("a-1 a-2"))
		c.net.Isolate(addresses["lb3"])
		took := c.until("lb3 routes nowhere", 10*time.Second, ready(""))
		t.Logf("expired after %s", took)
		if longest := 3*time.Second + agent.QuorumGrace; took > longest {
			t.Errorf("it went on for %s, want at most %s", took, longest)
		}
		if !c.held("lb1")() || !c.routed("a-1 a-2")() {
			t.Errorf("the others are disturbed: %v, lb1 routes to %q", c.holders(), c.nodes["lb1"].proxy.ready())
		}
		c.net.Heal()
		c.until("lb3 follows again", 20*time.Second, ready("a-1 a-2"))
	})
}
