package site

import "strings"

// Want is the state that a server shall be in.
type Want string

// The two states; maintenance is never used for failover.
const (
	Ready Want = "ready"
	Drain Want = "drain"
)

// Rule is what every HAProxy must do with the servers that a pattern matches.
type Rule struct {
	Pattern string // backend/server glob
	Want    Want
	Close   bool // also close the connections left on the drained servers, and those that come later
}

// Rules is what every HAProxy must do under a decision. The first rule that
// matches a server wins; a server that none matches is never touched.
//
// Rules of independent backends come first, restricted to their backend. A
// group that the decision does not know yet (just configured) follows the
// default group, as it did before.
//
// The flag quorate says whether this node has had word from the holder of the site
// lease within the lease's length. Without it, exclusive drains everything:
// by then another site may be active. Overlap goes on with what it knows. No
// rules follow from a blank decision as long as the node is quorate.
func Rules(cfg Config, d Decision, quorate bool) []Rule {
	cut := cfg.exclusive() && !quorate
	var rules []Rule
	for _, backend := range cfg.Independent {
		if g, ok := d.Group(backend); cut || ok && !g.blank() {
			rules = append(rules, g.rules(cfg, backend, cut)...)
		}
	}
	if g, ok := d.Group(DefaultGroup); cut || ok && !g.blank() {
		rules = append(rules, g.rules(cfg, "", cut)...)
	}
	return rules
}

func (g Group) rules(cfg Config, backend string, cut bool) []Rule {
	var rules []Rule
	for _, s := range cfg.Sites {
		want := Drain
		if !cut && g.ready(cfg, s.Name) {
			want = Ready
		}
		for _, p := range s.Patterns {
			if backend != "" {
				b, server, _ := strings.Cut(p, "/")
				if !glob(b, backend) {
					continue
				}
				p = backend + "/" + server
			}
			rules = append(rules, Rule{Pattern: p, Want: want, Close: want == Drain && g.closes(cfg, s.Name)})
		}
	}
	return rules
}

// ready says whether the servers of a site take new connections: those of the
// active site, and in overlap's enable phase those of the target too, so that
// there is never an instant without any.
func (g Group) ready(cfg Config, site string) bool {
	return site == g.Active || !cfg.exclusive() && g.Phase == PhaseEnable && site == g.Target
}

// closes says whether what is left on a drained site has had its time. It holds
// until the site serves again, for connections that come back by a cookie too.
func (g Group) closes(cfg Config, site string) bool {
	return g.Close && cfg.DrainTimeout > 0 && site != g.Active && site != g.Target
}
