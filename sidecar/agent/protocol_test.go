package agent_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/sidecar/agent"
)

// TestTheNewestVersionThatAllReadIsSpoken: a later version is spoken when the
// last node has been upgraded, and the old one again as soon as one goes back.
func TestTheNewestVersionThatAllReadIsSpoken(t *testing.T) {
	var mu sync.Mutex
	reads := map[string]int{}
	edit := func(name string, cfg *agent.Config) {
		mu.Lock()
		defer mu.Unlock()
		cfg.Protocol = reads[name]
	}
	inBubble(t, edit, func(c *cluster) {
		speaks := func(v int) func() bool {
			return func() bool {
				for _, n := range c.names {
					if c.nodes[n].Status().Protocol.Speaks != v {
						return false
					}
				}
				return true
			}
		}
		become := func(name string, version int) {
			c.nodes[name].cancel()
			if err := <-c.nodes[name].done; err != nil {
				t.Error(err)
			}
			mu.Lock()
			reads[name] = version
			mu.Unlock()
			c.boot(c.t.Context(), name)
			c.until(name+" votes again", 10*time.Second, func() bool {
				return c.nodes[name].Status().QuarantineMS == 0 && len(c.holders()) == 1
			})
			time.Sleep(2 * time.Second)
		}
		if !speaks(1)() {
			t.Fatal("not all speak version 1")
		}
		become("witness", 2)
		become("lb2", 2)
		if !speaks(1)() {
			t.Error("lb1 does not read version 2, and somebody speaks it")
		}
		before := len(strings.Split(c.log.text(), "\n"))
		become("lb1", 2)
		c.until("version 2 is spoken", 5*time.Second, speaks(2))
		if !c.held("lb2")() {
			t.Errorf("holders %v, want lb2", c.holders())
		}
		// Back again, while the holder is another node: nobody loses a lease.
		become("witness", 1)
		c.until("version 1 is spoken again", 5*time.Second, speaks(1))
		if !c.held("lb2")() {
			t.Errorf("holders %v, want lb2", c.holders())
		}
		for _, line := range strings.Split(c.log.text(), "\n")[before:] {
			if strings.Contains(line, "lb2: default away") {
				t.Errorf("lb2 lost the address: %s", line)
			}
		}
	})
}
