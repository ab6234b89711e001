// Package hook runs the operator's commands and delivers webhooks. Neither ever
// blocks the caller: what is asked for is queued, results come on a channel.
//
// A [Runner] runs the jobs of one lane one after the other, and lanes beside
// each other. A job is a list of commands, run in order by /bin/sh, each in a
// process group of its own with a deadline, after which the whole group is
// killed. A command that fails is repeated, with back-off, as often as its job
// allows; those before it are not.
//
// What a command leaves running when it has ended by itself goes on: a takeover
// script may start services. Their output is read and thrown away, so that they
// do not die of it.
//
// # Fencing
//
// Every job carries the epoch of the decision that it belongs to. A job with a
// lower epoch than one that its lane has seen is refused as stale; one with a
// higher epoch supersedes what is queued or running (which is killed), and so
// does [Runner.Fence], without a job: a decision that asks nothing of this node
// ends what an earlier one asked. A job
// with the ID of one that is queued or running is the same job: it runs once,
// and has one result. The ID of a job that succeeded gives the same result
// again. Where one node alone fills a lane, it is the order that counts: a job
// that says so takes the place of all before it.
//
// A process that stood still has heard of no decision meanwhile. Before each
// command of a guarded job [Config.Sure] is asked whether the decider is still
// heard; the command waits for a yes, or for its end.
//
// # Environment
//
// TANDEM_EVENT, TANDEM_SITE, TANDEM_FROM, TANDEM_TO, TANDEM_EPOCH,
// TANDEM_PLANNED and TANDEM_REASON tell a command what happens; TANDEM_NODE,
// TANDEM_GROUP, TANDEM_ADDRESSES, TANDEM_ACTOR and TANDEM_ATTEMPT are there too. Of the sidecar's
// own environment everything is passed on but the variables named TANDEM_…:
// some of them are secrets.
//
// # Webhooks
//
// A [Webhook] posts events as CloudEvents 1.0 in JSON, signed with HMAC-SHA256
// over the body, and repeats each until it is delivered, or until it has failed
// and a later event of the same resource waits.
package hook
