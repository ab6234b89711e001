package site

// Reason is the named cause of a decision, a refusal or a stay. The same word
// stands in the log, in the metric label, in the API and in the documentation.
type Reason string

// Why a switch began.
const (
	ReasonActiveUnusable Reason = "active-unusable" // no live load balancer sees the active site usable
	ReasonCommanded      Reason = "commanded"       // takeover by an operator
	ReasonForced         Reason = "forced"          // takeover --force
	ReasonRenounced      Reason = "renounced"       // renounce by an operator
	ReasonFailback       Reason = "failback"        // the preferred site has been usable for long enough
	ReasonNothingActive  Reason = "nothing-active"  // an earlier switch failed and left no site active
)

// Why the first decision of a group is what it is.
const (
	ReasonBootRunning Reason = "boot-as-running"   // every HAProxy already routed to this site alone
	ReasonBootUsable  Reason = "boot-first-usable" // the first site in order that is usable
	ReasonBootFirst   Reason = "boot-first"        // none is usable: the first in order
)

// Why a switch ended without its target becoming active.
const (
	ReasonPrecheckVeto   Reason = "precheck-veto"
	ReasonTakeoverFailed Reason = "takeover-failed"
	ReasonTargetLost     Reason = "target-lost" // the target ceased to be usable, or never became so
	ReasonCancelled      Reason = "cancelled"   // an operator took the old site back
)

// Why nothing is done although the active site is unusable (or a failback is
// due), and other things worth a word.
const (
	ReasonHealthy      Reason = "healthy"        // the active site is usable
	ReasonStandbyDown  Reason = "standby-down"   // the active site is usable and no other is
	ReasonPath         Reason = "path"           // some load balancers see the active site, others do not
	ReasonDownAfter    Reason = "down-after"     // unusable, but not for long enough
	ReasonPaused       Reason = "paused"         //
	ReasonAutoOff      Reason = "auto-off"       //
	ReasonAutoOneWay   Reason = "auto-direction" // the only usable site is not the one of to=
	ReasonFlapping     Reason = "flapping"       // too many automatic switches: waits for ack
	ReasonNoUsable     Reason = "no-usable-site" // nowhere to go: stay
	ReasonNoViews      Reason = "no-views"       // no live load balancer reports a fresh view
	ReasonViewsPending Reason = "views-pending"  // a live load balancer has not reported yet
	ReasonForceHeld    Reason = "force-held"     // taken over by force: left alone until seen usable
	ReasonHoldOff      Reason = "hold-off"       // the takeover failed a moment ago
	ReasonBooting      Reason = "booting"        // waits for the first views
)

// What a switch waits for in its phase.
const (
	ReasonWaitApply      Reason = "waiting-for-lb"     // a live load balancer has not applied the phase
	ReasonWaitIsolated   Reason = "waiting-isolated"   // an unreachable one has not reached its own deadline
	ReasonWaitHook       Reason = "waiting-for-hook"   //
	ReasonWaitTarget     Reason = "waiting-for-target" // takeover hooks are done, servers are not up yet
	ReasonWaitDrain      Reason = "waiting-for-drain"  // connections left are given TANDEM_DRAIN_TIMEOUT
	ReasonApplyTimeout   Reason = "apply-timeout"      // overlap goes on without a load balancer that does not apply
	ReasonIsolatedGone   Reason = "isolated-deadline"  // exclusive goes on without one that had to stop routing
	ReasonHookFailed     Reason = "hook-failed"        // a best-effort hook failed; the switch goes on
	ReasonHookNodeLost   Reason = "node-lost"          // HookDone.Err: the node that ran the hook is gone
	ReasonHookNoNode     Reason = "no-node"            // HookDone.Err: nobody stands in the site concerned
	ReasonHookStale      Reason = "stale-epoch"        // HookDone.Err: a later decision has overtaken the hook
	ReasonHookUnanswered Reason = "hook-unanswered"    // neither result nor loss was reported in time
)

// Why a command was refused, or how it ended.
const (
	ReasonDone             Reason = "done"
	ReasonBegun            Reason = "begun"
	ReasonAlreadyActive    Reason = "already-active"
	ReasonUnknownSite      Reason = "unknown-site"
	ReasonUnknownGroup     Reason = "unknown-group"
	ReasonUnknownCommand   Reason = "unknown-command"
	ReasonSiteMissing      Reason = "site-missing"
	ReasonTargetUnusable   Reason = "target-unusable"
	ReasonNotActive        Reason = "not-active"
	ReasonSwitchInProgress Reason = "switch-in-progress"
	ReasonNoDecision       Reason = "no-decision"
	ReasonNothingToAck     Reason = "nothing-to-ack"
	ReasonNotPaused        Reason = "not-paused"
	ReasonPause            Reason = "pause"
	ReasonResume           Reason = "resume"
	ReasonPauseOver        Reason = "pause-over"
	ReasonAck              Reason = "ack"
	ReasonSuperseded       Reason = "superseded"
	ReasonNotified         Reason = "notified"
	ReasonSeenUsable       Reason = "seen-usable" // a site taken over by force is usable now
)

// Why a site is not usable in a view.
const (
	ReasonNoServers       Reason = "no-servers"       // no server of the group matches the site
	ReasonCriticalDown    Reason = "critical-down"    // a critical backend has fewer servers up than needed
	ReasonCriticalMissing Reason = "critical-missing" // a critical backend has no server at this site
)

// commanded says whether a person chose the active site; such a choice is not
// undone by a failback.
func (r Reason) commanded() bool {
	return r == ReasonCommanded || r == ReasonForced || r == ReasonRenounced || r == ReasonCancelled
}

// planned says whether a switch was wanted rather than suffered.
func (r Reason) planned() bool { return r.commanded() || r == ReasonFailback }

func (r Reason) boot() bool {
	return r == ReasonBootRunning || r == ReasonBootUsable || r == ReasonBootFirst
}

func (r Reason) failure() bool {
	return r == ReasonPrecheckVeto || r == ReasonTakeoverFailed || r == ReasonTargetLost || r == ReasonCancelled
}
