package agent_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/agent"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// TestAWitnessWithoutSitesSurvivesTheLossOfOne: the witness is not told of the
// sites, and hears of them from the others.
func TestAWitnessWithoutSitesSurvivesTheLossOfOne(t *testing.T) {
	edit := func(name string, c *agent.Config) {
		if name == "witness" {
			c.Sites = nil
		}
	}
	inBubble(t, edit, func(c *cluster) {
		c.nodes["lb1"].proxy.servers("b-", false)
		c.nodes["lb2"].proxy.servers("b-", false)
		time.Sleep(2 * time.Second)
		if s := c.nodes["witness"].Status(); s.Health != status.Healthy {
			c.t.Errorf("health %s %v: the witness has no sites to judge", s.Health, s.Problems)
		}
		if s := c.nodes["lb1"].Status(); s.Health != status.Degraded {
			c.t.Errorf("health of lb1 %s %v, want degraded", s.Health, s.Problems)
		}
	})
}

// TestAFreshNodeDrainsNothingInExclusive: it has had no word from a decider
// yet, and that is no reason to stop routing. The first decision of all drains
// everywhere before it enables, for as long as the two take to say so.
func TestAFreshNodeDrainsNothingInExclusive(t *testing.T) {
	edit := func(_ string, c *agent.Config) { c.Sites.Order = site.Exclusive }
	bubbleFrom(t, []string{"lb1", "lb2", "witness"}, edit, func(c *cluster) {
		c.net.Latency(time.Millisecond, 2*time.Millisecond)
		drained := map[string]int{}
		for range 6000 {
			for _, n := range []string{"lb1", "lb2"} {
				if p := c.nodes[n].proxy; p.ready() != "" {
					continue
				}
				if drained[n]++; c.nodes[n].Status().Site.Epoch == 0 || drained[n] > 50 {
					c.t.Fatalf("%s drained everything after its start, for %d ms\n%s", n, drained[n], c.log.text())
				}
			}
			time.Sleep(time.Millisecond)
		}
		c.until("site a routed", time.Second, c.routed("a-1 a-2"))
	})
}

// TestAFollowerRoutesAndFindsTheHolder: a load balancer without a vote.
func TestAFollowerRoutesAndFindsTheHolder(t *testing.T) {
	edit := func(_ string, c *agent.Config) {
		c.Voters = []string{"lb1", "lb2", "witness"}
		c.Sites.Order = site.Exclusive
	}
	bubble(t, []string{"lb1", "lb2", "witness", "lb3"}, edit, func(c *cluster) {
		lb3 := c.nodes["lb3"]
		c.until("lb3 routes", 5*time.Second, func() bool { return lb3.proxy.ready() == "a-1 a-2" })
		time.Sleep(8 * time.Second) // longer than any grace
		if r := lb3.proxy.ready(); r != "a-1 a-2" {
			c.t.Errorf("lb3 routes to %q, want site a", r)
		}
		r, err := lb3.Do(c.t.Context(), status.Command{Kind: "takeover", Site: "b"})
		if err != nil || !r.OK {
			c.t.Fatalf("takeover asked of a follower: %+v %v", r, err)
		}
		c.until("lb3 follows", 2*time.Second, func() bool { return lb3.proxy.ready() == "b-1 b-2" })
		if s := lb3.Status(); s.Health == status.NotServing || s.Health == status.Unknown {
			c.t.Errorf("health %s %v", s.Health, s.Problems)
		}
	})
}

// TestNotAdminIsNamed: HAProxy answers and does not obey.
func TestNotAdminIsNamed(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		p := c.nodes["lb2"].proxy
		p.mu.Lock()
		p.o.Reason, p.o.Detail, p.o.Applied = "not-admin", "the socket is of level user", 0
		p.signal()
		p.mu.Unlock()
		c.until("named", 2*time.Second, func() bool {
			for _, n := range c.nodes["lb1"].Status().Nodes {
				if n.Name == "lb2" && !n.Eligible && n.Reason == "not-admin" {
					return true
				}
			}
			return false
		})
	})
}

// broken is a Store on a full disk.
type broken struct{}

var errFull = errors.New("no space left on device")

