package vip

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// ErrStopped is the answer to a Set after Run has ended.
var ErrStopped = errors.New("stopped")

const (
	// The constant gateEvery is how often we look whether our rules still stand.
	gateEvery = 100 * time.Millisecond
	// The constant lookEvery is how often we look at the addresses themselves, for the case
	// that a notification of the kernel was lost.
	lookEvery = time.Second
	// The constant idleEvery bounds a sleep when there is nothing to guard.
	idleEvery = 5 * time.Second
)

// Run guards what Set has made true: it puts back what somebody takes away,
// announces on schedule, answers foreign announcements and lets go at the
// deadline. When ctx ends it lets everything go, removes our rules and returns
// nil, after all that it started has ended.
func (m *Manager) Run(ctx context.Context) error {
	defer m.stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.keep(ctx) })
	g.Go(func() error { return m.sweep(ctx) })
	g.Go(func() error { return m.seek(ctx) })
	if !m.cfg.Observe && m.has(false) {
		g.Go(func() error { return m.listen(ctx, "kernel", m.watch) })
		for _, name := range m.interfaces() {
			if len(m.ours(name, false)) > 0 {
				g.Go(func() error {
					return m.listen(ctx, "arp "+name, func(ctx context.Context) error { return m.hearARP(ctx, name) })
				})
			}
		}
		if m.has(true) {
			g.Go(func() error { return m.listen(ctx, "neighbour discovery", m.hearND) })
		}
	}
	return g.Wait()
}

func (m *Manager) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.endLeftovers(); err != nil {
		m.log.Error("virtual IPs: cannot remove what a predecessor left", zap.Error(err))
	}
	for _, g := range m.groups {
		if err := m.letGo(g, ReasonStopped); err != nil {
			m.log.Error("virtual IPs: cannot let go", zap.String("group", g.name), zap.Error(err))
		}
	}
	m.stopped = true
	m.sys.announcer.Close()
	if err := m.removeGate(); err != nil {
		m.log.Error("virtual IPs: cannot remove our rules", zap.Error(err))
	}
}

// keep does what is due, until ctx ends.
func (m *Manager) keep(ctx context.Context) error {
	defer m.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.poke:
		case <-m.timer.C:
		}
		m.timer.Reset(m.step())
	}
}

// step does what is due now and returns how long there is nothing to do.
func (m *Manager) step() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.cfg.Now() + idleEvery
	active := false
	for _, g := range m.groups { // what is over comes first: let go, then send
		now := m.cfg.Now()
		if g.desired.Role != Away && now >= g.desired.Deadline {
			if err := m.letGo(g, ReasonDeadlinePassed); err != nil {
				m.log.Error("virtual IPs: cannot let go", zap.String("group", g.name), zap.Error(err))
			}
		}
	}
	next = min(next, m.dropLeftovers())
	for _, g := range m.groups {
		if g.desired.Role == Away {
			continue
		}
		active = true
		next = min(next, g.desired.Deadline, m.endOfMove(g), m.due(g))
	}
	if active {
		m.inspect()
		next = min(next, m.nextLook)
	}
	m.nextDue = next
	return m.sleep(active)
}

// sleep is how long nothing is due.
func (m *Manager) sleep(active bool) time.Duration {
	next := m.nextDue
	if active && m.sys.gate != nil {
		next = min(next, m.nextGate)
	}
	return max(next-m.cfg.Now(), time.Millisecond)
}

// glance looks at the gate on the occasion of a Set and puts the next look off.
// So a holder that renews often does not wake up for the gate besides.
func (m *Manager) glance() {
	now := m.cfg.Now()
	if m.sys.gate == nil || now < m.nextGate-gateEvery/2 {
		return
	}
	m.checkGate()
	m.nextGate = m.cfg.Now() + gateEvery
	m.timer.Reset(m.sleep(true))
}

// due makes the announcements and the postponed repairs of a group whose time
// has come, and returns when the next is due.
func (m *Manager) due(g *group) time.Duration {
	next := g.desired.Deadline
	for _, c := range g.addrs {
		now := m.cfg.Now()
		if c.repairs.at != 0 && now >= c.repairs.at {
			c.repairs.at = 0
			m.restore(g, c)
		}
		if c.repairs.at != 0 {
			next = min(next, c.repairs.at)
		}
		if g.desired.Role != Holding {
			continue
		}
		if c.nextCall != 0 && now >= c.nextCall {
			m.scheduled(g, c)
		}
		if c.nextCall != 0 {
			next = min(next, c.nextCall)
		}
	}
	return next
}

// inspect looks whether what should be there is there, if it is time.
func (m *Manager) inspect() {
	now := m.cfg.Now()
	if now >= m.nextGate {
		m.checkGate()
		m.nextGate = m.cfg.Now() + gateEvery
	}
	if now >= m.nextLook {
		for _, g := range m.groups {
			for _, c := range g.addrs {
				m.lookAt(g, c, true)
			}
		}
		m.nextLook = m.cfg.Now() + m.lookAgain()
	}
}

// lookAgain is when to look at the addresses next: soon, if one was missed
// that the kernel has not reported as gone.
func (m *Manager) lookAgain() time.Duration {
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if c.missed {
				return gateEvery
			}
		}
	}
	return lookEvery
}
