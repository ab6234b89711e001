package lease

import "time"

const (
	tunerWindow = 60 // seconds that a gap is remembered
	tunerFirst  = 500 * time.Millisecond
)

// Tuner chooses the lease length to ask for: five times the longest gap of the
// last minute, between Min and Max. A gap is how long a holder has gone without
// a quorum's answer, counted as if it renewed every 50 ms, which is the fastest
// rhythm: otherwise a long lease, being renewed more slowly, would keep itself
// long. So with answers that come within 10 ms it comes down to 300 ms, and
// 30 ms make 400.
//
// During its first minute it has not seen enough, and asks for 500 ms at least.
type Tuner struct {
	Min, Max time.Duration

	start   time.Duration
	buckets [tunerWindow]time.Duration // the longest gap of each second
	second  int64                      // of the newest bucket
}

// NewTuner returns a tuner that begins to measure at now.
func NewTuner(shortest, longest, now time.Duration) *Tuner {
	return &Tuner{Min: shortest, Max: longest, start: now, second: int64(now / time.Second)}
}

// Answered notes that at now a quorum has answered a renewal that was due so
// long before.
func (t *Tuner) Answered(now, due time.Duration) { t.add(now, minRenewal+due) }

// Late notes that this node ran late by so much: it would have been late with
// a renewal too.
func (t *Tuner) Late(now, by time.Duration) { t.add(now, minRenewal+by) }

func (t *Tuner) add(now, gap time.Duration) {
	t.advance(now)
	b := &t.buckets[t.second%tunerWindow]
	*b = max(*b, gap)
}

func (t *Tuner) advance(now time.Duration) {
	second := int64(now / time.Second)
	for i := 0; t.second < second && i < tunerWindow; i++ {
		t.second++
		t.buckets[t.second%tunerWindow] = 0
	}
	t.second = max(t.second, second)
}

// Length is the lease to ask for at now, when an answer is due since open.
func (t *Tuner) Length(now, open time.Duration) time.Duration {
	t.advance(now)
	longest := minRenewal + max(0, open)
	for _, b := range t.buckets {
		longest = max(longest, b)
	}
	length := 5 * longest
	if now-t.start < tunerWindow*time.Second {
		length = max(length, tunerFirst)
	}
	return min(max(length, t.Min), t.Max)
}
