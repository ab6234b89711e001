package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/examples/lab"
)

// TestFollowersFollow is `pair followers` with all thirty and fewer switches: the
// last follower obeys, those that are shot in a switch disturb neither clients
// nor the others and follow again when they are back, and those that are cut
// off in exclusive order stop routing before the others use another site.
func TestFollowersFollow(t *testing.T) {
	long(t)
	plan := edgePlan{followers: 30, rest: 3 * time.Second, switches: 3, shot: 10, cut: 5, seed: uint64(time.Now().UnixNano())}
	r, err := playFollowers(t.Context(), t.Output(), tandem(t), plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	if stall := max(r.Lag, r.Blind); stall > 500*ms {
		t.Skipf("NOT TESTED: this machine stood still for %v", stall)
	}
	if err = r.verdict(5 * time.Second); err != nil { // generous: a loaded machine
		t.Error(err)
	}
	if len(r.expired) != plan.cut {
		t.Errorf("%d of %d expired", len(r.expired), plan.cut)
	}
	for _, l := range slices.Concat(r.quiet.followers, r.quiet.voters) {
		if l.sent == 0 || l.got == 0 {
			t.Errorf("a node that neither speaks nor is spoken to: %+v", l)
		}
	}
	// What a follower says does not grow with their number. It passes on what it
	// hears of a holder every 150 ms to three others, and again to three every
	// 200 ms, reports to three voters, asks and answers: 42 datagrams a second, 62
	// if two nodes share the leases. That each talked to all others, or passed on a
	// word for each of them, would show here.
	if busiest := slices.MaxFunc(r.quiet.followers, func(a, b load) int { return int(a.sent - b.sent) }); busiest.sent > 65 {
		t.Errorf("a follower sends %.1f datagrams a second", busiest.sent)
	}
}

func TestWhatFollowersMustNotDo(t *testing.T) {
	good := func() *edgeReport { return &edgeReport{last: []time.Duration{30 * ms, 900 * ms}} }
	if err := good().verdict(time.Second); err != nil {
		t.Error(err)
	}
	for what, spoil := range map[string]func(*edgeReport){
		"late":          func(r *edgeReport) { r.shotLast = []time.Duration{2 * time.Second} },
		"failed":        func(r *edgeReport) { r.Failed = 1 },
		"address moved": func(r *edgeReport) { r.Moves = []lab.Move{{}} },
		"uses":          func(r *edgeReport) { r.split = []string{"edge1 uses a"} },
	} {
		r := good()
		spoil(r)
		if err := r.verdict(time.Second); err == nil {
			t.Errorf("%s: no complaint", what)
		} else if what == "uses" && !strings.Contains(err.Error(), "edge1") {
			t.Error(err)
		}
	}
}
