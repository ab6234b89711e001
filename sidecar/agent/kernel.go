package agent

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"tandem/lib/vip"
	"tandem/sidecar/status"
)

// kernelFresh is how old the picture of the addresses may be that eligibility
// and reports are made from: asking costs system calls, and the loop turns a
// hundred times a second. Every event of the addresses makes a new one.
const kernelFresh = time.Second

// kernelView is what the addresses said when they were last asked.
type kernelView struct {
	at        time.Duration
	status    vip.Status
	hops      map[string]hops
	noCarrier map[string]bool // groups of which an interface is missing or has no carrier
}

// kernel returns a picture of the addresses that is fresh enough.
func (a *Agent) kernel(now time.Duration) kernelView {
	if a.deps.Addresses == nil {
		return kernelView{}
	}
	if a.vips.at > 0 && now-a.vips.at < kernelFresh {
		return a.vips
	}
	a.vips = kernelView{at: max(now, 1), status: a.deps.Addresses.Status(), noCarrier: map[string]bool{}, hops: map[string]hops{}}
	for _, g := range a.cfg.Groups {
		if !a.deps.Addresses.Carrier(g) {
			a.vips.noCarrier[g] = true
		}
		four, six := a.deps.Addresses.NextHops(g)
		a.vips.hops[g] = hops{Four: four, Six: six}
	}
	return a.vips
}

// hopsOf are the addresses of a peer on the link of a group: what it says
// itself, else its address in TANDEM_PEERS.
func (a *Agent) hopsOf(node string, g *group) hops {
	if p := a.peers[node]; p != nil && p.report != nil {
		if h, ok := p.report.Hops[g.name]; ok {
			return h
		}
	}
	addr := a.cfg.Peers[node]
	if addr.Is4() {
		return hops{Four: addr}
	}
	return hops{Six: addr}
}

// vipEvent reports what the kernel or a stranger did to an address. The
// package that saw it has logged it.
func (a *Agent) vipEvent(e vip.Event) {
	a.vips.at, a.dirty = 0, true
	resource := "addresses"
	if e.Group != "" {
		resource = vipPrefix + e.Group
	}
	a.note(status.Transition{Resource: resource, Event: "address", Reason: string(e.Kind), Detail: e.Detail, To: e.Address})
}

// kernelWarnings are what is wrong with the addresses, in words.
func (a *Agent) kernelWarnings(now time.Duration) []string {
	var out []string
	s := a.kernel(now).status
	if s.FenceWhy != "" && a.hasAddresses() && !a.cfg.Observe {
		out = append(out, "no-gate: the fence is the kernel's address lifetime, leases are longer: "+s.FenceWhy)
	}
	for _, c := range s.Missing {
		out = append(out, "capability-missing: "+c.Name+" "+c.For+"; "+c.Mend())
	}
	if t := s.Tracking; t.Full() {
		out = append(out, fmt.Sprintf("tracking-full: the kernel tracks %d connections of at most %d, and drops new ones when it can track no more: "+
			"raise net.netfilter.nf_conntrack_max, or have the firewall not track what it need not (notrack)", t.Count, t.Max))
	}
	for _, g := range s.Groups {
		if g.Trouble != "" {
			out = append(out, "address: "+g.Trouble)
		}
		for _, x := range g.Addresses {
			if x.Contested {
				out = append(out, "address-contested: something else keeps removing "+x.Prefix.String())
			}
			if x.Error != "" && x.Error != g.Trouble {
				out = append(out, "address: "+x.Prefix.String()+": "+x.Error)
			}
		}
	}
	return out
}

func (a *Agent) hasAddresses() bool {
	for _, v := range a.cfg.VIPs {
		if len(v) > 0 {
			return true
		}
	}
	return false
}

func (a *Agent) setVIP(g *group, d vip.Desired) {
	if a.deps.Addresses == nil {
		return
	}
	began := a.deps.Now()
	err := a.deps.Addresses.Set(g.name, d)
	a.metrics.vipSet.Observe((a.deps.Now() - began).Seconds())
	if (err == nil) == (g.setError == "") {
		return
	}
	if g.setError = ""; err != nil {
		g.setError = err.Error()
		a.log.Warn("address not set as wanted", zap.String("group", g.name), zap.Stringer("role", d.Role), zap.Error(err))
	}
}

func (a *Agent) answer(g *group) {
	if a.deps.Addresses == nil {
		return
	}
	if err := a.deps.Addresses.Answer(g.name); err != nil {
		a.log.Warn("address not announced", zap.String("group", g.name), zap.Error(err))
	}
}
