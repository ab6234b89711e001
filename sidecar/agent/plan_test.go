package agent_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// calamity is a fault that can be asked for, and made to happen.
type calamity struct {
	faults []string
	make   func(c *cluster)
}

func calamities() []calamity {
	sites := func(nodes ...string) func(*cluster) {
		return func(c *cluster) {
			for _, n := range nodes {
				c.nodes[n].proxy.servers("a-", false)
			}
		}
	}
	cut := func(n string) func(*cluster) { return func(c *cluster) { c.net.Isolate(addresses[n]) } }
	return []calamity{
		{[]string{"lb1=down"}, cut("lb1")},
		{[]string{"lb2=down"}, cut("lb2")},
		{[]string{"witness=down"}, cut("witness")},
		{[]string{"lb1.haproxy=down"}, func(c *cluster) { c.nodes["lb1"].proxy.die("died") }},
		// In this order: which of two that die in the same instant goes on as last
		// resort is a matter of microseconds.
		{[]string{"lb2.haproxy=hung", "lb1.haproxy=down"}, func(c *cluster) {
			c.nodes["lb2"].proxy.die("hung")
			time.Sleep(time.Second)
			c.nodes["lb1"].proxy.die("died")
		}},
		{[]string{"site.a=down"}, sites("lb1", "lb2")},
		{[]string{"lb1.site.a=down"}, sites("lb1")},
		{[]string{"lb1=down", "site.a=down"}, func(c *cluster) { cut("lb1")(c); sites("lb1", "lb2")(c) }},
		{[]string{"site.a=down", "site.b=down"}, func(c *cluster) {
			sites("lb1", "lb2")(c)
			c.nodes["lb1"].proxy.servers("b-", false)
			c.nodes["lb2"].proxy.servers("b-", false)
		}},
		{[]string{"lb1=maintenance"}, func(c *cluster) {
			if r, err := c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "maintenance", On: true}); err != nil || !r.OK {
				c.t.Errorf("maintenance: %+v %v", r, err)
			}
		}},
	}
}

// TestThePlanComesTrue asks what would happen, lets it happen, and compares who
// holds what, which site is active, and how healthy the cluster is.
func TestThePlanComesTrue(t *testing.T) {
	exclusive := func(_ string, c *agent.Config) {
		c.Sites.Order, c.Sites.IsolatedAfter = site.Exclusive, 4300*time.Millisecond
	}
	for name, edit := range map[string]func(string, *agent.Config){"overlap": nil, "exclusive": exclusive} {
		for _, x := range calamities() {
			if name == "exclusive" && !strings.HasPrefix(x.faults[len(x.faults)-1], "site.a") {
				continue // nothing of the order of a switch is in it
			}
			t.Run(name+" "+strings.Join(x.faults, ","), func(t *testing.T) {
				inBubble(t, edit, func(c *cluster) {
					t := c.t
					plan, err := c.nodes["lb2"].Plan(t.Context(), x.faults)
					if err != nil {
						t.Fatal(err)
					}
					x.make(c)
					time.Sleep(14 * time.Second) // of virtual time: everything has come to rest
					after := survivor(c, plan).Status()
					compare(t, plan, after)
				})
			})
		}
	}
}

// survivor is a node that is not cut off.
func survivor(c *cluster, plan status.Plan) *node {
	for _, n := range []string{"lb2", "lb1"} {
		if !slices.Contains(plan.Faults, n+"=down") {
			return c.nodes[n]
		}
	}
	return c.nodes["witness"]
}

//nolint:thelper // a failure belongs to the story
func compare(t *testing.T, plan status.Plan, is status.Status) {
	for _, h := range plan.Holders {
		i := slices.IndexFunc(is.Leases, func(l status.Lease) bool { return l.Resource == h.Resource })
		if i < 0 || is.Leases[i].Holder != h.Holder {
			t.Errorf("%s: the plan says %q holds it; it came otherwise: %+v", h.Resource, h.Holder, is.Leases)
		}
	}
	for _, g := range plan.Sites {
		i := slices.IndexFunc(is.Groups, func(x status.Site) bool { return x.Group == g.Group })
		if i < 0 || is.Groups[i].Active != g.Active || is.Groups[i].Reason != g.Reason {
			t.Errorf("%s: the plan says %s (%s); it came otherwise: %+v", g.Group, g.Active, g.Reason, is.Groups)
		}
	}
	if t.Failed() {
		for _, s := range plan.Steps {
			t.Logf("%6d ms %s %s %s → %s %s %s %s %s", s.AfterMS, s.Node, s.Resource+" "+s.Event, s.From, s.To, s.Phase, s.Reason, s.Detail, plan.Notes)
		}
	}
	if plan.Health != is.Health {
		t.Errorf("the plan says %s %v, it is %s %v", plan.Health, plan.Problems, is.Health, is.Problems)
	}
}

