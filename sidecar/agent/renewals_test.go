package agent_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/sidecar/agent"
)

// count is the sum of a counter, or of how often a histogram observed, over all
// labels.
func count(t *testing.T, r *prometheus.Registry, name string) (n float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				n += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return n
}

// TestARenewalToSeveralVotersIsOne: time passes while a renewal is sent to one
// voter after the other, which makes it no second one, nor a missed one.
func TestARenewalToSeveralVotersIsOne(t *testing.T) {
	registry := prometheus.NewRegistry()
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, nil, func(name string, d *agent.Deps) {
		if name != "lb1" {
			return
		}
		var readings atomic.Int64
		now := d.Now
		d.Now = func() time.Duration { return now() + time.Duration(readings.Add(1)) }
		d.Registerer = registry
	}, func(c *cluster) {
		c.until("first holder", 8*time.Second, c.held("lb1"))
		time.Sleep(time.Second)
		missed, answered := count(t, registry, "tandem_lease_renewals_missed_total"), count(t, registry, "tandem_lease_renewal_seconds")
		time.Sleep(10 * time.Second)
		missed, answered = count(t, registry, "tandem_lease_renewals_missed_total")-missed, count(t, registry, "tandem_lease_renewal_seconds")-answered
		if answered < 100 || missed > answered/20 {
			t.Errorf("%v renewals were answered and %v missed, over a network that loses nothing", answered, missed)
		}
	})
}

// injected is a network into which the test puts messages of its own.
type injected struct {
	agent.Network

	in chan []byte
}

func (n injected) Messages() <-chan []byte { return n.in }

// TestAnUnknownVersionIsCountedAndIgnored: lease messages of another version, and
// such as are none, are counted by what is wrong with them; the holder goes on.
func TestAnUnknownVersionIsCountedAndIgnored(t *testing.T) {
	registry := prometheus.NewRegistry()
	var to injected
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, nil, func(name string, d *agent.Deps) {
		if name != "lb1" {
			return
		}
		to = injected{d.Network, make(chan []byte, 64)}
		d.Network, d.Registerer = to, registry
	}, func(c *cluster) {
		go func() {
			for {
				select {
				case b := <-to.Network.Messages():
					to.in <- b
				case <-c.t.Context().Done():
					return
				}
			}
		}()
		c.until("first holder", 8*time.Second, c.held("lb1"))
		before := count(t, registry, "tandem_messages_ignored_total")
		for range 7 {
			to.in <- []byte{'L', 99, 1, 2, 3}
			to.in <- []byte{'L', 1, 0}
		}
		time.Sleep(2 * time.Second)
		if got := count(t, registry, "tandem_messages_ignored_total") - before; got < 14 {
			t.Errorf("%v messages were counted as ignored, want 14", got)
		}
		if !c.held("lb1")() {
			t.Error("the holder lost the lease")
		}
	})
}
