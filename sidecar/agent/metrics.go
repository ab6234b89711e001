package agent

import (
	"errors"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/sidecar/status"
)

// metrics counts what happens here, and reads the rest from the status when it
// is asked, so that metric and status cannot differ.
type metrics struct {
	agent *Agent

	transitions  *prometheus.CounterVec
	ignored      *prometheus.CounterVec
	leaseNotes   *prometheus.CounterVec
	sendFailures prometheus.Counter
	decisions    prometheus.Counter
	vipSet       prometheus.Histogram
	renewals     renewals
	votes        *prometheus.CounterVec

	holder    *prometheus.Desc
	remaining *prometheus.Desc
	length    *prometheus.Desc
	epoch     *prometheus.Desc
	alone     *prometheus.Desc
	health    *prometheus.Desc
	nodeAlive *prometheus.Desc
	eligible  *prometheus.Desc
	active    *prometheus.Desc
	usable    *prometheus.Desc
	applied   *prometheus.Desc
	paused    *prometheus.Desc
	held      *prometheus.Desc
	fence     *prometheus.Desc
	info      *prometheus.Desc
}

func newMetrics(a *Agent) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tandem_"+name, help, labels, nil)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_" + name, Help: help}, labels)
	}
	return &metrics{
		agent:        a,
		transitions:  counter("transitions_total", "Transitions of this node, by resource, event and reason.", "resource", "event", "reason"),
		ignored:      counter("messages_ignored_total", "Messages from other nodes that were not acted on, by reason.", "reason"),
		leaseNotes:   counter("lease_notes_total", "What the lease machine refused, ignored or remarked, by reason.", "reason"),
		sendFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_send_failures_total", Help: "Messages that the transport did not take."}),
		decisions:    prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_site_decisions_total", Help: "Site decisions of this node that a quorum accepted."}),
		vipSet: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tandem_vip_set_seconds", Help: "Time that one change or extension of the addresses of a group took.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 4, 7),
		}),
		renewals: newRenewals(),
		votes:    counter("lease_votes_total", "Answers of this voter to bids and renewals of others, by vote: promise, accept or refuse.", "vote"),

		holder:    desc("lease_holder", "1 for the node that holds the lease, as far as this node knows.", "resource", "node"),
		remaining: desc("lease_remaining_seconds", "Time until the lease ends unless it is renewed.", "resource"),
		length:    desc("lease_length_seconds", "Length of the lease that the holder asks for.", "resource"),
		epoch:     desc("lease_epoch", "Epoch of the value that the lease carries.", "resource"),
		alone:     desc("lease_unsafe", "1 while a pair-mode node decides alone: two holders are possible.", "resource"),
		health:    desc("health", "1 for the present health.", "health"),
		nodeAlive: desc("node_alive", "1 if the node was heard of late.", "node", "role"),
		eligible:  desc("node_eligible", "1 if the node may take up an address; else 0, with the reason.", "node", "reason"),
		active:    desc("site_active", "1 for the active site of a group of backends.", "group", "site"),
		usable:    desc("site_usable", "1 if a load balancer sees the site usable for a group of backends.", "node", "group", "site"),
		applied:   desc("node_applied_epoch", "Epoch that the node's HAProxy was read back to obey; 0 while it does not.", "node"),
		paused:    desc("paused", "1 while automatic site decisions are paused."),
		held:      desc("servers_held", "Servers that a person holds by hand, by kind.", "node", "kind"),
		fence:     desc("fence", "1 for the fence in force on this node.", "fence"),
		info:      desc("build_info", "Always 1; the version is a label.", "version", "goversion"),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	return errors.Join(r.Register(m.transitions), r.Register(m.ignored), r.Register(m.leaseNotes),
		r.Register(m.sendFailures), r.Register(m.decisions), r.Register(m.vipSet),
		r.Register(m.renewals.seconds), r.Register(m.renewals.missed), r.Register(m.votes), r.Register(m))
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.holder, m.remaining, m.length, m.epoch, m.alone, m.health, m.nodeAlive, m.eligible,
		m.active, m.usable, m.applied, m.paused, m.held, m.fence, m.info,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.agent.Status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.health, 1, string(s.Health))
	gauge(m.info, 1, s.Version, runtime.Version())
	gauge(m.paused, bit(s.PausedUntil != nil))
	for _, l := range s.Leases {
		if l.Holder != "" {
			gauge(m.holder, 1, l.Resource, l.Holder)
			gauge(m.remaining, max(float64(l.ExpiresInMS), 0)/1000, l.Resource)
		}
		if l.LengthMS > 0 { // only the holder knows what it asks for
			gauge(m.length, float64(l.LengthMS)/1000, l.Resource)
		}
		gauge(m.epoch, float64(l.Epoch), l.Resource)
		gauge(m.alone, bit(l.Alone), l.Resource)
	}
	for _, n := range s.Nodes {
		gauge(m.nodeAlive, bit(n.Alive), n.Name, n.Role)
		gauge(m.eligible, bit(n.Eligible), n.Name, n.Reason)
		if n.HAProxy != nil {
			gauge(m.applied, float64(n.AppliedEpoch), n.Name)
		}
		if n.Name == s.Node && n.Fence != "" {
			gauge(m.fence, 1, n.Fence)
		}
	}
	for _, g := range s.Groups {
		if g.Active != "" {
			gauge(m.active, 1, g.Group, g.Active)
		}
	}
	m.collectViews(s, gauge)
}

func (m *metrics) collectViews(s status.Status, gauge func(*prometheus.Desc, float64, ...string)) {
	for _, v := range s.Views {
		if v.Stale {
			continue // nobody knows
		}
		gauge(m.usable, bit(v.Usable), v.Node, v.Group, v.Site)
	}
	counts := map[[2]string]int{}
	for _, h := range s.Held {
		counts[[2]string{h.Node, h.Kind}]++
	}
	for key, n := range counts {
		gauge(m.held, float64(n), key[0], key[1])
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
