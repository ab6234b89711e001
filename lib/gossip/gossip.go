package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

// Gossip is one node of a cluster. Its methods may be called from any goroutine,
// before, during and after Run.
type Gossip struct {
	cfg    Config
	self   string // name on the wire
	label  string
	ring   *memberlist.Keyring // nil in the insecure mode
	voter  bool
	peers  []*peer // as configured, this node included
	byName map[string]*peer

	log      *zap.Logger
	logs     *logs
	counts   counters
	table    *table
	delegate *delegate
	outboxes *outboxes
	poke     chan struct{} // a missing peer was heard

	ran       atomic.Bool
	list      atomic.Pointer[memberlist.Memberlist] // nil unless running
	advertise atomic.Pointer[netip.AddrPort]
	source    atomic.Pointer[netip.AddrPort]
	fault     atomic.Pointer[string]
	byAddr    atomic.Pointer[map[netip.AddrPort]string]
	byIP      atomic.Pointer[map[netip.Addr]string]

	indexMu sync.Mutex // one index at a time

	clashMu     sync.Mutex
	clashing    []Clash
	clashLogged time.Time
}

// New checks the configuration and registers the metrics. It starts nothing and
// opens nothing. Its error names everything that is wrong.
func New(cfg Config) (*Gossip, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configure gossip: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.lookup == nil {
		cfg.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	g := &Gossip{
		cfg:    cfg,
		self:   cfg.Node + "." + cfg.Boot,
		label:  labelPrefix + cfg.Cluster,
		byName: map[string]*peer{},
		log:    cfg.Log,
		logs:   newLogs(cfg.Log),
		poke:   make(chan struct{}, 1),
	}
	if len(cfg.Keys) > 0 {
		ring, err := memberlist.NewKeyring(cloneKeys(cfg.Keys[1:]), slices.Clone(cfg.Keys[0]))
		if err != nil {
			return nil, fmt.Errorf("configure gossip: %w", err)
		}
		g.ring = ring
	}
	for _, p := range cfg.Peers {
		q := newPeer(p)
		g.peers = append(g.peers, q)
		g.byName[p.Name] = q
		g.voter = g.voter || p.Name == cfg.Node
	}
	g.table = newTable(g.self)
	g.delegate = newDelegate(cfg.Meta, g.table, &g.counts, cfg.Broadcasts)
	g.outboxes = newOutboxes(&g.counts, g.sendReliable)
	g.index()
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(newCollector(g)); err != nil {
			return nil, fmt.Errorf("configure gossip: register metrics: %w", err)
		}
	}
	return g, nil
}

// Run takes part in the cluster until ctx ends; then it leaves, which takes up
// to a second, and returns when everything it started has ended. What ends
// later inside memberlist (probes that wait for their time-out) touches nothing
// any more. An error is returned only if Run could not begin: the address is
// taken, or Run was called before. Trouble in the network never ends it.
func (g *Gossip) Run(ctx context.Context) error {
	if g.ran.Swap(true) {
		return errors.New("run gossip: called twice")
	}
	m, transport, err := g.open(ctx)
	if err != nil || m == nil {
		return err
	}
	g.list.Store(m)
	g.delegate.signal()
	g.log.Info("gossip started", zap.Stringer("advertise", *g.advertise.Load()), zap.String("cluster", g.cfg.Cluster), zap.Bool("encrypted", g.ring != nil))

	work, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	group.Go(func() { g.joinLoop(work, m) })
	group.Go(func() { g.watch(work) })
	group.Go(func() { g.pushLoop(work, m) })
	group.Go(func() { g.logs.run(work) })
	for _, p := range g.peers {
		if !p.literal() && p.name != g.cfg.Node {
			group.Go(func() { g.lookupLoop(work, p) })
		}
	}
	<-ctx.Done()
	g.leave(m)
	g.outboxes.close()
	_ = transport.Shutdown() // ends the streams that joins and workers wait for
	group.Wait()
	g.outboxes.wait()
	g.list.Store(nil)
	if err := m.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

// open listens, finds the own address and starts memberlist. It returns nil
// and no error if ctx ended first.
func (g *Gossip) open(ctx context.Context) (*memberlist.Memberlist, *guard, error) {
	bind := netip.MustParseAddrPort(g.cfg.Bind) // checked before
	inner, start, port, err := g.inner(bind)
	if err != nil {
		return nil, nil, fmt.Errorf("run gossip: %w", err)
	}
	advertise, ok := g.awaitAddress(ctx, bind, port)
	if !ok {
		return nil, nil, inner.Shutdown()
	}
	transport := newGuard(inner, header{label: g.label, encrypted: g.ring != nil}, &g.counts)
	transport.heard, transport.dropped = g.heard, g.dropped
	transport.isPeer = func(a netip.Addr) bool {
		_, ok := (*g.byIP.Load())[a]
		return ok
	}
	start()
	transport.start()
	m, err := memberlist.Create(g.settings(transport, advertise))
	if err != nil {
		_ = transport.Shutdown()
		return nil, nil, fmt.Errorf("run gossip: start memberlist: %w", err)
	}
	return m, transport, nil
}

// inner is the transport below the guard and how to start it.
func (g *Gossip) inner(bind netip.AddrPort) (memberlist.NodeAwareTransport, func(), uint16, error) {
	switch t := g.cfg.Transport.(type) {
	case nil:
		s, err := listen(bind, &g.counts)
		if err != nil {
			return nil, nil, 0, err
		}
		return s, s.start, s.addr.Port(), nil
	case memberlist.NodeAwareTransport:
		return t, func() {}, bind.Port(), nil
	default:
		return nil, nil, 0, errors.New("transport has no node-aware methods")
	}
}

// awaitAddress finds the own address. At boot the network may not be there yet,
// so it tries until it is.
func (g *Gossip) awaitAddress(ctx context.Context, bind netip.AddrPort, port uint16) (netip.AddrPort, bool) {
	for tries := 0; ; tries++ {
		a, err := g.advertised(ctx, bind, port, tries)
		if err == nil {
			g.advertise.Store(&a)
			g.fault.Store(nil)
			return a, true
		}
		text := err.Error()
		g.fault.Store(&text)
		if tries == 0 && ctx.Err() == nil {
			g.log.Warn("gossip waits for its own address", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return netip.AddrPort{}, false
		case <-time.After(unresolvedWait):
		}
	}
}

// pushLoop sends each broadcast to a few members as soon as it is known here.
// What fails is left to the rounds of gossip.
func (g *Gossip) pushLoop(ctx context.Context, m *memberlist.Memberlist) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.delegate.spread.fresh:
		}
		for _, raw := range g.delegate.spread.push() {
			for _, to := range g.table.sample(gossipNodes) {
				_ = m.SendBestEffort(route(to.Node, to.Addr), raw)
			}
		}
	}
}

