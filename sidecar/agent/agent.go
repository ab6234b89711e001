package agent

import (
	"context"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tandem/haproxy"
	"tandem/lib/gossip"
	"tandem/lib/lease"
	"tandem/lib/vip"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// The roles of a node.
const (
	RoleLB      = "lb"      // beside a HAProxy; may hold leases
	RoleWitness = "witness" // votes, carries nothing
	RoleSite    = "site"    // runs hooks beside a site's applications
)

// ResourceSite is the lease whose holder makes the site decision.
const ResourceSite = "site"

// vipPrefix precedes the group's name in the lease of a virtual IP.
const vipPrefix = "vip/"

// Network is the way to the other sidecars: opaque bytes, late, twice, out of
// order or never.
type Network interface {
	Messages() <-chan []byte
	Changed() <-chan struct{}
	Members() []gossip.Member
	Send(node string, b []byte) error
	Broadcast(key string, b []byte) error
	Health() gossip.Health
	Keys() []string // their names, the one that encrypts first
	Clashes() []gossip.Clash
	Source() netip.AddrPort
}

// Addresses takes virtual IPs up and lets them go.
type Addresses interface {
	Set(group string, d vip.Desired) error
	Answer(group string) error
	Status() vip.Status
	Events() <-chan vip.Event
	MinLease() time.Duration
	Carrier(group string) bool
	NextHops(group string) (four, six netip.Addr)
	Left(group string) (int, error)
	Seek(group string, on bool) (found []vip.Stranger, asked bool)
}

// LoadBalancer is the HAProxy beside this node.
type LoadBalancer interface {
	Set(d haproxy.Desired)
	Changed() <-chan struct{}
	Observed() haproxy.Observation
}

// Hooks runs commands and tells how they ended. Only Done is waited for.
type Hooks interface {
	Start(run site.HookRun)
	// Fence ends what of a group is below epoch, and the notifications below
	// notify; what of that comes later is refused. 0 changes nothing.
	Fence(group string, epoch, notify uint64)
	// Forget ends all of a group, whose epochs begin again.
	Forget(group string)
	Done() <-chan HookResult
}

// HookResult is the end of one hook order: every command succeeded, or Err
// and Detail say what went wrong.
type HookResult struct {
	Run    site.HookRun
	OK     bool
	Err    site.Reason
	Detail string // exit code, duration and the end of the output, for people
}

// Store keeps what must outlive a restart. A nil Store keeps nothing.
type Store interface {
	Records() ([]lease.Record, error)
	SaveRecords(rs []lease.Record) error
	Maintenance() (bool, error)
	SaveMaintenance(on bool) error
	History() ([]status.Transition, error)
	AppendHistory(t status.Transition) error
}

// Config says who this node is and what it may do. All durations are
// validated by package config.
type Config struct {
	Node        string
	Incarnation lease.Incarnation
	Cluster     string
	Role        string
	Site        string
	Version     string
	Protocol    int               // newest version of the messages that is read; 0: as built
	Settings    map[string]string // what must be the same on all nodes: variable to digest

	Voters   []string              // in the order of TANDEM_PEERS
	Peers    map[string]netip.Addr // addresses of voters, as far as known
	Mode     lease.Mode
	Tuning   lease.Tuning
	MaxLease time.Duration

	Groups []string            // groups of virtual IPs, at least one
	VIPs   map[string][]string // the addresses of each group, as configured
	// Serves has the groups that each of several HAProxys serves, by its name; nil:
	// there is one, for all.
	Serves      map[string][]string
	Prefer      map[string]string // group → node; "" or absent: the first lb peer
	VIPFailback time.Duration     // 0: never
	MoveGrace   time.Duration

	Sites   *site.Config // nil: no sites are configured
	Hooks   []string     // the kinds of hook that this node has commands for
	Observe bool

	// Succession is what a program is told that takes another's place; nil: it
	// begins anew. Afresh says why it could not take that place, although it should
	// have.
	Succession *Succession
	Afresh     string

	// Probe says when the last test began in which this node reached somebody
	// outside the cluster; 0: there was none, or the latest failed. It is asked only
	// in pair mode and must not block. nil: what HAProxy sees.
	Probe func() time.Duration
}

// Deps are the outside systems. LB is nil on a node without HAProxy,
// Addresses on a node that carries none, Store without a state directory.
type Deps struct {
	Now        func() time.Duration // CLOCK_BOOTTIME, what leases are measured with
	Wall       func() time.Time     // the wall clock, for what people read; nil: this machine's
	Network    Network
	Addresses  Addresses
	LB         LoadBalancer
	Hooks      Hooks
	Notifier   Notifier // nil: there is no notify hook
	Hold       Hold     // nil: requests are not held
	Store      Store
	Log        *zap.Logger
	Registerer prometheus.Registerer
}

// Agent is one node. Create it with New, start it with Run.
type Agent struct {
	cfg  Config
	deps Deps
	log  *zap.Logger

	awake     func() // tells HAProxy's watch that this process is awake; nil: it does not want to know
	lease     *lease.Machine
	inputs    []lease.Input // what obeying an output asked for
	stepping  bool
	leaseWake time.Duration // when the lease machine wants to be asked next
	due       time.Duration // when the rest does
	lookAt    time.Duration // when the rest is looked at if nothing happens
	dirty     bool          // something happened that the rest must see at once
	groups    map[string]*group
	decider   *site.Decider // only while the site lease is held

	boot   string
	seq    uint64
	peers  map[string]*peer
	self   report
	told   []byte        // what was last reported, without its sequence number
	toldAt time.Duration // when

	informed   []lease.Item // what the nodes without a vote were told last
	informedAt time.Duration

	decided     lease.Record  // the site decision that is acted on
	decision    site.Decision // the same, decoded
	decidedFrom string        // who announced it
	dates       dates         // when what it says came about
	maintenance bool
	stopping    bool
	started     time.Duration

	vips          kernelView // what the addresses said last
	applied       appliedState
	obeyed        []site.Rule             // what HAProxy was last seen to obey
	unsaved       map[string]lease.Record // what could not be written to disk yet
	releasedAt    time.Duration           // when the last lease was let go
	decidingSince time.Duration           // when the site lease was taken up
	following     following               // how the site lease follows an address
	announceAt    time.Duration           // when held addresses are announced for a peer that is back; 0: there is none
	announcedAt   time.Duration           // when they last were
	telling       reach                   // how far ahead this node said that its site lease goes
	siteHeardAt   time.Duration           // when a live holder of the site lease was last known
	spoken        []spoken                // when reports of late were sent
	sure          atomic.Int64            // until when hooks may be started, see Sure
	pathSince     time.Duration           // since when another sees the active site and this node does not
	lbSeen        map[string]lbSeen

	orders     map[string]hookWait    // hooks that nodes run for this decider
	hooksRun   map[string]*HookResult // hooks run here, by id; nil while one runs
	hookFrom   map[string]string      // who wants to know
	hooksEnded []string               // ids of those that ended, oldest first
	hooksTaken []site.HookRun         // hooks that run or ran here and that no decision has overtaken
	notices    uint64                 // how many were given to the Notifier
	pending    map[string]*pendingCommand
	underWay   map[string]begunCommand // commands that have begun here and not ended
	seen       *seenCommands
	history    *history
	requests   chan func()
	metrics    *metrics
	warned     map[string]time.Duration
	doubled    map[string]*peer        // of whose name several processes have been heard
	remarks    map[string]string       // what other parts want an operator to know
	tap        func(status.Transition) // a rehearsal hears here what is noted; else nil
	outlook    outlook

	startedAt  time.Time
	restarts   int           // how often the program of this process was replaced
	succeeding bool          // another program is to take this one's place: leases are longer
	replaced   bool          // it has
	succession *Succession   // this one has taken another's place, and has not settled yet
	late       []string      // leases that ended before it had
	resumedAt  time.Duration // when the loop began
	settleBy   time.Duration

	firstRenewal time.Duration  // since then
	outcome      status.Process // how the program was last replaced
}

// New checks the configuration and prepares the machines; it starts nothing.
func New(cfg Config, deps Deps) (*Agent, error) {
	if deps.Wall == nil {
		deps.Wall = time.Now
	}
	now := deps.Now()
	var restored []lease.Record
	var maintenance bool
	hist := newHistory(cfg.Node, deps.Store)
	if deps.Store != nil {
		var err error
		if restored, err = deps.Store.Records(); err != nil {
			return nil, err
		}
		if maintenance, err = deps.Store.Maintenance(); err != nil {
			return nil, err
		}
		if err = hist.load(); err != nil {
			return nil, err
		}
	}
	if s := cfg.Succession; s != nil {
		cfg.Incarnation = s.State.Lease.Incarnation
	}
	m, err := newLease(cfg, restored, now)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, deps: deps, log: deps.Log, lease: m, started: now, startedAt: deps.Wall(), leaseWake: now, dirty: true,
		boot:   bootName(cfg.Incarnation),
		groups: map[string]*group{}, peers: map[string]*peer{},
		orders: map[string]hookWait{}, hooksRun: map[string]*HookResult{}, hookFrom: map[string]string{},
		pending: map[string]*pendingCommand{}, underWay: map[string]begunCommand{}, unsaved: map[string]lease.Record{},
		seen: newSeenCommands(), history: hist, requests: make(chan func()), warned: map[string]time.Duration{}, doubled: map[string]*peer{}, remarks: map[string]string{}, lbSeen: map[string]lbSeen{},
		maintenance: maintenance,
		// A node that has just started goes on routing for as long as one that has
		// just lost the decider.
		siteHeardAt: now + lease.Remember(cfg.MaxLease),
	}
	if cfg.Sites == nil || cfg.Sites.Order != site.Exclusive {
		a.sure.Store(math.MaxInt64)
	}
	if lb, ok := deps.LB.(interface{ Awake() }); ok {
		a.awake = lb.Awake
	}
	for _, g := range cfg.Groups {
		a.groups[g] = &group{name: g, resource: vipPrefix + g}
	}
	for _, r := range restored {
		if g := a.groupOf(r.Resource); g != nil {
			g.lastHolder = decodeVIP(r.Value.Data).Holder
		}
	}
	for _, v := range cfg.Voters {
		if v != cfg.Node {
			a.peers[v] = &peer{name: v, voter: true}
		}
	}
	if err := a.succeed(); err != nil {
		return nil, err
	}
	a.metrics = newMetrics(a)
	if deps.Registerer != nil {
		if err := a.metrics.register(deps.Registerer); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Run is the loop. It returns when ctx has ended and everything that this node
// held is handed over or let go.
func (a *Agent) Run(ctx context.Context) error {
	defer close(a.history.closed)
	if a.resumedAt = a.deps.Now(); a.succession == nil {
		a.noteStart()
	}
	done := ctx.Done()
	var lbChanged <-chan struct{}
	if a.deps.LB != nil {
		lbChanged = a.deps.LB.Changed()
	}
	var vipEvents <-chan vip.Event
	if a.deps.Addresses != nil {
		vipEvents = a.deps.Addresses.Events()
	}
	var hooksDone <-chan HookResult
	if a.deps.Hooks != nil {
		hooksDone = a.deps.Hooks.Done()
	}
	var notified <-chan NoticeResult
	if a.deps.Notifier != nil {
		notified = a.deps.Notifier.Notified()
	}
	for {
		// A timer for each turn: one that is set to later, as after every answer to a
		// renewal, still wakes the process at the time that it was set to before.
		timer := time.NewTimer(max(a.next()-a.deps.Now(), 0))
		select {
		case <-done:
			done = nil
			a.beginStop()
		case b := <-a.deps.Network.Messages():
			a.receive(b)
		case <-a.deps.Network.Changed():
			a.membersChanged()
		case <-lbChanged:
			a.stepLease(lease.Tick{})
			a.lbChanged()
		case e := <-vipEvents:
			a.vipEvent(e)
		case r := <-hooksDone:
			a.stepLease(lease.Tick{}) // what has run out while this process stood still comes first
			a.hookEnded(r)
			a.dirty = true
		case r := <-notified:
			a.stepLease(lease.Tick{})
			a.noticeEnded(r)
		case f := <-a.requests:
			a.stepLease(lease.Tick{})
			f()
			a.dirty = true
			if a.replaced {
				return ErrReplaced
			}
		case <-timer.C:
		}
		timer.Stop()
		a.turn()
		if a.stopping && a.allLetGo() {
			return nil
		}
	}
}
