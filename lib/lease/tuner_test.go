package lease

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// quietMinutes lets a tuner see n minutes of renewals answered after 2 ms.
func quietMinutes(tu *Tuner, from time.Duration, n int) time.Duration {
	end := from + time.Duration(n)*time.Minute
	for ; from < end; from += 60 * ms {
		tu.Answered(from, 2*ms)
	}
	return end
}

func TestTunerAsksForTheFirstLengthUntilItHasSeenAMinute(t *testing.T) {
	tu := NewTuner(300*ms, 2*time.Second, 0)
	if got := tu.Length(30*time.Second, 0); got != tunerFirst {
		t.Errorf("after 30 s: %v, want %v", got, tunerFirst)
	}
}

func TestTunerComesDownOnAQuietMachine(t *testing.T) {
	tu := NewTuner(300*ms, 2*time.Second, 0)
	if got := tu.Length(quietMinutes(tu, 0, 2), 0); got != 300*ms {
		t.Errorf("got %v, want the shortest: 5 × (50 + 2) ms is less", got)
	}
}

func TestTunerLengthensBeforeTheLeaseIsLost(t *testing.T) {
	tu := NewTuner(300*ms, 2*time.Second, 0)
	now := quietMinutes(tu, 0, 2)
	if got := tu.Length(now, 50*ms); got != 500*ms {
		t.Errorf("50 ms without an answer: %v, want 500ms", got)
	}
	tu.Late(now, 150*ms)
	if got := tu.Length(now, 0); got != time.Second {
		t.Errorf("late by 150 ms: %v, want 1s", got)
	}
	tu.Answered(now, 10*time.Second)
	if got := tu.Length(now, 0); got != 2*time.Second {
		t.Errorf("a gap of 10 s: %v, want the longest, 2s", got)
	}
}

func TestTunerForgetsAGapAfterAMinute(t *testing.T) {
	tu := NewTuner(300*ms, 2*time.Second, 0)
	now := quietMinutes(tu, 0, 2)
	tu.Answered(now, 200*ms)
	if got := tu.Length(now+58*time.Second, 0); got != 1250*ms {
		t.Errorf("after 58 s: %v, want 1.25s", got)
	}
	if got := tu.Length(quietMinutes(tu, now+ms, 1)+time.Second, 0); got != 300*ms {
		t.Errorf("after a quiet minute: %v, want 300ms", got)
	}
}

// TestAFixedLeaseStaysFixed: it is a tuner without room.
func TestAFixedLeaseStaysFixed(t *testing.T) {
	tu := NewTuner(300*ms, 300*ms, 0)
	tu.Late(time.Second, time.Minute)
	if got := tu.Length(time.Second, time.Minute); got != 300*ms {
		t.Errorf("got %v, want 300ms", got)
	}
}
