package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"tandem/sidecar/agent"
)

// TestTwoGroupsHaveAHolderEach shows both load balancers at work, and that the
// survivor carries both groups.
func TestTwoGroupsHaveAHolderEach(t *testing.T) {
	edit := func(_ string, c *agent.Config) {
		c.Groups = []string{"api", "web"}
		c.VIPs = map[string][]string{"api": {"10.0.0.101"}, "web": {"10.0.0.100"}}
		c.Prefer = map[string]string{"web": "lb1", "api": "lb2"}
		c.VIPFailback = 3 * time.Second
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{"lb1", "lb2", "witness"}, edit)
		lb1, lb2 := c.nodes["lb1"], c.nodes["lb2"]
		c.until("a holder each", 10*time.Second, func() bool { return lb1.kernel.holds("web") && lb2.kernel.holds("api") })
		lb1.proxy.die("refused")
		c.until("lb2 carries both", time.Second, func() bool { return lb2.kernel.holds("web") && lb2.kernel.holds("api") })
		if lb1.kernel.holds("web") {
			t.Error("lb1 still holds web")
		}
		lb1.proxy.back()
		time.Sleep(2500 * time.Millisecond)
		if lb1.kernel.holds("web") {
			t.Error("web went back before the failback delay was over")
		}
		c.until("web goes back", 3*time.Second, func() bool { return lb1.kernel.holds("web") && lb2.kernel.holds("api") })
		time.Sleep(10 * time.Second)
		if !lb1.kernel.holds("web") || !lb2.kernel.holds("api") {
			t.Errorf("it does not rest:\n%s", c.log.text())
		}
	})
}

// TestALostInterfaceMovesItsAddress: no carrier, no holder.
func TestALostInterfaceMovesItsAddress(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		k := c.nodes["lb1"].kernel
		k.mu.Lock()
		k.carrier = false
		k.mu.Unlock()
		took := c.until("lb2 takes over", 2*time.Second, c.held("lb2"))
		c.t.Logf("took %s", took)
	})
}
