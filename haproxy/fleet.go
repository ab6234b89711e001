package haproxy

import (
	"context"
	"sync"
)

// Fleet is several HAProxy processes on one machine, each with a socket of its
// own. Each is watched and kept by itself: one that is sick holds up no other.
type Fleet struct {
	instances []*Instance
	changed   chan struct{}
}

// NewFleet returns a Fleet that does nothing until Run. The names of the
// configurations must differ, as their files must.
func NewFleet(configs ...Config) *Fleet {
	f := &Fleet{changed: make(chan struct{}, 1)}
	for _, c := range configs {
		i := New(c)
		i.also = f.changed
		f.instances = append(f.instances, i)
	}
	return f
}

// Run runs all of them until the context ends.
func (f *Fleet) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, i := range f.instances {
		all.Go(func() { _ = i.Run(ctx) }) // always nil
	}
	all.Wait()
	return nil
}

// Set says what is wanted of every one.
func (f *Fleet) Set(d Desired) {
	for _, i := range f.instances {
		i.Set(d)
	}
}

// Changed gives a signal when the observation of any one changed.
func (f *Fleet) Changed() <-chan struct{} { return f.changed }

// Observed returns one observation each, in the order of the configurations.
func (f *Fleet) Observed() []Observation {
	out := make([]Observation, len(f.instances))
	for n, i := range f.instances {
		out[n] = i.Observed()
	}
	return out
}

// Applied is the epoch that has been found true on every one that is alive, 0 if
// none is: what one does not route, it cannot route wrongly.
func (f *Fleet) Applied() uint64 {
	applied, any := uint64(0), false
	for _, o := range f.Observed() {
		if !o.Alive {
			continue
		}
		if !any || o.Applied < applied {
			applied, any = o.Applied, true
		}
	}
	return applied
}
