package agent_test

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

// TestVotersChangeByARollingRestart: three voters become five and three again,
// one at a time, the holder restarted last, as docs/operations.md says. The
// address is never answered for by two, nobody is without it for longer than a
// hand-over takes, and status names the list that differs until it does no more.
func TestVotersChangeByARollingRestart(t *testing.T) {
	edit := func(_ string, cfg *agent.Config) {
		cfg.Voters = slices.Clone(cfg.Voters)
		digest := crc32.ChecksumIEEE([]byte(strings.Join(cfg.Voters, ",")))
		cfg.Settings = map[string]string{"TANDEM_PEERS": fmt.Sprintf("%08x", digest)}
	}
	inBubble(t, edit, func(c *cluster) {
		for _, names := range [][]string{
			{"lb1", "lb2", "witness", "witness2"},
			{"lb1", "lb2", "witness", "witness2", "witness3"},
			{"lb1", "lb2", "witness", "witness3"},
			{"lb1", "lb2", "witness"},
		} {
			c.change(names)
		}
		time.Sleep(62 * time.Second) // so long does a warning that points to the log stay
		for _, n := range c.names {
			if s := c.nodes[n].Status(); s.Health != status.Healthy {
				c.t.Errorf("%s is %s in the end: %v", n, s.Health, s.Problems)
			}
		}
	})
}

// change makes names the voters by a rolling restart.
func (c *cluster) change(names []string) {
	c.t.Helper()
	before := c.names
	c.mu.Lock()
	c.names = names
	c.mu.Unlock()
	holder := c.holders()[0]
	for _, n := range names {
		if !slices.Contains(before, n) {
			c.boot(c.t.Context(), n)
		}
	}
	order := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == holder || !slices.Contains(before, n) })
	for _, n := range append(order, holder) {
		c.restart(n)
		if n != holder && !c.differs(holder, n) {
			c.t.Errorf("%d voters: the status of %s does not say that %s has another list", len(names), holder, n)
		}
	}
	for _, n := range before {
		if !slices.Contains(names, n) {
			c.nodes[n].cancel()
			if err := <-c.nodes[n].done; err != nil {
				c.t.Error(err)
			}
			c.mu.Lock()
			delete(c.nodes, n)
			c.mu.Unlock()
		}
	}
	c.until("no list differs", 5*time.Second, func() bool {
		return !slices.ContainsFunc(names, func(n string) bool {
			return slices.ContainsFunc(names, func(of string) bool { return c.differs(n, of) })
		})
	})
}

// restart stops a node in order, starts it again and waits until it votes.
func (c *cluster) restart(name string) {
	c.t.Helper()
	c.nodes[name].cancel()
	if err := <-c.nodes[name].done; err != nil {
		c.t.Fatal(err)
	}
	began := time.Now()
	c.until("somebody holds while "+name+" restarts", time.Second, func() bool { return len(c.holders()) == 1 })
	if took := time.Since(began); took > 100*time.Millisecond {
		c.t.Errorf("nobody answered for %s while %s was stopped", took, name)
	}
	c.boot(c.t.Context(), name)
	c.until(name+" votes again", 10*time.Second, func() bool {
		return c.nodes[name].Status().QuarantineMS == 0 && len(c.holders()) == 1
	})
	time.Sleep(2 * time.Second)
}

// differs says whether a node's status warns that another's list is not its own.
func (c *cluster) differs(node, of string) bool {
	for _, n := range c.nodes[node].Status().Nodes {
		if n.Name == of {
			return slices.ContainsFunc(n.Warnings, func(w string) bool { return strings.HasPrefix(w, "settings-differ: TANDEM_PEERS") })
		}
	}
	return false
}
