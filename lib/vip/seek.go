package vip

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// seekEvery is how long after a probe the next follows, as long as strangers
// are sought.
const seekEvery = 500 * time.Millisecond

// seeking is the search for strangers in one group.
type seeking struct {
	on    bool
	asked bool // at least once since it was turned on
	found []Stranger
	wrong string // why it could not ask, as last logged
}

// Seek turns the search for strangers on or off and returns what is known of
// them: who answers for the group's addresses, and whether the network has been
// asked at all since the search was turned on. It is for a group that nobody is
// known to hold, since a holder answers, too. It never blocks; Run does the
// asking, twice a second. Where the network cannot be asked (no NET_RAW, no
// interface), asked is true and nobody is found, and the log says why.
func (m *Manager) Seek(group string, on bool) (found []Stranger, asked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.group(group)
	if g == nil || len(g.addrs) == 0 {
		return nil, true
	}
	if on != g.seek.on {
		g.seek = seeking{on: on}
		select {
		case m.seeker <- struct{}{}:
		default:
		}
	}
	return g.seek.found, g.seek.asked
}

// seek asks for what Seek has turned on, until ctx ends.
func (m *Manager) seek(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if m.probeSought(ctx) {
			again = time.After(seekEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.seeker:
		case <-again:
		}
	}
}

// probeSought probes every group that is sought, and says whether there is one.
func (m *Manager) probeSought(ctx context.Context) (any bool) {
	for _, g := range m.groups { // the list never changes
		m.mu.Lock()
		on := g.seek.on
		m.mu.Unlock()
		if !on {
			continue
		}
		any = true
		found, err := m.Probe(ctx, g.name)
		m.sought(g, found, err)
	}
	return any
}

func (m *Manager) sought(g *group, found []Stranger, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !g.seek.on {
		return // nobody wants to know any more
	}
	g.seek.found, g.seek.asked = found, true
	wrong := ""
	if err != nil {
		wrong = err.Error()
	}
	if wrong != "" && wrong != g.seek.wrong {
		m.log.Warn("virtual IPs: cannot ask whether a stranger has them", zap.String("group", g.name), zap.Error(err))
	}
	g.seek.wrong = wrong
}
