package haproxy

import (
	"context"
	"slices"
	"sync"
)

// Fleet is several HAProxy processes on one machine, each with a socket of its
// own. Each is watched and kept by itself: one that is sick holds up no other.
type Fleet struct {
	instances []*Instance
	changed   chan struct{}

	mu      sync.Mutex
	careful bool // of the last Desired: DrainFirst
	merged  mergedServers
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
	f.mu.Lock()
	f.careful = d.DrainFirst
	f.mu.Unlock()
	for _, i := range f.instances {
		i.Set(d)
	}
}

// Awake says that this process is awake for something else; see Instance.Awake.
func (f *Fleet) Awake() {
	for _, i := range f.instances {
		i.Awake()
	}
}

// Changed gives a signal when the observation of any one changed.
func (f *Fleet) Changed() <-chan struct{} { return f.changed }

// Each returns one observation each, in the order of the configurations.
func (f *Fleet) Each() []Observation {
	out := make([]Observation, len(f.instances))
	for n, i := range f.instances {
		out[n] = i.Observed()
	}
	return out
}

// Observed returns what all of them amount to, with one observation each in
// Each. The fleet is alive as long as any is that is not aside; what is wrong
// with one that is not aside is its reason. Servers are those of the living: one
// that several of them route to is as the worst of them has it.
//
// Applied is what every one obeys that is alive. One that hangs may wake and
// route as before, so with DrainFirst nothing is applied until it has woken or
// ended.
func (f *Fleet) Observed() Observation {
	each := f.Each()
	f.mu.Lock()
	defer f.mu.Unlock()
	whole := Observation{Each: each, Applied: appliedByAll(each, f.careful)}
	first := speaker(each)
	whole.Alive, whole.Version, whole.PID = first.Alive, first.Version, first.PID
	whole.Started, whole.Level = first.Started, first.Level
	if sick := sickest(each); sick != nil {
		whole.Reason, whole.Detail = sick.Reason, sick.Name+": "+sick.Detail
	}
	counted := counting(each)
	whole.Servers = f.merged.of(counted)
	for _, o := range counted {
		if whole.ServersAt.IsZero() || o.ServersAt.Before(whole.ServersAt) {
			whole.ServersAt = o.ServersAt
		}
		for _, h := range o.Held {
			h.Detail += " (" + o.Name + ")"
			whole.Held = append(whole.Held, h)
		}
	}
	whole.Unmatched = unmatchedByAll(counted)
	whole.Map.Current = true
	for _, o := range each {
		whole.Pending = append(whole.Pending, o.Pending...)
		whole.SessionsLeft += o.SessionsLeft
		whole.SessionsClosed += o.SessionsClosed
		whole.Changes += o.Changes
		whole.Failures += o.Failures
		whole.Processes += o.Processes
		if !o.Map.Current {
			whole.Map = o.Map
		}
	}
	return whole
}

// speaker is the one that speaks for the fleet: the first that lives and is not
// aside, else the first that is not aside, else the first.
func speaker(each []Observation) Observation {
	for _, alive := range []bool{true, false} {
		for _, o := range each {
			if !o.Aside && (o.Alive || !alive) {
				return o
			}
		}
	}
	return each[0]
}

// sickest is one that is not aside and has a fault, a dead one before a living;
// nil if there is none.
func sickest(each []Observation) *Observation {
	for _, alive := range []bool{false, true} {
		for n, o := range each {
			if !o.Aside && o.Alive == alive && o.Reason != "" {
				return &each[n]
			}
		}
	}
	return nil
}

// counting are those whose servers count: the living, or all if none lives.
func counting(each []Observation) []Observation {
	living := slices.DeleteFunc(slices.Clone(each), func(o Observation) bool { return !o.Alive })
	if len(living) == 0 {
		return each
	}
	return living
}

func appliedByAll(each []Observation, careful bool) uint64 {
	applied, found := uint64(0), false
	for _, o := range each {
		switch {
		case !o.Alive && careful && o.Reason == ReasonHung:
			return 0
		case !o.Alive:
		case !found || o.Applied < applied:
			applied, found = o.Applied, true
		}
	}
	return applied
}

// unmatchedByAll are the patterns that match on none: which of several HAProxys
// has a site's servers is nobody's business.
func unmatchedByAll(each []Observation) []string {
	var out []string
	for _, pattern := range each[0].Unmatched {
		if !slices.ContainsFunc(each, func(o Observation) bool { return !slices.Contains(o.Unmatched, pattern) }) {
			out = append(out, pattern)
		}
	}
	return out
}

// mergedServers keeps the last merger: a fleet is asked far more often than its
// tables change.
type mergedServers struct {
	from [][]Server
	all  []Server
}

func (m *mergedServers) of(each []Observation) []Server {
	same := len(m.from) == len(each) && m.all != nil
	for n := 0; same && n < len(each); n++ {
		same = sameSlice(m.from[n], each[n].Servers)
	}
	if same {
		return m.all
	}
	m.from, m.all = nil, []Server{}
	at := map[ServerID]int{}
	for _, o := range each {
		m.from = append(m.from, o.Servers)
		for _, s := range o.Servers {
			n, twice := at[s.ServerID]
			if !twice {
				at[s.ServerID] = len(m.all)
				m.all = append(m.all, s)
				continue
			}
			m.all[n] = worse(m.all[n], s)
		}
	}
	return m.all
}

// worse is a server that two HAProxys route to.
func worse(a, b Server) Server {
	a.Up = a.Up && b.Up
	a.Oper = min(a.Oper, b.Oper)
	a.Admin |= b.Admin
	a.Weight = min(a.Weight, b.Weight)
	a.Failing = a.Failing || b.Failing
	a.Agent = a.Agent || b.Agent
	return a
}
