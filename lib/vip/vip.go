package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Address is a virtual IP and the interface that carries it. The address itself
// is Prefix.Addr(); /32 and /128 are usual. A shorter prefix also brings its
// connected route along.
type Address struct {
	Prefix    netip.Prefix
	Interface string
}

// String gives the form of the configuration: 10.0.0.100/32@eth0.
func (a Address) String() string { return a.Prefix.String() + "@" + a.Interface }

// Group is what moves together. A group without addresses is valid: its lease
// means something to others (a cloud load balancer, a hook), nothing to us.
type Group struct {
	Name      string
	Addresses []Address
}

// Role says what this node is to a group.
type Role uint8

// The roles. Yielding is the time after a planned move in which connections
// that this node carries go on, while it answers no address resolution.
const (
	Away Role = iota
	Holding
	Yielding
)

// String gives the word used in logs, metrics and status.
func (r Role) String() string {
	switch r {
	case Holding:
		return "holding"
	case Yielding:
		return "yielding"
	case Away:
		return "away"
	}
	return fmt.Sprintf("role-%d", uint8(r))
}

// Desired is what the caller wants of a group. All times are CLOCK_BOOTTIME, as
// Config.Now reads it.
//
// A planned move, seen from both sides, with grace g:
//
//	old holder   Set(Yielding{Deadline: t+g, NewUntil: lease, Successor: new})  then it releases the lease
//	new holder   Set(Holding{Deadline: lease, Predecessor: old, StraysUntil: t'+g}), t' its own taking up,
//	             and the same two with each renewal
//	old holder   the same with an earlier NewUntil, once the new one holds
//	old holder   nothing more: what is left is reset shortly before Deadline, and then let go
type Desired struct {
	Role Role
	// Deadline: Holding: the lease's, nothing is answered after it. Yielding:
	// the end of the grace, nothing is served after it.
	Deadline time.Duration
	// Predecessor is the node that yielded to us (Holding): an address of its
	// own on the same network and of the family of the virtual IP. TCP packets
	// that belong to no connection of ours go to it until StraysUntil. Zero: no
	// such node; strays meet the local stack, which resets them.
	Predecessor netip.Addr
	// Predecessor6 is the same for IPv6 addresses of the group, if Predecessor
	// is an IPv4 address. Both may be given in either field.
	Predecessor6 netip.Addr
	StraysUntil  time.Duration
	// NewUntil: Yielding: new connections that still reach us are served until
	// then, at most the lease's deadline.
	NewUntil time.Duration
	// Successor, Successor6 (Yielding, may be zero): where new connections go
	// that reach us after NewUntil, from a client whose neighbour cache has not
	// followed the move yet. Zero: they are dropped, and the client's kernel
	// tries again a second later.
	Successor, Successor6 netip.Addr
}

// Config is what a Manager needs to know. Now is CLOCK_BOOTTIME; Log and
// Registerer may be nil.
type Config struct {
	Node       string
	Cluster    string
	Groups     []Group
	Now        func() time.Duration
	Log        *zap.Logger
	Registerer prometheus.Registerer
	// DisableGate: do without nftables although the kernel has it.
	DisableGate bool
	// Observe: touch nothing; log what would be done, as an operator would type it.
	Observe bool
}

// ErrGroup is the answer to a Set for a group that Config does not name.
var ErrGroup = errors.New("no such group")

// ErrLate is the answer to a Set whose deadline had passed, before it was
// carried out or while it was; the addresses have been let go.
var ErrLate = errors.New("deadline passed")

// ErrNotHolding is the answer to a Set(Yielding) for a group that this node does
// not hold.
var ErrNotHolding = errors.New("not held, nothing to yield")

// Manager keeps virtual IPs. Its methods may be called from any goroutine.
type Manager struct {
	cfg     Config
	log     *zap.Logger
	metrics *metrics
	events  chan Event
	poke    chan struct{} // tells Run that times have changed
	ended   chan []netip.Addr
	seeker  chan struct{} // tells Run that strangers are sought, or no longer
	sys     system

	mu     sync.Mutex // guards all that follows, and the order of kernel actions
	groups []*group
	fence  Fence
	why    string // why the fence is not the gate
	late   uint64 // events dropped

	stopped            bool
	nextGate, nextLook time.Duration
	nextDue            time.Duration   // when anything else is
	timer              *time.Timer     // wakes Run
	retryGate          time.Duration   // after a failure, not before
	links              map[string]link // by interface, as last known
	leftovers          bool            // what a predecessor left is not all gone yet
}

