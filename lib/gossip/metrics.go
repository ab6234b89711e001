package gossip

import (
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// tally counts by reason. The set of reasons is fixed in the code, so it does
// not grow with what strangers send.
type tally struct {
	mu sync.Mutex
	n  map[Reason]uint64
}

func (t *tally) add(r Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[Reason]uint64{}
	}
	t.n[r]++
}

func (t *tally) all() map[Reason]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.n)
}

// counters is what Health and the metrics tell.
type counters struct {
	guard    tally // dropped at the door
	messages tally // authentic messages that were dropped inside
	sends    tally // messages that were not sent
	joins    tally // attempts that failed
	clashes  tally // two processes of one name
	received tally
	sent     tally
}

const received, sent Reason = "received", "sent"

// collector shows the counters to Prometheus.
type collector struct {
	g *Gossip

	members, score, peers                       *prometheus.Desc
	guard, messages, sends, joins, clashes, got *prometheus.Desc
	out                                         *prometheus.Desc
}

func newCollector(g *Gossip) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tandem_gossip_"+name, help, labels, nil)
	}
	return &collector{
		g:        g,
		members:  desc("members", "Members of the cluster that gossip believes alive, this node included."),
		score:    desc("health_score", "How badly this node meets the deadlines of gossip; 0 is best."),
		peers:    desc("peer_member", "1 if the peer is a member, else 0 with the reason.", "peer", "reason"),
		guard:    desc("guard_dropped_total", "Datagrams and streams dropped before they were looked at.", "reason"),
		messages: desc("messages_dropped_total", "Authentic messages that were dropped.", "reason"),
		sends:    desc("sends_failed_total", "Messages that were not sent.", "reason"),
		joins:    desc("join_failures_total", "Attempts to join a peer that failed.", "reason"),
		clashes:  desc("name_clashes_total", "Times that two live processes were found under one node name."),
		got:      desc("messages_received_total", "Messages handed to this node."),
		out:      desc("messages_sent_total", "Messages sent to one node."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.members, c.score, c.peers, c.guard, c.messages, c.sends, c.joins, c.clashes, c.got, c.out} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	h := c.g.Health()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	byReason := func(d *prometheus.Desc, t *tally) {
		for r, n := range t.all() {
			count(d, n, string(r))
		}
	}
	gauge(c.members, float64(h.Members))
	gauge(c.score, float64(h.Score))
	for _, p := range h.Peers {
		up := 0.0
		if p.Member {
			up = 1
		}
		gauge(c.peers, up, p.Name, string(p.Reason))
	}
	n := &c.g.counts
	byReason(c.guard, &n.guard)
	byReason(c.messages, &n.messages)
	byReason(c.sends, &n.sends)
	byReason(c.joins, &n.joins)
	count(c.clashes, n.clashes.all()[ReasonNameClash])
	count(c.got, n.received.all()[received])
	count(c.out, n.sent.all()[sent])
}
