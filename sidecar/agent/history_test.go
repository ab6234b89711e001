package agent

import (
	"strconv"
	"testing"
	"time"

	"tandem/sidecar/status"
)

// Whoever watches again gets the events behind the last one that it knows, once
// each, and of another process's all that are kept.
func TestWatchGoesOnBehindAnEvent(t *testing.T) {
	h := newHistory("lb1", nil)
	began := time.Now()
	add := func(n int) {
		// Each is told to be earlier than the one before: clocks differ.
		h.add(status.Event{Transition: status.Transition{At: began.Add(-time.Duration(n) * time.Second), Reason: strconv.Itoa(n)}}, false)
	}
	read := func(after string, want int) (last string, reasons []string) {
		events := h.watch(t.Context(), after)
		for range want {
			select {
			case e := <-events:
				last, reasons = e.ID, append(reasons, e.Reason)
			default:
				t.Fatalf("after %q came %q, want %d", after, reasons, want)
			}
		}
		select {
		case e := <-events:
			t.Fatalf("after %q came %q and %v", after, reasons, e)
		default:
		}
		return last, reasons
	}
	for n := range 3 {
		add(n)
	}
	read("", 0)
	last, _ := read("another-7", 3)
	add(3)
	add(4)
	if _, reasons := read(last, 2); reasons[0] != "3" || reasons[1] != "4" {
		t.Errorf("came: %q", reasons)
	}
	for n := range 2 * toldLength {
		add(5 + n)
	}
	if _, reasons := read(last, toldLength); reasons[toldLength-1] != strconv.Itoa(4+2*toldLength) {
		t.Errorf("the latest is %s", reasons[toldLength-1])
	}
}