// group is the state of one Group.
type group struct {
	name    string
	addrs   []*carried
	desired Desired
	since   time.Duration // when the role was taken
	reset   bool          // what is left of a yielded group has been reset
	trouble string        // why the last Set could not do all of it
	seek    seeking
}

// carried is one address and what is known of it.
type carried struct {
	Address
	up        bool          // we have put it on the interface
	lives     time.Duration // until when the kernel keeps it, as we asked
	extended  time.Duration // when we asked for it
	began     time.Duration // when the schedule of announcements began
	announced int           // those of it already made
	nextCall  time.Duration // when to announce next; 0: not at all
	lastCall  time.Duration
	foreign   uint64
	calls     uint64
	repairs   repairs
	missed    bool          // not there when we last looked, unasked
	left      time.Duration // a predecessor left it, and may answer until then; 0: no
	err       error         // of putting it up
	mute      error         // of the latest announcement
	alerted   time.Duration // when an event last said that others announce it

	gate    gating
	asked   [2]netip.Addr // the other holder of a move, as it was given to us
	askedAs Role
	back    netip.Addr    // where strays go, as the gate needs it; invalid: nowhere
	strays  time.Duration // ... until
	known   bool          // our own connections have been noted, so that strays can be told
	late    netip.Addr    // yielding: where connections go that begin late
	own     netip.Addr    // yielding: in whose name neighbours are asked
}

func (c *carried) ip() netip.Addr { return c.Prefix.Addr() }

// system is what a Manager does to the machine, so that tests can put a kernel
// in its place that keeps state and prints itself.
type system struct {
	addresses  addresser
	gate       gater // nil: no gate in force
	announcer  announcer
	neighbours neighbourhood
	sockets    resetter // only with the gate
}

var interfaceName = regexp.MustCompile(`^[^\s/@:]{1,15}$`)

func (c Config) check() error {
	var errs []error
	if c.Now == nil {
		errs = append(errs, errors.New("no clock given"))
	}
	names, addrs := map[string]bool{}, map[netip.Addr]string{}
	for _, g := range c.Groups {
		if g.Name == "" || names[g.Name] {
			errs = append(errs, fmt.Errorf("group %q: name is empty or taken", g.Name))
		}
		names[g.Name] = true
		for _, a := range g.Addresses {
			ip := a.Prefix.Addr()
			switch {
			case !a.Prefix.IsValid() || ip.Is4In6() || ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "":
				errs = append(errs, fmt.Errorf("group %q: %s is not a unicast address with a prefix, for example 10.0.0.100/32", g.Name, a))
			case !interfaceName.MatchString(a.Interface):
				errs = append(errs, fmt.Errorf("group %q: %q is not an interface name, for example eth0", g.Name, a.Interface))
			case addrs[ip] != "":
				errs = append(errs, fmt.Errorf("group %q: %s is already in group %q", g.Name, ip, addrs[ip]))
			}
			addrs[ip] = g.Name
		}
	}
	return errors.Join(errs...)
}

// New opens what a Manager needs. It fails for a configuration that can never
// work; whatever may mend itself (an absent interface, a missing capability) is
// said in Status instead. It starts nothing and changes nothing but the probe
// of the gate, which it takes away again.
func New(cfg Config) (*Manager, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configure virtual IPs: %w", err)
	}
	m, err := newManager(cfg, system{})
	if err != nil {
		return nil, err
	}
	if err := m.openSystem(); err != nil {
		return nil, fmt.Errorf("open kernel interfaces: %w", err)
	}
	return m, nil
}

func newManager(cfg Config, sys system) (*Manager, error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	m := &Manager{
		cfg: cfg, log: cfg.Log, sys: sys, fence: FenceNone,
		links:  map[string]link{},
		events: make(chan Event, 256), poke: make(chan struct{}, 1), ended: make(chan []netip.Addr, 16),
		timer: time.NewTimer(0), seeker: make(chan struct{}, 1),
	}
	for _, g := range cfg.Groups {
		gr := &group{name: g.Name}
		for _, a := range g.Addresses {
			gr.addrs = append(gr.addrs, &carried{Address: a})
		}
		m.groups = append(m.groups, gr)
	}
	var err error
	m.metrics, err = newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

func (m *Manager) group(name string) *group {
	for _, g := range m.groups {
		if g.name == name {
			return g
		}
	}
	return nil
}

// has says whether any address is configured, of IPv6 if six is given.
func (m *Manager) has(six bool) bool {
	for _, g := range m.groups {
		for _, a := range g.addrs {
			if !six || a.ip().Is6() {
				return true
			}
		}
	}
	return false
}
