package site

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// recentCommands is how many commands are remembered, so that one that is
// delivered twice is carried out once.
const recentCommands = 64

// waiter is a command that is answered when the switch of its group is over.
type waiter struct{ id, site string }

// command takes an operator's command in. It is carried out when no proposal
// is under way.
func (d *Decider) command(c Command) {
	if r := slices.IndexFunc(d.recent, func(r Reply) bool { return r.ID == c.ID && c.ID != "" }); r >= 0 {
		d.out.Replies = append(d.out.Replies, d.recent[r])
		return
	}
	if slices.ContainsFunc(d.commands, func(q Command) bool { return q.ID == c.ID && c.ID != "" }) {
		return
	}
	if !d.adopted || len(d.groups) == 0 {
		d.refuse(c, ReasonNoDecision, "there is no site decision on this node: configure TANDEM_SITES, or ask the holder of the site lease")
		return
	}
	c.Actor = actor(c.Actor)
	d.commands = append(d.commands, c)
}

// actor brings a name into a form that takes no more room in JSON than it has
// letters.
func actor(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == '\u2028' || r == '\u2029' || strings.ContainsRune("\"\\<>&\x7f", r) {
			return '_'
		}
		return r
	}, name)
	if len(name) > maxActor {
		name = name[:maxActor]
	}
	return strings.ToValidUTF8(name, "")
}

// runCommands carries out what was asked for, up to the first command that
// changes the decision.
func (d *Decider) runCommands(next *Decision) {
	for len(d.commands) > 0 {
		c := d.commands[0]
		d.commands = d.commands[1:]
		if d.runCommand(c, next) {
			return
		}
	}
}

// runCommand says whether it changed the decision.
func (d *Decider) runCommand(c Command, next *Decision) bool {
	switch c.Kind {
	case Pause:
		return d.pause(c, next)
	case Resume:
		return d.resume(c, next)
	case Takeover, Renounce, Ack:
	default:
		return d.refuse(c, ReasonUnknownCommand, fmt.Sprintf("%q is not a command: use takeover, renounce, pause, resume or ack", c.Kind))
	}
	if c.Group == "" {
		c.Group = DefaultGroup
	}
	i := slices.Index(d.groups, c.Group)
	if i < 0 {
		return d.refuse(c, ReasonUnknownGroup, fmt.Sprintf("there is no group %q: use one of %s", c.Group, list(d.groups)))
	}
	g := &next.Groups[i]
	if g.blank() {
		return d.refuse(c, ReasonNoDecision, "the first decision has not been made yet: try again in a second")
	}
	if c.Kind == Takeover {
		return d.takeover(c, i, g)
	}
	if c.Kind == Renounce {
		return d.renounce(c, i, g)
	}
	return d.ack(c, i, g, next)
}

func (d *Decider) takeover(c Command, i int, g *Group) bool {
	switch {
	case c.Site == "":
		return d.refuse(c, ReasonSiteMissing, "name the site: one of "+list(d.cfg.siteNames()))
	case !d.cfg.hasSite(c.Site):
		return d.refuse(c, ReasonUnknownSite, fmt.Sprintf("there is no site %q: use one of %s", c.Site, list(d.cfg.siteNames())))
	case d.heading(*g) == c.Site && g.Switching():
		return d.join(c, i, g)
	case g.Active == c.Site && g.Target == "":
		return d.finish(c, ReasonAlreadyActive, c.Site+" is active already")
	case g.Active == c.Site:
		d.wait(c, i, fmt.Sprintf("the switch to %s is cancelled, %s stays", g.Target, c.Site))
		g.Actor, g.Pinned = c.Actor, true
		d.fail(i, g, ReasonCancelled)
		return true
	case !c.Force && !d.usable(c.Group, c.Site) && !d.startable(i, c.Site):
		return d.refuse(c, ReasonTargetUnusable, d.unusableText(c.Group, c.Site)+": mend it, or use --force")
	case g.Target == "":
		r := ReasonCommanded
		if c.Force {
			r = ReasonForced
		}
		d.begin(i, g, c.Site, r, c.Actor)
		d.wait(c, i, "the switch to "+c.Site+" has begun")
		return true
	case g.Active == "" && g.From == c.Site:
		d.wait(c, i, fmt.Sprintf("the switch to %s is cancelled, %s is taken back", g.Target, c.Site))
		g.Actor, g.Reason, g.Forced = c.Actor, ReasonCancelled, c.Force
		d.redirect(g, c.Site)
		return true
	default:
		return d.refuse(c, ReasonSwitchInProgress, fmt.Sprintf("a switch to %s is in phase %s: wait until it is over", g.Target, g.Phase))
	}
}

// join attaches a command to the switch that does what it asks for. With force
// nobody is waited for any longer in the present phase.
func (d *Decider) join(c Command, i int, g *Group) bool {
	d.wait(c, i, fmt.Sprintf("the switch to %s is under way, in phase %s", c.Site, g.Phase))
	if !c.Force {
		return false
	}
	d.mem[i].pushed = true
	if g.Forced {
		return false
	}
	g.Forced = true
	return true
}

