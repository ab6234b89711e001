// Package haproxy keeps one running HAProxy as it is wanted, and says what it
// sees there. It knows HAProxy and nothing of clusters.
//
// An Instance is told what is wanted (Set) and tells what is (Observed). It is
// level-triggered: whatever a reload, a restart, a stale file or a person did,
// the next look finds the difference and puts it right, except for what a
// person holds (see below).
//
// # The parts
//
//   - conversation: one connection in prompt mode. Nothing is written before
//     the prompt has answered, since what is written to a frozen HAProxy stays
//     in the kernel and runs later, in any order.
//   - watch: alive or not, and which process. The end of an idle connection
//     tells a death within milliseconds, an unanswered question a hang, another
//     Pid or start time a reload.
//   - observe and reconcile: read the table of servers, compare (Diff, pure),
//     send, read back. Success is what is read back, never what was sent.
//   - keeper: HAProxy's server-state file, so that a reload or a cold start
//     does not begin with every server ready.
//
// # Persons come first
//
// `set server … state` is one register and the last writer wins, so tandem
// writes only the drain bit, and only where no person is before it:
//
//   - A server in maintenance of any kind is never written to.
//   - A server is made ready only when the journal says that it was tandem
//     that drained it. A drain that tandem did not make stays.
//   - A server whose agent-check could overrule us is never written to.
//   - Weights are never written.
//
// docs/haproxy-operators.md has the whole table.
//
// # What is never sent
//
// `set maxconn frontend`: HAProxy 2.6.12 deadlocks in it and its watchdog kills
// the process. `set server … state maint`: checks stop, and the ready that
// follows is blind.
package haproxy
