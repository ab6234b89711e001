package agent_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// watching is a cluster in which these nodes only observe.
func watching(t *testing.T, observers map[string]bool, story func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{"lb1", "lb2", "witness"}, func(name string, cfg *agent.Config) { cfg.Observe = observers[name] })
		c.until("first holder", 8*time.Second, c.held("lb1"))
		time.Sleep(2 * time.Second)
		story(c)
	})
}

// TestAnObserverHoldsNothingInPlaceOfWhoActs: nobody would serve what it held,
// and whoever acts could not have it on its return.
func TestAnObserverHoldsNothingInPlaceOfWhoActs(t *testing.T) {
	watching(t, map[string]bool{"lb2": true}, func(c *cluster) {
		lb2 := c.nodes["lb2"]
		plan, err := lb2.Plan(c.t.Context(), []string{"lb1=down"})
		if err != nil || !strings.Contains(plan.Sentence, "nobody takes site and vip/default over") || plan.Health != status.NotServing {
			c.t.Errorf("plan: %s %q, %v", plan.Health, plan.Sentence, err)
		}
		c.net.Isolate(addresses["lb1"])
		for range 20 {
			time.Sleep(time.Second)
			if h := c.holders(); len(h) > 0 {
				c.t.Fatalf("held by %q", h)
			}
		}
		if s := lb2.Status(); s.Health != status.NotServing {
			c.t.Errorf("%s: %q", s.Health, s.Problems)
		}
		c.net.Heal()
		c.until("who acts holds again", 3*time.Second, c.held("lb1"))
	})
}

// TestObserversGiveUpToTheFirstThatActs: TANDEM_OBSERVE is taken off one node
// after the other, and the first that acts is not kept waiting.
func TestObserversGiveUpToTheFirstThatActs(t *testing.T) {
	observers := map[string]bool{"lb1": true, "lb2": true}
	watching(t, observers, func(c *cluster) {
		lb2 := c.nodes["lb2"]
		lb2.cancel()
		if err := <-lb2.done; err != nil {
			c.t.Fatal(err)
		}
		observers["lb2"] = false
		c.boot(c.t.Context(), "lb2")
		c.until("who acts holds", 5*time.Second, c.held("lb2"))
		c.until("and decides", 5*time.Second, func() bool {
			return c.leaseOf("lb2", agent.ResourceSite).Holder == "lb2" && c.nodes["lb2"].Status().Site.Active == "a"
		})
		time.Sleep(10 * time.Second)
		if !c.held("lb2")() || c.nodes["lb1"].Status().Leases[0].Holder != "lb2" {
			c.t.Errorf("held by %q\n%s", c.holders(), c.log.text())
		}
	})
}
