package haproxy

import (
	"context"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
)

func TestOneSickHAProxyHoldsUpNoOther(t *testing.T) {
	one, two := start(t, 2), start(t, 2)
	log := zaptest.NewLogger(t)
	f := NewFleet(Config{Name: "one", Socket: one.Socket, Log: log}, Config{Name: "two", Socket: two.Socket, Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	until := func(what string, ok func([]Observation) bool) {
		t.Helper()
		for end := time.After(patience); !ok(f.Observed()); {
			select {
			case <-f.Changed():
			case <-end:
				t.Fatalf("waited in vain for: %s\n%+v", what, f.Observed())
			}
		}
	}
	f.Set(toA)
	until("both", func(o []Observation) bool { return o[0].Applied == 1 && o[1].Applied == 1 })
	one.Signal(syscall.SIGSTOP)
	f.Set(toB)
	until("the other", func(o []Observation) bool { return !o[0].Alive && o[0].Reason == ReasonHung && o[1].Applied == 2 })
	if got := f.Applied(); got != 2 {
		t.Errorf("applied %d, of those alive", got)
	}
	one.Signal(syscall.SIGCONT)
	until("both again", func(o []Observation) bool { return o[0].Applied == 2 && o[1].Applied == 2 })
}
