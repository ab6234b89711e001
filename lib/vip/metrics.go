package vip

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a Manager. Labels are the group's name and reason words.
type metrics struct {
	roles     *prometheus.GaugeVec
	announces *prometheus.CounterVec
	foreigns  *prometheus.CounterVec
	events    *prometheus.CounterVec
	fences    *prometheus.GaugeVec
	lost      prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tandem", Subsystem: "vip", Name: name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tandem", Subsystem: "vip", Name: name, Help: help}, labels)
	}
	m := &metrics{
		roles:     gauge("role", "1 for the role this node has in the group, 0 for the others.", "group", "role"),
		announces: counter("announcements_total", "Gratuitous ARP and unsolicited neighbour advertisements sent.", "group"),
		foreigns:  counter("foreign_announcements_total", "Announcements by others of an address that this node holds.", "group"),
		events:    counter("events_total", "What happened to the virtual IPs without our doing, by reason.", "group", "reason"),
		fences:    gauge("fence", "1 for the fence in force: gate, lifetime or none.", "fence"),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tandem", Subsystem: "vip", Name: "events_dropped_total", Help: "Events that nobody read in time.",
		}),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.roles, m.announces, m.foreigns, m.events, m.fences, m.lost} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) role(group string, now Role) {
	for _, r := range []Role{Away, Holding, Yielding} {
		v := 0.0
		if r == now {
			v = 1
		}
		m.roles.WithLabelValues(group, r.String()).Set(v)
	}
}

func (m *metrics) fence(now Fence) {
	for _, f := range []Fence{FenceGate, FenceLifetime, FenceNone} {
		v := 0.0
		if f == now {
			v = 1
		}
		m.fences.WithLabelValues(string(f)).Set(v)
	}
}

func (m *metrics) announced(group string) { m.announces.WithLabelValues(group).Inc() }

func (m *metrics) foreign(group string) { m.foreigns.WithLabelValues(group).Inc() }
