package agent

import (
	"slices"
	"time"

	"tandem/lib/lease"
)

// inTransit is how late a message may be: a load balancer counts what is left
// of a lease from when it hears of it.
const inTransit = 250 * time.Millisecond

// reach is how far ahead this node has told others, of late, that its site
// lease goes: the longest of the last one or two memories of a voter.
type reach struct {
	now, before time.Duration
	since       time.Duration
}

func (r *reach) note(now, d, memory time.Duration) {
	if now-r.since > memory {
		if r.before = r.now; now-r.since > 2*memory {
			r.before = 0
		}
		r.now, r.since = 0, now
	}
	r.now = max(r.now, d)
}

func (r *reach) longest() time.Duration { return max(r.now, r.before) }

// lingers is how long a load balancer that is not heard may route on after the
// decider's last word, in exclusive order; 0 if that is no less than
// site.Config.IsolatedAfter, which reckons with the longest lease that there may
// be. It goes by the end of the lease that it was told; so what counts is what
// its deciders really told, if this node knows that:
//
//   - Word of an earlier decider has ended with that one's lease, if it is the
//     silent node itself or this one. Of a third one, or of this one before it
//     was started again, nothing is known until the longest time is over.
//   - A sidecar that stands still tells its HAProxy nothing. The fence of its
//     addresses stops it, and has done so if somebody else holds them.
//   - In a pair two may hold a lease at once, so that nothing follows from that.
func (a *Agent) lingers(name string, now time.Duration) time.Duration {
	longest := a.cfg.Sites.IsolatedAfter + inTransit
	if a.cfg.Mode != lease.ModeQuorum || now < a.started+longest || a.telling.longest() == 0 {
		return 0
	}
	if now < a.decidingSince+longest && a.thirdDecider(name) || !a.fenced(name, now) {
		return 0
	}
	return longest - lease.Remember(a.cfg.MaxLease) + lease.Remember(a.telling.longest())
}

// thirdDecider says whether any other voter than this node and the one named
// may have held the site lease before.
func (a *Agent) thirdDecider(name string) bool {
	return slices.ContainsFunc(a.cfg.Voters, func(v string) bool {
		p := a.peers[v]
		return v != a.cfg.Node && v != name && (p == nil || p.report == nil || p.report.Role == RoleLB)
	})
}

// fenced says whether a node has none of the addresses, since another one holds
// each by its own word.
func (a *Agent) fenced(name string, now time.Duration) bool {
	others := 0
	for _, s := range a.lease.Status(now) {
		if a.groupOf(s.Resource) != nil && (s.Self || s.Told > now && s.Holder != name) {
			others++
		}
	}
	return others == len(a.groups)
}

// silent is how long nothing has come from a node; 0 if nothing ever did.
func (a *Agent) silent(name string, now time.Duration) time.Duration {
	p := a.peers[name]
	if p == nil || p.arrived == 0 {
		return 0
	}
	d := now - p.arrived
	if ago, ok := a.lease.PeerHeard(now, name); ok {
		d = min(d, ago)
	}
	return d
}
