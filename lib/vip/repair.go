package vip

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
)

// repairs is the memory of how often an address was taken away from us.
type repairs struct {
	count     uint64
	last      [contestedAfter]time.Duration // a ring of the latest
	at        time.Duration                 // a postponed repair; 0: none
	contested bool
}

const (
	// Ten removals within ten seconds are a fight. It ends in an alert, and from
	// then on the address is put back once a second.
	contestedAfter  = 10
	contestedWithin = 10 * time.Second
	slowRepair      = time.Second
)

var errContested = errors.New("somebody keeps removing the address; it is put back once a second")

// note counts a removal and says when to repair, and whether a fight begins.
func (r *repairs) note(now time.Duration) (at time.Duration, begins bool) {
	oldest := r.last[r.count%contestedAfter]
	r.last[r.count%contestedAfter] = now
	r.count++
	fight := r.count > contestedAfter && now-oldest < contestedWithin || r.count == contestedAfter && now-r.last[0] < contestedWithin
	begins = fight && !r.contested
	r.contested = fight
	if fight {
		return now + slowRepair, begins
	}
	return now, false
}

// addressChanged is called for each change that the kernel reports.
func (m *Manager) addressChanged(ip netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if c.ip() == ip {
				m.lookAt(g, c, false)
			}
		}
	}
}

// lookAt compares an address with what the kernel says of it, and mends. The
// kernel itself takes the IPv6 addresses from an interface that goes down: who
// looks before the report of that has been read sees an address missing on an
// interface that may be up again. So an absence that nobody reported is only
// noted when unasked is true; the next look judges it.
func (m *Manager) lookAt(g *group, c *carried, unasked bool) {
	missed := c.missed
	c.missed = false
	if g.desired.Role == Away || c.repairs.at != 0 || !c.up {
		return
	}
	p, err := m.sys.addresses.Look(c.Address)
	switch {
	case errors.Is(err, errNoInterface):
		m.linkLost(c.Interface, false)
		c.up, c.err = false, err
	case err != nil:
		c.err = err
	case p.there && p.fault != "":
		m.emit(Event{Kind: ReasonFlags, Group: g.name, Address: c.String(), Detail: p.fault})
		_, err := m.sys.addresses.Remove(c.Address)
		if err != nil {
			c.err = err
		}
		m.restore(g, c)
	case !p.there && (!p.carrier || m.reportedDown(c.Interface)):
		c.up = false // put back when the interface is
	case !p.there && unasked && !missed:
		c.missed = true
	case !p.there:
		m.removed(g, c)
	}
}

// removed deals with the absence of an address that we have put up.
func (m *Manager) removed(g *group, c *carried) {
	now := m.cfg.Now()
	c.up = false
	at, begins := c.repairs.note(now)
	m.emit(Event{Kind: ReasonRemoved, Group: g.name, Address: c.String(), Detail: culprit(machineFiles)})
	if begins {
		c.err = errContested
		m.emit(Event{
			Kind: ReasonContested, Group: g.name, Address: c.String(),
			Detail: fmt.Sprintf("removed %d times within %s; from now on it is put back once a second. %s", contestedAfter, contestedWithin, culprit(machineFiles)),
		})
	}
	if at > now {
		c.repairs.at = at
		m.wake()
		return
	}
	m.restore(g, c)
}

// restore puts an address back and announces it.
func (m *Manager) restore(g *group, c *carried) {
	now := m.cfg.Now()
	if g.desired.Role == Away || now >= g.desired.Deadline {
		return
	}
	c.up = false
	if c.err = m.put(c, g.desired.Deadline, now); c.err != nil {
		m.log.Error("virtual IPs: cannot put back", zap.String("group", g.name), zap.Error(c.err))
		return
	}
	if m.cfg.Now() >= g.desired.Deadline {
		_ = m.letGo(g, ReasonDeadlinePassed) // logged there; the gate is closed already
		return
	}
	m.beginSchedule(g, c)
}

// culprits are the programs that are known to remove addresses which they did
// not add themselves, by a file (below the root) that shows that they run, and
// how to stop them.
var culprits = []struct{ file, name, mend string }{
	{"run/systemd/netif/state", "systemd-networkd", "add `KeepConfiguration=yes` to the [Network] section of the interface's .network file"},
	{"run/NetworkManager/NetworkManager.pid", "NetworkManager", "`nmcli device set IFACE managed no`, or add the interface to [keyfile] unmanaged-devices"},
	{"run/NetworkManager/devices", "NetworkManager", "`nmcli device set IFACE managed no`, or add the interface to [keyfile] unmanaged-devices"},
	{"run/dhcpcd.pid", "dhcpcd", "add `denyinterfaces IFACE` to dhcpcd.conf"},
	{"run/keepalived.pid", "keepalived", "remove the address from keepalived.conf, or stop keepalived"},
}

// machineFiles is where culprits are looked for.
var machineFiles = os.DirFS("/")

// culprit names who probably removed an address, and the mend.
func culprit(root fs.FS) string {
	var out []string
	seen := map[string]bool{}
	for _, c := range culprits {
		if _, err := fs.Stat(root, c.file); err == nil && !seen[c.name] {
			seen[c.name] = true
			out = append(out, c.name+" runs here: "+c.mend)
		}
	}
	if len(out) == 0 {
		return "no program known to do this runs here (systemd-networkd, NetworkManager, dhcpcd, keepalived): probably a person or a script, `ip addr del`"
	}
	return "likely " + strings.Join(out, "; or ")
}
