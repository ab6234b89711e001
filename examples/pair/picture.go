package main

import (
	"fmt"
	"slices"
	"strings"

	"tandem/examples/lab"
)

// Colours, empty when the output is no terminal.
type palette struct{ good, bad, faint, bold, reset string }

func colours(terminal bool) palette {
	if !terminal {
		return palette{}
	}
	return palette{good: "\x1b[32m", bad: "\x1b[31m", faint: "\x1b[2m", bold: "\x1b[1m", reset: "\x1b[0m"}
}

func (p palette) state(name string, s lab.State) string {
	switch s {
	case lab.Runs:
		return p.good + "●" + p.reset + " " + name
	case lab.Frozen:
		return p.bad + "◐" + p.reset + " " + name + " frozen"
	case lab.Dead:
	}
	return p.bad + "○" + p.reset + " " + name + " dead"
}

// picture draws the lab in a dozen lines.
func picture(s lab.Snapshot, p palette) []string {
	const width = 26
	left, right, third := machine(s.Nodes["lb1"], p), machine(s.Nodes["lb2"], p), machine(s.Nodes["witness"], p)
	lines := []string{
		"  " + clientLine(s, p),
		"        │",
		"   " + p.bold + lab.VIP().String() + p.reset + "  " + holders(s, p),
		"        ├─────────────────────────┐",
	}
	for i := range max(len(left), len(right), len(third)) {
		lines = append(lines, "   "+pad(at(left, i), width)+pad(at(right, i), width)+at(third, i))
	}
	lines = append(lines, "")
	for _, site := range lab.Sites() {
		lines = append(lines, "   "+siteLine(s, site, p))
	}
	return append(lines, edgeLines(s, p)...)
}

func clientLine(s lab.Snapshot, p palette) string {
	n := s.Client
	failed := fmt.Sprintf("%d failed", n.Failed)
	if n.Failed > 0 {
		failed = p.bad + failed + p.reset
	}
	return fmt.Sprintf("client: %d new connections in the last second, %s", n.Requests, failed)
}

func holders(s lab.Snapshot, p palette) string {
	var have []string
	for _, name := range lab.LBs() {
		if s.Nodes[name].Answer {
			have = append(have, name)
		}
	}
	switch len(have) {
	case 0:
		return p.bad + "nobody answers" + p.reset
	case 1:
		return have[0] + " answers"
	default:
		return p.bad + strings.Join(have, " and ") + " answer" + p.reset
	}
}

func machine(v lab.NodeView, p palette) []string {
	if !v.Power {
		return []string{p.bold + v.Name + p.reset, p.bad + "no power" + p.reset}
	}
	name := p.bold + v.Name + p.reset
	if v.Answer {
		name += p.good + " ◀ holds the address" + p.reset
	}
	lines := []string{name}
	for _, proc := range []string{"haproxy", "tandem", "keepalived"} {
		if state, ok := v.Procs[proc]; ok {
			lines = append(lines, p.state(proc, state))
		}
	}
	return lines
}

// edgeLines are about load balancers without a vote, if there are any.
func edgeLines(s lab.Snapshot, p palette) []string {
	all, up := 0, 0
	for name, v := range s.Nodes {
		if !strings.HasPrefix(name, "edge") {
			continue
		}
		if all++; v.Power && v.Procs["tandem"] == lab.Runs && v.Procs["haproxy"] == lab.Runs {
			up++
		}
	}
	switch {
	case all == 0:
		return nil
	case up < all:
		return []string{"", fmt.Sprintf("   %d load balancers without a vote, %s%d of them down%s", all, p.bad, all-up, p.reset)}
	default:
		return []string{"", fmt.Sprintf("   %d load balancers without a vote, all up", all)}
	}
}

func siteLine(s lab.Snapshot, site string, p palette) string {
	v := s.Nodes[site]
	var servers []string
	for name := range v.Procs {
		servers = append(servers, name)
	}
	slices.Sort(servers)
	line := p.bold + "site " + site + p.reset
	if !v.Power {
		return line + "  " + p.bad + "no power" + p.reset
	}
	for _, name := range servers {
		line += "  " + p.state(strings.TrimPrefix(name, "web-"), v.Procs[name])
	}
	served, all := s.Client.Sites()[site], s.Client.Requests-s.Client.Failed
	if served > 0 && all > 0 {
		line += fmt.Sprintf("   %s◀ serves %d %%%s", p.good, 100*served/all, p.reset)
	}
	return line
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// pad fills up to a width that counts neither colours nor bytes.
func pad(s string, width int) string {
	n, escape := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			n++
		}
	}
	return s + strings.Repeat(" ", max(width-n, 1))
}
