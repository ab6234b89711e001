package vip

import (
	"fmt"
	"time"

	"go.uber.org/zap"
)

// schedule is when an address is announced after it was taken up; the first is
// the taking up itself. A network that lost one, or a switch that was learning,
// hears the next. After the last it goes on every refreshEvery, so that a cache
// that somebody poisoned without our hearing it is right again within that time.
var schedule = []time.Duration{
	0, 100 * time.Millisecond, 300 * time.Millisecond,
	time.Second, 3 * time.Second, 10 * time.Second,
}

const (
	refreshEvery = 10 * time.Second
	// The constant answerEvery bounds how often a foreign announcement is contradicted: two
	// nodes that both believe they hold an address must not flood the network.
	// What is held back is said when the time is over, so that the holder has
	// the last word.
	answerEvery = 50 * time.Millisecond
	// The constant alertEvery bounds how often an event says so.
	alertEvery = time.Second
)

// following is how long after the taking up the next announcement is due, when
// said have been made and the last was at age.
func following(said int, age time.Duration) time.Duration {
	if said < len(schedule) {
		return schedule[said]
	}
	return age + refreshEvery
}

// Answer announces the addresses of a group again, now: a peer returned, or two
// halves of a network met again. It does nothing if we do not hold the group.
func (m *Manager) Answer(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.group(name)
	if g == nil {
		return fmt.Errorf("announce %q: %w", name, ErrGroup)
	}
	for _, c := range g.addrs {
		if err := m.announce(g, c); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) announceAll(g *group) {
	for _, c := range g.addrs {
		m.beginSchedule(g, c)
	}
}

// beginSchedule announces now and a few times more.
func (m *Manager) beginSchedule(g *group, c *carried) {
	c.announced, c.began = 0, m.cfg.Now()
	m.scheduled(g, c)
}

// scheduled makes the announcement that is due and sets the time of the next.
func (m *Manager) scheduled(g *group, c *carried) {
	if g.desired.Role != Holding {
		return
	}
	_ = m.announce(g, c) // in Status
	now := m.cfg.Now()
	c.announced++
	c.nextCall = max(c.began+following(c.announced, now-c.began), now+time.Millisecond)
	m.wake()
}

// announce says where the address is, if the lease is still ours: a process that
// has been stopped looks at the clock before it sends a packet.
func (m *Manager) announce(g *group, c *carried) error {
	now := m.cfg.Now()
	if g.desired.Role != Holding || now >= g.desired.Deadline || !c.up {
		return nil
	}
	c.lastCall = now
	err := m.sys.announcer.Announce(c.Address)
	if err != nil && c.mute == nil { // once
		m.log.Warn("virtual IPs: cannot announce", zap.String("group", g.name),
			zap.Stringer("address", c.Address), zap.Error(err))
	}
	if c.mute = err; err != nil {
		return err
	}
	c.calls++
	m.metrics.announced(g.name)
	return nil
}

// contradict answers a foreign announcement of an address that we hold.
func (m *Manager) contradict(cl claim, iface string) Ignored {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Now()
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if c.ip() != cl.ip {
				continue
			}
			if c.Interface != iface {
				return IgnoredOtherLink
			}
			if g.desired.Role != Holding || now >= g.desired.Deadline {
				return IgnoredNotHeld
			}
			c.foreign++
			m.metrics.foreign(g.name)
			if c.foreign == 1 || now-c.alerted >= alertEvery {
				c.alerted = now
				m.emit(Event{
					Kind: ReasonForeign, Group: g.name, Address: c.String(),
					Detail: fmt.Sprintf("announced at %s, %d times so far", cl.at, c.foreign),
				})
			}
			if now-c.lastCall >= answerEvery {
				_ = m.announce(g, c) // in Status
				return heeded
			}
			c.nextCall = min(c.nextCall, c.lastCall+answerEvery)
			m.wake()
			return heeded
		}
	}
	return IgnoredOtherIP
}
