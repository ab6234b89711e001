package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"tandem/lib/gossip"
	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// statusTimeout bounds how long a reader waits for the loop. The loop never
// waits for anything itself, so only a starved machine comes near it.
const statusTimeout = time.Second

// Status returns the whole picture as this node sees it now. When the loop
// does not answer in time (it has stopped, or the machine starves), what
// comes back says only that nothing is known.
func (a *Agent) Status() status.Status {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	l, err := a.look(ctx)
	if err != nil {
		return a.unknown(err)
	}
	l.status.NextFail = a.outlook.known(l.picture)
	return l.status
}

func (a *Agent) unknown(err error) status.Status {
	return status.Status{
		Node: a.cfg.Node, Role: a.cfg.Role, Cluster: a.cfg.Cluster, Mode: a.cfg.Mode.String(), Version: a.cfg.Version,
		At: a.deps.Wall().UTC(), Health: status.Unknown, Problems: []string{"the sidecar does not answer: " + err.Error()},
		NextFail: []string{}, Leases: []status.Lease{}, Groups: []status.Site{}, Nodes: []status.Node{}, Views: []status.View{},
		Held: []status.Held{}, Recent: []status.Transition{},
	}
}

// Watch returns the transitions that happen from now on, of all nodes, until
// ctx ends; first those that came behind the event with the ID after, if it is
// not empty.
func (a *Agent) Watch(ctx context.Context, after string) <-chan status.Event {
	return a.history.watch(ctx, after)
}

// History returns up to n transitions of all nodes, oldest first.
func (a *Agent) History(n int) []status.Transition { return a.history.last(n) }

func (a *Agent) snapshot(now time.Duration) status.Status {
	s := status.Status{
		Node: a.cfg.Node, Role: a.cfg.Role, Cluster: a.cfg.Cluster, Mode: a.cfg.Mode.String(), Version: a.cfg.Version,
		At: a.deps.Wall().UTC(), Observe: a.cfg.Observe, Protocol: a.protocol(), Process: a.process(),
		Leases: a.leaseStatus(now), Nodes: a.nodeStatus(now), Views: a.viewStatus(now), Held: a.heldStatus(now),
		Recent: a.history.last(10), Groups: []status.Site{},
	}
	for _, l := range s.Leases {
		s.Unsafe = s.Unsafe || l.Alone
	}
	if until, yes := a.lease.Quarantined(now); yes {
		s.QuarantineMS = (until - now).Milliseconds()
	}
	if a.cfg.Sites != nil {
		for _, d := range a.cfg.Sites.Sites {
			s.Sites = append(s.Sites, d.Name)
		}
	}
	if a.cfg.Sites != nil || a.decided.Value.Epoch > 0 { // a witness is not told the sites, and knows what is decided
		s.Groups = a.siteStatus(a.minority(now))
		for _, g := range s.Groups {
			if g.Group == site.DefaultGroup {
				s.Site = g
			}
		}
		if until, _ := a.decision.Paused(); a.paused() {
			at := a.date(until, now+a.dates.pauseLeft(now, a.decision)) // 1970: without end
			s.PausedUntil = &at
		}
	}
	s.Health, s.Problems = a.health(now, s)
	s.NextFail = []string{}
	return s
}

// leaseStatus lists every lease of the cluster, also those that nobody holds.
func (a *Agent) leaseStatus(now time.Duration) []status.Lease {
	known, minority := map[string]lease.Status{}, a.minority(now)
	for _, l := range a.lease.Status(now) {
		known[l.Resource] = l
	}
	names := []string{}
	for _, g := range a.cfg.Groups {
		names = append(names, vipPrefix+g)
	}
	if a.cfg.Sites != nil || known[ResourceSite].Holder != "" {
		names = append(names, ResourceSite)
	}
	out := make([]status.Lease, 0, len(names))
	for _, name := range names {
		l := known[name]
		item := status.Lease{Resource: name, Holder: l.Holder, Epoch: l.Epoch, Alone: l.Alone}
		switch {
		case l.Self:
			item.Source, item.ExpiresInMS, item.LengthMS = "own", (l.Deadline - now).Milliseconds(), l.Asked.Milliseconds()
		case l.Holder != "":
			item.Source, item.ExpiresInMS = "vote", (l.Expires - now).Milliseconds()
		case minority:
			item.Source = status.LeaseUnknown
		}
		if g := a.groupOf(name); g != nil {
			item.Fence = a.fenceOf(l.Holder, now)
			item.Addresses = a.cfg.VIPs[g.name]
		}
		out = append(out, item)
	}
	return out
}

