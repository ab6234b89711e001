package vip

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Set says what this node is to a group from now on. It returns when the kernel
// has it so, and may be called with the same again: a renewal is a Set with a
// later deadline, and costs one nftables transaction. It is the one place where
// an address is taken up and let go.
//
// The clock is read before and after: when this process was stopped in between
// and the deadline has passed, the addresses are let go again before Set
// returns [ErrLate]. An error that concerns one address of several does not
// keep the others from being taken up; it is also in Status.
func (m *Manager) Set(name string, d Desired) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.group(name)
	if g == nil {
		return fmt.Errorf("set %q: %w", name, ErrGroup)
	}
	if m.stopped && d.Role != Away {
		return fmt.Errorf("set %s %s: %w", name, d.Role, ErrStopped)
	}
	err := m.apply(g, m.bounded(d))
	g.trouble = ""
	if err != nil {
		g.trouble = err.Error()
		return fmt.Errorf("set %s %s: %w", name, d.Role, err)
	}
	return nil
}

// bounded makes of what was asked what can be done. What is new is refused
// before what is left is reset. Without the gate nothing can keep the kernel
// from answering address resolution, so that yielding lasts only until the
// successor has surely taken over.
func (m *Manager) bounded(d Desired) Desired {
	if d.Role == Yielding {
		if m.fence == FenceGate {
			d.NewUntil = min(d.NewUntil, d.Deadline-resetAhead)
		} else {
			d.Deadline = min(d.NewUntil, d.Deadline)
		}
	}
	if d.Role == Away {
		d = Desired{}
	}
	return d
}

func (m *Manager) apply(g *group, d Desired) error {
	now := m.cfg.Now()
	if d.Role != Away && now >= d.Deadline {
		return errors.Join(ErrLate, m.letGo(g, ReasonDeadlinePassed))
	}
	if d.Role == Away {
		return m.letGo(g, ReasonAsked)
	}
	if d.Role == Yielding && g.desired.Role == Away {
		return ErrNotHolding
	}
	err := m.endLeftovers()
	err = errors.Join(err, m.prepare(g, d))
	fresh := g.desired.Role != d.Role
	if fresh {
		m.turn(g, d.Role, now)
	}
	moved := g.desired.NewUntil != d.NewUntil || fresh
	g.desired = d
	err = errors.Join(err, m.takeUp(g, now))
	if m.cfg.Now() >= d.Deadline {
		return errors.Join(ErrLate, m.letGo(g, ReasonDeadlinePassed))
	}
	if fresh && d.Role == Holding {
		m.announceAll(g)
		m.forgetEnded(g)
	}
	if moved {
		m.wake()
	}
	m.glance()
	return err
}

// turn notes that a group takes a new role.
func (m *Manager) turn(g *group, r Role, now time.Duration) {
	m.log.Info("virtual IPs: role changes", zap.String("group", g.name),
		zap.Stringer("from", g.desired.Role), zap.Stringer("to", r))
	g.since, g.reset = now, false
	for _, c := range g.addrs {
		c.announced, c.nextCall = 0, 0
	}
	m.metrics.role(g.name, r)
}

// takeUp opens the gate and then puts the addresses up: in this order nothing
// that reaches the address meets a closed gate.
func (m *Manager) takeUp(g *group, now time.Duration) error {
	var errs []error
	if err := m.openGate(g); err != nil {
		errs = append(errs, err)
	}
	for _, c := range g.addrs {
		c.err = m.put(c, g.desired.Deadline, now)
		if c.err != nil {
			errs = append(errs, c.err)
		}
	}
	return errors.Join(errs...)
}

// put has the kernel keep the address until shortly after the deadline (with
// the gate) or at most until the deadline (without; see outlasts), and calls the
// kernel only when that is not so already.
func (m *Manager) put(c *carried, deadline, now time.Duration) error {
	if m.fence == FenceGate && c.up && now-c.extended < extendEvery && c.lives > deadline && c.lives <= deadline+2*time.Second {
		return nil
	}
	if m.fence != FenceGate && c.up && outlasts(c.ip().Is6(), c.lives, deadline, now) {
		return nil
	}
	life := lifetime(m.fence, c.ip().Is6(), deadline-now)
	if c.repairs.at != 0 {
		return errContested
	}
	if _, known := m.links[c.Interface]; !known { // from here on its loss is one
		_ = m.learn(c.Address) // what cannot be looked at now is looked at again
	}
	err := m.sys.addresses.Put(c.Address, life)
	if err != nil {
		if errors.Is(err, errNoInterface) {
			m.linkLost(c.Interface, false)
		}
		c.up = false
		return fmt.Errorf("take up %s: %w", c.Address, err)
	}
	if !c.up {
		m.sys.addresses.Settle(c.Address)
	}
	c.up, c.extended, c.lives = true, now, now+time.Duration(life)*time.Second
	return nil
}

// letGo closes the gate, then removes the addresses: from the first transaction
// on nothing is answered. Before that it resets what a planned move has left.
// The returned error names what could not be removed; the gate and the kernel
// lifetime end it all the same.
func (m *Manager) letGo(g *group, why Reason) error {
	if g.desired.Role == Away && !slices.ContainsFunc(g.addrs, func(c *carried) bool { return c.up }) {
		return nil
	}
	if g.desired.Role == Yielding && m.cfg.Now() < g.desired.Deadline {
		m.resetLeft(g)
	}
	if g.desired.Role != Away {
		m.turn(g, Away, m.cfg.Now())
	}
	g.desired = Desired{}
	errs := []error{m.closeGate(g)}
	var gone []string
	for _, c := range g.addrs {
		c.repairs.at, c.mute = 0, nil
		_, c.err = m.sys.addresses.Remove(c.Address)
		if errors.Is(c.err, errNoInterface) { // and the address with it; see removeElsewhere
			c.err = nil
		}
		if c.err != nil {
			errs = append(errs, fmt.Errorf("let go %s: %w", c.Address, c.err))
			continue
		}
		c.up, c.lives = false, 0
		gone = append(gone, c.String())
	}
	errs = append(errs, m.forgetGate(g))
	m.log.Info("virtual IPs: let go", zap.String("group", g.name), zap.String("reason", string(why)),
		zap.Strings("addresses", gone))
	if why == ReasonDeadlinePassed {
		m.emit(Event{Kind: why, Group: g.name, Detail: strings.Join(gone, " ")})
	}
	return errors.Join(errs...)
}
