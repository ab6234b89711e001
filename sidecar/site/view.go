package site

import (
	"cmp"
	"slices"
	"strings"
)

// ServerState is what one HAProxy says of one server.
type ServerState struct {
	Backend, Server string
	Up              bool // health says up; a drained healthy server is up
	Held            bool // a person holds it (maintenance or an operator's drain): counts as not up
	Drained         bool // gets no new connections, whoever drained it
}

// View is what one load balancer sees of each site, small enough to gossip.
type View struct {
	Node  string     `json:"n"`
	Sites []SiteView `json:"s,omitempty"` // in order of groups, then of sites
}

// SiteView is what one load balancer sees of one group at one site.
type SiteView struct {
	Group    string        `json:"g,omitempty"` // empty is `default` (see In)
	Site     string        `json:"s"`
	Usable   bool          `json:"u,omitempty"`
	Routed   bool          `json:"y,omitempty"` // at least one server is neither drained nor held
	Reason   Reason        `json:"r,omitempty"` // why it is not usable
	Detail   string        `json:"d,omitempty"` // the backend concerned
	Backends []BackendView `json:"b,omitempty"` // sorted by name
}

// In names the group.
func (s *SiteView) In() string { return cmp.Or(s.Group, DefaultGroup) }

// BackendView counts the servers of one backend that belong to the site.
type BackendView struct {
	Name  string `json:"n"`
	Up    int    `json:"u"`
	Total int    `json:"t"`
}

// Of returns what the view says of a group at a site, or nil.
func (v *View) Of(group, site string) *SiteView {
	if v == nil {
		return nil
	}
	for i := range v.Sites {
		if v.Sites[i].Site == site && v.Sites[i].In() == group {
			return &v.Sites[i]
		}
	}
	return nil
}

func (v *View) usable(group, site string) bool {
	s := v.Of(group, site)
	return s != nil && s.Usable
}

// NewView says what the servers of one HAProxy amount to. Servers that match
// no site do not appear. The order of servers does not matter.
func NewView(cfg Config, node string, servers []ServerState) View {
	v := View{Node: node}
	index := map[[2]string]int{}
	for _, g := range cfg.Groups() {
		for _, s := range cfg.Sites {
			index[[2]string{g, s.Name}] = len(v.Sites)
			name := g
			if g == DefaultGroup {
				name = ""
			}
			v.Sites = append(v.Sites, SiteView{Group: name, Site: s.Name})
		}
	}
	for _, s := range servers {
		name, ok := cfg.siteOf(s.Backend, s.Server)
		if !ok {
			continue
		}
		v.Sites[index[[2]string{cfg.groupOf(s.Backend), name}]].count(s)
	}
	for i := range v.Sites {
		v.Sites[i].judge(cfg)
	}
	return v
}

func (s *SiteView) count(server ServerState) {
	i, ok := slices.BinarySearchFunc(s.Backends, server.Backend, func(b BackendView, name string) int {
		return strings.Compare(b.Name, name)
	})
	if !ok {
		s.Backends = slices.Insert(s.Backends, i, BackendView{Name: server.Backend})
	}
	s.Backends[i].Total++
	if server.Up && !server.Held {
		s.Backends[i].Up++
	}
	s.Routed = s.Routed || !server.Drained && !server.Held
}

// judge decides whether the site is usable: every critical backend must have
// enough servers up.
func (s *SiteView) judge(cfg Config) {
	if len(s.Backends) == 0 {
		s.Reason = ReasonNoServers
		return
	}
	for _, name := range s.missing(cfg) {
		s.Reason, s.Detail = ReasonCriticalMissing, name
		return
	}
	for _, b := range s.Backends {
		if s.critical(cfg, b.Name) && b.Up < cfg.MinUp.Need(b.Total) {
			s.Reason, s.Detail = ReasonCriticalDown, b.Name
			return
		}
	}
	s.Usable = true
}

// critical says whether a backend of this group is critical. An independent
// backend is critical for its own group alone.
func (s *SiteView) critical(cfg Config, backend string) bool {
	if s.Group != "" || len(cfg.Critical) == 0 {
		return true
	}
	return slices.ContainsFunc(cfg.Critical, func(p string) bool { return glob(p, backend) })
}

// missing lists the critical backends, named without a glob, in which the site
// has no server at all: it could not do the work.
func (s *SiteView) missing(cfg Config) []string {
	var names []string
	if s.Group != "" {
		return nil
	}
	for _, p := range cfg.Critical {
		if strings.ContainsAny(p, "*?") || slices.Contains(cfg.Independent, p) {
			continue
		}
		if !slices.ContainsFunc(s.Backends, func(b BackendView) bool { return b.Name == p }) {
			names = append(names, p)
		}
	}
	return names
}

// Recount returns the view with other numbers of servers up, judged anew: up
// says how many a backend has at a site. What is rehearsed is counted so.
func (v *View) Recount(cfg Config, up func(s SiteView, b BackendView) int) View {
	out := View{Node: v.Node, Sites: slices.Clone(v.Sites)}
	for i := range out.Sites {
		s := &out.Sites[i]
		was := *s
		s.Usable, s.Reason, s.Detail, s.Backends = false, "", "", slices.Clone(s.Backends)
		for j, b := range s.Backends {
			s.Backends[j].Up = min(max(up(was, b), 0), b.Total)
		}
		s.judge(cfg)
	}
	return out
}