func (a *Agent) fenceOf(node string, now time.Duration) string {
	if node == a.cfg.Node {
		return a.self.Fence
	}
	if r := a.fresh(node, now); r != nil {
		return r.Fence
	}
	return ""
}

// nodeStatus lists this node, the other voters in the order of TANDEM_PEERS,
// and the followers by name.
func (a *Agent) nodeStatus(now time.Duration) []status.Node {
	names := slices.Clone(a.cfg.Voters)
	if !slices.Contains(names, a.cfg.Node) {
		names = append(names, a.cfg.Node)
	}
	var followers []string
	for n := range a.peers {
		if !slices.Contains(names, n) {
			followers = append(followers, n)
		}
	}
	slices.Sort(followers)
	out := []status.Node{}
	for _, n := range append(names, followers...) {
		out = append(out, a.nodeOf(n, now))
	}
	return out
}

func (a *Agent) nodeOf(name string, now time.Duration) status.Node {
	n := status.Node{Name: name, Voter: slices.Contains(a.cfg.Voters, name), AgeMS: -1, VIPs: []string{}}
	r, late := &a.self, ""
	if name == a.cfg.Node {
		n.Alive, n.AgeMS = true, 0
	} else {
		p := a.peers[name]
		n.Alive = a.alive(name, now)
		if ago, ok := a.lease.PeerHeard(now, name); ok {
			n.AgeMS = ago.Milliseconds()
		}
		if p == nil || p.report == nil {
			n.Reason, n.Detail = a.whySilent(name)
			return n
		}
		if now-p.at > freshReport && n.Alive {
			late = fmt.Sprintf("its last report is %s old, while its votes are heard: do large datagrams get lost on the way (MTU)?", (now - p.at).Round(100*time.Millisecond))
		}
		if ago := (now - p.arrived).Milliseconds(); n.AgeMS < 0 || ago < n.AgeMS {
			n.AgeMS = ago
		}
		r = p.report
	}
	n.Role, n.Site, n.Version, n.Maintenance = r.Role, r.Site, r.Version, r.Maintenance
	n.Eligible, n.Reason, n.Detail = r.Eligible, r.Reason, r.Detail
	n.HAProxy, n.Fence, n.AppliedEpoch = r.HAProxy, r.Fence, r.Applied
	n.Keys, n.Protocol = r.Keys, max(r.Protocol, oldestProtocol)
	n.VIPs, n.Warnings, n.Yielding = append(n.VIPs, r.VIPs...), a.warningsOf(r), r.Yielding
	switch {
	case !n.Alive:
		n.Eligible, n.HAProxy = false, nil
		n.Reason, n.Detail = a.whySilent(name)
		// What it warned of last is no longer to be mended there: a voter that
		// was removed would keep everybody degraded.
		n.VIPs, n.Warnings = []string{}, []string{}
	case late != "":
		n.Eligible, n.HAProxy, n.Reason, n.Detail = false, nil, reasonReportLate, late
	}
	return n
}

// whySilent translates what the transport knows of a node that is not heard.
func (a *Agent) whySilent(name string) (reason, detail string) {
	for _, p := range a.deps.Network.Health().Peers {
		before := a.peers[name] != nil && a.peers[name].report != nil
		if p.Name == name && p.Reason == gossip.ReasonJoining && before {
			break // it was heard, and its sidecar says nothing now: that is no beginning
		}
		if p.Name == name && p.Reason != gossip.ReasonNone {
			return string(p.Reason), p.Detail
		}
	}
	return "not-heard", ""
}

// warningsOf adds what only a comparison shows: settings that differ.
func (a *Agent) warningsOf(r *report) []string {
	out := slices.Clone(r.Warnings)
	names := slices.Sorted(maps.Keys(a.cfg.Settings))
	if len(r.Settings) != len(names) {
		return out // of another version: there is nothing to compare
	}
	for i, name := range names {
		if (r.Role == a.cfg.Role || name == peersVariable) && r.Settings[i] != settingDigest(a.cfg.Settings[name]) {
			out = append(out, "settings-differ: "+name+" is not the same as on "+a.cfg.Node)
		}
	}
	return out
}

