package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tandem/lib/gossip"
	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// health answers whether somebody has to get up, and says why in sentences.
func (a *Agent) health(now time.Duration, s status.Status) (status.Health, []string) {
	worst := status.Healthy
	problems := []string{}
	say := func(h status.Health, format string, args ...any) {
		if rankOf(h) > rankOf(worst) {
			worst = h
		}
		problems = append(problems, fmt.Sprintf(format, args...))
	}
	heard := a.votersHeard(now)
	if need := a.needed(); a.minority(now) {
		say(status.Unknown, "only %d of %d voters are heard, %d are needed: this node cannot tell what the others do", heard, len(a.cfg.Voters), need)
	}
	alone := map[string][]string{}
	for _, l := range s.Leases {
		switch {
		case l.Source == status.LeaseUnknown: // said
		case l.Holder == "" && l.Resource != ResourceSite:
			say(status.NotServing, "nobody holds %s", l.Resource)
		case l.Holder == "":
			say(status.Degraded, "nobody holds %s: no site decision can be made", l.Resource)
		}
		if l.Alone {
			alone[l.Holder] = append(alone[l.Holder], l.Resource)
		}
	}
	for _, node := range slices.Sorted(maps.Keys(alone)) {
		say(status.Degraded, "unsafe: %s decides %s alone (pair mode, the peer is silent); two holders are possible while only the link is cut", node, strings.Join(alone[node], " and "))
	}
	a.nodeProblems(s, say)
	if !a.minority(now) { // else which site is active is not known, nor what others see
		a.siteProblems(s, say)
	}
	a.spareProblems(heard, s, say)
	return worst, problems
}

// whySilent is the reason with its mend, or, where there is none, with what is
// known.
func whySilent(n status.Node) string {
	text := orWord(gossip.Reason(n.Reason).Mend(), n.Detail)
	if gossip.Reason(n.Reason) == gossip.ReasonOtherName || gossip.Reason(n.Reason) == gossip.ReasonFailed {
		text = orWord(n.Detail, text)
	}
	if text == "" {
		return n.Reason
	}
	return n.Reason + ": " + text
}

func rankOf(h status.Health) int {
	return slices.Index([]status.Health{status.Healthy, status.Degraded, status.NotServing, status.Unknown}, h)
}

// votersHeard counts this node, if it votes, and the voters it hears.
func (a *Agent) votersHeard(now time.Duration) int {
	n := 0
	for _, v := range a.cfg.Voters {
		if v == a.cfg.Node || a.alive(v, now) {
			n++
		}
	}
	return n
}

// minority says whether too few voters are heard to know what the others do.
func (a *Agent) minority(now time.Duration) bool { return a.votersHeard(now) < a.needed() }

// needed is how many voters a decision takes.
func (a *Agent) needed() int {
	if a.cfg.Mode == lease.ModeQuorum {
		return len(a.cfg.Voters)/2 + 1
	}
	return 1
}

func (a *Agent) nodeProblems(s status.Status, say func(status.Health, string, ...any)) {
	lbs := 0
	var said []string
	warned := map[string][]string{}
	for _, n := range s.Nodes {
		switch {
		case !n.Alive && n.Voter:
			say(status.Degraded, "%s is silent (%s)", n.Name, whySilent(n))
		case n.Alive && n.Role == RoleLB && n.Voter && !n.Eligible:
			detail, _, _ := strings.Cut(n.Detail, ": dial unix") // the words before say it
			say(status.Degraded, "%s cannot take over: %s", n.Name, orWord(detail, n.Reason))
		case n.Alive && n.Role == RoleLB && n.Eligible:
			lbs++
		}
		for _, w := range n.Warnings {
			if warned[w] == nil {
				said = append(said, w)
			}
			warned[w] = append(warned[w], n.Name)
		}
	}
	for _, w := range said { // what several nodes say alike is said once
		say(status.Degraded, "%s: %s", strings.Join(warned[w], ", "), w)
	}
	if lbs == 0 && len(s.Nodes) > 0 {
		say(status.NotServing, "no load balancer is eligible")
	}
}

