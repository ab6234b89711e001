package agent_test

import (
	"math"
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
