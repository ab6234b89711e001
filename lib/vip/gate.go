package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// gating says what the gate has for an address.
type gating uint8

const (
	ungated gating = iota // nothing: it is as if we were not there
	shut                  // nothing passes
	ajar                  // what the group's role lets pass
)

// resetAhead is how long before the end of the grace the connections that are
// left are reset: the resets must leave while the gate is open.
const resetAhead = 150 * time.Millisecond

// openings is what the gate should let pass, of all groups.
func (m *Manager) openings() map[netip.Addr]opening {
	now := m.cfg.Now()
	out := map[netip.Addr]opening{}
	for _, g := range m.groups {
		d := g.desired
		for _, c := range g.addrs {
			if c.gate == ungated {
				continue
			}
			o := opening{until: 1} // long past
			o.watch = c.strays > now && c.back.IsValid()
			if c.gate == ajar && d.Role != Away {
				o.until = d.Deadline
				if o.watch && c.known {
					o.relay, o.strays = c.back, c.strays
				}
				if d.Role == Yielding {
					o.yielding, o.fresh, o.self, o.late = true, d.NewUntil, c.own, c.late
				}
			}
			out[c.ip()] = o
		}
	}
	return out
}

// openGate has the gate let pass what a group's role allows.
func (m *Manager) openGate(g *group) error {
	if m.sys.gate == nil || len(g.addrs) == 0 {
		return nil
	}
	for _, c := range g.addrs {
		c.gate = ajar
	}
	return m.writeGate()
}

// prepare makes ready for a planned move, before the group takes its new role:
// from here on every new connection of ours is noted, then those that there are
// already. Only when both are known is anything taken for a stray. Where strays
// are told already, after a move to and fro, they go on being told meanwhile.
func (m *Manager) prepare(g *group, d Desired) error {
	if m.sys.gate == nil || len(g.addrs) == 0 {
		return nil
	}
	moved := false
	for _, c := range g.addrs {
		moved = m.meet(c, d) || moved
	}
	if !moved {
		return nil
	}
	for _, c := range g.addrs {
		if c.gate == ungated {
			c.gate = shut
		}
	}
	m.sys.gate.Note()
	if err := m.writeGate(); err != nil {
		return err
	}
	return m.keepMine()
}

// meet finds out whom strays and late connections go to, and in whose name
// neighbours are asked meanwhile. It says whether our own connections have to be
// listed anew, which every tenure does that has strays to send.
func (m *Manager) meet(c *carried, d Desired) bool {
	now := m.cfg.Now()
	if d.Role == Yielding {
		ask := [2]netip.Addr{d.Successor, d.Successor6}
		if c.askedAs != Yielding || c.asked != ask { // strays go where they went before
			c.asked, c.askedAs = ask, Yielding
			c.own = m.sys.neighbours.Own(c.Address, m.ours("", c.ip().Is6()))
			c.late = m.otherHolder(c, ask)
		}
		return false
	}
	ask := [2]netip.Addr{d.Predecessor, d.Predecessor6}
	if d.StraysUntil <= now {
		ask = [2]netip.Addr{}
	}
	if c.askedAs == Holding && c.asked == ask {
		c.strays = d.StraysUntil
		return false
	}
	tenure := c.askedAs != Holding
	c.asked, c.askedAs = ask, Holding
	back := m.otherHolder(c, ask)
	c.known = c.known && back == c.back && c.strays > now
	c.back, c.strays = back, d.StraysUntil
	return back.IsValid() && (!c.known || tenure)
}

// otherHolder is the node's address of the family of c.
func (m *Manager) otherHolder(c *carried, given [2]netip.Addr) netip.Addr {
	for _, a := range given {
		if a.IsValid() && a.Unmap().Is6() == c.ip().Is6() {
			return a.Unmap()
		}
	}
	for _, a := range given {
		if !a.IsValid() {
			continue
		}
		if other := m.sys.neighbours.Other(a.Unmap(), c.Interface); other.IsValid() {
			return other
		}
		m.log.Warn("virtual IPs: no way to the other holder, its connections will be reset", zap.Stringer("address", c.Address),
			zap.String("known", a.String()), zap.String("wanted", familyName(c.ip().Is6())+" address"))
	}
	return netip.Addr{}
}

func familyName(six bool) string {
	if six {
		return "IPv6"
	}
	return "IPv4"
}

// keepMine completes the list of our own connections, of all addresses that have
// strays to send: those of an earlier time that are still open. When that fails
// the old list stays in force.
func (m *Manager) keepMine() error {
	var err error
	var mine []connection
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if !c.back.IsValid() || err != nil {
				continue
			}
			var conns []connection
			conns, err = m.sys.sockets.Connections(c.ip())
			mine = append(mine, conns...)
		}
	}
	if err == nil {
		err = m.sys.gate.Mine(mine)
	}
	for _, g := range m.groups {
		for _, c := range g.addrs {
			c.known = c.known || c.back.IsValid()
		}
	}
	if err != nil {
		m.log.Warn("virtual IPs: connections of an earlier time may be reset", zap.Error(err))
		return fmt.Errorf("keep own connections: %w", err)
	}
	return nil
}

