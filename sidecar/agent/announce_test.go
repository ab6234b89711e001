package agent

import (
	"testing"
	"time"

	"tandem/lib/lease"
)

// TestWhatIsNewIsToldAtOnce: of all that can change in what a holder tells its
// followers, only a renewal waits until the next is due.
func TestWhatIsNewIsToldAtOnce(t *testing.T) {
	was := lease.Item{Kind: lease.KindInform, Resource: "site", Seq: 7, Held: true, Remaining: time.Second}
	renewed := was
	renewed.Seq, renewed.Remaining = 8, 2*time.Second
	if !sameButRenewed(was, renewed) {
		t.Error("a renewal is taken for something new")
	}
	for what, change := range map[string]func(*lease.Item){
		"another lease":     func(it *lease.Item) { it.Resource = "vip/default" },
		"held by another":   func(it *lease.Item) { it.Ballot.Node = "lb2" },
		"the next epoch":    func(it *lease.Item) { it.Value.Epoch++ },
		"another value":     func(it *lease.Item) { it.ValueSeq++ },
		"a value that took": func(it *lease.Item) { it.Commit++ },
	} {
		now := renewed
		change(&now)
		if sameButRenewed(was, now) {
			t.Errorf("%s waits for the next announcement", what)
		}
	}
}
