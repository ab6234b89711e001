package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/sidecar/status"
)

// TestEveryCommandStandsInTheHistory: carried out or refused, by the node that
// was asked or by the one that decides, each has one line on all nodes, with
// who asked and why not.
func TestEveryCommandStandsInTheHistory(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		c.until("lb1 holds and all is routed", 10*time.Second, func() bool { return c.held("lb1")() && c.routed("a-1 a-2")() })
		for i, x := range []struct {
			cmd    status.Command
			event  string
			to     string
			reason string
		}{
			{status.Command{Kind: "takeover", Site: "nowhere"}, "takeover-refused", "nowhere", "unknown-site"},
			{status.Command{Kind: "renounce", Site: "b"}, "renounce-refused", "b", "not-active"},
			{status.Command{Kind: "ack", Group: "nothing"}, "ack-refused", "", "unknown-group"},
			{status.Command{Kind: "move", To: "nobody"}, "move-refused", "nobody", "no-such-node"},
			{status.Command{Kind: "move", Group: "nothing", To: "lb2"}, "move-refused", "lb2", "no-such-group"},
			{status.Command{Kind: "move", To: "lb1"}, "command", "lb1", "move"}, // it is there
			{status.Command{Kind: "maintenance", Node: "nobody", On: true}, "maintenance-refused", "nobody", "no-such-node"},
			{status.Command{Kind: "maintenance", Node: "witness", On: true}, "command", "witness", "maintenance"},
			{status.Command{Kind: "maintenance", Node: "witness"}, "command", "witness", "maintenance-off"},
			{status.Command{Kind: "takeover", Site: "a"}, "command", "a", "takeover"}, // active already
			{status.Command{Kind: "pause"}, "command", "", "pause"},
			{status.Command{Kind: "dance"}, "dance-refused", "", "unknown-command"},
			{status.Command{Kind: "takeover", Site: strings.Repeat("x", 60_000)}, "takeover-refused", strings.Repeat("x", 64), "unknown-site"},
		} {
			x.cmd.Actor = "alice"
			r, err := c.nodes["lb2"].Do(c.t.Context(), x.cmd)
			if refused := x.event != "command"; err != nil || r.OK == refused {
				c.t.Errorf("%s: %+v %v", x.cmd.Kind, r, err)
			}
			time.Sleep(time.Second)
			for name, n := range c.nodes {
				var found []status.Transition
				for _, h := range n.History(1000) {
					if h.IsCommand() {
						found = append(found, h)
					}
				}
				if len(found) != i+1 {
					c.t.Fatalf("%s has %d commands in its history after %d: %+v", name, len(found), i+1, found)
				}
				h := found[i]
				if h.Event != x.event || h.To != x.to || h.Reason != x.reason || h.Actor != "alice" || h.NotDone() && h.Detail == "" || len(h.Detail) > 2000 {
					c.t.Errorf("%s: %+v, want %s of %s (%s)", name, h, x.event, x.to, x.reason)
				}
			}
		}
		if r, err := c.nodes["lb1"].Do(c.t.Context(), status.Command{Kind: "move", To: "lb2"}); err != nil || !r.OK {
			c.t.Errorf("move: %+v %v", r, err)
		}
		time.Sleep(time.Second)
		moves := slices.DeleteFunc(c.nodes["witness"].History(1000), func(h status.Transition) bool { return h.Event != "move" })
		if len(moves) != 1 {
			c.t.Errorf("a move is noted by what it does: %+v", moves)
		}
	})
}

// Who is cut off says that it cannot tell, and does not judge the sites; who was
// heard once and is silent now is not said to be about to join.
func TestWhatANodeSaysThatIsCutOff(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		c.net.Isolate(addresses["lb1"])
		c.nodes["lb1"].proxy.servers("", false)
		for range 40 {
			time.Sleep(250 * time.Millisecond)
			for name, other := range map[string]string{"lb1": "lb2", "lb2": "lb1"} {
				for _, n := range c.nodes[name].Status().Nodes {
					if n.Name == other && n.Reason == "joining" {
						c.t.Fatalf("%s says that %s is joining", name, other)
					}
				}
			}
		}
		st := c.nodes["lb1"].Status()
		text := strings.Join(st.Problems, "\n")
		if st.Health != status.Unknown || strings.Contains(text, "site") || strings.Contains(text, "nobody holds") {
			c.t.Errorf("lb1 is %s: %s", st.Health, text)
		}
		for _, l := range st.Leases {
			if l.Holder != "" || l.Source != status.LeaseUnknown {
				c.t.Errorf("%+v, want that it is unknown", l)
			}
		}
		if !st.Site.Stale || !c.nodes["lb2"].Status().Views[0].Stale || c.nodes["lb2"].Status().Site.Stale {
			c.t.Errorf("what is old is not marked: %+v %+v", st.Site, c.nodes["lb2"].Status().Views)
		}
	})
}

// A command that nobody answers stands in the history of who was asked, since
// it may still take effect.
func TestACommandThatNobodyAnswersStandsInTheHistory(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		c.until("lb1 holds", 10*time.Second, c.held("lb1"))
		time.Sleep(time.Second)
		c.net.Isolate(addresses["lb1"])
		r, err := c.nodes["lb2"].Do(c.t.Context(), status.Command{Kind: "maintenance", Node: "lb1", On: true, Actor: "alice"})
		if err != nil || r.OK {
			c.t.Fatalf("%+v %v", r, err)
		}
		for _, h := range c.nodes["lb2"].History(1000) {
			if h.Event == "maintenance-unanswered" && h.To == "lb1" && h.Reason == "no-answer" && h.Actor == "alice" {
				return
			}
		}
		c.t.Errorf("no trace of it: %+v", c.nodes["lb2"].History(20))
	})
}
