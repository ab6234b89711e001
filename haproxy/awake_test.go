package haproxy

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

// TestHAProxyIsAskedWhenTheProcessIsAwake: who says every 60 ms that it is awake has
// the question asked then, the table with it; who says so all the time has it asked
// no more often than twenty times a second.
func TestHAProxyIsAskedWhenTheProcessIsAwake(t *testing.T) {
	fake := haproxytest.StartFake(t, "app/a-1", "app/b-1")
	relay := haproxytest.StartRelay(t, fake.Socket)
	var asked, tables atomic.Int64
	relay.Before(func(piece string) {
		if strings.Contains(piece, "show info") {
			asked.Add(1)
		}
		if strings.Contains(piece, "show servers state") {
			tables.Add(1)
		}
	})
	r := run(t, Config{Socket: relay.Socket})
	r.until("alive", alive)
	time.Sleep(300 * time.Millisecond)

	round := func() (atOnce, calls int) {
		for calls = range 30 {
			before := asked.Load()
			r.Awake()
			time.Sleep(20 * time.Millisecond)
			if asked.Load() > before {
				atOnce++
			}
			time.Sleep(40 * time.Millisecond)
		}
		return atOnce, calls + 1
	}
	asked.Store(0)
	tables.Store(0)
	for tries := 1; ; tries++ { // a starved machine asks late
		atOnce, calls := round()
		if atOnce >= calls*6/10 { // by the clock alone it would be a quarter
			break
		}
		if tries == 4 {
			t.Fatalf("of %d times %d were used to ask", calls, atOnce)
		}
	}
	if n, of := tables.Load(), asked.Load(); n < of*7/10 {
		t.Errorf("of %d questions %d were for the table too", of, n)
	}

	asked.Store(0)
	began := time.Now()
	for time.Since(began) < time.Second {
		r.Awake()
		time.Sleep(2 * time.Millisecond)
	}
	if n, most := asked.Load(), int64(time.Since(began)/(50*time.Millisecond))+5; n > most {
		t.Errorf("asked %d times in %v, want at most %d", n, time.Since(began), most)
	}
}