func (broken) Records() ([]lease.Record, error)      { return nil, nil }
func (broken) SaveRecords([]lease.Record) error      { return errFull }
func (broken) Maintenance() (bool, error)            { return false, nil }
func (broken) SaveMaintenance(bool) error            { return errFull }
func (broken) History() ([]status.Transition, error) { return nil, nil }
func (broken) AppendHistory(status.Transition) error { return errFull }

// TestAVoteThatIsNotOnDiskIsNotGiven: two of three voters cannot write, so
// nobody may hold, and that is said.
func TestAVoteThatIsNotOnDiskIsNotGiven(t *testing.T) {
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, nil, func(name string, d *agent.Deps) {
		if name != "lb1" {
			d.Store = broken{}
		}
	}, func(c *cluster) {
		time.Sleep(10 * time.Second)
		if h := c.holders(); len(h) > 0 {
			c.t.Errorf("%v hold an address on votes that are not on disk", h)
		}
	})
}

// takeover hooks of one node, which succeed at once.
type obliging struct{ done chan agent.HookResult }

func (o *obliging) Start(run site.HookRun) {
	o.done <- agent.HookResult{Run: run, OK: true}
}
func (o *obliging) Fence(string, uint64, uint64)  {}
func (o *obliging) Forget(string)                 {}
func (o *obliging) Done() <-chan agent.HookResult { return o.done }

// TestHooksMayStandOnTheApplicationsMachinesAlone: the load balancers have no
// commands; a node of role site has.
func TestHooksMayStandOnTheApplicationsMachinesAlone(t *testing.T) {
	edit := func(name string, c *agent.Config) {
		c.Voters = []string{"lb1", "lb2", "witness"}
		if name == "lb3" { // of role site here
			c.Role, c.Site, c.Hooks = agent.RoleSite, "b", []string{"takeover"}
		}
	}
	hooks := &obliging{}
	bubbleWith(t, []string{"lb1", "lb2", "witness", "lb3"}, edit, func(name string, d *agent.Deps) {
		if name == "lb3" {
			hooks.done = make(chan agent.HookResult, 8)
			d.LB, d.Addresses, d.Hooks = nil, nil, hooks
		}
	}, func(c *cluster) {
		c.until("first holder", 8*time.Second, c.held("lb1"))
		c.until("all routed", 5*time.Second, c.routed("a-1 a-2"))
		time.Sleep(3 * time.Second)
		r, err := c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "takeover", Site: "b"})
		if err != nil || !r.OK {
			c.t.Fatalf("takeover: %+v %v", r, err)
		}
		c.until("b routed", 2*time.Second, c.routed("b-1 b-2"))
		ran := 0
		for _, h := range c.nodes["lb1"].History(1000) {
			if h.Event == "hook-takeover" && h.Node == "lb3" && h.Reason == "succeeded" {
				ran++
			}
		}
		if ran != 1 {
			c.t.Errorf("the takeover hook ran %d times on lb3, want once\n%s", ran, c.log.text())
		}
	})
}

// TestWithoutAMajorityTheRefusalSaysWhatToDo: row R4 of the scenarios.
func TestWithoutAMajorityTheRefusalSaysWhatToDo(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		c.net.Isolate(addresses["lb2"])
		time.Sleep(4 * time.Second)
		r, err := c.nodes["lb2"].Do(c.t.Context(), status.Command{Kind: "move", To: "lb2", Force: true})
		if err != nil || r.OK || r.Reason != "no-majority" || !strings.Contains(r.Message, "TANDEM_MODE=single") {
			c.t.Errorf("got %+v %v", r, err)
		}
	})
}

// The holder dies together with the active site. Its last report, which is
// believed for seconds, says that it sees the site; that is no reason to give it
// the address.
func TestAddressIsNotGivenToWhoDiedWithTheSite(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		c.net.Isolate(addresses["lb1"])
		time.Sleep(20 * time.Millisecond)
		c.nodes["lb1"].proxy.servers("a-", false)
		c.nodes["lb2"].proxy.servers("a-", false)
		c.until("lb2 takes over", 3*time.Second, c.held("lb2"))
		for range 400 {
			time.Sleep(10 * time.Millisecond)
			if !c.held("lb2")() {
				t.Fatalf("holders %v, want lb2 to keep the address\n%s", c.holders(), c.log.text())
			}
		}
	})
}