// spareProblems says when no failure is survived although nothing has failed,
// because of how the cluster is laid out.
func (a *Agent) spareProblems(heard int, s status.Status, say func(status.Health, string, ...any)) {
	if ok, _ := a.reaches(); !ok && a.cfg.Mode == lease.ModePair && a.cfg.Role == RoleLB {
		say(status.Degraded, "%s takes itself for cut off, since %s: it holds nothing while its peer is silent", a.cfg.Node, a.unreached())
	}
	if heard < len(a.cfg.Voters) {
		return // said of the silent one
	}
	var carriers []string
	for _, n := range s.Nodes {
		if n.Voter && n.Role == RoleLB {
			carriers = append(carriers, n.Name)
		}
	}
	switch {
	case len(a.cfg.Voters) == 1:
		say(status.Degraded, "%s is the only voter: nothing takes over when it fails", a.cfg.Voters[0])
	case heard == a.needed():
		say(status.Degraded, "every one of the %d voters is needed to decide anything: none may fail; a third voter (a witness) ends that", heard)
	case len(carriers) == 1:
		say(status.Degraded, "%s is the only load balancer with a vote: nothing takes over when it fails", carriers[0])
	}
}

// unreached says why pair mode's isolation test fails.
func (a *Agent) unreached() string {
	if a.cfg.Probe != nil {
		return "none of TANDEM_PROBE answers"
	}
	return "HAProxy sees no server up (name something else that answers: TANDEM_PROBE)"
}

func (a *Agent) siteProblems(s status.Status, say func(status.Health, string, ...any)) {
	if a.cfg.Sites == nil {
		return // what others say of their sites is theirs to judge
	}
	for _, g := range s.Groups {
		if g.Active == "" {
			say(status.Degraded, "no site is active yet for %s", g.Group)
			continue
		}
		if g.Phase != string(site.PhaseNone) {
			say(status.Degraded, "%s is being switched from %s to %s: %s", g.Group, g.Active, g.Target, g.Phase)
		}
	}
	a.viewProblems(s, say)
	a.hookProblems(say)
	for _, g := range a.decision.Groups {
		if g.Notify != 0 && a.deps.Now()-a.dates.groups[g.In()].at > notifyPatience {
			say(status.Degraded, "the notify hook has not yet told that %s is active at %s; it is tried again", g.In(), g.Active)
		}
	}
}

// hookProblems says which sites nobody could start: with hooks a takeover must
// succeed, whatever the load balancers see there.
func (a *Agent) hookProblems(say func(status.Health, string, ...any)) {
	now := a.deps.Now()
	if !a.hooksAbout(now).Takeover {
		return
	}
	able := a.hookable(now)
	g, _ := a.decision.Group(site.DefaultGroup)
	for _, s := range a.cfg.Sites.Sites {
		if s.Name != g.Active && !slices.Contains(able, s.Name) {
			say(status.Degraded, "no live node stands in site %s: its hooks cannot be run, so it could not take over", s.Name)
		}
	}
}

// notifyPatience is how long a notify hook may take before status mentions it.
const notifyPatience = 2 * time.Second

// viewProblems says which sites nobody sees usable, group by group.
func (a *Agent) viewProblems(s status.Status, say func(status.Health, string, ...any)) {
	type place struct{ group, site string }
	var places []place
	usable, someUp := map[place]bool{}, map[place]bool{}
	for _, v := range s.Views {
		if v.Stale {
			continue
		}
		p := place{v.Group, v.Site}
		if !slices.Contains(places, p) {
			places = append(places, p)
		}
		usable[p] = usable[p] || v.Usable
		for _, b := range v.Backends {
			someUp[p] = someUp[p] || b.Up > 0
		}
	}
	active := map[string]string{}
	for _, g := range s.Groups {
		active[g.Group] = g.Active
	}
	for _, p := range places {
		what := "site " + p.site
		if p.group != site.DefaultGroup {
			what = p.group + " at site " + p.site
		}
		switch {
		case usable[p]:
		case p.site == active[p.group]:
			say(status.NotServing, "no load balancer sees %s usable, which is active", what)
		case p.group == site.DefaultGroup && a.cfg.Sites.Cold && a.hooksAbout(a.deps.Now()).Takeover && someUp[p]:
			// Some of it is stopped on purpose: its takeover hooks start that.
		default:
			say(status.Degraded, "no load balancer sees %s usable: it could not take over", what)
		}
	}
}
