package site

import (
	"fmt"
	"slices"
)

// automatic considers a switch that nobody asked for: away from an active site
// that no live load balancer sees usable, or back to a preferred one. It says
// whether it began one, or changed the group otherwise.
func (d *Decider) automatic(i int, g *Group) bool {
	usable, of := d.seen(g.In(), g.Active)
	if usable == 0 {
		return d.leave(i, g, of)
	}
	if g.Forced && !g.Switching() {
		g.Forced = false
		return true
	}
	switch {
	case g.Switching():
	case usable < of:
		d.setStay(i, ReasonPath, fmt.Sprintf("%s is usable for %d of %d load balancers", g.Active, usable, of))
	case len(d.cfg.Sites) > 1 && len(d.candidates(i, g.Active)) == 0:
		d.setStay(i, ReasonStandbyDown, "no other site is usable")
	default:
		d.setStay(i, ReasonHealthy, "")
	}
	return d.failback(i, g)
}

// leave switches away from an active site that nobody sees usable, unless
// there is a reason to stay.
func (d *Decider) leave(i int, g *Group, views int) bool {
	target, r, text := d.refuge(i, g, views)
	if r != "" {
		d.setStay(i, r, text)
		return tripped(g, r)
	}
	r = ReasonActiveUnusable
	if g.Active == "" {
		r = ReasonNothingActive
	}
	d.begin(i, g, target, r, "")
	return true
}

// refuge names the site to go to, or the reason to stay.
func (d *Decider) refuge(i int, g *Group, views int) (string, Reason, string) {
	m := &d.mem[i]
	switch pending := d.pending(); {
	case len(pending) > 0:
		return "", ReasonViewsPending, list(pending)
	case views == 0:
		return "", ReasonNoViews, "no live load balancer reports a fresh view"
	case g.Forced:
		return "", ReasonForceHeld, g.Active + " was taken over by force and has not been seen usable since"
	}
	if r, text := d.barred(g); r != "" {
		return "", r, text
	}
	if due := m.downSince + d.cfg.DownAfter; g.Active != "" && (!m.down || d.now < due) {
		d.wakeAt(due)
		return "", ReasonDownAfter, g.Active
	}
	all := d.candidates(i, g.Active)
	if len(all) == 0 {
		return "", ReasonNoUsable, "no other site is usable either"
	}
	all = slices.DeleteFunc(all, func(s string) bool { return d.cfg.Auto.To != "" && s != d.cfg.Auto.To })
	if len(all) == 0 {
		return "", ReasonAutoOneWay, "automatic switching goes to " + d.cfg.Auto.To + " only"
	}
	all = slices.DeleteFunc(all, func(s string) bool { return d.failed(i, s) })
	if len(all) == 0 {
		return "", ReasonHoldOff, "the takeover failed a moment ago"
	}
	if len(m.switches) >= d.cfg.FlapMax {
		return "", ReasonFlapping, d.flapText()
	}
	return all[0], "", ""
}

// barred says why no automatic switch may begin at all.
func (d *Decider) barred(g *Group) (Reason, string) {
	switch {
	case d.cur.PausedUntilMS != 0:
		return ReasonPaused, "automatic decisions are paused"
	case d.cfg.Auto.Off:
		return ReasonAutoOff, "automatic switching is off"
	case g.Ack:
		return ReasonFlapping, d.flapText()
	}
	return "", ""
}

func (d *Decider) flapText() string {
	return fmt.Sprintf("%d automatic switches within %v: waits for an acknowledgement", d.cfg.FlapMax, d.cfg.FlapWindow)
}

// tripped records that automatic switching has to be acknowledged.
func tripped(g *Group, r Reason) bool {
	if r != ReasonFlapping || g.Ack {
		return false
	}
	g.Ack = true
	return true
}

// returning says whether a failback waits for its time alone.
func (d *Decider) returning(i int, g Group) bool {
	if r, _ := d.barred(&g); r != "" || d.cfg.Failback <= 0 || g.Pinned || g.Switching() {
		return false
	}
	for s, site := range d.cfg.Sites {
		if site.Name == g.Active {
			return false
		}
		if d.mem[i].wellSince[s] >= 0 && (d.cfg.Auto.To == "" || site.Name == d.cfg.Auto.To) {
			return true
		}
	}
	return false
}

// failback returns to a preferred site that every load balancer has seen
// usable for long enough. What a person chose stays.
func (d *Decider) failback(i int, g *Group) bool {
	if d.cfg.Failback <= 0 || g.Pinned || g.Switching() {
		return false
	}
	for s, site := range d.cfg.Sites {
		if site.Name == g.Active {
			return false
		}
		since := d.mem[i].wellSince[s]
		if since < 0 || d.cfg.Auto.To != "" && site.Name != d.cfg.Auto.To {
			continue
		}
		if d.now < since+d.cfg.Failback {
			d.wakeAt(since + d.cfg.Failback)
			continue
		}
		if r, text := d.barred(g); r != "" {
			d.setStay(i, r, text)
			return false
		}
		if d.failed(i, site.Name) || len(d.pending()) > 0 {
			continue
		}
		if len(d.mem[i].switches) >= d.cfg.FlapMax {
			d.setStay(i, ReasonFlapping, d.flapText())
			return tripped(g, ReasonFlapping)
		}
		d.begin(i, g, site.Name, ReasonFailback, "")
		return true
	}
	return false
}
