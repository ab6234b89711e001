package site

// boot makes the first decision of a group: what the HAProxys already do if
// they agree, else the first site in order that is usable, else the first in
// order. Load balancers get BootWait to report what they see.
func (d *Decider) boot(i int, g *Group) {
	if !d.bootReady() {
		d.setStay(i, ReasonBooting, "waits for the first views")
		return
	}
	site, reason := d.bootSite(i)
	g.Reason, g.SinceUnixMS, g.Epoch = reason, d.wall, d.epoch+1
	if reason == ReasonBootRunning || !d.cfg.exclusive() {
		g.Active = site
		return
	}
	// Each may be routing to another site: drain everywhere first.
	g.Target, g.Phase = site, PhaseRenounce
}

func (d *Decider) bootReady() bool {
	end := d.adoptedAt + d.cfg.BootWait
	d.wakeAt(end)
	if d.now >= end {
		return true
	}
	reported := 0
	for i := range d.nodes {
		n := &d.nodes[i]
		if !n.live() || !d.fresh(n) {
			return false
		}
		reported++
	}
	return reported > 0
}

func (d *Decider) bootSite(i int) (string, Reason) {
	if site, ok := d.running(i); ok {
		return site, ReasonBootRunning
	}
	for _, s := range d.cfg.Sites {
		if d.usable(d.groups[i], s.Name) {
			return s.Name, ReasonBootUsable
		}
	}
	return d.cfg.Sites[0].Name, ReasonBootFirst
}

// running names the one site to which every HAProxy routes already.
func (d *Decider) running(i int) (string, bool) {
	found := ""
	for _, n := range d.witnesses {
		for _, s := range d.cfg.Sites {
			v := n.View.Of(d.groups[i], s.Name)
			if v == nil || !v.Routed {
				continue
			}
			if found != "" && found != s.Name {
				return "", false
			}
			found = s.Name
		}
	}
	return found, found != ""
}