func (d *Decider) renounce(c Command, i int, g *Group) bool {
	switch {
	case c.Site != "" && !d.cfg.hasSite(c.Site):
		return d.refuse(c, ReasonUnknownSite, fmt.Sprintf("there is no site %q: use one of %s", c.Site, list(d.cfg.siteNames())))
	case g.Target != "":
		return d.refuse(c, ReasonSwitchInProgress, fmt.Sprintf("a switch to %s is in phase %s: wait until it is over", g.Target, g.Phase))
	case c.Site != "" && c.Site != g.Active:
		return d.refuse(c, ReasonNotActive, fmt.Sprintf("%s is not active, %s is: there is nothing to give up", c.Site, g.Active))
	}
	to := d.candidates(i, g.Active)
	if len(to) == 0 {
		return d.refuse(c, ReasonNoUsable, "no other site is usable: start one, or use takeover SITE --force")
	}
	c.Site = to[0]
	d.begin(i, g, c.Site, ReasonRenounced, c.Actor)
	d.wait(c, i, "the switch to "+c.Site+" has begun")
	return true
}

func (d *Decider) ack(c Command, i int, g *Group, next *Decision) bool {
	if !g.Ack {
		return d.finish(c, ReasonNothingToAck, "automatic switching of "+c.Group+" is not held")
	}
	g.Ack, g.Switches, g.Failed = false, 0, nil
	d.mem[i].switches, d.mem[i].failedAt = nil, nil
	g.Actor = c.Actor
	because(next, ReasonAck, c.Actor)
	d.finish(c, ReasonAck, "automatic switching of "+c.Group+" goes on")
	return true
}

func (d *Decider) pause(c Command, next *Decision) bool {
	if c.Duration < 0 {
		c.Duration = 0
	}
	next.PausedUntilMS, next.PausedForMS = -1, 0
	text := "no automatic decision until resume"
	if c.Duration > 0 {
		next.PausedForMS = max(c.Duration.Milliseconds(), 1)
		next.PausedUntilMS = d.wall + next.PausedForMS
		text = "no automatic decision for " + (time.Duration(next.PausedForMS) * time.Millisecond).String()
	}
	because(next, ReasonPause, c.Actor)
	d.finish(c, ReasonPause, text)
	return true
}

func (d *Decider) resume(c Command, next *Decision) bool {
	if next.PausedUntilMS == 0 {
		return d.finish(c, ReasonNotPaused, "nothing is paused")
	}
	next.PausedUntilMS, next.PausedForMS = 0, 0
	because(next, ReasonResume, c.Actor)
	d.finish(c, ReasonResume, "automatic decisions go on")
	return true
}

// unusableText says why a site cannot be taken, in the words of the first load
// balancer that says so.
func (d *Decider) unusableText(group, site string) string {
	if len(d.witnesses) == 0 {
		return "no live load balancer reports whether " + site + " is usable"
	}
	n := d.witnesses[0]
	s := n.View.Of(group, site)
	if s == nil {
		return fmt.Sprintf("no load balancer sees %s usable (%s knows no such site)", site, n.Node)
	}
	why := string(s.Reason)
	if s.Detail != "" {
		why += ", backend " + s.Detail
	}
	return fmt.Sprintf("no load balancer sees %s usable (%s: %s)", site, n.Node, why)
}

func (d *Decider) refuse(c Command, r Reason, text string) bool {
	d.reply(Reply{ID: c.ID, Done: true, Reason: r, Text: text, Group: c.Group})
	return false
}

func (d *Decider) finish(c Command, r Reason, text string) bool {
	d.reply(Reply{ID: c.ID, OK: true, Done: true, Reason: r, Text: text, Group: c.Group})
	return false
}

func (d *Decider) wait(c Command, i int, text string) {
	d.mem[i].waiters = append(d.mem[i].waiters, waiter{c.ID, c.Site})
	d.reply(Reply{ID: c.ID, OK: true, Reason: ReasonBegun, Text: text, Group: c.Group, Phase: d.cur.Groups[i].Phase})
}

// answerSwitch tells who asked for a switch of a group how far it is.
func (d *Decider) answerSwitch(i int, event Event) {
	g, m := d.cur.Groups[i], &d.mem[i]
	for _, w := range m.waiters {
		r := Reply{ID: w.id, OK: true, Reason: g.Reason, Group: g.In(), Phase: g.Phase, Text: "phase " + string(g.Phase)}
		switch {
		case g.Switching() && event == EventAbort:
			r.Text = fmt.Sprintf("%s could not be taken (%s), going to %s", w.site, g.Reason, d.heading(g))
		case g.Switching():
		case g.Active == w.site:
			r.Done, r.Reason, r.Text = true, ReasonDone, w.site+" is active"
		case g.Active == "":
			r.Done, r.OK, r.Text = true, false, fmt.Sprintf("%s could not be taken (%s), and no site is active", w.site, g.Reason)
		default:
			r.Done, r.OK, r.Text = true, false, fmt.Sprintf("%s could not be taken (%s), %s is active", w.site, g.Reason, g.Active)
		}
		d.reply(r)
	}
	if !g.Switching() {
		m.waiters = nil
	}
}

// dropWaiters answers those who wait for a switch that is now in other hands.
func (d *Decider) dropWaiters() {
	for i := range d.mem {
		for _, w := range d.mem[i].waiters {
			d.reply(Reply{ID: w.id, Done: true, Reason: ReasonSuperseded, Text: "the site lease changed hands: see status", Group: d.groups[i]})
		}
	}
}

func (d *Decider) reply(r Reply) {
	r.Epoch = d.epoch
	d.out.Replies = append(d.out.Replies, r)
	d.recent = slices.DeleteFunc(d.recent, func(o Reply) bool { return o.ID == r.ID })
	d.recent = append(d.recent, r)
	if len(d.recent) > recentCommands {
		d.recent = slices.Delete(d.recent, 0, 1)
	}
}
