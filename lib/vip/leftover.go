package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"go.uber.org/zap"
)

// Clean removes what a predecessor of this process left: the addresses of every
// group, and the rules of this node. It is called before Run and, but for
// the groups in keep, before the first Set.
//
// An address that the predecessor's gate still lets pass is left as it is until
// that shuts, which is at the deadline of the lease that the predecessor held:
// until then the voters still name this node, nobody else may answer, and the
// load balancer beside us goes on serving. A sidecar that is killed and started
// again at once is so not noticed more than one that stays dead. That lease
// belongs to the predecessor's incarnation and cannot be renewed; a lease of our
// own comes after it, and Set ends at once what is left.
//
// The groups in keep are left alone: this program has taken the place of the one
// before in the same process and goes on with its lease, as Set has been told
// already.
func (m *Manager) Clean(keep ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Now()
	for _, g := range m.groups {
		if slices.Contains(keep, g.name) {
			continue
		}
		for _, c := range g.addrs {
			c.left = max(now, 1)
			p, err := m.sys.addresses.Look(c.Address)
			if m.sys.gate == nil || err != nil || !p.there {
				continue
			}
			open, err := m.sys.gate.Shuts(c.ip())
			if err != nil {
				m.log.Warn("virtual IPs: cannot ask the gate of a predecessor", zap.Stringer("address", c.Address), zap.Error(err))
			}
			c.left = max(now+open, 1)
		}
	}
	m.leftovers = true
	_, err := m.dropExpired(now)
	return err
}

// dropLeftovers removes what a predecessor left and its gate has shut, and
// returns when there is more to do.
func (m *Manager) dropLeftovers() time.Duration {
	now := m.cfg.Now()
	next, err := m.dropExpired(now)
	if err != nil {
		m.log.Error("virtual IPs: cannot remove what a predecessor left", zap.Error(err))
	}
	return next
}

// endLeftovers removes all of it now.
func (m *Manager) endLeftovers() error {
	_, err := m.dropExpired(never)
	return err
}

// never is later than any deadline.
const never = time.Duration(1<<63 - 1)

// dropExpired removes the leftovers whose time is over by now, and at the end
// the predecessor's rules. It returns when the next is due.
func (m *Manager) dropExpired(now time.Duration) (next time.Duration, err error) {
	if !m.leftovers {
		return never, nil
	}
	next = never
	var errs []error
	for _, g := range m.groups {
		for _, c := range g.addrs {
			switch {
			case c.left == 0:
			case c.left > now:
				next = min(next, c.left)
			default:
				c.left = 0
				errs = append(errs, m.dropLeftover(g, c))
			}
		}
	}
	if next == never { // until here the predecessor's own gate stood
		m.leftovers = false
		errs = append(errs, m.resetGate())
	}
	return next, errors.Join(errs...)
}

func (m *Manager) dropLeftover(g *group, c *carried) error {
	there, err := m.sys.addresses.Remove(c.Address)
	if err != nil && !errors.Is(err, errNoInterface) {
		return fmt.Errorf("clean %s: %w", c.Address, err)
	}
	if there {
		m.log.Warn("virtual IPs: removed an address that a predecessor left",
			zap.String("group", g.name), zap.Stringer("address", c.Address))
		m.emit(Event{Kind: ReasonLeftBehind, Group: g.name, Address: c.String()})
	}
	return nil
}

// Shuts says for how long the gate that stands, whoever put it up, lets the
// address pass; 0 if it does not, or if there is no gate.
func (n *nft) Shuts(ip netip.Addr) (time.Duration, error) {
	conn, err := nftables.New()
	if err != nil {
		return 0, fmt.Errorf("open nftables: %w", err)
	}
	family, key := layout4.family, layout4.addr
	if ip.Is6() {
		family, key = layout6.family, layout6.addr
	}
	tables, err := conn.ListTablesOfFamily(family)
	if err != nil {
		return 0, fmt.Errorf("nft list tables: %w", err)
	}
	for _, t := range tables {
		if t.Name != n.name {
			continue
		}
		list, err := conn.GetSetElements(&nftables.Set{Table: t, Name: setServe, KeyType: key, HasTimeout: true})
		if err != nil {
			return 0, fmt.Errorf("nft list set %s: %w", setServe, err)
		}
		for _, e := range list {
			if got, ok := netip.AddrFromSlice(e.Key); ok && got == ip {
				return e.Expires, nil
			}
		}
	}
	return 0, nil
}
