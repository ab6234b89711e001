package vip

import (
	"errors"
	"slices"
)

// What becomes of an interface is learnt in two ways. The kernel reports each change,
// in order, but it may be a while until a report is read. Who looks sees what is
// true now, ahead of the reports still to be read, and keeps the loss from whoever
// looks next, since an address that is known to be gone is not looked at. So that
// every loss is told, and told once, whoever notices it first:
//
//   - a look tells that an interface is gone, as a report does;
//   - that one is back is told by a report alone: by one that follows that of the
//     loss, if a look agrees, since one that is out of date is followed by another;
//   - where reports may be missing, since the kernel is only now listened to, a look
//     tells both (catchUp).

// link is what is known of an interface: its index if it is there, up and has carrier.
// Otherwise it is 0, or the index with a minus when a look has told of the loss and
// the report of it is still to be read.
type link int

func (l link) up() bool { return l > 0 }

// linkReport is what the kernel reports of an interface.
type linkReport struct {
	index int
	name  string
	up    bool // it is there, up and has carrier
}

// linkReported deals with a report. It is of an interface of ours if it has the name
// of one, or had it: one that is renamed is reported under its new name.
func (m *Manager) linkReported(r linkReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range m.interfaces() {
		had := m.links[name]
		switch index := link(r.index); {
		case name == r.name && r.up:
			if had != index && had != -index && m.confirmed(r) {
				m.linkLost(name, true) // if another interface has its name now
				m.linkBack(name, r.index)
			}
		case name == r.name, had == index, had == -index:
			m.linkLost(name, true)
		}
	}
}

// confirmed says whether an interface is still as it was reported.
func (m *Manager) confirmed(r linkReport) bool {
	p, err := m.sys.addresses.Look(m.anyOn(r.name))
	if errors.Is(err, errNoInterface) {
		return false
	}
	return p.index == 0 || p.index == r.index && p.carrier // 0: it could not be asked
}

// anyOn returns one of the addresses that are configured on an interface of ours.
func (m *Manager) anyOn(name string) Address {
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if c.Interface == name {
				return c.Address
			}
		}
	}
	return Address{}
}

// catchUp looks at everything: what happened while the kernel was not listened to.
func (m *Manager) catchUp() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, name := range m.interfaces() {
		errs = append(errs, m.learn(m.anyOn(name)))
	}
	for _, g := range m.groups {
		for _, c := range g.addrs {
			m.lookAt(g, c, false)
		}
	}
	return errors.Join(errs...)
}

// learn looks at the interface of an address. What is seen first is nothing lost and
// nothing back.
func (m *Manager) learn(a Address) error {
	p, err := m.sys.addresses.Look(a)
	if err != nil && p.index == 0 && !errors.Is(err, errNoInterface) {
		return err
	}
	had, known := m.links[a.Interface]
	switch {
	case !known && p.carrier:
		m.links[a.Interface] = link(p.index)
	case !known:
		m.links[a.Interface] = 0
	case !p.carrier:
		m.linkLost(a.Interface, true)
	case had != link(p.index):
		m.linkLost(a.Interface, true) // another interface has its name now
		m.linkBack(a.Interface, p.index)
	}
	return nil
}

// reportedDown says whether an interface is known to be gone or without carrier, and
// not yet to be back.
func (m *Manager) reportedDown(iface string) bool {
	l, known := m.links[iface]
	return known && !l.up()
}

// linkLost is called by whoever finds that an interface is gone or has no carrier, by
// a report (or in place of one) or by a look ahead of it.
func (m *Manager) linkLost(name string, reported bool) {
	had := m.links[name]
	switch {
	case reported:
		m.links[name] = 0
	case had.up():
		m.links[name] = -had
	}
	if !had.up() {
		return // never seen, or told already
	}
	m.forgetSockets(name)
	m.emit(Event{Kind: ReasonCarrierLost, Detail: name})
}

// linkBack puts the addresses of an interface back that the kernel dropped when
// it went down, and announces them: the switch may know another port.
func (m *Manager) linkBack(name string, index int) {
	m.links[name] = link(index)
	m.forgetSockets(name)
	m.emit(Event{Kind: ReasonCarrierBack, Detail: name})
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if c.Interface == name && g.desired.Role != Away {
				m.restore(g, c)
			}
		}
	}
}

func (m *Manager) forgetSockets(name string) {
	if s, ok := m.sys.announcer.(*speaker); ok {
		s.forget(name)
	}
}

// Carrier says whether every interface of a group is there, up and has carrier.
// A group without addresses has it.
func (m *Manager) Carrier(group string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.group(group)
	if g == nil {
		return false
	}
	return !slices.ContainsFunc(g.addrs, func(c *carried) bool {
		p, err := m.sys.addresses.Look(c.Address)
		return err != nil || !p.carrier
	})
}
