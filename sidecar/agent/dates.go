package agent

import (
	"strconv"
	"time"

	"tandem/sidecar/site"
)

// A decision is dated by the wall clock of the node that made it, for people to
// read. The clocks of two nodes need not agree, and one may be set while a node
// runs, so nothing is decided by them: a node that was there when something came
// about reckons from then by CLOCK_BOOTTIME.

// clocksAgree is how far the date in a decision may be from this node's own
// reckoning to be shown as it is.
const clocksAgree = 2 * time.Second

// dates is when the parts of the site decision came about, as this node reckons.
type dates struct {
	known  bool          // a decision has been learnt
	heard  time.Duration // when somebody was last known to decide
	groups map[string]moment
	phases map[string]moment // the present phase of each group, or its end
	pause  moment
}

// moment is when something came about.
type moment struct {
	what  string        // tells it from what was before
	dated int64         // by the clock of who decided it, unix ms
	at    time.Duration // on the clock of this node; before the start if need be
}

// learn notes when what is new in a decision came about. That is since somebody
// was last known to decide: at once on a node that heard it all the time. One
// that has just started has nothing but the wall clocks.
func (d *dates) learn(now time.Duration, wall time.Time, dec site.Decision) {
	if d.groups == nil {
		d.groups = map[string]moment{}
	}
	if d.phases == nil {
		d.phases = map[string]moment{}
	}
	for _, g := range dec.Groups {
		d.groups[g.In()] = d.follow(d.groups[g.In()], moment{g.Active, g.SinceUnixMS, now}, wall)
		d.phases[g.In()] = d.follow(d.phases[g.In()], moment{strconv.FormatUint(g.Epoch, 10), 0, now}, wall)
	}
	d.pause = d.follow(d.pause, moment{"pause", dec.PausedUntilMS - dec.PausedForMS, now}, wall)
	d.known = true
}

// follow keeps the old moment unless the new one is another.
func (d *dates) follow(old, now moment, wall time.Time) moment {
	if d.known && old.what == now.what && old.dated == now.dated {
		return old
	}
	var age time.Duration
	if now.dated > 0 {
		age = max(wall.Sub(time.UnixMilli(now.dated)), 0)
	}
	if d.known {
		age = min(age, now.at-d.heard)
	}
	now.at -= age
	return now
}

// ages are how long ago the groups came into the phases that they are in.
func (d *dates) ages(now time.Duration) map[string]time.Duration {
	all := map[string]time.Duration{}
	for g, m := range d.phases {
		all[g] = now - m.at
	}
	return all
}

// pauseLeft is how long a pause that has an end goes on.
func (d *dates) pauseLeft(now time.Duration, dec site.Decision) time.Duration {
	if until, _ := dec.Paused(); until == 0 {
		return 0
	}
	return max(d.pause.at+time.Duration(dec.PausedForMS)*time.Millisecond-now, 0)
}

// paused says whether an operator has stopped automatic decisions.
func (a *Agent) paused() bool {
	until, yes := a.decision.Paused()
	return yes && (until == 0 || a.dates.pauseLeft(a.deps.Now(), a.decision) > 0)
}

// date is what a person is shown of something that a decision dates: that date,
// or, where the clocks disagree about it, by this node's clock.
func (a *Agent) date(dated int64, at time.Duration) time.Time {
	date, reckoned := time.UnixMilli(dated), a.deps.Wall().Add(at-a.deps.Now())
	if dated > 0 && date.Sub(reckoned).Abs() > clocksAgree {
		date = reckoned.Truncate(time.Second)
	}
	return date.UTC()
}
