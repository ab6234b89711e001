package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tandem/haproxy"
	"tandem/sidecar/site"
)

// ErrQuestion is wrapped by every error about a question that cannot be asked:
// a fault that does not exist, a name that nobody has.
var ErrQuestion = errors.New("cannot rehearse this")

// fault is something that happens in a rehearsal.
type fault struct {
	text  string // as it was asked for
	words string // for a sentence: lb1 fails
	node  string // whom it befalls; empty: all
	begin func(r *rehearsal)
	note  string // what the reader should know of it; empty: nothing
}

// FaultExamples show the forms of a fault.
const FaultExamples = "lb1=down, lb1=cut, lb1=maintenance, lb1.haproxy=down, site.a=down, site.a.app=down, lb1.site.a=down"

// parseFaults reads faults by the names that the picture has.
func (p picture) parseFaults(texts []string) ([]fault, error) {
	var all []fault
	for _, text := range texts {
		f, err := p.parseFault(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrQuestion, text, err)
		}
		all = append(all, f)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: say what fails, for example %s", ErrQuestion, FaultExamples)
	}
	return all, nil
}

func (p picture) parseFault(text string) (fault, error) {
	what, state, ok := strings.Cut(text, "=")
	if !ok || what == "" || state == "" {
		return fault{}, fmt.Errorf("want NAME=STATE, for example %s", FaultExamples)
	}
	if rest, ok := strings.CutPrefix(what, "site."); ok {
		return p.siteFault(text, "", rest, state)
	}
	for _, n := range p.Nodes {
		if what == n.Name {
			return p.nodeFault(text, n, state)
		}
		rest, ok := strings.CutPrefix(what, n.Name+".")
		switch {
		case !ok:
		case rest == "haproxy":
			return p.haproxyFault(text, n, state)
		case strings.HasPrefix(rest, "site."):
			return p.siteFault(text, n.Name, strings.TrimPrefix(rest, "site."), state)
		default:
			return fault{}, fmt.Errorf("%s has haproxy and site.NAME that can fail, not %s", n.Name, rest)
		}
	}
	var names []string
	for _, n := range p.Nodes {
		names = append(names, n.Name)
	}
	return fault{}, fmt.Errorf("there is no node %s; the nodes are %s%s", what, strings.Join(names, ", "), p.siteHint())
}

func (p picture) siteHint() string {
	if p.Config.Sites == nil {
		return ""
	}
	return "; the sites are site." + strings.Join(p.siteNames(), ", site.")
}

func (p picture) siteNames() []string {
	var names []string
	for _, s := range p.Config.Sites.Sites {
		names = append(names, s.Name)
	}
	return names
}

func (p picture) nodeFault(text string, n pictureNode, state string) (fault, error) {
	f := fault{text: text, node: n.Name}
	switch state {
	case "down":
		f.words, f.begin = n.Name+" fails", func(r *rehearsal) { r.find(n.Name).down = true }
	case "cut":
		f.words, f.begin = n.Name+" is cut off", func(r *rehearsal) { r.cutOff(n.Name) }
	case "maintenance":
		f.words, f.begin = n.Name+" goes into maintenance", func(r *rehearsal) {
			x := r.find(n.Name)
			x.maintenance, x.dirty, x.wake = true, true, r.now
		}
	default:
		return f, fmt.Errorf("a node can be down, cut or in maintenance, not %s; for example %s=down", state, n.Name)
	}
	if !n.Alive {
		f.note, f.begin = n.Name+" is silent already", func(*rehearsal) {}
	}
	return f, nil
}

func (p picture) haproxyFault(text string, n pictureNode, state string) (fault, error) {
	reasons := map[string]haproxy.Reason{"down": haproxy.ReasonDied, "hung": haproxy.ReasonHung}
	reason, ok := reasons[state]
	switch {
	case !ok:
		return fault{}, fmt.Errorf("a HAProxy can be down or hung, not %s", state)
	case n.Report == nil || n.Report.Role != RoleLB:
		return fault{}, fmt.Errorf("%s has no HAProxy beside it, as far as is known here", n.Name)
	}
	f := fault{text: text, node: n.Name, words: "HAProxy of " + n.Name + map[string]string{"down": " dies", "hung": " hangs"}[state]}
	f.begin = func(r *rehearsal) {
		if x := r.find(n.Name); x != nil {
			x.lb.fail(reason)
			x.lbChanged()
			x.wake = r.now
		}
	}
	if !n.Alive {
		f.note = n.Name + " is silent already"
	}
	return f, nil
}

// siteFault is about a site, or one backend of it, as all load balancers see
// it or one does.
func (p picture) siteFault(text, node, rest, state string) (fault, error) {
	if p.Config.Sites == nil {
		return fault{}, errors.New("this node knows of no sites (TANDEM_SITES); ask on a load balancer")
	}
	name, backend := p.splitSite(rest)
	switch {
	case name == "":
		return fault{}, fmt.Errorf("there is no site %s; the sites are %s", rest, strings.Join(p.siteNames(), ", "))
	case state != "down" && state != "up":
		return fault{}, fmt.Errorf("a site can be down or up, not %s", state)
	case backend != "" && !p.hasBackend(name, backend):
		return fault{}, fmt.Errorf("no load balancer has seen a backend %s at site %s", backend, name)
	}
	f := fault{text: text, node: node, words: "site " + name}
	if backend != "" {
		f.words = backend + " at site " + name
	}
	f.words += map[string]string{"down": " fails", "up": " comes back"}[state]
	if node != "" {
		f.words = map[string]string{"down": node + " loses sight of ", "up": node + " sees again "}[state] + strings.TrimSuffix(strings.TrimSuffix(f.words, " fails"), " comes back")
	}
	f.begin = func(r *rehearsal) {
		r.recount(node, func(s site.SiteView, b site.BackendView) int {
			switch {
			case s.Site != name || backend != "" && b.Name != backend:
				return b.Up
			case state == "up":
				return b.Total
			default:
				return 0
			}
		})
	}
	return f, nil
}

// splitSite tells the site's name from a backend's behind it; names may have
// dots.
func (p picture) splitSite(rest string) (name, backend string) {
	for _, s := range p.siteNames() {
		after, ok := strings.CutPrefix(rest, s+".")
		if rest == s || ok && len(s) > len(name) {
			name, backend = s, after
			if rest == s {
				return s, ""
			}
		}
	}
	return name, backend
}

func (p picture) hasBackend(name, backend string) bool {
	return slices.ContainsFunc(p.Nodes, func(n pictureNode) bool {
		return n.Report != nil && n.Report.View != nil && slices.ContainsFunc(n.Report.View.Sites, func(s site.SiteView) bool {
			return s.Site == name && slices.ContainsFunc(s.Backends, func(b site.BackendView) bool { return b.Name == backend })
		})
	})
}

// cutOff takes a node's network away: it reaches nobody and sees no server.
func (r *rehearsal) cutOff(node string) {
	r.find(node).cut = true
	if r.picture.Config.Sites != nil {
		r.recount(node, func(site.SiteView, site.BackendView) int { return 0 })
	}
}
