package api

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the API itself. All methods do nothing without a registry.
type metrics struct {
	requests *prometheus.CounterVec
	commands *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_api_requests_total",
			Help: "Requests answered by the HTTP API and the control socket, by route and status code.",
		}, []string{"route", "code"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_commands_total",
			Help: "Commands of operators, by kind and result: done, refused or failed.",
		}, []string{"command", "result"}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.commands)
	}
	return m
}

func (m *metrics) request(route string, code int) {
	m.requests.WithLabelValues(route, strconv.Itoa(code)).Inc()
}

func (m *metrics) command(kind, result string) { m.commands.WithLabelValues(kind, result).Inc() }

// countingWriter remembers the status code.
type countingWriter struct {
	http.ResponseWriter
	code int
}

func (c *countingWriter) WriteHeader(code int) {
	c.code = code
	c.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the real writer.
func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
