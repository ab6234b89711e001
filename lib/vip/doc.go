// Package vip carries virtual IP addresses on this machine for as long as its
// caller holds a lease on them, and not an instant longer.
//
// It knows neither HAProxy nor how a lease is won. The caller says what should
// be true, group by group, with [Manager.Set]; the package makes it true in the
// kernel, keeps it true while [Manager.Run] runs, and says what is true now with
// [Manager.Status]. An address is taken up and let go in one place only (set.go).
//
// Three things end an address, each without the help of the others:
//
//   - the caller lets go (Set with [Away]), or the deadline it gave passes;
//   - the gate: nftables rules of our own that let traffic, ARP and neighbour
//     discovery for the address pass only while an element of a timeout set
//     lives. The kernel removes the element by itself, to the millisecond, also
//     when this process is frozen or dead;
//   - the kernel lifetime of the address (valid_lft), in whole seconds.
//
// The caller's duties, in order:
//
//  1. New, then Clean: what a predecessor left is removed before anything else.
//  2. Run, in a goroutine of the caller's.
//  3. Set(group, Holding) after each renewal of the lease, with its deadline on
//     CLOCK_BOOTTIME; Set(group, Away) when the lease is gone.
//  4. A planned move: see [Desired].
//  5. Drain Events. They are dropped when nobody reads them, never waited for.
package vip
