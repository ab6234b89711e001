package lab

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Now reads CLOCK_MONOTONIC, which all processes of the machine share.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(fmt.Sprintf("read the monotonic clock: %v", err)) // cannot fail on Linux
	}
	return time.Duration(ts.Nano())
}

// Sleep waits for d or until ctx ends, and says how ctx ended.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waitFor calls ok every few milliseconds until it is true. What is missing
// is named in the error when limit passes.
func waitFor(ctx context.Context, limit time.Duration, missing string, ok func() bool) error {
	end := Now() + limit
	for !ok() {
		if Now() > end {
			return fmt.Errorf("after %v still no %s", limit.Round(time.Millisecond), missing)
		}
		if err := Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
