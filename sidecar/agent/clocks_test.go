package agent_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// TestAClockThatIsSetDecidesNothing: an operator pauses, and the clocks of the
// nodes are set hours apart. Nothing that waits for a time comes sooner or later,
// and every node shows the same ages.
func TestAClockThatIsSetDecidesNothing(t *testing.T) {
	clocks := map[string]*atomic.Int64{"lb1": {}, "lb2": {}, "witness": {}}
	set := func(node string, ahead time.Duration) { clocks[node].Store(int64(ahead)) }
	edit := func(_ string, c *agent.Config) { c.VIPFailback = 5 * time.Second }
	deps := func(name string, d *agent.Deps) {
		d.Wall = func() time.Time { return time.Now().Add(time.Duration(clocks[name].Load())) }
	}
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, edit, deps, func(c *cluster) {
		t := c.t
		// sane: every node shows the pause and the decision by its own clock.
		sane := func(when string, left, age time.Duration) {
			t.Helper()
			for name, n := range c.nodes {
				st := n.Status()
				if name == "witness" && st.PausedUntil == nil {
					continue // it knows no sites
				}
				if st.PausedUntil == nil {
					t.Errorf("%s: %s shows no pause", when, name)
				} else if d := st.PausedUntil.Sub(st.At); (d - left).Abs() > 5*time.Second {
					t.Errorf("%s: %s shows a pause of another %v, want %v", when, name, d, left)
				}
				if d := st.At.Sub(*st.Site.Since); (d - age).Abs() > 5*time.Second {
					t.Errorf("%s: %s shows a site active for %v, want %v", when, name, d, age)
				}
			}
		}
		c.until("lb1 holds", 8*time.Second, c.held("lb1"))
		c.until("site a routed", 2*time.Second, c.routed("a-1 a-2"))
		c.until("lb2 is eligible", 5*time.Second, func() bool { return c.nodes["lb1"].Status().Health == status.Healthy })
		c.nodes["lb1"].proxy.die("refused")
		c.until("lb2 takes over", 2*time.Second, c.held("lb2"))
		if r, err := c.nodes["lb2"].Do(t.Context(), status.Command{Kind: "takeover", Site: "b"}); err != nil || !r.OK {
			t.Fatalf("takeover: %+v %v", r, err)
		}
		if r, err := c.nodes["lb2"].Do(t.Context(), status.Command{Kind: "pause", Duration: 10 * time.Minute}); err != nil || !r.OK {
			t.Fatalf("pause: %+v %v", r, err)
		}
		time.Sleep(time.Second)
		sane("at once", 10*time.Minute, 0)
		set("lb2", time.Hour)
		set("lb1", 2*time.Hour)
		set("witness", -time.Hour)
		c.nodes["lb1"].proxy.back()
		time.Sleep(2 * time.Minute)
		sane("after the clocks were set", 8*time.Minute, 2*time.Minute)
		if !c.held("lb2")() {
			t.Errorf("%v hold the address, want lb2: there is no failback in a pause", c.holders())
		}
		// The decider dies: another one takes the pause over, and the first
		// finds it when it is back.
		decider := func() string {
			leases := c.nodes["witness"].Status().Leases
			return leases[slices.IndexFunc(leases, func(l status.Lease) bool { return l.Resource == agent.ResourceSite })].Holder
		}
		first := decider()
		c.net.Isolate(addresses[first])
		c.until("another decides", 5*time.Second, func() bool { d := decider(); return d != "" && d != first })
		c.net.Heal()
		time.Sleep(time.Minute)
		sane("after the decider died", 7*time.Minute, 3*time.Minute)
		time.Sleep(7*time.Minute + 5*time.Second)
		for _, n := range []string{"lb1", "lb2"} {
			if st := c.nodes[n].Status(); st.PausedUntil != nil {
				t.Errorf("%s still shows a pause until %v, at %v", n, st.PausedUntil, st.At)
			}
		}
	})
}
