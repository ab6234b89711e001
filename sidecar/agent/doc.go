// Package agent owns what a sidecar decides with: one goroutine drives the
// pure machines (the lease, the site decision), obeys them, and tells what is
// so.
//
// Data goes one way round. Datagrams, HAProxy's state, the kernel's events and
// the operator's commands come in through channels; the loop feeds them to the
// machines; what the machines say goes out to the addresses, to HAProxy, to the
// network and to the hooks. Nothing else touches the machines, so there is no
// lock in this package but the one around the history that readers share.
//
// The order on every output of the lease machine is fixed: let go, then write
// to disk, then send, then take up. An address is let go before anybody can
// learn that it is free, and taken up only when the votes are counted.
//
// The loop never waits: hooks run elsewhere, HAProxy is written to elsewhere,
// and sending is a datagram. What it does itself is a handful of netlink calls.
package agent
