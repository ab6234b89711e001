package agent_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// TestHealthyMeansThatOneMoreFailureIsSurvived: a cluster in which nothing has
// failed is degraded all the same if its layout survives no failure.
func TestHealthyMeansThatOneMoreFailureIsSurvived(t *testing.T) {
	for _, tc := range []struct {
		nodes  string
		mode   lease.Mode
		probe  func() time.Duration
		health status.Health
		says   string
	}{
		{"lb1", lease.ModeSingle, nil, status.Degraded, "lb1 is the only voter: nothing takes over when it fails"},
		{"lb1 lb2", lease.ModeQuorum, nil, status.Degraded, "every one of the 2 voters is needed"},
		{"lb1 witness witness2", lease.ModeQuorum, nil, status.Degraded, "lb1 is the only load balancer with a vote"},
		{"lb1 lb2", lease.ModePair, nil, status.Healthy, ""},
		{"lb1 lb2", lease.ModePair, func() time.Duration { return math.MaxInt64 }, status.Healthy, ""},
		{"lb1 lb2", lease.ModePair, func() time.Duration { return 0 }, status.Degraded, "lb1 takes itself for cut off, since none of TANDEM_PROBE answers"},
		{"lb1 lb2 witness", lease.ModeQuorum, nil, status.Healthy, ""},
	} {
		t.Run(tc.nodes+" "+tc.mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, strings.Fields(tc.nodes), func(_ string, cfg *agent.Config) { cfg.Mode, cfg.Probe = tc.mode, tc.probe })
				c.until("first holder", 8*time.Second, c.held("lb1"))
				time.Sleep(5 * time.Second)
				s := c.nodes["lb1"].Status()
				if got := strings.Join(s.Problems, "\n"); s.Health != tc.health || !strings.HasPrefix(got, tc.says) || tc.says == "" && got != "" {
					t.Errorf("%s: %q, want %s: %q", s.Health, got, tc.health, tc.says)
				}
			})
		})
	}
}

// TestAVoterThatKeepsSilentIsSaid: who has just restarted is alive and fit in the
// eyes of the others, but the next failure would leave no majority until it
// votes. Nobody calls that healthy.
func TestAVoterThatKeepsSilentIsSaid(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.nodes["lb2"].cancel()
		if err := <-c.nodes["lb2"].done; err != nil {
			t.Fatal(err)
		}
		c.boot(t.Context(), "lb2")
		booted := time.Now()
		for _, name := range []string{"lb1", "witness"} {
			c.until(name+" hears it", 2*time.Second, func() bool {
				s := c.nodes[name].Status()
				i := slices.IndexFunc(s.Nodes, func(n status.Node) bool { return n.Name == "lb2" })
				age := time.Duration(s.Nodes[i].AgeMS) * time.Millisecond
				return s.Nodes[i].Alive && s.Nodes[i].Eligible && age < time.Since(booted)
			})
		}
		said := 0
		for c.nodes["lb2"].Status().QuarantineMS > 0 {
			for _, name := range []string{"lb1", "witness"} {
				s := c.nodes[name].Status()
				if s.Health != status.Degraded {
					t.Fatalf("%s says %s while lb2 does not vote: %v", name, s.Health, s.Problems)
				}
				if strings.Contains(strings.Join(s.Problems, "\n"), "lb2: quarantine: ") {
					said++
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
		if said < 20 {
			t.Errorf("the reason was said %d times", said)
		}
		for _, name := range []string{"lb1", "lb2", "witness"} {
			c.until(name+" is healthy", 2*time.Second, func() bool { return c.nodes[name].Status().Health == status.Healthy })
		}
	})
}
