package agent

import (
	"time"

	"tandem/haproxy"
	"tandem/sidecar/site"
)

// world is what the decider is told of the load balancers.
func (a *Agent) world(now time.Duration) site.World {
	w := site.World{Hooks: a.hooksAbout(now), Hookable: a.hookable(now)}
	for _, n := range a.nodeNames() {
		r := a.reportOf(n, now)
		p := a.peers[n]
		switch {
		case n == a.cfg.Node && a.cfg.Role != RoleLB:
		case n != a.cfg.Node && p.report == nil && !p.voter:
		case n != a.cfg.Node && p.report != nil && p.report.Role != RoleLB:
		default:
			w.Nodes = append(w.Nodes, a.nodeWorld(n, r, now))
		}
	}
	return w
}

// hookable lists the sites whose hooks some live node can run: one that stands
// there, or any if no node says where it stands.
func (a *Agent) hookable(now time.Duration) []string {
	standing := false
	sites := map[string]bool{}
	for _, n := range a.nodeNames() {
		if r := a.reportOf(n, now); r != nil && r.Site != "" {
			standing = true
			sites[r.Site] = sites[r.Site] || a.alive(n, now)
		}
	}
	var names []string
	for _, s := range a.cfg.Sites.Sites {
		if !standing || sites[s.Name] {
			names = append(names, s.Name)
		}
	}
	return names
}

// hooksAbout says which hooks some node has commands for: they may stand on the
// machines of the applications alone.
func (a *Agent) hooksAbout(now time.Duration) site.Hooks {
	var h site.Hooks
	for _, n := range a.nodeNames() {
		if r := a.reportOf(n, now); r != nil {
			h.Precheck = h.Precheck || r.hasHook(site.HookPrecheck)
			h.Takeover = h.Takeover || r.hasHook(site.HookTakeover)
			h.Renounce = h.Renounce || r.hasHook(site.HookRenounce)
			h.Notify = h.Notify || r.hasHook(site.HookNotify)
		}
	}
	return h
}

func (a *Agent) reportOf(node string, now time.Duration) *report {
	if node == a.cfg.Node {
		return &a.self
	}
	return a.fresh(node, now)
}

func (a *Agent) nodeWorld(name string, r *report, now time.Duration) site.NodeWorld {
	n := site.NodeWorld{Node: name, Alive: a.alive(name, now)}
	if !n.Alive {
		n.Silent, n.Lingers = a.silent(name, now), a.lingers(name, now)
	}
	if r == nil {
		return n
	}
	n.Barred = r.Maintenance || r.Reason == reasonNoCarrier || r.Reason == reasonObserve
	n.HAProxyAlive = r.HAProxy != nil && r.HAProxy.Alive
	n.AppliedEpoch = r.Applied
	if n.HAProxyAlive {
		n.View = r.View
	}
	if p := a.peers[name]; p != nil {
		n.ViewAge = now - p.at
	}
	return n
}

// view is what this node's HAProxy sees of each site.
func (a *Agent) view(o haproxy.Observation) *site.View {
	if a.cfg.Sites == nil || !o.Alive {
		return nil
	}
	if played, ok := a.deps.LB.(*playedHAProxy); ok {
		return played.View()
	}
	held := map[haproxy.ServerID]bool{}
	for _, h := range o.Held {
		switch h.Kind {
		case haproxy.HoldDrain, haproxy.HoldWeight, haproxy.HoldMaintenance:
			held[h.ServerID] = true // takes no new connection until a person lets go of it
		case haproxy.HoldTracked, haproxy.HoldUnresolved, haproxy.HoldAgent, haproxy.HoldBackend, haproxy.HoldName:
		}
	}
	servers := make([]site.ServerState, 0, len(o.Servers))
	for _, s := range o.Servers {
		servers = append(servers, site.ServerState{
			Backend: s.Backend, Server: s.Server, Up: s.Up, Held: held[s.ServerID], Drained: s.Drained() || s.Off,
		})
	}
	v := site.NewView(*a.cfg.Sites, a.cfg.Node, servers)
	return &v
}

// lbChanged notes when HAProxy comes or goes.
func (a *Agent) lbChanged() {
	a.dirty = true
	o := a.deps.LB.Observed()
	a.self.View = a.view(o)
	a.tellHold(o)
	a.noteHAProxys(o)
}
