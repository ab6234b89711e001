package agent

import (
	"math"
	"slices"
	"time"

	"tandem/haproxy"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// applySite tells HAProxy what it must do. It is idempotent: the same again
// costs nothing.
func (a *Agent) applySite(now time.Duration) {
	if a.cfg.Sites == nil || a.deps.LB == nil || a.cfg.Role != RoleLB {
		return
	}
	quorate := a.quorate(now)
	if a.decided.Value.Epoch == 0 && quorate {
		return // nothing has been decided: HAProxy stays as it is
	}
	rules := site.Rules(*a.cfg.Sites, a.decision, quorate)
	if quorate == a.applied.quorate && a.decided.Value.Epoch == a.applied.epoch && a.applied.set {
		if o := a.deps.LB.Observed(); o.Alive && o.Applied == a.applied.epoch {
			a.obeyed = rules
		}
		return
	}
	d := haproxy.Desired{
		Epoch: a.decided.Value.Epoch, Map: a.decision.Map(), DrainFirst: a.cfg.Sites.Order == site.Exclusive,
	}
	for _, r := range rules {
		want := haproxy.Ready
		if r.Want == site.Drain {
			want = haproxy.Drain
		}
		d.Rules = append(d.Rules, haproxy.Rule{Pattern: r.Pattern, Want: want, Close: r.Close})
	}
	if a.applied.set && quorate != a.applied.quorate {
		reason := "quorum-back"
		if !quorate {
			reason = "quorum-lost"
		}
		a.note(status.Transition{Resource: ResourceSite, Event: "routing", Reason: reason, Epoch: d.Epoch})
	}
	a.applied.set, a.applied.quorate, a.applied.epoch = true, quorate, d.Epoch
	a.deps.LB.Set(d)
}

// appliedState is what HAProxy was last told.
type appliedState struct {
	set     bool
	quorate bool
	epoch   uint64
}

// QuorumGrace is how long a node in exclusive order goes on routing when it
// knows of no live holder of the site lease: time for another to take it up.
const QuorumGrace = time.Second

// quorate says whether this node knows of a live holder of the site lease. In
// exclusive order a node that does not must stop routing: by now another site
// may be active.
func (a *Agent) quorate(now time.Duration) bool {
	if a.cfg.Sites.Order != site.Exclusive {
		return true
	}
	until, sure := time.Duration(0), time.Duration(math.MaxInt64)
	for _, s := range a.lease.Status(now) {
		if s.Resource != ResourceSite {
			continue
		}
		// What this node's own voter voted for outlasts the lease, and says nothing.
		expires := s.Told
		if s.Self {
			expires = s.Deadline
		} else if p := a.peers[s.Holder]; p != nil && p.answering > 0 {
			sure = p.answering + freshOrder // what it told may have been waiting to be read
		}
		if expires > now {
			a.siteHeardAt, until = now, expires
			a.wakeAt(expires)
		}
	}
	a.sure.Store(int64(min(sure, max(until, a.siteHeardAt)+QuorumGrace)))
	if a.siteHeardAt == 0 {
		return false
	}
	// A change of holder takes a moment in which nobody holds the lease; the
	// decider waits this much longer for a load balancer that it cannot hear.
	end := a.siteHeardAt + QuorumGrace
	if now < end {
		a.wakeAt(end)
		return true
	}
	return false
}

// Sure says whether this node would still route by the decision that it knows:
// always, but in exclusive order only while it hears a decider. Hooks are started
// only then. It may be called from any goroutine, and needs no answer of the
// agent: after a process stood still it says no until a decider is heard again.
func (a *Agent) Sure() bool { return a.deps.Now() < time.Duration(a.sure.Load()) }

// wakesOld says whether, in exclusive order, the HAProxy of a group does not
// answer, and would route as was decided earlier if it woke: where it hangs, a
// switch does not wait for it longer than for one that is cut off. It serves
// nobody meanwhile, so nothing is lost if the address is not here.
func (a *Agent) wakesOld(now time.Duration, g *group) bool {
	if a.cfg.Sites == nil || a.cfg.Sites.Order != site.Exclusive {
		return false
	}
	if _, sick := a.unserved()[g.name]; !sick {
		return false
	}
	return !slices.Equal(a.obeyed, site.Rules(*a.cfg.Sites, a.decision, a.quorate(now)))
}
