package vip

import "time"

// Fence is what ends an address without this process.
type Fence string

// The fences, best first.
const (
	// FenceGate: nftables, to the millisecond.
	FenceGate Fence = "gate"
	// FenceLifetime: the kernel's address lifetime, to the second.
	FenceLifetime Fence = "lifetime"
	// FenceNone: nothing is fenced (no addresses, or we only observe).
	FenceNone Fence = "none"
)

// How much later than the lifetime it was given the kernel removes an address,
// and the shortest lease that leaves room for one second of it. The kernel looks
// at all lifetimes of a family when an address of it comes or is extended, and
// then not again for a second: Linux 6.18 removes an IPv4 address by 0.34 s after
// its lifetime if no other comes meanwhile, otherwise up to 1 s after it, an IPv6
// address up to 1.5 s. What comes to the machine of a dead or frozen holder is not
// ours to say, so the longer time counts. The rest of a shortest lease is for the
// time that an acknowledgement takes.
const (
	overrun4  = 1040 * time.Millisecond
	overrun6  = 1500 * time.Millisecond
	minLease4 = 2200 * time.Millisecond
	minLease6 = 2600 * time.Millisecond
	// The constant extendEvery bounds how often a lifetime is extended. With the gate a
	// lifetime has a second to spare, so that this is safe.
	extendEvery = 350 * time.Millisecond
	// The constant lastsOn is how much of a lifetime must be left to do without an
	// extension: that of two renewals and a slow third.
	lastsOn = 600 * time.Millisecond
)

// outlasts says whether an address without the gate, given another second, could
// be there after the deadline, as after a renewal that was acknowledged late. The
// lifetime that it has ends before that; while it lasts on, it is left as it is.
func outlasts(six bool, lives, deadline, now time.Duration) bool {
	left := lives - now
	return now+time.Second+overrun(six) > deadline && left > lastsOn && left <= time.Second
}

func overrun(six bool) time.Duration {
	if six {
		return overrun6
	}
	return overrun4
}

// lifetime is the number of seconds to give an address that may be answered for
// for the time left. With the gate it is a backstop, longer than the deadline,
// so that it never ends an address that is held. Without the gate it is the
// fence: the longest that surely ends before the deadline, but at least the
// kernel's unit, one second; the caller chooses a lease with room for it
// ([Manager.MinLease]).
func lifetime(f Fence, six bool, left time.Duration) int {
	if f == FenceGate {
		return int((left+time.Second-1)/time.Second) + 1
	}
	return max(1, int((left-overrun(six))/time.Second))
}

// MinLease is the shortest lease under which the fence in force keeps the
// promise that nobody answers after the deadline.
func (m *Manager) MinLease() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.fence != FenceLifetime || !m.has(false):
		return 0
	case m.has(true):
		return minLease6
	}
	return minLease4
}