// writeGate writes the whole state of the gate. Where that fails the lifetime of
// the address is the fence until it succeeds again.
func (m *Manager) writeGate() error {
	if m.fence != FenceGate && m.cfg.Now() < m.retryGate {
		return nil
	}
	restored, err := m.sys.gate.Write(m.openings())
	if err != nil {
		m.gateLost(err)
		return nil // the fence that is left is in force, and Status says so
	}
	if restored {
		m.emit(Event{Kind: ReasonGateFlushed, Detail: "somebody removed our nftables rules; put back"})
		_ = m.keepMine() // logged there
		if _, err := m.sys.gate.Write(m.openings()); err != nil {
			m.gateLost(err)
			return nil
		}
	}
	if m.fence != FenceGate {
		m.setFence(FenceGate, "")
		m.emit(Event{Kind: ReasonGateBack})
	}
	return nil
}

func (m *Manager) gateLost(err error) {
	now := m.cfg.Now()
	m.retryGate = now + retryEvery
	for _, g := range m.groups { // see bounded
		if g.desired.Role == Yielding {
			g.desired.Deadline = min(g.desired.Deadline, max(now, g.desired.NewUntil))
			m.wake()
		}
	}
	if m.fence == FenceGate {
		m.setFence(FenceLifetime, err.Error())
		m.emit(Event{Kind: ReasonGateLost, Detail: err.Error()})
	}
}

// closeGate lets nothing of a group pass.
func (m *Manager) closeGate(g *group) error { return m.gateTo(g, shut) }

// forgetGate takes the addresses that are gone out of the gate.
func (m *Manager) forgetGate(g *group) error { return m.gateTo(g, ungated) }

func (m *Manager) gateTo(g *group, to gating) error {
	if m.sys.gate == nil {
		return nil
	}
	changed := false
	for _, c := range g.addrs {
		if c.gate == ungated || to == ungated && c.up {
			continue // one that could not be removed stays shut off
		}
		changed = changed || c.gate != to
		c.gate, c.asked, c.askedAs, c.back, c.late, c.known = to, [2]netip.Addr{}, Away, netip.Addr{}, netip.Addr{}, false
	}
	if !changed {
		return nil
	}
	return m.writeGate()
}

// resetGate replaces what a predecessor left by rules of our own without
// elements, so that taking up an address later is only a matter of elements.
func (m *Manager) resetGate() error {
	if m.sys.gate == nil {
		return nil
	}
	_, err := m.sys.gate.Write(m.openings())
	if err != nil {
		m.gateLost(err)
		return fmt.Errorf("put up the gate: %w", err)
	}
	return nil
}

func (m *Manager) removeGate() error {
	if m.sys.gate == nil {
		return nil
	}
	return m.sys.gate.Remove()
}

// checkGate puts the rules back when somebody has removed them.
func (m *Manager) checkGate() {
	if m.sys.gate == nil {
		return
	}
	if intact, err := m.sys.gate.Intact(); err == nil && intact && m.fence == FenceGate {
		return
	}
	_ = m.writeGate() // what fails is in Status and Events
}

// endOfMove ends what a planned move left when its time has come, and returns
// when the next thing about it is due.
func (m *Manager) endOfMove(g *group) time.Duration {
	now, d := m.cfg.Now(), g.desired
	switch d.Role {
	case Yielding:
		if g.reset || m.fence != FenceGate {
			return d.Deadline
		}
		if now < d.Deadline-resetAhead {
			return d.Deadline - resetAhead
		}
		g.reset = true
		m.resetLeft(g)
	case Holding:
		if d.StraysUntil > now {
			return d.StraysUntil
		}
	case Away:
	}
	return d.Deadline
}

// resetLeft resets the connections that have outlived the grace, so that their
// clients connect anew at once rather than wait.
func (m *Manager) resetLeft(g *group) {
	total, errs := 0, []error(nil)
	for _, c := range g.addrs {
		n, err := m.sys.sockets.Reset(c.ip())
		total += n
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if total == 0 && err == nil {
		m.log.Info("virtual IPs: move ended, no connection was left", zap.String("group", g.name))
		return
	}
	detail := fmt.Sprintf("%d connections left after the grace were reset", total)
	if err != nil {
		detail = fmt.Sprintf("%s; %v", detail, err)
	}
	m.emit(Event{Kind: ReasonMoveEnded, Group: g.name, Detail: detail})
}
