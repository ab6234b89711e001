package main

import (
	"net"
	"testing"
	"time"

	"tandem/examples/lab"
)

// TestMovesUnderAMixedLoad is `pair moves`, smaller, in both families at once: no
// new connection fails, none breaks within the grace, and those that are left
// then are reset.
func TestMovesUnderAMixedLoad(t *testing.T) {
	long(t)
	four := net.JoinHostPort(lab.VIP().String(), "80")
	mix := mixture{
		fresh: 10 * ms, grace: 2 * time.Second, moves: 7, ipv6: true,
		loads: []lab.Load{
			{Kind: kindBusy, Count: 10, Pace: 100 * ms, Path: "/"},
			{Kind: "keep-alive over IPv4", Count: 10, Pace: 100 * ms, Path: "/", To: four},
			{Kind: kindSlow, Count: 5, Pace: 100 * ms, Path: "/endless", Piece: 1 << 13},
			{Kind: kindIdle, Count: 5, Pace: time.Second, Path: "/", To: four},
		},
	}
	r, err := playMoves(t.Context(), t.Output(), tandem(t), mix)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	if r.stalled() {
		t.Skip("NOT TESTED: this machine stood still for longer than a move may take")
	}
	if err = r.verdict(); err != nil {
		t.Error(err)
	}
	if r.LBs["lb1"] == 0 || r.LBs["lb2"] == 0 {
		t.Errorf("new connections were served by %v, want both", r.LBs)
	}
	for _, load := range mix.loads {
		k := r.kinds[load.Kind]
		if k.requests < 5*load.Count {
			t.Errorf("%s: %d requests only", load.Kind, k.requests)
		}
		if k.reset < load.Count {
			t.Errorf("%s: %d of %d connections were reset after the last grace", load.Kind, k.reset, load.Count)
		}
	}
}

func TestWhatTheGraceExcuses(t *testing.T) {
	r := moveReport{mixture: mixture{grace: 5 * time.Second}, moves: []handOver{
		{at: 10 * time.Second, from: "lb1"}, {at: 20 * time.Second, from: "lb2"}, {at: 30 * time.Second, from: "lb1"},
	}}
	for _, c := range []struct {
		lb   string
		at   time.Duration
		want bool
	}{
		{"lb1", 9 * time.Second, false},  // before it moved
		{"lb1", 12 * time.Second, false}, // within the grace
		{"lb1", 15 * time.Second, true},
		{"lb2", 15 * time.Second, false}, // which holds
		{"lb1", 26 * time.Second, false}, // it holds again
		{"lb2", 26 * time.Second, true},
		{"lb1", 32 * time.Second, false},
		{"lb1", 36 * time.Second, true},
	} {
		if got := r.graceEnded(lab.Request{LB: c.lb, Start: c.at}); got != c.want {
			t.Errorf("%s at %v: %v, want %v", c.lb, c.at, got, c.want)
		}
	}
	k := keptReport{errors: map[string]int{}}
	k.count(lab.Request{Status: 200}, false)
	k.count(lab.Request{Status: 200, Err: "reset"}, true)
	k.count(lab.Request{Status: 200, Err: "reset"}, false)
	k.count(lab.Request{Status: 200, Err: "timeout"}, true) // a grace excuses no silence
	k.count(lab.Request{Err: "reset", First: true}, true)
	k.count(lab.Request{Status: 503}, false)
	if k.requests != 6 || k.reset != 1 || k.broken != 1 || k.hanging != 1 || k.refused != 2 {
		t.Errorf("%+v", k)
	}
	r.kinds = map[string]*keptReport{"x": {reset: 1}}
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	r.kinds["x"] = &k
	if r.verdict() == nil {
		t.Error("no complaint")
	}
}
