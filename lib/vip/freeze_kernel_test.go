package vip

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// freeze is one round: held from, stopped at, woken at, until somebody holds again.
type freeze struct{ held, stopped, woken, next time.Duration }

// A holder that is stopped at any instant says nothing from its deadline on, also
// when it wakes and nobody renews: it looks at the clock before anything else.
func TestHolderFrozenAtAnyInstantIsSilentUntilItHoldsAgain(t *testing.T) {
	t.Parallel()
	const (
		lease  = 300 * time.Millisecond
		rounds = 50
		// Voters remember a lease 2 % longer (DESIGN §9), and the kernel's timeouts
		// count in jiffies.
		slack = lease / 50
	)
	l := newLab(t, "a", "c")
	l.server("a")
	a := l.sidecar("a", both, "STRICT=1")
	traces := map[string]*proc{
		"IPv4": l.client("c", "trace", vip4+":80", "1ms"),
		"IPv6": l.client("c", "trace", "["+vip6+"]:80", "1ms"),
	}
	var list []freeze
	for range rounds {
		f := freeze{held: bootTime()}
		if len(list) > 0 {
			list[len(list)-1].next = f.held
		}
		a.ask("hold web %s", lease)
		time.Sleep(80*time.Millisecond + rand.N(50*time.Millisecond)) // renewed every 50 ms
		f.stopped = a.signal(unix.SIGSTOP)
		time.Sleep(lease + 200*time.Millisecond)
		f.woken = bootTime()
		a.signal(unix.SIGCONT)
		time.Sleep(30 * time.Millisecond)
		list = append(list, f)
	}
	list[rounds-1].next = bootTime()
	for family, p := range traces {
		r := p.finish()
		served, late := 0, 0
		for _, f := range list {
			before, frozen, after := 0, 0, 0
			for _, at := range r.AnsweredAt {
				switch {
				case at > f.held && at <= f.stopped+lease+slack:
					before++
				case at > f.stopped+lease+slack && at < f.woken:
					frozen++
				case at >= f.woken && at < f.next:
					after++
				}
			}
			if before > 0 {
				served++
			}
			if after > 0 {
				late++
			}
			if frozen > 0 || after > lateMost {
				t.Errorf("%s: stopped at %s: %d answers after the deadline, %d after it woke", family, f.stopped, frozen, after)
			}
		}
		t.Logf("%s: %d answers, served in %d of %d rounds, answered after waking in %d", family, r.Answered, served, rounds, late)
		if served < rounds*4/5 {
			t.Errorf("%s: served in %d of %d rounds only", family, served, rounds)
		}
		if late > 2 {
			t.Errorf("%s: answered after waking in %d of %d rounds", family, late, rounds)
		}
	}
}

// Who is stopped between the reading of the clock and the transaction carries out
// one that is late. The repetition in nft.inTime, the look at the clock after it
// in Set, and the first step of the guard each take it back at once: a packet or
// none, in one of some hundred freezes.
const lateMost = 20

// The worst instant: the deadline is written as the time left, which was read
// before the freeze and is carried out after it.
func TestHolderFrozenBeforeATransactionTakesItBack(t *testing.T) {
	t.Parallel()
	const lease = 300 * time.Millisecond
	l := newLab(t, "a", "c")
	l.server("a")
	a := l.sidecar("a", both, "STRICT=1")
	traces := map[string]*proc{
		"IPv4": l.client("c", "trace", vip4+":80", "1ms"),
		"IPv6": l.client("c", "trace", "["+vip6+"]:80", "1ms"),
	}
	var woken []time.Duration
	for range 5 {
		a.ask("hold web %s", lease)
		time.Sleep(100 * time.Millisecond)
		a.ask("trap")
		l.eventually(time.Second, "stopped", a.stopped)
		time.Sleep(lease + 200*time.Millisecond)
		woken = append(woken, bootTime())
		a.signal(unix.SIGCONT)
		time.Sleep(lease + 100*time.Millisecond)
	}
	for family, p := range traces {
		r := p.finish()
		for i, w := range woken {
			n, last := 0, time.Duration(0)
			for _, at := range r.AnsweredAt {
				if at >= w && at < w+lease+100*time.Millisecond {
					n, last = n+1, at-w
				}
			}
			t.Logf("%s, freeze %d: %d answers after waking, the last after %s", family, i, n, last)
			if n > lateMost || last > lease/4 {
				t.Errorf("%s: %d answers after waking, the last after %s", family, n, last)
			}
		}
		if r.Answered < 100 {
			t.Errorf("%s: %d answers in all", family, r.Answered)
		}
	}
}
