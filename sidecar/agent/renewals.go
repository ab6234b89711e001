package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/lib/lease"
)

// renewals measures how long a quorum takes to answer the renewals of this
// node's leases, as they pass by on their way out.
type renewals struct {
	seconds *prometheus.HistogramVec
	missed  *prometheus.CounterVec
	asked   map[string]time.Duration // when the renewal under way was first sent
	again   map[string]time.Duration // when it was last sent
}

func newRenewals() renewals {
	return renewals{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tandem_lease_renewal_seconds", Help: "Time from sending a renewal to its acceptance by a quorum.",
			Buckets: []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2},
		}, []string{"resource"}),
		missed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_lease_renewals_missed_total", Help: "Renewals that had to be sent again, since no quorum had answered in time.",
		}, []string{"resource"}),
		asked: map[string]time.Duration{}, again: map[string]time.Duration{},
	}
}

// sent notes a renewal on its way; one that goes to several voters in one step
// is one.
func (r *renewals) sent(resource string, now time.Duration) {
	at, under := r.asked[resource]
	switch {
	case !under:
		r.asked[resource] = now
	case now > max(at, r.again[resource]):
		r.again[resource] = now
		r.missed.WithLabelValues(resource).Inc()
	}
}

func (r *renewals) answered(resource string, now time.Duration) {
	if at, under := r.asked[resource]; under {
		r.seconds.WithLabelValues(resource).Observe((now - at).Seconds())
	}
	r.ended(resource)
}

// ended forgets a renewal: it was answered, or the lease is over.
func (r *renewals) ended(resource string) {
	delete(r.asked, resource)
	delete(r.again, resource)
}

// countSent counts what goes out: renewals, and the answers of this voter.
func (a *Agent) countSent(now time.Duration, items []lease.Item) {
	for _, it := range items {
		switch it.Kind {
		case lease.KindPropose:
			if it.Held {
				a.metrics.renewals.sent(it.Resource, now)
			}
		case lease.KindPromise, lease.KindAccept, lease.KindRefuse:
			a.metrics.votes.WithLabelValues(it.Kind.String()).Inc()
		case lease.KindPrepare, lease.KindRelease, lease.KindReleased, lease.KindInform:
		}
	}
}
