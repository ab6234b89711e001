package agent_test

import (
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
		health status.Health
		says   string
	}{
		{"lb1", lease.ModeSingle, status.Degraded, "lb1 is the only voter: nothing takes over when it fails"},
		{"lb1 lb2", lease.ModeQuorum, status.Degraded, "every one of the 2 voters is needed"},
		{"lb1 witness witness2", lease.ModeQuorum, status.Degraded, "lb1 is the only load balancer with a vote"},
		{"lb1 lb2", lease.ModePair, status.Healthy, ""},
		{"lb1 lb2 witness", lease.ModeQuorum, status.Healthy, ""},
	} {
		t.Run(tc.nodes+" "+tc.mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, strings.Fields(tc.nodes), func(_ string, cfg *agent.Config) { cfg.Mode = tc.mode })
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