// TestWhatThePlanSays is for the eye: one line for each question, and what
// would move.
func TestWhatThePlanSays(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		var b strings.Builder
		for _, x := range calamities() {
			plan, err := c.nodes["lb1"].Plan(t.Context(), x.faults)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s\n  %s\n  %s: %s\n", strings.Join(x.faults, ","), plan.Sentence, plan.Health, strings.Join(plan.Problems, "; "))
			for _, m := range plan.Moves {
				fmt.Fprintf(&b, "  %s: %s → %s, %s\n", m.What, m.From, m.To, m.Reason)
			}
		}
		b.WriteString("\nthe next failure\n")
		for _, line := range c.nodes["lb1"].Outlook(t.Context()).NextFail {
			b.WriteString("  " + line + "\n")
		}
		path := filepath.Join("testdata", "TestWhatThePlanSays.golden")
		if *update {
			if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || b.String() != string(want) {
			t.Errorf("got\n%s\nwant\n%s%v", b.String(), want, err)
		}
	})
}

func TestAPlanForWhatThereIsNotIsRefused(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		for question, answer := range map[string]string{
			"lb9=down":             "there is no node lb9; the nodes are lb1, lb2, witness; the sites are site.a, site.b",
			"site.x=down":          "there is no site x; the sites are a, b",
			"site.a.chat=down":     "no load balancer has seen a backend chat at site a",
			"lb1":                  "want NAME=STATE, for example lb1=down",
			"lb1=broken":           "a node can be down, cut or in maintenance, not broken",
			"witness.haproxy=down": "witness has no HAProxy beside it",
			"lb1.disk=down":        "lb1 has haproxy and site.NAME that can fail, not disk",
			"lb1.haproxy=tired":    "a HAProxy can be down or hung, not tired",
			"site.a=tired":         "a site can be down or up, not tired",
		} {
			_, err := c.nodes["lb1"].Plan(t.Context(), []string{"lb2=down", question})
			if !errors.Is(err, agent.ErrQuestion) || !strings.Contains(err.Error(), answer) {
				t.Errorf("%s: %v, want %s", question, err, answer)
			}
		}
		if _, err := c.nodes["lb1"].Plan(t.Context(), nil); !errors.Is(err, agent.ErrQuestion) {
			t.Errorf("no fault at all: %v", err)
		}
	})
}

// TestTheOutlookFollowsThePicture: what was foreseen for another picture is not
// shown, and in a moment of change nothing is foreseen.
func TestTheOutlookFollowsThePicture(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		lb1 := c.nodes["lb1"]
		if got := lb1.Status().NextFail; len(got) != 0 {
			t.Errorf("foreseen by nobody: %v", got)
		}
		first := lb1.Outlook(t.Context()).NextFail
		if len(first) != 4 || !strings.Contains(first[0], "lb2 takes") {
			t.Errorf("outlook: %q", first)
		}
		if again := lb1.Status().NextFail; !slices.Equal(again, first) {
			t.Errorf("the status forgot the outlook: %v", again)
		}
		c.nodes["lb2"].proxy.die("died")
		time.Sleep(2 * time.Second)
		if got := lb1.Status().NextFail; len(got) != 0 {
			t.Errorf("foreseen from another picture: %v", got)
		}
		if got := lb1.Outlook(t.Context()).NextFail; len(got) == 0 || strings.Contains(got[0], "lb2 takes vip") {
			t.Errorf("with lb2 unable: %q", got)
		}
	})
}

func TestAPairsPlanSaysThatTwoMayHold(t *testing.T) {
	bubble(t, []string{"lb1", "lb2"}, pair, func(c *cluster) {
		t := c.t
		plan, err := c.nodes["lb1"].Plan(t.Context(), []string{"lb2=down"})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(plan.Problems, func(p string) bool { return strings.Contains(p, "unsafe") }) {
			t.Errorf("problems: %q", plan.Problems)
		}
		if plan.Holders[0].Holder != "lb1" {
			t.Errorf("holders: %+v", plan.Holders)
		}
	})
}
