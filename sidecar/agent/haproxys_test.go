package agent_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tandem/haproxy"
	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// parts makes the proxy several HAProxys in one.
func (p *proxy) parts(each ...haproxy.Observation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Each = each
	p.signal()
}

// part changes one of several.
func (p *proxy) part(name string, alive bool, reason haproxy.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Each = slices.Clone(p.o.Each)
	for n := range p.o.Each {
		if p.o.Each[n].Name == name {
			p.o.Each[n].Alive, p.o.Each[n].Reason = alive, reason
		}
	}
	p.signal()
}

// Three HAProxys on each load balancer: one for each group of addresses, and one
// that stands behind them.
func TestASickHAProxyMovesTheAddressesThatItServes(t *testing.T) {
	edit := func(_ string, c *agent.Config) {
		c.Groups = []string{"api", "web"}
		c.VIPs = map[string][]string{"api": {"10.0.0.101"}, "web": {"10.0.0.100"}}
		c.Prefer = map[string]string{"web": "lb1", "api": "lb1"}
		c.Serves = map[string][]string{"web": {"web"}, "api": {"api"}, "inner": {}}
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{"lb1", "lb2", "witness"}, edit)
		lb1, lb2 := c.nodes["lb1"], c.nodes["lb2"]
		for _, lb := range []*node{lb1, lb2} {
			lb.proxy.parts(haproxy.Observation{Name: "web", Alive: true}, haproxy.Observation{Name: "api", Alive: true},
				haproxy.Observation{Name: "inner", Alive: true, Aside: true})
		}
		c.until("lb1 holds both", 10*time.Second, func() bool { return lb1.kernel.holds("web") && lb1.kernel.holds("api") })

		lb1.proxy.part("inner", false, haproxy.ReasonRefused)
		time.Sleep(3 * time.Second)
		if !lb1.kernel.holds("web") || !lb1.kernel.holds("api") {
			t.Fatalf("the death of one that serves no address moved one:\n%s", c.log.text())
		}
		s := lb1.Status()
		at := slices.IndexFunc(s.Nodes[0].HAProxy.Each, func(h status.HAProxy) bool { return h.Name == "inner" })
		if inner := s.Nodes[0].HAProxy.Each[at]; inner.Alive || inner.Reason != "refused" || !inner.Aside {
			t.Errorf("status shows %+v", inner)
		}

		lb1.proxy.part("api", false, haproxy.ReasonHung)
		took := c.until("api goes to lb2", 2*time.Second, func() bool { return lb2.kernel.holds("api") && !lb1.kernel.holds("api") })
		t.Logf("took %s", took)
		time.Sleep(3 * time.Second)
		if !lb1.kernel.holds("web") || lb2.kernel.holds("web") {
			t.Errorf("web moved with it:\n%s", c.log.text())
		}

		lb1.proxy.part("web", false, haproxy.ReasonDied)
		c.until("lb2 carries both", 2*time.Second, func() bool { return lb2.kernel.holds("web") && lb2.kernel.holds("api") })
		if n := lb1.Status().Nodes[0]; n.Eligible || n.Reason == "" {
			t.Errorf("lb1 is eligible: %+v", n)
		}
	})
}
