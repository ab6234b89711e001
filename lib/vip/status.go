package vip

import (
	"errors"
	"net/netip"
	"time"
)

// Status is what is true now, as far as this process knows it without asking
// the kernel.
type Status struct {
	Fence    Fence         // the fence in force
	FenceWhy string        // why it is not the gate; ""
	MinLease time.Duration // see Manager.MinLease
	Grace    Grace
	Tracking Tracking      // zero if there are no addresses
	Groups   []GroupStatus // in the order of Config
	// Missing lists the capabilities that this process lacks.
	Missing       []Capability
	EventsDropped uint64
}

// Grace says whether connections survive a planned move.
type Grace struct {
	Available bool
	Reason    string // why not; ""
}

// GroupStatus is the part of Status about one group.
type GroupStatus struct {
	Name      string
	Role      Role
	Since     time.Duration // CLOCK_BOOTTIME at which the role was taken
	Deadline  time.Duration // CLOCK_BOOTTIME; 0: away
	Addresses []AddressStatus
	Trouble   string // why the last Set could not do all that was asked; ""
}

// AddressStatus is the part of Status about one address.
type AddressStatus struct {
	Prefix        netip.Prefix
	Interface     string
	Present       bool   // we have put it on the interface
	Error         string // what keeps it from being right; ""
	Announcements uint64 // sent
	Foreign       uint64 // heard from others while we held it
	Repairs       uint64 // times somebody else removed it
	Contested     bool   // ten removals in ten seconds
}

// Status returns a snapshot.
func (m *Manager) Status() Status {
	least := m.MinLease()
	lack, _ := MissingCapabilities() // unknown is not missing
	tracking := ConnectionTracking()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{
		Fence: m.fence, FenceWhy: m.why, MinLease: least, EventsDropped: m.late,
		Grace: Grace{Available: m.fence == FenceGate},
	}
	if m.has(false) && !m.cfg.Observe {
		s.Missing = lack
	}
	if m.has(false) {
		s.Tracking = tracking
	}
	if !s.Grace.Available {
		s.Grace.Reason = "no gate: " + m.why
	}
	for _, g := range m.groups {
		gs := GroupStatus{Name: g.name, Role: g.desired.Role, Since: g.since, Deadline: g.desired.Deadline, Trouble: g.trouble}
		for _, c := range g.addrs {
			as := AddressStatus{
				Prefix: c.Prefix, Interface: c.Interface, Present: c.up,
				Announcements: c.calls, Foreign: c.foreign, Repairs: c.repairs.count, Contested: c.repairs.contested,
			}
			if err := errors.Join(c.err, c.mute); err != nil {
				as.Error = err.Error()
			}
			gs.Addresses = append(gs.Addresses, as)
		}
		s.Groups = append(s.Groups, gs)
	}
	return s
}

// Left counts the TCP connections that this machine serves on the addresses of
// a group: what a planned move would have to wait for. Without the gate nothing
// is known of them, and there is nothing to wait for: it is 0.
func (m *Manager) Left(group string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.group(group)
	if g == nil {
		return 0, ErrGroup
	}
	if m.sys.sockets == nil {
		return 0, nil
	}
	n := 0
	for _, c := range g.addrs {
		open, err := m.sys.sockets.Open(c.ip())
		if err != nil {
			return n, err
		}
		n += open
	}
	return n, nil
}
