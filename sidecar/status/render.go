package status

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Screen says how to print.
type Screen struct {
	Width int       // columns; 0 is 80
	Color bool      // with ANSI colours: only on a terminal
	Now   time.Time // to tell how old the picture is
}

func (sc Screen) page() *page { return &page{width: cmp.Or(sc.Width, 80), color: sc.Color} }

// stale is the age at which a fact is no longer called fresh: several times
// what lies between two reports of a node.
const stale = 3 * time.Second

// Render prints the whole picture on one screen.
func Render(w io.Writer, s Status, sc Screen) error {
	p := sc.page()
	p.head(s, sc.Now)
	p.leases(s)
	p.sites(s)
	p.nodes(s)
	p.views(s)
	p.held(s)
	p.next(s)
	p.recent(s, sc.Now)
	_, err := io.WriteString(w, p.b.String())
	return err
}

func healthStyle(h Health) style {
	switch h {
	case Healthy:
		return good
	case Degraded:
		return warn
	case NotServing, Unknown:
		return bad
	default:
		return bad
	}
}

func (p *page) head(s Status, now time.Time) {
	age := "age unknown"
	if !s.At.IsZero() && !now.IsZero() {
		age = "seen " + ago(now.Sub(s.At))
	}
	mode := s.Mode
	voters := 0
	for _, n := range s.Nodes {
		if n.Voter {
			voters++
		}
	}
	if s.Mode == "quorum" && voters > 0 {
		mode += fmt.Sprintf(" of %d", voters)
	}
	// The version comes last: it may be cut, how old the picture is may not.
	title := strings.Join([]string{"cluster " + s.Cluster, mode, "by " + s.Node + ", " + age, "tandem " + s.Version}, " · ")
	p.split(c(title, bold), c(strings.ToUpper(string(cmp.Or(s.Health, Unknown))), healthStyle(s.Health)))
	for _, problem := range s.Problems {
		p.text(c("! ", healthStyle(s.Health)), problem)
	}
	if !s.At.IsZero() && now.Sub(s.At) > stale {
		p.text(c("! ", bad), "this picture is "+span(now.Sub(s.At))+" old: the sidecar does not refresh it")
	}
	if s.Unsafe {
		p.text(c("! ", bad), "unsafe: one of a pair goes on alone; while the link between two healthy nodes is cut, two may hold the address")
	}
	if s.Observe {
		p.text(c("o ", warn), "observing only: nothing is touched")
	}
	if s.QuarantineMS > 0 {
		p.text(c("o ", warn), "just started: this voter keeps silent for another "+span(ms(s.QuarantineMS)))
	}
	if mixed := versions(s); mixed != "" {
		p.text(c("o ", warn), mixed)
	}
	if until := s.PausedUntil; until != nil {
		p.text(c("o ", warn), "paused: no automatic site decision "+pausedUntil(*until, now))
	}
	p.b.WriteByte('\n')
}

// versions says who runs what while the nodes are not all of one version, as in
// a rolling upgrade, and which version of the messages is spoken meanwhile.
func versions(s Status) string {
	var kinds []string
	names := map[string][]string{}
	for _, n := range s.Nodes {
		if !n.Alive || n.Version == "" {
			continue
		}
		kind := n.Version
		if n.Protocol > 0 {
			kind += fmt.Sprintf(" (reads protocol %d)", n.Protocol)
		}
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
		names[kind] = append(names[kind], n.Name)
	}
	if len(kinds) < 2 {
		return ""
	}
	parts := make([]string, len(kinds))
	for i, kind := range kinds {
		parts[i] = kind + " on " + some(names[kind])
	}
	return fmt.Sprintf("versions differ: %s; protocol %d is spoken", strings.Join(parts, ", "), s.Protocol.Speaks)
}

// some names a few, and counts the rest.
func some(names []string) string {
	const few = 8
	if len(names) <= few {
		return strings.Join(names, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], " "), len(names)-few)
}

