package agent_test

import (
	"strings"
	"sync/atomic"
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

// announced counts what is broadcast of leases.
type announced struct {
	agent.Network

	leases *atomic.Int64
}

func (n announced) Broadcast(key string, b []byte) error {
	if strings.HasPrefix(key, "leases/") {
		n.leases.Add(1)
	}
	return n.Network.Broadcast(key, b)
}

// TestRenewalsAreToldAtTheirOwnPace: a holder tells followers of its renewals
// every 150 ms however many nodes report to it, since all pass it on.
func TestRenewalsAreToldAtTheirOwnPace(t *testing.T) {
	var leases atomic.Int64
	edit := func(_ string, c *agent.Config) { c.Voters = []string{"lb1", "lb2", "witness"} }
	deps := func(_ string, d *agent.Deps) { d.Network = announced{d.Network, &leases} }
	names := []string{"lb1", "lb2", "witness", "lb3", "lb4", "app-b", "witness2", "witness3"}
	bubbleWith(t, names, edit, deps, func(c *cluster) {
		c.until("lb3 follows", 5*time.Second, func() bool { return c.nodes["lb3"].proxy.ready() == "a-1 a-2" })
		time.Sleep(5 * time.Second)
		leases.Store(0)
		time.Sleep(15 * time.Second)
		if n := leases.Load(); n < 60 || n > 101 { // one holder has both leases
			t.Errorf("%d announcements in 15 s, want at most 101", n)
		} else {
			t.Logf("%d announcements in 15 s", n)
		}
	})
}