// peersVariable must be the same on nodes of all roles.
const peersVariable = "TANDEM_PEERS"

// settingDigest is as much of a digest as tells a difference.
func settingDigest(s string) string { return s[:min(len(s), 4)] }

// settings are this node's, as reports carry them.
func (a *Agent) settings() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(a.cfg.Settings)) {
		out = append(out, settingDigest(a.cfg.Settings[name]))
	}
	return out
}

func (a *Agent) viewStatus(now time.Duration) []status.View {
	out := []status.View{}
	add := func(node string, v *site.View, age time.Duration) {
		stale := node != a.cfg.Node && (!a.alive(node, now) || age > freshReport)
		if v == nil {
			return
		}
		for _, s := range v.Sites {
			item := status.View{Node: node, Group: s.In(), Site: s.Site, Usable: s.Usable, Reason: string(s.Reason), AgeMS: age.Milliseconds(), Stale: stale, Backends: []status.Backend{}}
			for _, b := range s.Backends {
				item.Backends = append(item.Backends, status.Backend{Name: b.Name, Up: b.Up, Total: b.Total})
			}
			out = append(out, item)
		}
	}
	for _, n := range a.nodeNames() {
		if n == a.cfg.Node {
			add(n, a.self.View, 0)
		} else if p := a.peers[n]; p != nil && p.report != nil {
			add(n, p.report.View, now-p.at)
		}
	}
	return out
}

// nodeNames lists all known nodes by name.
func (a *Agent) nodeNames() []string {
	names := []string{a.cfg.Node}
	for n := range a.peers {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (a *Agent) heldStatus(now time.Duration) []status.Held {
	out := append([]status.Held{}, a.self.Held...)
	for _, n := range a.nodeNames() {
		if r := a.fresh(n, now); r != nil {
			out = append(out, r.Held...)
		}
	}
	return out
}

// warnings are what an operator should mend although nothing is broken yet.
func (a *Agent) warnings(now time.Duration) []string {
	var out []string
	if _, yes := a.lease.Quarantined(now); yes && slices.Contains(a.cfg.Voters, a.cfg.Node) {
		// The others know it as alive and fit, and would call all healthy although
		// the next failure leaves no majority.
		out = append(out, "quarantine: it has just started and does not vote yet")
	}
	out = append(out, a.namesakes(now)...)
	out = append(out, a.kernelWarnings(now)...)
	for _, name := range a.cfg.Groups {
		if text := a.inUse(a.groups[name]); text != "" {
			out = append(out, reasonInUse+": "+text)
		}
		if text := a.untold(now, a.groups[name]); text != "" {
			out = append(out, "notify-hook: "+text)
		}
		if g := a.groups[name]; g.unfit != "" && g.holding {
			out = append(out, "last-resort: "+name+" stays here although "+g.unfit+", since nobody else can take it")
		}
	}
	if a.deps.LB != nil {
		o := a.deps.LB.Observed()
		for _, p := range o.Unmatched {
			out = append(out, "glob-matches-nothing: "+p+" in TANDEM_SITES matches no server of HAProxy")
		}
		out = append(out, haproxyWarnings(o)...)
	}
	for kind, at := range a.warned {
		if now-at < time.Minute {
			out = append(out, kind+": see the log")
		}
	}
	for kind, text := range a.remarks {
		out = append(out, kind+": "+text)
	}
	slices.Sort(out)
	return out
}

// Remark shows a sentence among the warnings of this node until it is called
// with another one for the same kind, or with none. It waits for the loop, at
// most until ctx ends.
func (a *Agent) Remark(ctx context.Context, kind, text string) error {
	return a.ask(ctx, func() {
		if delete(a.remarks, kind); text != "" {
			a.remarks[kind] = text
		}
	})
}

// Tell puts something that happened to this node into the history of all.
func (a *Agent) Tell(ctx context.Context, t status.Transition) error {
	return a.ask(ctx, func() { a.note(t) })
}

// Live is nil as long as the loop answers.
func (a *Agent) Live() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*statusTimeout)
	defer cancel()
	return a.ask(ctx, func() {})
}