// pausedUntil says how long; a time of 1970 or before means without end.
func pausedUntil(until, now time.Time) string {
	if until.Unix() <= 0 {
		return "until `tandem resume`"
	}
	return "for another " + span(until.Sub(now)) + ", until " + until.Local().Format("15:04:05")
}

func (p *page) leases(s Status) {
	if len(s.Leases) == 0 {
		return
	}
	rows := [][]cell{{c("leases"), c("holder"), c("left"), c("of"), c("epoch"), c("fence"), c("addresses")}}
	for _, l := range s.Leases {
		holder := c(l.Holder, good)
		left, length := c(span(ms(l.ExpiresInMS))), c(span(ms(l.LengthMS)))
		switch {
		case l.Holder == "":
			holder, left, length = c("nobody", bad), c("-"), c("-")
		case l.ExpiresInMS <= 0:
			left = c("over", bad)
		case l.Source == "hint":
			left.text += " (hint)"
		}
		if l.LengthMS <= 0 {
			length = c("-")
		}
		if l.Alone {
			holder = c(l.Holder+" alone", bad)
		}
		rows = append(rows, []cell{c("  " + l.Resource), holder, left, length, epoch(l.Epoch), c(orDash(l.Fence)), c(strings.Join(l.Addresses, " "))})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
}

func epoch(e uint64) cell {
	if e == 0 {
		return c("-")
	}
	return c(strconv.FormatUint(e, 10))
}

func orDash(s string) string { return cmp.Or(s, "-") }

func (p *page) sites(s Status) {
	if len(s.Groups) == 0 {
		return
	}
	rows := [][]cell{{c("sites"), c("active"), c("since"), c("epoch"), c("reason"), c("now")}}
	for _, g := range s.Groups {
		active, doing := c(g.Active, good), c("settled")
		if g.Active == "" {
			active = c("none", bad)
		}
		if g.Switching() {
			doing = c(g.Phase+" → "+g.Target, warn)
		}
		if g.Waiting != "" && g.Switching() {
			doing.text += ", " + g.Waiting
		}
		if g.AckNeeded {
			doing = c("stopped, needs `tandem ack`", bad)
		}
		reason := g.Reason
		if g.Actor != "" {
			reason += " by " + g.Actor
		}
		rows = append(rows, []cell{c("  " + g.Group), active, c(since(s.At, g.Since)), epoch(g.Epoch), c(orDash(reason)), doing})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
}

// since is how long ago something was when the picture was made.
func since(at, then time.Time) string {
	if then.IsZero() || then.Unix() <= 0 || at.IsZero() {
		return "-"
	}
	return span(at.Sub(then))
}

func (p *page) nodes(s Status) {
	if len(s.Nodes) == 0 {
		return
	}
	rows := [][]cell{{c("nodes"), c("role"), c("site"), c("state"), c("HAProxy"), c("carries"), c("heard")}}
	for _, n := range s.Nodes {
		name := "  " + n.Name
		if !n.Voter {
			name += " (no vote)"
		}
		rows = append(rows, []cell{c(name), c(orDash(n.Role)), c(orDash(n.Site)), state(n), haproxy(n), c(orDash(strings.Join(n.VIPs, " "))), heard(n, s.Node)})
	}
	p.table(rows...)
	for _, n := range s.Nodes {
		said := slices.ContainsFunc(s.Problems, func(problem string) bool { return strings.Contains(problem, n.Detail) })
		if n.Detail != "" && !said && (!n.Alive || !n.Eligible && n.Reason != "") {
			p.text(c("    "+n.Name+": ", dim), n.Detail)
		}
		p.haproxys(n)
		for _, warning := range n.Warnings {
			p.text(c("    "+n.Name+": ", warn), warning)
		}
	}
	p.b.WriteByte('\n')
}

func state(n Node) cell {
	switch {
	case !n.Alive:
		return c(cmp.Or(n.Reason, "silent"), bad)
	case n.Maintenance:
		return c("maintenance", warn)
	case n.Role == "lb" && n.Eligible:
		return c("eligible", good)
	case n.Role == "lb":
		return c(cmp.Or(n.Reason, "not eligible"), bad)
	default:
		return c("alive", good)
	}
}

func heard(n Node, self string) cell {
	switch {
	case n.Name == self:
		return c("here")
	case n.AgeMS < 0:
		return c("never", bad)
	case ms(n.AgeMS) > stale:
		return c(ago(ms(n.AgeMS)), bad)
	default:
		return c(ago(ms(n.AgeMS)))
	}
}

// views prints a line for each site and what is seen there, with the nodes
// that see the same together.
func (p *page) views(s Status) {
	type line struct {
		view  View
		nodes []string
	}
	var lines []line
	for _, v := range s.Views {
		i := slices.IndexFunc(lines, func(l line) bool {
			return l.view.Site == v.Site && l.view.Usable == v.Usable && l.view.Reason == v.Reason && slices.Equal(l.view.Backends, v.Backends)
		})
		if i < 0 {
			lines = append(lines, line{view: v})
			i = len(lines) - 1
		}
		lines[i].nodes = append(lines[i].nodes, v.Node)
		lines[i].view.AgeMS = max(lines[i].view.AgeMS, v.AgeMS)
	}
	if len(lines) == 0 {
		return
	}
	order := func(site string) int {
		if i := slices.Index(s.Sites, site); i >= 0 {
			return i
		}
		return len(s.Sites)
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(order(a.view.Site), order(b.view.Site)) })
	rows := [][]cell{{c("servers up"), c("usable"), c("seen by"), c("age"), c("backends")}}
	for _, l := range lines {
		usable := c("yes", good)
		if !l.view.Usable {
			usable = c(strings.TrimSuffix("no, "+l.view.Reason, ", "), bad)
		}
		age := c(span(ms(l.view.AgeMS)))
		if ms(l.view.AgeMS) > stale {
			age.style = bad
		}
		rows = append(rows, []cell{c("  site " + l.view.Site), usable, c(strings.Join(l.nodes, " ")), age, backends(l.view)})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
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

func (p *page) held(s Status) {
	if len(s.Held) == 0 {
		return
	}
	rows := [][]cell{{c("held by hand"), c("on"), c("how"), c("")}}
	for _, h := range s.Held {
		rows = append(rows, []cell{c("  " + h.Server), c(h.Node), c(h.Kind, warn), c(h.Detail)})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
}

func (p *page) next(s Status) {
	if len(s.NextFail) == 0 {
		return
	}
	p.line(c("what the next failure would do", bold))
	for _, sentence := range s.NextFail {
		p.text(c("  "), sentence)
	}
	p.b.WriteByte('\n')
}

// recentShown is how many transitions fit on the screen with the rest.
const recentShown = 5

func (p *page) recent(s Status, now time.Time) {
	if len(s.Recent) == 0 {
		return
	}
	p.transitions(s.Recent[max(0, len(s.Recent)-recentShown):], now, "recent")
}

// transitions prints a table, the latest last.
func (p *page) transitions(all []Transition, now time.Time, title string) {
	rows := [][]cell{{c(title), c("what"), c("change"), c("epoch"), c("reason"), c("who")}}
	for _, t := range all {
		rows = append(rows, []cell{c("  " + moment(t.At, now)), c(what(t)), c(change(t)), epoch(t.Epoch), c(orDash(t.Reason)), c(orDash(cmp.Or(t.Actor, t.Node)))})
	}
	p.table(rows...)
}

func what(t Transition) string {
	if t.Phase != "" {
		return t.Resource + " " + t.Event + " " + t.Phase
	}
	return t.Resource + " " + t.Event
}

func change(t Transition) string {
	switch {
	case t.From != "" && t.To != "":
		return t.From + " → " + t.To
	case t.To != "":
		return "→ " + t.To
	case t.From != "":
		return t.From + " →"
	default:
		return orDash(t.Detail)
	}
}
