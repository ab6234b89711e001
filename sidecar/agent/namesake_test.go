package agent_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// TestTwoProcessesOfOneNameAreAProblemOnEveryNode: the settings of a node were
// copied to another machine, TANDEM_NODE and all. With a TANDEM_BIND of its own
// that one says where it is; without, it takes its address from TANDEM_PEERS, and
// says that it is where the other is.
func TestTwoProcessesOfOneNameAreAProblemOnEveryNode(t *testing.T) {
	const elsewhere = "10.0.0.99:7946"
	for _, tc := range []struct {
		what      string
		machine   string // where the copy runs
		name      string // what it calls itself
		addr      string
		advertise string
	}{
		{"another machine", "copy", "lb1", elsewhere, ""},
		{"another machine, which says that it is lb1's", "copy", "lb1", elsewhere, addresses["lb1"]},
		{"another machine, which says that it is the witness's", "copy", "witness", elsewhere, addresses["witness"]},
		{"lb2's machine", "lb2", "lb1", addresses["lb2"], ""},
		{"lb2's machine, which says that it is lb1's", "lb2", "lb1", addresses["lb2"], addresses["lb1"]},
		{"a follower's", "copy", "app-b", elsewhere, ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, []string{"lb1", "lb2", "witness", "app-b"}, func(name string, cfg *agent.Config) {
					if cfg.Voters, cfg.Sites = []string{"lb1", "lb2", "witness"}, nil; name == "app-b" {
						cfg.Role = agent.RoleSite
					}
				})
				c.alone = true // two of one name vote as one
				time.Sleep(10 * time.Second)
				if tc.machine != "copy" {
					c.end(tc.machine)
				}
				c.bootAt(t.Context(), tc.machine, tc.name, tc.addr, tc.advertise)
				words := "name-clash: two processes are called " + tc.name + ", at " + addresses[tc.name] + " and " + tc.addr + ": give each a TANDEM_NODE of its own"
				machines := []string{"lb1", "lb2", "witness", "app-b"}
				if tc.machine == "copy" {
					machines = append(machines, tc.machine)
				}
				problems := func(machine string) string { return strings.Join(c.nodes[machine].Status().Problems, "\n") }
				// Once it is said it stays said, for as long as it is so.
				first, missing := map[string]time.Duration{}, map[string]int{}
				for began := time.Now(); time.Since(began) < 60*time.Second; time.Sleep(250 * time.Millisecond) {
					for _, m := range machines {
						s := c.nodes[m].Status()
						switch _, before := first[m]; {
						case strings.Contains(strings.Join(s.Problems, "\n"), words) && s.Health != status.Healthy:
							if !before {
								first[m] = time.Since(began)
							}
						case before:
							missing[m]++
						}
					}
				}
				t.Logf("first said after: %v", first)
				for _, m := range machines {
					if d, yes := first[m]; !yes || d > 30*time.Second || missing[m] > 0 {
						t.Errorf("%s: said %v after %s, then missing %d times: %s", m, yes, d, missing[m], problems(m))
					}
				}
				c.end(tc.machine)
				time.Sleep(20 * time.Second)
				for _, m := range []string{"lb1", "witness", "app-b"} {
					if text := problems(m); strings.Contains(text, "name-clash") {
						t.Errorf("%s still says: %s", m, text)
					}
				}
				if tc.machine != "copy" {
					c.boot(t.Context(), "lb2")
					time.Sleep(10 * time.Second)
				}
				for _, m := range []string{"lb1", "lb2"} {
					if text := problems(m); text != "" {
						t.Errorf("%s in the end: %s", m, text)
					}
				}
			})
		})
	}
}

// end stops a machine's node.
func (c *cluster) end(machine string) {
	c.t.Helper()
	c.nodes[machine].cancel()
	if err := <-c.nodes[machine].done; err != nil {
		c.t.Errorf("run: %v", err)
	}
}

// TestARestartIsNoClashOfNames, however late and out of order the last words of
// the former process arrive.
func TestARestartIsNoClashOfNames(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		c.net.Loss(0.3)
		c.net.Latency(0, time.Second)
		c.net.Duplicate(0.3)
		for round := range 20 {
			name := []string{"lb2", "witness"}[round%2]
			if round%4 < 2 {
				c.wires[name].Kill()
			}
			c.end(name)
			c.boot(c.t.Context(), name)
			for range 50 {
				time.Sleep(100 * time.Millisecond)
				for _, n := range []string{"lb1", "lb2", "witness"} {
					if text := strings.Join(c.nodes[n].Status().Problems, "\n"); strings.Contains(text, "name-clash") {
						c.t.Fatalf("round %d, %s: %s", round, n, text)
					}
				}
			}
		}
	})
}