// leave tells the others, and stays a little longer, because memberlist returns
// before all of them know.
func (g *Gossip) leave(m *memberlist.Memberlist) {
	others := g.table.count() > 1
	if err := m.Leave(leaveTimeout); err != nil {
		g.log.Debug("leave not confirmed", zap.Error(err))
	}
	if others {
		time.Sleep(leaveLinger)
	}
}

// Messages are the messages of other nodes: those sent to this one, broadcasts
// once each, and the local state of others at each exchange. The channel is
// never closed. Who reads too slowly loses the oldest.
func (g *Gossip) Messages() <-chan []byte { return g.delegate.inbox }

// Changed has an element after the membership changed.
func (g *Gossip) Changed() <-chan struct{} { return g.delegate.changed }

// Members are the nodes believed alive, by name, this one included. Of a node
// that was restarted only the newest boot is listed. There are none as long as
// nothing can be sent.
func (g *Gossip) Members() []Member {
	if g.list.Load() == nil {
		return nil // memberlist tells of this node before it is ready itself
	}
	return g.table.list()
}

// Broadcast gives a message to all members, followers included, within a second
// or so. A newer one under the same key replaces an older one of this node that
// is still under way. The error says that the message is longer than
// MaxBroadcast.
func (g *Gossip) Broadcast(key string, b []byte) error {
	return g.delegate.spread.own(g.self, key, b)
}

// Broadcasts is the number of the last broadcast of this node, for the program
// that takes this one's place under the same name: see Config.Broadcasts.
func (g *Gossip) Broadcasts() uint64 {
	g.delegate.spread.mu.Lock()
	defer g.delegate.spread.mu.Unlock()
	return g.delegate.spread.number
}

// SetLocalState sets what other nodes are given at each exchange of state: when
// one joins, and with one at random every 10 s or so. Theirs come as Messages.
// The error says that it is longer than MaxState.
func (g *Gossip) SetLocalState(b []byte) error {
	if len(b) > MaxState {
		return fmt.Errorf("set local state: %d bytes: %w", len(b), ErrTooLarge)
	}
	b = slices.Clone(b)
	g.delegate.state.Store(&b)
	return nil
}

// SetKeys replaces the keys: the first encrypts, all decrypt. To rotate without
// a gap give every node both keys with the old one first, then every node the
// new one first, then every node the new one alone.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if g.ring == nil {
		return errors.New("set keys: gossip was started without encryption")
	}
	if err := checkKeys(keys, false); err != nil {
		return fmt.Errorf("set keys: %w", err)
	}
	keys = cloneKeys(keys)
	var errs []error
	for _, k := range keys {
		errs = append(errs, g.ring.AddKey(k))
	}
	errs = append(errs, g.ring.UseKey(keys[0]))
	for _, k := range g.ring.GetKeys() {
		if !slices.ContainsFunc(keys, func(o []byte) bool { return string(o) == string(k) }) {
			errs = append(errs, g.ring.RemoveKey(k))
		}
	}
	return errors.Join(errs...)
}

func cloneKeys(keys [][]byte) [][]byte {
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = slices.Clone(k)
	}
	return out
}
