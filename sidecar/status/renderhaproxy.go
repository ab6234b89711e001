package status

import (
	"cmp"
	"fmt"
	"strings"
)

// haproxys says what is wrong with the HAProxys of a node, unless it stands
// there already.
func (p *page) haproxys(n Node) {
	h := n.HAProxy
	if h == nil {
		return
	}
	if len(h.Each) == 0 && h.Reason != "" && h.Detail != "" && h.Detail != n.Detail {
		p.text(c("    "+n.Name+": ", dim), h.Detail)
	}
	for _, one := range h.Each {
		switch text := one.Name + ": " + cmp.Or(one.Detail, one.Reason); {
		case one.Alive && one.Reason == "", text == n.Detail:
		case one.Aside:
			p.text(c("    "+n.Name+": ", dim), text+" (no virtual IP leads to it)")
		default:
			p.text(c("    "+n.Name+": ", dim), text)
		}
	}
	if n.Alive && (h.SessionsLeft > 0 || h.SessionsClosed > 0) {
		p.text(c("    "+n.Name+": ", dim), fmt.Sprintf("sessions closed on drained servers: %d; left at the last look: %d", h.SessionsClosed, h.SessionsLeft))
	}
	if n.Alive && h.Map != "" {
		p.text(c("    "+n.Name+": ", dim), "active-site map: "+h.Map)
	}
}

// whyHAProxys says why sessions are cut, and what a map means that cannot be kept.
func (p *page) whyHAProxys(s Status) {
	for _, n := range s.Nodes {
		h := n.HAProxy
		if h == nil || !n.Alive {
			continue
		}
		if h.SessionsLeft > 0 || h.SessionsClosed > 0 {
			p.paragraph(fmt.Sprintf("%s cuts sessions on servers that the decision drains, once a second, because TANDEM_DRAIN_TIMEOUT is over: %d were left at the last look, and %d were closed since its sidecar started. Clients that have a persistence cookie come back until it ends.", n.Name, h.SessionsLeft, h.SessionsClosed))
		}
		if h.Map == MapNotCurrent {
			p.paragraph(n.Name + " cannot keep the active-site map (TANDEM_MAP): rules in haproxy.cfg that follow it may go by an earlier decision.")
		}
	}
}

func haproxy(n Node) cell {
	switch h := n.HAProxy; {
	case !n.Alive && n.Role != "witness" && n.Role != "site", n.Reason == "report-late":
		return c("unknown", dim)
	case h == nil:
		return c("-")
	case len(h.Each) > 0:
		return several(h.Each)
	case h.Alive && h.Reason != "":
		return c(fmt.Sprintf("%s, %s", release(h.Version), h.Reason), warn)
	case h.Alive:
		return c(fmt.Sprintf("%s pid %d", release(h.Version), h.PID))
	default:
		return c(cmp.Or(h.Reason, "down"), bad)
	}
}

// release is a version without what a distribution appends to it.
func release(version string) string {
	if i := strings.IndexAny(version, "-+~"); i > 0 {
		return version[:i]
	}
	return version
}

// several names each HAProxy of a node with its process number or its fault.
func several(each []HAProxy) cell {
	words, look := make([]string, len(each)), plain
	for n, h := range each {
		words[n] = fmt.Sprintf("%s %d", h.Name, h.PID)
		if h.Alive && h.Reason == "" {
			continue
		}
		words[n] = h.Name + " " + cmp.Or(h.Reason, "down")
		if look = bad; h.Alive || h.Aside {
			look = warn
		}
	}
	return c(strings.Join(words, ", "), look)
}
