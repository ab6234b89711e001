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
	p.old = !s.At.IsZero() && sc.Now.Sub(s.At) > stale
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
	health := cmp.Or(s.Health, Unknown)
	if p.old { // how it is by now, nobody has said
		p.split(c(title, bold), c(strings.ToUpper(string(Unknown)), bad))
		p.text(c("! ", bad), "this picture is "+span(now.Sub(s.At))+" old: the sidecar does not refresh it. It was "+strings.ToUpper(string(health))+" then, and all below is as it was then")
	} else {
		p.split(c(title, bold), c(strings.ToUpper(string(health)), healthStyle(health)))
	}
	unsafe := false
	for _, problem := range s.Problems {
		look := healthStyle(s.Health)
		if strings.HasPrefix(problem, "unsafe") {
			unsafe, look = true, bad
		}
		p.text(c("! ", look), problem)
	}
	if s.Unsafe && !unsafe {
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
		case l.Holder == "" && l.Source == LeaseUnknown:
			holder, left, length = c("unknown", bad), c("-"), c("-")
		case l.Holder == "":
			holder, left, length = c("nobody", bad), c("-"), c("-")
		case p.old:
			left = c("unknown", bad)
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
		rows = append(rows, []cell{c("  " + l.Resource), holder, left, length, epoch(l.Epoch), c(orDash(l.Fence)), c(addresses(l.Addresses))})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
}

// addresses are those of a group, without the prefix that says one address.
func addresses(all []string) string {
	short := make([]string, len(all))
	for i, a := range all {
		short[i] = strings.TrimSuffix(strings.TrimSuffix(a, "/32"), "/128")
	}
	return strings.Join(short, " ")
}

// carries names one address and counts the others; which these are stands at
// the lease.
func carries(n Node) cell {
	switch {
	case !n.Alive && n.Role != "witness" && n.Role != "site":
		return c("unknown", dim)
	case len(n.VIPs) > 1:
		return c(fmt.Sprintf("%s +%d", n.VIPs[0], len(n.VIPs)-1))
	}
	return c(orDash(strings.Join(n.VIPs, " ")))
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
		switch {
		case g.Waiting != "" && g.Switching():
			doing.text += ", " + g.Waiting
		case g.Waiting != "":
			doing = c("stays, "+g.Waiting, warn)
		}
		if g.AckNeeded {
			doing = c("stopped, needs `tandem ack`", bad)
		}
		if g.Stale {
			active, doing = c(cmp.Or(g.Active, "none")+" when last heard", bad), c("unknown", bad)
		}
		reason := g.Reason
		if g.Actor != "" {
			reason += " by " + person(g.Actor)
		}
		rows = append(rows, []cell{c("  " + g.Group), active, c(since(s.At, g.Since)), epoch(g.Epoch), c(orDash(reason)), doing})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
}

// since is how long ago something was when the picture was made.
func since(at time.Time, then *time.Time) string {
	if then == nil || at.IsZero() {
		return "-"
	}
	return span(at.Sub(*then))
}

func (p *page) nodes(s Status) {
	if len(s.Nodes) == 0 {
		return
	}
	sited := slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Site != "" })
	rows := [][]cell{{c("nodes"), c("role"), c("site"), c("state"), c("HAProxy"), c("carries"), c("heard")}}
	for _, n := range s.Nodes {
		role := cmp.Or(n.Role, "unknown")
		if !n.Voter {
			role += ", no vote"
		}
		rows = append(rows, []cell{c("  " + n.Name), c(role), c(orDash(n.Site)), state(n), haproxy(n), carries(n), heard(n, s.Node)})
	}
	if !sited {
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 2, 3)
		}
	}
	p.table(rows...)
	for _, n := range s.Nodes {
		said := func(text string) bool {
			return slices.ContainsFunc(s.Problems, func(problem string) bool { return strings.Contains(problem, text) })
		}
		if n.Detail != "" && !said(n.Detail) && (!n.Alive || !n.Eligible && n.Reason != "") {
			p.text(c("    "+n.Name+": ", dim), n.Detail)
		}
		p.haproxys(n)
		for _, warning := range n.Warnings {
			if said(warning) {
				continue
			}
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

func (p *page) held(s Status) {
	if len(s.Held) == 0 {
		return
	}
	rows := [][]cell{{c("held by hand"), c("on"), c("how"), c("what is known of it")}}
	for _, h := range heldAlike(s.Held) {
		rows = append(rows, []cell{c("  " + h.Server), c(h.Node), c(h.Kind, warn), c(h.Detail)})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
}

// heldAlike joins what is held in the same way on several nodes.
func heldAlike(all []Held) []Held {
	var out []Held
	for _, h := range all {
		i := slices.IndexFunc(out, func(o Held) bool { return o.Server == h.Server && o.Kind == h.Kind && o.Detail == h.Detail })
		if i < 0 {
			out = append(out, h)
		} else {
			out[i].Node += " " + h.Node
		}
	}
	return out
}

func (p *page) next(s Status) {
	if len(s.Nodes) == 0 {
		return
	}
	p.line(c("what the next failure would do", bold))
	switch {
	case p.old || s.Health == Unknown:
		p.text(c("  "), "unknown, since it is not known how the cluster is")
	case len(s.NextFail) == 0:
		p.text(c("  "), "not known while something is changing")
	}
	if p.old {
		p.b.WriteByte('\n')
		return
	}
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
