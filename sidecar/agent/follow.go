package agent

import (
	"slices"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/site"
)

const (
	// How long an address must have been elsewhere, and everything at rest, before
	// the site lease follows it.
	followAfter = 2 * time.Second
	// How often that time is doubled for a node that did not take the lease up.
	followDoubled = 7
)

// following is how the site lease follows an address to another node.
type following struct {
	since time.Duration // since when it could; 0: it could not
	to    string        // to whom
	vain  uint          // how often it was handed to that one, since another decided
}

// begin says that this node decides, and who did before; "": nobody else since it
// last did itself.
func (f *following) begin(before string) {
	if f.since = 0; before != "" {
		f.vain = 0
	}
}

// followAddress hands the site lease over to a load balancer that carries an
// address, if this one carries none. Who is served must hear who decides: where
// the link between the two is cut and both still reach the third voter, the
// carrier keeps its address, but in exclusive order it would have to stop routing.
func (a *Agent) followAddress(now time.Duration) {
	f, next := &a.following, a.carrier(now)
	if next == "" || !a.atRest() {
		f.since = 0
		return
	}
	if next != f.to {
		f.to, f.since, f.vain = next, 0, 0
	}
	if f.since == 0 {
		f.since = now
	}
	if due := f.since + followAfter<<min(f.vain, followDoubled); now < due {
		a.wakeAt(due)
		return
	}
	f.since = 0
	f.vain++
	a.stepLease(lease.Release{Resource: ResourceSite, Successor: next, Reason: moveFollow})
}

// carrier is the load balancer that holds the first group which is held, if this
// node holds none; else "". One that tells no view is not told of the sites.
func (a *Agent) carrier(now time.Duration) string {
	if a.holdsAny() {
		return ""
	}
	for _, g := range a.cfg.Groups {
		if h := a.holder(a.groups[g].resource); h != "" && a.fit(h, nil, now) && a.peers[h].report.View != nil {
			return h
		}
	}
	return ""
}

// atRest says whether the decider has nothing under way that another would have
// to begin anew: a decision, a switch, a hook, a command, the time until a switch.
func (a *Agent) atRest() bool {
	calm := []site.Reason{site.ReasonHealthy, site.ReasonStandbyDown, site.ReasonPath}
	for _, g := range a.decider.Status() {
		if g.Decision.Switching() || g.Returning || !slices.Contains(calm, g.Stay) {
			return false
		}
	}
	return !a.lease.Undecided(ResourceSite) && len(a.orders) == 0 && len(a.pending) == 0 && !a.paused()
}
