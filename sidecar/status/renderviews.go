package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// views prints a line for each site and what is seen there, with the nodes
// that see the same together.
func (p *page) views(s Status) {
	lines := viewLines(s)
	if len(lines) == 0 {
		return
	}
	order := func(site string) int {
		if i := slices.Index(s.Sites, site); i >= 0 {
			return i
		}
		return len(s.Sites)
	}
	slices.SortStableFunc(lines, func(a, b viewLine) int { // what was seen once comes below what is seen
		return cmp.Or(cmp.Compare(order(a.view.Site), order(b.view.Site)), cmp.Compare(bit(a.old()), bit(b.old())))
	})
	rows := [][]cell{{c("servers up"), c("usable"), c("seen by"), c("age"), c("backends")}}
	for _, l := range lines {
		usable, servers := c("yes", good), backends(l.view)
		if !l.view.Usable {
			usable = c(strings.TrimSuffix("no, "+l.view.Reason, ", "), bad)
		}
		age := c(span(ms(l.view.AgeMS)))
		if l.old() {
			usable, servers.style, age.style = c("unknown; was "+usable.text, dim), dim, bad
		}
		if len(l.nodes) == 0 {
			usable, age, servers = c("unknown", bad), c("-"), c("no load balancer says what it sees")
		}
		rows = append(rows, []cell{c("  site " + l.view.Site), usable, c(orDash(strings.Join(l.nodes, " "))), age, servers})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
}

// viewLine is what some load balancers see of a site alike.
type viewLine struct {
	view  View
	nodes []string
}

// old says whether nobody vouches for it any more.
func (l viewLine) old() bool { return l.view.Stale || ms(l.view.AgeMS) > stale }

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// viewLines brings those together that see the same, but never what is seen now
// with what was seen once. A site of which nobody says anything has a line too.
func viewLines(s Status) []viewLine {
	var lines []viewLine
	for _, v := range s.Views {
		next := viewLine{view: v}
		i := slices.IndexFunc(lines, func(l viewLine) bool {
			return l.old() == next.old() && l.view.Site == v.Site && l.view.Group == v.Group && l.view.Usable == v.Usable && l.view.Reason == v.Reason && slices.Equal(l.view.Backends, v.Backends)
		})
		if i < 0 {
			lines = append(lines, next)
			i = len(lines) - 1
		}
		lines[i].nodes = append(lines[i].nodes, v.Node)
		lines[i].view.AgeMS = max(lines[i].view.AgeMS, v.AgeMS)
	}
	for _, site := range s.Sites {
		if !slices.ContainsFunc(s.Views, func(v View) bool { return v.Site == site }) {
			lines = append(lines, viewLine{view: View{Site: site}})
		}
	}
	return lines
}

// backends names what is short first, since the line may be cut.
func backends(v View) cell {
	sorted := slices.Clone(v.Backends)
	slices.SortStableFunc(sorted, func(a, b Backend) int { return cmp.Compare(b.Total-b.Up, a.Total-a.Up) })
	parts := make([]string, len(sorted))
	made := cell{}
	for i, b := range sorted {
		parts[i] = fmt.Sprintf("%s %d/%d", b.Name, b.Up, b.Total)
		if b.Up < b.Total {
			made.style = warn
		}
	}
	made.text = clean(strings.Join(parts, ", "))
	return made
}
