package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tandem/lib/vip"
	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// witnessed is what a node logged and measures.
type witnessed struct {
	logs     *observer.ObservedLogs
	registry *prometheus.Registry
}

// watched tells a story of nodes whose logs and metrics are kept.
func watched(t *testing.T, names []string, edit func(string, *agent.Config), story func(c *cluster, seen map[string]witnessed)) {
	t.Helper()
	seen := map[string]witnessed{}
	bubbleWith(t, names, edit, func(name string, d *agent.Deps) {
		core, logs := observer.New(zap.InfoLevel)
		seen[name] = witnessed{logs, prometheus.NewRegistry()}
		d.Log, d.Registerer = zap.New(core), seen[name].registry
	}, func(c *cluster) {
		c.until("first holder", 10*time.Second, c.held("lb1"))
		c.until("all healthy", 5*time.Second, func() bool { return c.nodes["lb1"].Status().Health == status.Healthy })
		story(c, seen)
	})
}

// said says whether a line of the log has the message and the reason.
func (w witnessed) said(message, reason string) bool {
	return slices.ContainsFunc(w.logs.FilterMessage(message).All(), func(e observer.LoggedEntry) bool { return e.ContextMap()["reason"] == reason })
}

// gauge is the value of a metric whose label has the value, or -1.
func (w witnessed) gauge(t *testing.T, name, label, value string) float64 {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == label && l.GetValue() == value {
					return m.GetGauge().GetValue()
				}
			}
		}
	}
	return -1
}

// leaseOf is a lease as a node's status shows it.
func (c *cluster) leaseOf(node, resource string) status.Lease {
	all := c.nodes[node].Status().Leases
	if i := slices.IndexFunc(all, func(l status.Lease) bool { return l.Resource == resource }); i >= 0 {
		return all[i]
	}
	return status.Lease{}
}

// TestOneLoadBalancerWithoutTheGateLengthensAllLeases: the promise of the
// holder must fit the weakest fence, its own or that of whoever takes over.
func TestOneLoadBalancerWithoutTheGateLengthensAllLeases(t *testing.T) {
	for _, weak := range []string{"lb2", "lb1"} { // lb1 holds
		t.Run(weak, func(t *testing.T) {
			watched(t, []string{"lb1", "lb2", "witness"}, nil, func(c *cluster, seen map[string]witnessed) {
				t := c.t
				length := func() int64 { return c.leaseOf("lb1", "vip/default").LengthMS }
				if n := length(); n <= 0 || n > 500 {
					t.Errorf("with the gate everywhere the lease is %d ms long, want at most 500", n)
				}
				if v := seen[weak].gauge(t, "tandem_fence", "fence", string(vip.FenceGate)); v != 1 {
					t.Errorf("tandem_fence for the gate is %v, want 1", v)
				}
				c.nodes[weak].kernel.gate(false)
				c.until("the lease is longer", 2*time.Second, func() bool { return length() >= 2200 })
				c.until("so is the one in force", time.Second, func() bool { return c.leaseOf("lb1", "vip/default").ExpiresInMS > 1000 })
				c.until("and the site's", time.Second, func() bool { return c.leaseOf("lb1", "site").LengthMS >= 2200 })
				c.saysFence(weak, vip.FenceLifetime, seen[weak])
				if !seen[weak].said("address", "gate-lost") {
					t.Errorf("the log of %s does not say gate-lost", weak)
				}
				problems := strings.Join(c.nodes["witness"].Status().Problems, "\n")
				if want := weak + ": no-gate: "; !strings.Contains(problems, want) {
					t.Errorf("status says %q, want %q", problems, want)
				}
				c.nodes[weak].kernel.gate(true)
				c.until("the lease is short again", 2*time.Second, func() bool { n := length(); return n > 0 && n <= 500 })
				c.saysFence(weak, vip.FenceGate, seen[weak])
				if !seen[weak].said("address", "gate-back") {
					t.Errorf("the log of %s does not say gate-back", weak)
				}
				if !c.held("lb1")() {
					t.Errorf("holders %v, want lb1 all along", c.holders())
				}
			})
		})
	}
}

