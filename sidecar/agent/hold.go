package agent

import "tandem/haproxy"

// Hold lets requests wait while the backend they are for has no server. Set
// never blocks.
type Hold interface {
	Set(open map[string]bool)
}

// tellHold says which backends of the sites have a server that takes requests.
func (a *Agent) tellHold(o haproxy.Observation) {
	if a.deps.Hold == nil || a.cfg.Sites == nil || !o.Alive {
		return
	}
	open := map[string]bool{}
	for _, s := range o.Servers {
		if a.ofSite(s.ServerID) {
			open[s.Backend] = open[s.Backend] || takesRequests(s)
		}
	}
	a.deps.Hold.Set(open)
}

func takesRequests(s haproxy.Server) bool {
	return s.Up && s.Weight > 0 && !s.Admin.Has(haproxy.FDrain|haproxy.IDrain)
}

func (a *Agent) ofSite(id haproxy.ServerID) bool {
	for _, s := range a.cfg.Sites.Sites {
		for _, p := range s.Patterns {
			if haproxy.Match(p, id) {
				return true
			}
		}
	}
	return false
}
