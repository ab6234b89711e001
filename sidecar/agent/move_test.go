package agent_test

import (
	"strings"
	"testing"
	"time"

	"tandem/lib/vip"
	"tandem/sidecar/status"
)

// Who hands over takes new connections until shortly after its successor holds,
// and never longer than its own lease would have lasted.
func TestNewConnectionsAreServedUntilTheSuccessorIsThere(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		r, err := c.nodes["lb2"].Do(t.Context(), status.Command{Kind: "move", To: "lb2", Actor: "test"})
		if err != nil || !r.OK {
			t.Fatalf("move: %+v %v", r, err)
		}
		took := time.Hour + time.Since(c.start)
		time.Sleep(time.Second)
		k := c.nodes["lb1"].kernel
		k.mu.Lock()
		defer k.mu.Unlock()
		var lease time.Duration
		var yields []vip.Desired
		for _, d := range k.wanted {
			switch d.Role {
			case vip.Holding:
				lease = d.Deadline
			case vip.Yielding:
				yields = append(yields, d)
			case vip.Away:
			}
		}
		if len(yields) != 2 {
			t.Fatalf("yielded %+v, want at first and when the successor holds", yields)
		}
		first, last := yields[0], yields[1]
		if first.NewUntil != lease {
			t.Errorf("new connections until %v at first, want the deadline of the lease, %v", first.NewUntil, lease)
		}
		if over := last.NewUntil - took; over < 150*time.Millisecond || over > 210*time.Millisecond || last.NewUntil > lease {
			t.Errorf("new connections until %v after the move, at most %v, want about 200 ms", over, lease-took)
		}
		if first.Deadline != last.Deadline || last.Deadline < took+5*time.Second {
			t.Errorf("connections served until %v and %v, want the grace after %v", first.Deadline, last.Deadline, took)
		}
	})
}

// TestAMoveOverSlowLinksIsAnswered by who knows what came of it: it takes longer than
// until the command is asked again, when a voter knows the successor already, and that
// does not hold yet. Where it takes longer than others wait for the successor, the old
// holder takes the address back, and says so.
func TestAMoveOverSlowLinksIsAnswered(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.net.Latency(35*time.Millisecond, 60*time.Millisecond)
		time.Sleep(5 * time.Second)
		moved := 0
		for i := range 60 {
			from := c.holders()
			to := map[string]string{"lb1": "lb2", "lb2": "lb1"}[from[0]]
			asked := []string{"lb1", "lb2", "witness"}[i%3]
			r, err := c.nodes[asked].Do(t.Context(), status.Command{Kind: "move", To: to})
			switch {
			case err != nil || !r.OK && !strings.Contains(r.Message, to+" did not take default up"):
				t.Errorf("move %d to %s, asked of %s: %+v %v", i, to, asked, r, err)
			case r.OK && !c.held(to)():
				t.Errorf("move %d: %v hold, want %s", i, c.holders(), to)
			case r.OK:
				moved++
			}
			time.Sleep(time.Second)
		}
		if moved < 30 {
			t.Errorf("%d of 60 moves came off", moved)
		}
	})
}
