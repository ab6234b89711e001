package haproxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of one Instance. All methods are cheap.
type metrics struct {
	up        prometheus.Gauge
	applied   prometheus.Gauge
	servers   *prometheus.GaugeVec
	commands  *prometheus.CounterVec
	failures  *prometheus.CounterVec
	processes prometheus.Counter
	sessions  prometheus.Counter
	left      prometheus.Gauge
	mapKept   prometheus.Gauge
	writes    *prometheus.CounterVec
	observe   prometheus.Histogram
	apply     prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, name string) *metrics {
	label := prometheus.Labels{"haproxy": name}
	opts := func(metric, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "tandem", Subsystem: "haproxy", Name: metric, Help: help, ConstLabels: label}
	}
	histogram := func(metric, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "tandem", Subsystem: "haproxy", Name: metric, Help: help, ConstLabels: label,
			Buckets: prometheus.ExponentialBuckets(0.0002, 2.5, 10), // 0.2 ms to 0.8 s
		})
	}
	m := &metrics{
		up:        prometheus.NewGauge(prometheus.GaugeOpts(opts("up", "1 if the process answers."))),
		applied:   prometheus.NewGauge(prometheus.GaugeOpts(opts("applied_epoch", "Epoch of the decision found true by reading back; 0 if none is."))),
		servers:   prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("servers", "Servers covered by rules, by state: routed, drained, down or held.")), []string{"state"}),
		commands:  prometheus.NewCounterVec(prometheus.CounterOpts(opts("commands_total", "Commands sent to change a server, by the state wanted.")), []string{"want"}),
		failures:  prometheus.NewCounterVec(prometheus.CounterOpts(opts("failures_total", "Failures, by reason.")), []string{"reason"}),
		processes: prometheus.NewCounter(prometheus.CounterOpts(opts("processes_total", "Processes seen: the first, and one for each reload or restart."))),
		sessions:  prometheus.NewCounter(prometheus.CounterOpts(opts("sessions_closed_total", "Sessions shut on drained servers."))),
		left:      prometheus.NewGauge(prometheus.GaugeOpts(opts("sessions_left", "Sessions found at the last look on drained servers whose sessions are to be shut."))),
		mapKept:   prometheus.NewGauge(prometheus.GaugeOpts(opts("map_current", "1 if the active-site map is as decided, in memory and on disk. There is none without TANDEM_MAP."))),
		writes:    prometheus.NewCounterVec(prometheus.CounterOpts(opts("state_file_writes_total", "Writes of the server-state file, by result.")), []string{"result"}),
		observe:   histogram("observe_seconds", "Time to read the whole table of servers."),
		apply:     histogram("apply_seconds", "Time to carry out a batch of commands and read back."),
	}
	if r != nil {
		r.MustRegister(m.up, m.applied, m.servers, m.commands, m.failures, m.processes, m.sessions, m.left, m.writes, m.observe, m.apply)
	}
	return m
}

func (m *metrics) alive(alive bool) {
	if alive {
		m.up.Set(1)
	} else {
		m.up.Set(0)
	}
}

func (m *metrics) mapIs(current bool) {
	if current {
		m.mapKept.Set(1)
	} else {
		m.mapKept.Set(0)
	}
}

func (m *metrics) failed(reason Reason) { m.failures.WithLabelValues(string(reason)).Inc() }

func (m *metrics) sent(commands []Command) {
	for _, c := range commands {
		m.commands.WithLabelValues(c.Want.String()).Inc()
	}
}

func (m *metrics) fileWritten(err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.writes.WithLabelValues(result).Inc()
}

func (m *metrics) table(desired Desired, servers []Server, held []Hold) {
	var routed, drained, down int
	for _, s := range servers {
		if _, ok := desired.Rule(s.ServerID); !ok {
			continue
		}
		switch {
		case s.Routed():
			routed++
		case s.Drained():
			drained++
		default:
			down++
		}
	}
	m.servers.WithLabelValues("routed").Set(float64(routed))
	m.servers.WithLabelValues("drained").Set(float64(drained))
	m.servers.WithLabelValues("down").Set(float64(down))
	m.servers.WithLabelValues("held").Set(float64(len(held)))
}

func (m *metrics) observed(d time.Duration) { m.observe.Observe(d.Seconds()) }
func (m *metrics) took(d time.Duration)     { m.apply.Observe(d.Seconds()) }
