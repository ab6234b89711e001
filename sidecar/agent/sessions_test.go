package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/haproxy"
	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// says changes what the proxy tells of itself.
func (p *proxy) says(edit func(*haproxy.Observation)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit(&p.o)
	p.signal()
}

// closes says whether the proxy is told to close what is left on a server.
func (p *proxy) closes(server string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	rule, ok := p.desired.Rule(haproxy.ServerID{Backend: "web", Server: server})
	return ok && rule.Close
}

func haproxyOf(s status.Status, node string) status.HAProxy {
	at := slices.IndexFunc(s.Nodes, func(n status.Node) bool { return n.Name == node })
	if at < 0 || s.Nodes[at].HAProxy == nil {
		return status.HAProxy{}
	}
	return *s.Nodes[at].HAProxy
}

func TestADrainedSiteIsClosedOnEveryLoadBalancerUntilItServesAgain(t *testing.T) {
	edit := func(_ string, c *agent.Config) { c.Sites.DrainTimeout = 3 * time.Second }
	inBubble(t, edit, func(c *cluster) {
		t, lb1, lb2 := c.t, c.nodes["lb1"], c.nodes["lb2"]
		both := func(server string, want bool) func() bool {
			return func() bool { return lb1.proxy.closes(server) == want && lb2.proxy.closes(server) == want }
		}
		if r, err := lb1.Do(t.Context(), status.Command{Kind: "takeover", Site: "b", Actor: "test"}); err != nil || !r.OK {
			t.Fatalf("takeover: %+v %v", r, err)
		}
		c.until("the switch is over", 10*time.Second, func() bool { return lb1.Status().Site.Active == "b" && lb1.Status().Site.Phase == "" })
		c.until("a is closed", 10*time.Second, both("a-1", true))
		time.Sleep(time.Minute)
		if !both("a-1", true)() || !both("b-1", false)() {
			t.Errorf("a minute later a is closed no longer, or b is:\n%s", c.log.text())
		}
		if r, err := lb1.Do(t.Context(), status.Command{Kind: "takeover", Site: "a", Actor: "test"}); err != nil || !r.OK {
			t.Fatalf("takeover: %+v %v", r, err)
		}
		if !both("a-1", false)() {
			t.Error("a is closed, and serves")
		}
		c.until("b is closed", 10*time.Second, both("b-1", true))
	})
}

func TestSessionsAndTheMapAreShown(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t, lb1, lb2 := c.t, c.nodes["lb1"], c.nodes["lb2"]
		if h := haproxyOf(lb2.Status(), "lb1"); h.Map != "" || h.SessionsLeft != 0 || h.SessionsClosed != 0 {
			t.Errorf("of nothing is said %+v", h)
		}
		lb1.proxy.says(func(o *haproxy.Observation) {
			o.SessionsLeft, o.SessionsClosed, o.Map.Current = 2, 17, true
		})
		c.until("lb2 shows the sessions of lb1", 3*time.Second, func() bool {
			h := haproxyOf(lb2.Status(), "lb1")
			return h.SessionsLeft == 2 && h.SessionsClosed == 17 && h.Map == status.MapCurrent
		})
		if s := lb2.Status(); s.Health != status.Healthy {
			t.Errorf("%s: %q", s.Health, s.Problems)
		}
		const why = "write map file: permission denied"
		lb1.proxy.says(func(o *haproxy.Observation) { o.Map = haproxy.MapStatus{Detail: why} })
		warned := func() bool {
			return slices.ContainsFunc(lb2.Status().Problems, func(p string) bool { return strings.Contains(p, "lb1: map-not-current: "+why) })
		}
		c.until("lb2 warns of the map of lb1", 3*time.Second, warned)
		if s := lb2.Status(); s.Health != status.Degraded || haproxyOf(s, "lb1").Map != status.MapNotCurrent {
			t.Errorf("%s, %+v", s.Health, haproxyOf(s, "lb1"))
		}
		lb1.proxy.says(func(o *haproxy.Observation) {
			o.Warnings = []haproxy.Warning{{Kind: haproxy.WarnRival, Detail: "pid 7"}, {Kind: haproxy.WarnStateFile, Detail: "no space left on device"}}
		})
		c.until("lb2 shows the other warnings of lb1", 3*time.Second, func() bool {
			p := lb2.Status().Problems
			return slices.Contains(p, "lb1: another-tandem: pid 7") && slices.Contains(p, "lb1: state-file-not-written: no space left on device")
		})
		lb1.proxy.says(func(o *haproxy.Observation) { o.Map, o.Warnings = haproxy.MapStatus{Current: true}, nil })
		c.until("the warning goes", 3*time.Second, func() bool { return !warned() && lb2.Status().Health == status.Healthy })
	})
}
