package agent_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tandem/lib/vip"
	"tandem/sidecar/agent"
	"tandem/sidecar/status"
)

func (c *cluster) strangers(list ...vip.Stranger) {
	for _, n := range []string{"lb1", "lb2"} {
		k := c.nodes[n].kernel
		k.mu.Lock()
		k.strangers = list
		k.mu.Unlock()
	}
}

var stranger = vip.Stranger{
	Address: vip.Address{Prefix: netip.MustParsePrefix("10.0.0.100/32"), Interface: "eth0"},
	At:      net.HardwareAddr{2, 0, 0, 0, 0, 9},
}

// withStranger plays in a cluster that has just started, with somebody else on
// the network who answers for the address.
func withStranger(t *testing.T, play func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{"lb1", "lb2", "witness"}, func(_ string, c *agent.Config) { c.Sites = nil })
		c.strangers(stranger)
		time.Sleep(6 * time.Second)
		for _, n := range []string{"lb1", "lb2"} {
			if c.nodes[n].kernel.holds("default") {
				t.Fatalf("%s took up an address that a stranger answers for", n)
			}
		}
		play(c)
		if c.two > 0 {
			t.Errorf("two held it at %d instants", c.two)
		}
	})
}

func TestAddressOfAStrangerIsReportedAndNotTakenUp(t *testing.T) {
	withStranger(t, func(c *cluster) {
		s := c.nodes["lb1"].Status()
		if s.Health != status.NotServing || !strings.Contains(strings.Join(s.Problems, "\n"), "02:00:00:00:00:09 answers for 10.0.0.100/32@eth0") {
			c.t.Errorf("%s %q", s.Health, s.Problems)
		}
		r, err := c.nodes["lb1"].Do(context.Background(), status.Command{Kind: "move", To: "lb1"})
		if err != nil || r.OK || r.Reason != "address-in-use" || !strings.Contains(r.Message, "--force") {
			c.t.Errorf("%+v %v", r, err)
		}
		noted := 0
		for _, h := range c.nodes["lb1"].History(100) {
			if h.Reason == "address-in-use" && h.Node == "lb1" && !h.IsCommand() {
				noted++
			}
		}
		if noted != 1 {
			c.t.Errorf("noted %d times", noted)
		}
		c.strangers() // it goes away
		c.until("it is taken up", 3*time.Second, c.held("lb1"))
		// What lb2 said last stands in the status of lb1 until its next report.
		c.until("nobody says address-in-use any more", 3*time.Second, func() bool {
			return !strings.Contains(strings.Join(c.nodes["lb1"].Status().Problems, "\n"), "address-in-use")
		})
	})
}

// Who does not hear the others must not be advised to remove the address from one
// of them, nor to take it up besides.
func TestAStrangerMayBeAPeerThatIsNotHeard(t *testing.T) {
	withStranger(t, func(c *cluster) {
		c.net.Isolate(addresses["lb1"])
		c.until("lb1 says whom it does not hear", 10*time.Second, func() bool {
			text := strings.Join(c.nodes["lb1"].Status().Problems, "\n")
			return strings.Contains(text, "does not hear lb2 (") && strings.Contains(text, "witness (") &&
				!strings.Contains(text, "--force") && !strings.Contains(text, "Remove it there")
		})
	})
}

// By force it is taken up, asked on any node; and once the cluster holds it, a
// failover asks nobody.
func TestAddressOfAStrangerIsTakenUpByForce(t *testing.T) {
	withStranger(t, func(c *cluster) {
		r, err := c.nodes["witness"].Do(context.Background(), status.Command{Kind: "move", To: "lb2", Force: true})
		if err != nil || !r.OK || !strings.Contains(r.Message, "lb2") {
			c.t.Fatalf("%+v %v", r, err)
		}
		c.until("lb2 holds it", time.Second, c.held("lb2"))
		time.Sleep(time.Second)
		c.nodes["lb2"].proxy.die("refused")
		c.until("lb1 takes over", 200*time.Millisecond, c.held("lb1"))
	})
}

// A node that starts while another holds the address hears that one answer, and
// thinks nothing of it.
func TestHolderIsNoStranger(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		c.nodes["lb2"].cancel()
		if err := <-c.nodes["lb2"].done; err != nil {
			c.t.Error(err)
		}
		c.boot(c.t.Context(), "lb2")
		c.strangers(stranger) // lb1's answer
		time.Sleep(5 * time.Second)
		for _, n := range []string{"lb1", "lb2"} {
			if text := strings.Join(c.nodes[n].Status().Problems, "\n"); strings.Contains(text, "address-in-use") {
				c.t.Errorf("%s: %s", n, text)
			}
		}
		c.nodes["lb1"].proxy.die("refused")
		c.until("lb2 takes over", 200*time.Millisecond, c.held("lb2"))
	})
}