// saysFence compares what a node says of its fence in status and metric.
func (c *cluster) saysFence(node string, want vip.Fence, seen witnessed) {
	c.t.Helper()
	c.until("status has the fence of "+node, 2*time.Second, func() bool {
		s := c.nodes["lb1"].Status()
		i := slices.IndexFunc(s.Nodes, func(n status.Node) bool { return n.Name == node })
		return i >= 0 && s.Nodes[i].Fence == string(want)
	})
	if node == "lb1" {
		c.until("so has its lease", 2*time.Second, func() bool { return c.leaseOf("witness", "vip/default").Fence == string(want) })
	}
	for _, f := range []vip.Fence{vip.FenceGate, vip.FenceLifetime} {
		v := seen.gauge(c.t, "tandem_fence", "fence", string(f))
		if f == want && v != 1 || f != want && v > 0 {
			c.t.Errorf("tandem_fence for %s is %v at %s, whose fence is %s", f, v, node, want)
		}
	}
}

// TestAPairSaysWhileItIsUnsafe: in status, log and metric, and no longer than it
// is so.
func TestAPairSaysWhileItIsUnsafe(t *testing.T) {
	watched(t, []string{"lb1", "lb2"}, pair, func(c *cluster, seen map[string]witnessed) {
		t := c.t
		unsafe := func(node string) float64 {
			return seen[node].gauge(t, "tandem_lease_unsafe", "resource", "vip/default")
		}
		for node := range seen {
			if s := c.nodes[node].Status(); s.Unsafe || unsafe(node) != 0 {
				t.Errorf("%s says that it is unsafe while both are there: %v, metric %v", node, s.Unsafe, unsafe(node))
			}
			seen[node].logs.TakeAll() // the first to start was alone for a moment
		}
		c.net.Isolate(addresses["lb1"])
		c.alone = true // the link is cut, both live: the price of two voters
		c.until("lb2 goes on alone", 5*time.Second, func() bool { return slices.Contains(c.holders(), "lb2") })
		s := c.nodes["lb2"].Status()
		if !s.Unsafe || !c.leaseOf("lb2", "vip/default").Alone || !strings.Contains(strings.Join(s.Problems, "\n"), "unsafe: lb2 decides vip/default and site alone") {
			t.Errorf("status of lb2 does not say that it is unsafe: %v %v", s.Unsafe, s.Problems)
		}
		if v := unsafe("lb2"); v != 1 {
			t.Errorf("tandem_lease_unsafe is %v at lb2, want 1", v)
		}
		if !seen["lb2"].said("pair", "alone") || seen["lb2"].said("pair", "peer-back") {
			t.Errorf("the log of lb2: %v", seen["lb2"].logs.FilterMessage("pair").All())
		}
		c.net.Heal()
		c.until("one holder after the heal", 5*time.Second, func() bool { return len(c.holders()) == 1 })
		for node := range seen {
			c.until(node+" is safe again", 5*time.Second, func() bool {
				s := c.nodes[node].Status()
				return !s.Unsafe && s.Health == status.Healthy && unsafe(node) == 0
			})
			message, reason := "let-go", "pair-healed"
			if c.held(node)() {
				message, reason = "pair", "peer-back"
			}
			if !seen[node].said(message, reason) {
				t.Errorf("the log of %s does not say %s for %s: %v", node, message, reason, seen[node].logs.All())
			}
		}
	})
}

// TestAFullTableOfConnectionsIsSaid on every node, with the mend, and moves nothing:
// whoever holds the address, that machine drops what is new.
func TestAFullTableOfConnectionsIsSaid(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		said := func() bool {
			for _, n := range []string{"lb1", "lb2", "witness"} {
				problems := strings.Join(c.nodes[n].Status().Problems, "\n")
				if !strings.Contains(problems, "lb1: tracking-full: ") || !strings.Contains(problems, "nf_conntrack_max") {
					return false
				}
			}
			return true
		}
		track := func(count int) {
			k := c.nodes["lb1"].kernel
			k.mu.Lock()
			defer k.mu.Unlock()
			k.tracking = vip.Tracking{Count: count, Max: 1000}
		}
		track(900)
		time.Sleep(3 * time.Second)
		if said() {
			t.Error("said of a table that has room")
		}
		track(960)
		c.until("said by all", 5*time.Second, said)
		track(100)
		c.until("no longer said", 5*time.Second, func() bool { return !said() && c.nodes["lb1"].Status().Health == status.Healthy })
		if !c.held("lb1")() {
			t.Errorf("holders %v, want lb1 all along", c.holders())
		}
	})
}
