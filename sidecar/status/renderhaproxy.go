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
}

func haproxy(n Node) cell {
	switch h := n.HAProxy; {
	case h == nil:
		return c("-")
	case !n.Alive:
		return c("unknown", dim)
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
