// Package site decides which site is active, group by group, and leads a
// switch through its phases.
//
// It is pure: time, views, results and commands come in through [Decider.Step],
// and what shall be done comes out as a value. Nothing in it reads a clock,
// logs, or starts a goroutine, and the same inputs give the same outputs.
//
// # What it is made of
//
//   - [NewView] turns the servers of one HAProxy into what it sees of each site.
//   - [Decision] is the value of the `site` lease; [Encode] and [Decode] bring
//     it into at most [MaxSize] bytes and back.
//   - [Rules] says what every HAProxy must do under a decision.
//   - [Decider] lives on the holder of the site lease.
//
// # The caller's duties
//
// On every load balancer:
//
//  1. Act only on decided decisions: on each one, give Rules (and
//     [Decision.Map]) with its epoch to HAProxy, and report the epoch that was
//     read back to be obeyed as AppliedEpoch, at once and not at the next
//     interval.
//  2. Report the view on change and every second.
//  3. quorate for Rules is true as long as word from the holder of the site
//     lease came within the lease's length, by this node's own clock. A node
//     that just started is given the same length before it is not quorate.
//     Config.IsolatedAfter must be longer than that length, stretched for
//     clock rates, plus the time in which HAProxy drains. Where the caller knows
//     that no more was told to a node that is silent, NodeWorld.Lingers says so.
//  4. Do not carry a virtual IP before the present decision is applied; that
//     holds for a HAProxy that hung and woke, too.
//
// On the holder of the site lease:
//
//  1. On take-up: World (if one is known), then Adopt with the adopted value.
//     A new Decider, or the same one as before: Adopt forgets what was.
//  2. On every change and at least every second: World, complete. Alive means
//     heard within about one lease, by whatever way; not membership, which
//     takes seconds to see a death. A load balancer once named stays named,
//     with Alive false, until it has left for good.
//  3. Output.Propose goes to the lease; what a quorum accepted comes back as
//     Decided with the epoch. Only one proposal is under way at a time; if
//     none comes back within a second the same one is proposed again.
//  4. Output.Hooks go to a live node of HookRun.Site (to any, if TANDEM_SITE
//     is not used), to the one that has taken the same ID already if there is
//     one, and not before those of lower epochs of the group have ended;
//     exactly one HookDone comes back for each: the result, or
//     node-lost when that node died, or no-node when there is none. Retries of
//     a failing command are the runner's business, not this package's.
//  5. At Output.Wake at the latest: Tick.
//  6. On letting go: drop the Decider, or ignore it until the next Adopt.
//
// # Invariants
//
//   - No switch begins, unless by force, to a site that no live load balancer
//     sees usable. With Config.Cold it may begin, since the takeover hooks
//     start the site; but its servers are not made ready before a load balancer
//     sees it usable.
//   - No automatic switch begins while a live load balancer sees the active
//     site usable, save failback.
//   - There is at most one active site in a decision, and in exclusive none
//     between two. The phase that drains is left when every live load balancer
//     has applied it and every unreachable one has had IsolatedAfter, or what
//     NodeWorld.Lingers says if that is less, counted from the phase and from
//     when it was last heard. Hence no mix of decisions
//     that load balancers may be at routes to two sites.
//   - At most FlapMax automatic switches of a group begin within FlapWindow.
//   - A completed phase is not repeated. A hook whose completion is recorded
//     (the decision is in a later phase) never runs again. One whose decider
//     died before that is asked for again under the same ID: at least once on
//     a decider's crash, exactly once otherwise. Its epoch fences it.
//   - Hooks are about sites: a switch of an independent backend runs none, since
//     a broker that fails over must not start the other site's applications.
//   - Connections are closed on drained sites only, never on one that serves or
//     that a switch goes to; on the one left, after Config.DrainTimeout or when
//     nobody sees it usable, and from then on until it serves again.
//   - Every decision, every stay and every refusal carries a [Reason].
package site
