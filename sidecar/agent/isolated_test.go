package agent_test

import (
	"testing"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/agent"
	"tandem/sidecar/site"
)

// exclusiveOrder is what the sidecar configures with TANDEM_LEASE=auto.
func exclusiveOrder(_ string, c *agent.Config) {
	c.Sites.Order, c.Sites.IsolatedAfter = site.Exclusive, isolatedAfter
}

// gone cuts lb1 off with the whole of site a, and says after how long lb2
// routed to site b.
func gone(t *testing.T, names []string, edit func(string, *agent.Config), uptime time.Duration) (took time.Duration) {
	t.Helper()
	bubble(t, names, edit, func(c *cluster) {
		time.Sleep(uptime)
		c.net.Isolate(addresses["lb1"])
		for _, n := range names {
			if p := c.nodes[n].proxy; p != nil {
				p.servers("a-", false)
			}
		}
		took = c.until("lb2 routes to b", 20*time.Second, func() bool { return c.nodes["lb2"].proxy.ready() == "b-1 b-2" })
		if r := c.nodes["lb1"].proxy.ready(); r != "" {
			t.Errorf("lb1 is cut off and still routes to %s", r)
		}
	})
	return took
}

// TestAMachineThatIsGoneIsWaitedForByTheLeaseThatWasTold: with leases of 300 ms
// the other site need not wait for the end of the longest that there may be.
func TestAMachineThatIsGoneIsWaitedForByTheLeaseThatWasTold(t *testing.T) {
	took := gone(t, []string{"lb1", "lb2", "witness"}, exclusiveOrder, 5*time.Second)
	t.Logf("served by b %v after the machine was gone", took)
	if took >= isolatedAfter {
		t.Errorf("took %v, which is the longest lease's time", took)
	}
	long := func(name string, c *agent.Config) {
		exclusiveOrder(name, c)
		c.Tuning = lease.Tuning{Fixed: 2 * time.Second}
	}
	if slow := gone(t, []string{"lb1", "lb2", "witness"}, long, 5*time.Second); slow < took+time.Second {
		t.Errorf("took %v with leases of 2 s, %v with short ones: the wait does not follow the lease", slow, took)
	}
}

// TestAThirdDeciderIsReckonedWith: with three load balancers, the one that
// decided before may have told the silent one of a longer lease than anybody
// here knows.
func TestAThirdDeciderIsReckonedWith(t *testing.T) {
	names := []string{"lb1", "lb2", "lb4"}
	if took := gone(t, names, exclusiveOrder, 5*time.Second); took < isolatedAfter {
		t.Errorf("took %v, want no less than %v", took, isolatedAfter)
	}
}
