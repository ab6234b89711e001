// Package lab is a laboratory for fail-over: a small network of Linux
// namespaces in which two load balancers with real HAProxys, a witness, two
// sites, a client and a referee run on one machine, and in which things break
// on command.
//
//	client ──┐                       ┌── lb1      HAProxy + what fails it over
//	referee ─┤  bridge, in a         ├── lb2      HAProxy + what fails it over
//	         └─ namespace of its own ┼── witness  votes
//	                                 ├── a        two servers of each backend
//	                                 └── b        two servers of each backend
//
// The client opens a new connection every 5 ms and notes what came of it. The
// referee notes every 10 ms which namespace carries the virtual IP, and asks
// the wire for it and notes every machine that answers: having an address and
// answering for it are two things once a gate stands before it.
//
// What fails the pair over is a [System]: tandem, or keepalived in one of
// three configurations, so that both are measured by the same client under the
// same faults.
//
// A program that uses the lab calls [Child] first thing in main or TestMain,
// since the client, the servers and the busy loops are the program itself,
// started again inside a namespace; and [Prepare] before [New] when it may be
// run without root.
//
// All times are readings of CLOCK_MONOTONIC, see [Now], so that those of
// different processes compare.
package lab
