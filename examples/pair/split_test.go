package main

import (
	"context"
	"slices"
	"testing"
	"time"

	"tandem/examples/lab"
)

// neverSplit watches both HAProxys until the returned function is called,
// which reports an error if at any moment one load balancer used one site only
// and the other the other one only.
func neverSplit(t *testing.T, l *lab.Lab) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	looks := 0
	go func() {
		defer close(done)
		for pause(ctx, 10*time.Millisecond) == nil {
			// lb1 twice, with lb2 in between: what has not changed was so all the time.
			before, other, after := uses(ctx, l, "lb1"), uses(ctx, l, "lb2"), uses(ctx, l, "lb1")
			if ctx.Err() != nil || len(before) == 0 || len(other) == 0 || !slices.Equal(before, after) {
				continue
			}
			looks++
			if len(before) == 1 && len(other) == 1 && before[0] != other[0] {
				t.Errorf("lb1 uses site %s and lb2 uses site %s", before[0], other[0])
				return
			}
		}
	}()
	return func() {
		t.Helper()
		cancel()
		<-done
		if looks < 20 {
			t.Errorf("only %d looks at both load balancers", looks)
		}
	}
}
