package agent

import (
	"net/netip"
	"slices"
	"time"

	"tandem/haproxy"
	"tandem/lib/gossip"
	"tandem/lib/lease"
	"tandem/lib/vip"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// actor is one node in a rehearsal: a real Agent between played neighbours.
type actor struct {
	*Agent

	lb   *playedHAProxy // nil on a node without one
	down bool           // it has no power: it neither acts nor is heard
	cut  bool           // it acts, and nothing comes or goes
	wake time.Duration
}

// playedHAProxy is a HAProxy as its node's report shows it. It does at once
// what it is told, unless the report says that it does not obey.
type playedHAProxy struct {
	o    haproxy.Observation
	view *site.View
	deaf bool // it answers, and something keeps it from obeying
}

func newPlayedHAProxy(r *report, epoch uint64) *playedHAProxy {
	h := &playedHAProxy{view: r.View}
	if r.HAProxy != nil {
		// One that is merely behind obeys in a moment.
		h.deaf = r.HAProxy.Reason != "" && r.Applied < epoch
		h.o = observed(*r.HAProxy)
		for _, one := range r.HAProxy.Each {
			h.o.Each = append(h.o.Each, observed(one))
		}
	}
	if r.View != nil {
		h.count(*r.View)
	}
	return h
}

func observed(s status.HAProxy) haproxy.Observation {
	return haproxy.Observation{
		Name: s.Name, Alive: s.Alive, Version: s.Version, PID: s.PID, Reason: haproxy.Reason(s.Reason), Detail: s.Detail, Aside: s.Aside,
	}
}

// fail ends it, or all of them where there are several.
func (h *playedHAProxy) fail(reason haproxy.Reason) {
	h.o.Alive, h.o.Reason, h.o.Applied = false, reason, 0
	for i := range h.o.Each {
		h.o.Each[i].Alive, h.o.Each[i].Reason = false, reason
	}
}

// count takes a view for what is seen, and as many servers for what is up: the
// isolation test of a pair asks for those.
func (h *playedHAProxy) count(v site.View) {
	h.view, h.o.Servers = &v, nil
	for _, s := range v.Sites {
		for _, b := range s.Backends {
			for range b.Up {
				h.o.Servers = append(h.o.Servers, haproxy.Server{ServerID: haproxy.ServerID{Backend: b.Name, Server: s.Site}, Up: true})
			}
		}
	}
}

// Set implements LoadBalancer.
func (h *playedHAProxy) Set(d haproxy.Desired) {
	if h.o.Alive && !h.deaf {
		h.o.Applied = d.Epoch
	}
}

// Changed implements LoadBalancer.
func (h *playedHAProxy) Changed() <-chan struct{} { return nil }

// Observed implements LoadBalancer.
func (h *playedHAProxy) Observed() haproxy.Observation { return h.o }

// View is what is seen of the sites: a report tells no single servers.
func (h *playedHAProxy) View() *site.View { return h.view }

// playedAddresses are the addresses of a node as its report shows them.
type playedAddresses struct{ report *report }

// Set implements Addresses.
func (playedAddresses) Set(string, vip.Desired) error { return nil }

// Answer implements Addresses.
func (playedAddresses) Answer(string) error { return nil }

// Events implements Addresses.
func (playedAddresses) Events() <-chan vip.Event { return nil }

// Left implements Addresses.
func (playedAddresses) Left(string) (int, error) { return 0, nil }

// Seek implements Addresses: a stranger that is there now is no part of it.
func (playedAddresses) Seek(string, bool) ([]vip.Stranger, bool) { return nil, true }

// NextHops implements Addresses.
func (playedAddresses) NextHops(string) (four, six netip.Addr) { return four, six }

// MinLease implements Addresses.
func (p playedAddresses) MinLease() time.Duration { return p.report.MinLease }

// Carrier implements Addresses.
func (p playedAddresses) Carrier(group string) bool {
	return !slices.Contains(p.report.NoCarrier, group)
}

// Status implements Addresses.
func (p playedAddresses) Status() vip.Status {
	return vip.Status{
		Fence: vip.Fence(p.report.Fence), MinLease: p.report.MinLease,
		Grace: vip.Grace{Available: p.report.Fence == string(vip.FenceGate)},
	}
}

// playedHooks succeed at once; a takeover starts the site that it is for.
type playedHooks struct {
	done    chan HookResult
	started func(site string)
}

// Start implements Hooks.
func (h playedHooks) Start(run site.HookRun) {
	if run.Kind == site.HookTakeover {
		h.started(run.Site)
	}
	h.done <- HookResult{Run: run, OK: true}
}

// Fence implements Hooks; what is played has ended when it is started.
func (playedHooks) Fence(string, uint64, uint64) {}

// Forget implements Hooks.
func (playedHooks) Forget(string) {}

// Done implements Hooks.
func (h playedHooks) Done() <-chan HookResult { return h.done }

// playedStore is a state directory that holds what the node knows now.
type playedStore struct {
	records     []lease.Record
	maintenance bool
}

// Records implements Store.
func (s playedStore) Records() ([]lease.Record, error) { return s.records, nil }

// SaveRecords implements Store.
func (playedStore) SaveRecords([]lease.Record) error { return nil }

// Maintenance implements Store.
func (s playedStore) Maintenance() (bool, error) { return s.maintenance, nil }

// SaveMaintenance implements Store.
func (playedStore) SaveMaintenance(bool) error { return nil }

// History implements Store.
func (playedStore) History() ([]status.Transition, error) { return nil, nil }

// AppendHistory implements Store.
func (playedStore) AppendHistory(status.Transition) error { return nil }

// playedNetwork is one node's way to the others: it takes messages to the
// rehearsal's queue.
type playedNetwork struct {
	r    *rehearsal
	self string
}

// Messages implements Network; the rehearsal delivers by itself.
func (playedNetwork) Messages() <-chan []byte { return nil }

// Changed implements Network.
func (playedNetwork) Changed() <-chan struct{} { return nil }

// Health implements Network.
func (playedNetwork) Health() gossip.Health { return gossip.Health{} }

// Clashes implements Network.
func (playedNetwork) Clashes() []gossip.Clash { return nil }

// Source implements Network.
func (playedNetwork) Source() netip.AddrPort { return netip.AddrPort{} }

// Keys implements Network; nothing is encrypted here.
func (playedNetwork) Keys() []string { return nil }

// Members implements Network. Membership is slow to see a death.
func (p playedNetwork) Members() []gossip.Member {
	var all []gossip.Member
	for _, x := range p.r.actors {
		all = append(all, gossip.Member{Node: x.cfg.Node, Boot: x.boot, Self: x.cfg.Node == p.self})
	}
	return all
}

// Send implements Network.
func (p playedNetwork) Send(node string, b []byte) error {
	p.r.post(p.self, node, b)
	return nil
}

// Broadcast implements Network. It is for those without a vote.
func (p playedNetwork) Broadcast(_ string, b []byte) error {
	for _, x := range p.r.actors {
		if x.cfg.Node != p.self && !slices.Contains(x.cfg.Voters, x.cfg.Node) {
			p.r.post(p.self, x.cfg.Node, b)
		}
	}
	return nil
}
