package agent_test

import (
	"strings"
	"testing"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// TestACommandWithoutASiteMeansTheNodesOwn: `tandem takeover` and `tandem
// renounce` typed at a machine of a site are about that site, whoever decides.
func TestACommandWithoutASiteMeansTheNodesOwn(t *testing.T) {
	edit := func(name string, c *agent.Config) { c.Site = map[string]string{"lb1": "a", "lb2": "b"}[name] }
	inBubble(t, edit, func(c *cluster) {
		do := func(node, kind string) status.Result {
			r, err := c.nodes[node].Do(c.t.Context(), status.Command{Kind: kind, Actor: "test"})
			if err != nil {
				c.t.Fatal(err)
			}
			return r
		}
		if r := do("lb2", "renounce"); r.OK || r.Reason != "not-active" {
			c.t.Errorf("renounce at b while a is active: %+v, want not-active", r)
		}
		if r := do("lb1", "takeover"); !r.OK || r.Reason != "already-active" {
			c.t.Errorf("takeover at a while a is active: %+v, want already-active", r)
		}
		if r := do("witness", "takeover"); r.OK || r.Reason != "site-missing" {
			c.t.Errorf("takeover at a node without a site: %+v, want site-missing", r)
		}
		if r := do("lb2", "takeover"); !r.OK {
			c.t.Errorf("takeover at b: %+v", r)
		}
		c.until("site b routed", 5*time.Second, c.routed("b-1 b-2"))
		if r := do("lb2", "renounce"); !r.OK {
			c.t.Errorf("renounce at b while b is active: %+v", r)
		}
		c.until("site a routed", 5*time.Second, c.routed("a-1 a-2"))
	})
}

// TestWhoFollowsTheEventsIsAnsweredAtOnce: a takeover whose hook takes its time
// is answered with its end, or after a while with its beginning; at once if who
// asks says so.
func TestWhoFollowsTheEventsIsAnsweredAtOnce(t *testing.T) {
	s := stage(map[string]string{"lb1": "a", "lb2": "b"}, map[string]time.Duration{"b": 20 * time.Second}, "takeover")
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, s.edit, s.deps, func(c *cluster) {
		c.ready()
		for _, node := range []string{"lb1", "lb2"} { // one decides, the other passes it on
			began := time.Now()
			r, err := c.nodes[node].Do(c.t.Context(), status.Command{Kind: "takeover", Site: "b", Begin: true})
			if took := time.Since(began); err != nil || !r.OK || r.Reason != "begun" || took > 500*time.Millisecond {
				t.Errorf("asked at %s: %+v %v after %v, want begun at once", node, r, err, took)
			}
		}
		began := time.Now()
		r, err := c.nodes["lb2"].Do(c.t.Context(), status.Command{Kind: "takeover", Site: "b"})
		if took := time.Since(began); err != nil || !r.OK || took < time.Second || !strings.Contains(r.Message, "the switch to b is under way") {
			t.Errorf("without the wish: %+v %v after %v, want a wait for the end", r, err, took)
		}
	})
}

// TestAnyNodeShowsWhatIsDecidedAndPassesCommandsOn: a witness and a machine of
// the applications are not told the sites, and an operator who sits there is
// answered all the same.
func TestAnyNodeShowsWhatIsDecidedAndPassesCommandsOn(t *testing.T) {
	s := stage(map[string]string{"lb1": "a", "app-b": "b"}, nil, "takeover")
	edit, deps := s.apps("")
	untold := func(name string, c *agent.Config) {
		if edit(name, c); c.Role != agent.RoleLB {
			c.Sites = nil
		}
	}
	bubbleWith(t, withApps, untold, deps, func(c *cluster) {
		t := c.t
		c.ready()
		active := func(site string) func() bool {
			return func() bool {
				for _, n := range withApps {
					if s := c.nodes[n].Status(); s.Site.Active != site || len(s.Groups) != 1 || s.Groups[0].Phase != "" {
						return false
					}
				}
				return true
			}
		}
		c.until("all show that a is active", 5*time.Second, active("a"))
		for _, tc := range []struct {
			node string
			cmd  status.Command
			then string
		}{
			{"app-b", status.Command{Kind: "takeover"}, "b"}, // its own site
			{"witness", status.Command{Kind: "takeover", Site: "a"}, "a"},
			{"app-b", status.Command{Kind: "takeover", Site: "b"}, "b"},
			{"app-b", status.Command{Kind: "renounce"}, "a"},
		} {
			tc.cmd.Actor = "test"
			if r, err := c.nodes[tc.node].Do(t.Context(), tc.cmd); err != nil || !r.OK {
				t.Fatalf("%s of %q at %s: %+v %v", tc.cmd.Kind, tc.cmd.Site, tc.node, r, err)
			}
			c.until("all show that "+tc.then+" is active", 5*time.Second, active(tc.then))
		}
		plan, err := c.nodes["witness"].Plan(t.Context(), []string{"lb1=down"})
		if err != nil || len(plan.Moves) != 1 || plan.Moves[0].What != "vip/default" {
			t.Errorf("the witness plans the address alone: %+v %v", plan.Moves, err)
		}
	})
}
