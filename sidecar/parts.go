package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tandem/lib/gossip"
	"tandem/lib/lease"
	"tandem/lib/vip"
	"tandem/sidecar/agent"
	"tandem/sidecar/api"
	"tandem/sidecar/config"
	"tandem/sidecar/hold"
	"tandem/sidecar/hook"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// errHandedOver is why everything else ends: the agent has let go of all that
// it held.
var errHandedOver = errors.New("handed over")

// longestLease is the longest lease that a load balancer may ask for when the
// lease tunes itself: what the kernel's lifetime of an IPv6 address needs when
// there is no gate (docs/adr/0003). A voter keeps silent for this long, and a
// little more, after its start.
const longestLease = 2600 * time.Millisecond

// bootTime is the clock of the leases: it goes on while the machine sleeps and
// nobody can set it.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

func newIncarnation() (i lease.Incarnation) {
	rand.Read(i[:])
	return i
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func newNetwork(cfg config.Config, i lease.Incarnation, broadcasts uint64, log *zap.Logger, r prometheus.Registerer) (*gossip.Gossip, error) {
	peers := make([]gossip.Peer, len(cfg.Peers))
	for n, p := range cfg.Peers {
		peers[n] = gossip.Peer{Name: p.Name, Addr: p.Addr}
	}
	g, err := gossip.New(gossip.Config{
		Node: cfg.Node, Boot: hex.EncodeToString(i[:4]), Cluster: cfg.Cluster, Bind: cfg.Bind.String(),
		Keys: cfg.Keys, Insecure: cfg.Insecure, Peers: peers, Meta: []byte(cfg.Role), Broadcasts: broadcasts, Log: log.Named("gossip"), Registerer: r,
	})
	if err != nil {
		return nil, fmt.Errorf("set up gossip: %w", err)
	}
	return g, nil
}

func newAddresses(cfg config.Config, log *zap.Logger, r prometheus.Registerer) (*vip.Manager, error) {
	var groups []vip.Group
	for _, g := range cfg.VIPs {
		group := vip.Group{Name: g.Name}
		for _, a := range g.Addresses {
			group.Addresses = append(group.Addresses, vip.Address{Prefix: a.Prefix, Interface: a.Interface})
		}
		groups = append(groups, group)
	}
	return vip.New(vip.Config{
		Node: cfg.Node, Cluster: cfg.Cluster, Groups: groups, Now: bootTime, Log: log.Named("vip"), Registerer: r, Observe: cfg.Observe,
	})
}

// newHold makes what lets requests wait while a site is left and the other is
// not enabled yet.
func newHold(cfg config.Config, log *zap.Logger, r prometheus.Registerer) (*hold.Responder, error) {
	return hold.New(hold.Config{Addr: cfg.Hold, Log: log.Named("hold"), Registerer: r})
}

// newAgent makes an agent that begins anew, or in the place of another.
func newAgent(cfg config.Config, build Build, from origin, deps agent.Deps, probe *prober) (*agent.Agent, error) {
	c := agentConfig(cfg, build, from.incarnation, probe)
	c.Succession, c.Afresh = from.succession, from.afresh
	if c.Sites != nil {
		if err := c.Sites.Validate(); err != nil {
			return nil, fmt.Errorf("set up sites: %w", err)
		}
	}
	a, err := agent.New(c, deps)
	if h, ok := deps.Hooks.(*hooks); ok && err == nil {
		h.sure = a.Sure // before anything runs
	}
	return a, err
}

func agentConfig(cfg config.Config, build Build, i lease.Incarnation, probe *prober) agent.Config {
	c := agent.Config{
		Node: cfg.Node, Incarnation: i, Cluster: cfg.Cluster, Role: string(cfg.Role), Site: cfg.Site,
		Version: build.Version, Protocol: readsProtocol(), Settings: cfg.Shared(), Voters: cfg.Peers.Names(), Peers: peerAddresses(cfg),
		MaxLease: max(longestLease, cfg.Lease.Fixed), Prefer: cfg.Prefer, MoveGrace: cfg.MoveGrace,
		VIPs: map[string][]string{}, Serves: servedGroups(cfg), Observe: cfg.Observe, Hooks: hookKinds(cfg),
		Tuning: lease.Tuning{Auto: cfg.Lease.Auto, Fixed: cfg.Lease.Fixed},
	}
	switch cfg.Mode {
	case config.ModePair:
		c.Mode = lease.ModePair
	case config.ModeSingle:
		c.Mode = lease.ModeSingle
	case config.ModeQuorum:
		c.Mode = lease.ModeQuorum
	}
	if cfg.VIPFailback.Enabled {
		c.VIPFailback = max(cfg.VIPFailback.After, time.Millisecond)
	}
	for _, g := range cfg.VIPs {
		c.Groups = append(c.Groups, g.Name)
		for _, a := range g.Addresses {
			c.VIPs[g.Name] = append(c.VIPs[g.Name], a.Prefix.Addr().String())
		}
	}
	if len(cfg.Sites) > 0 {
		s := siteConfig(cfg)
		c.Sites = &s
	}
	if probe != nil {
		c.Probe = probe.Began
	}
	return c
}

// hookBudget is how long the longest list of commands may take, each as often as
// it is tried, with the pauses between: only what is silent for longer is lost.
func hookBudget(cfg config.Config) time.Duration {
	longest := max(len(cfg.HookPrecheck), len(cfg.HookTakeover), len(cfg.HookRenounce))
	each := hook.LongestAttempt(cfg.HookTimeout) * takeoverAttempts
	return max(10*time.Minute, time.Duration(longest)*each+time.Minute)
}

func siteConfig(cfg config.Config) site.Config {
	s := site.Config{
		Critical: cfg.Critical, Independent: cfg.Independent,
		MinUp: site.MinUp{Count: cfg.MinUp.Count, Percent: cfg.MinUp.Percent},
		Order: site.Order(cfg.Switch), Auto: site.Auto{Off: cfg.SiteAuto.Off, To: cfg.SiteAuto.To},
		DownAfter: cfg.SiteDownAfter, DrainTimeout: cfg.DrainTimeout,
		// An isolated load balancer remembers the last decider for as long as a
		// voter does, goes on for the grace, and then has to tell HAProxy.
		IsolatedAfter: lease.Remember(max(longestLease, cfg.Lease.Fixed)) + lease.Remember(agent.QuorumGrace) + 2*cfg.HAProxyTimeout,
		HookBudget:    hookBudget(cfg),
		Hooks: site.Hooks{
			Precheck: len(cfg.HookPrecheck) > 0, Takeover: len(cfg.HookTakeover) > 0,
			Renounce: len(cfg.HookRenounce) > 0, Notify: len(cfg.HookNotify) > 0,
		},
	}
	// Applications that must not run on two sites at once are stopped at the
	// standby, if there is something that starts them.
	s.Cold = s.Order == site.Exclusive // with takeover hooks, wherever they stand
	if cfg.SiteFailback.Enabled {
		s.Failback = max(cfg.SiteFailback.After, time.Millisecond)
	}
	for _, d := range cfg.Sites {
		s.Sites = append(s.Sites, site.Site{Name: d.Name, Patterns: d.Patterns})
	}
	return s
}

func hookKinds(cfg config.Config) []string {
	var kinds []string
	for _, h := range []struct {
		kind     site.HookKind
		commands config.Commands
	}{
		{site.HookPrecheck, cfg.HookPrecheck},
		{site.HookTakeover, cfg.HookTakeover},
		{site.HookRenounce, cfg.HookRenounce},
		{site.HookNotify, cfg.HookNotify},
	} {
		if len(h.commands) > 0 {
			kinds = append(kinds, string(h.kind))
		}
	}
	return kinds
}

// peerAddresses are the voters whose address is written as one; a name is
// resolved by gossip, and strays cannot be sent back to it.
func peerAddresses(cfg config.Config) map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for _, p := range cfg.Peers {
		host, _, err := net.SplitHostPort(p.Addr)
		if err != nil {
			continue
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			out[p.Name] = addr
		}
	}
	return out
}

func newServer(cfg config.Config, node operated, log *zap.Logger, r *prometheus.Registry) *api.Server {
	addr := ""
	if !cfg.API.Off {
		addr = cfg.API.Addr.String()
	}
	return api.New(api.Config{
		Addr: addr, Socket: cfg.Socket, Token: cfg.APIToken.Reveal(), ReadToken: cfg.APIReadToken.Reveal(),
		CertFile: cfg.APICert, KeyFile: cfg.APIKey, Gatherer: r, Registerer: r,
		History: func() []status.Transition { return node.History(1000) }, Live: node.Live,
		IsQuestion: func(err error) bool { return errors.Is(err, agent.ErrQuestion) }, Log: log.Named("api"),
	}, node)
}

// eitherDone ends when a or b does.
func eitherDone(a, b context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(a)
	context.AfterFunc(b, func() { cancel(context.Cause(b)) })
	return ctx, cancel
}

// prober asks whether anybody outside the cluster answers, for pair mode.
type prober struct {
	probes config.Probes
	began  atomic.Int64 // the last round, by the clock of the leases; 0: nobody answered
}

const (
	probeEvery   = 100 * time.Millisecond // a round falls between half of the shortest lease and its end
	probeTimeout = 500 * time.Millisecond
)

// newProber returns nil where nobody would ask it: what HAProxy sees of its
// servers is the test then.
func newProber(cfg config.Config) *prober {
	if len(cfg.Probes) == 0 || cfg.Mode != config.ModePair {
		return nil
	}
	return &prober{probes: cfg.Probes}
}

// Began is when the last round began, if one of the probes answered: whoever
// is cut off during it has reached them all the same.
func (p *prober) Began() time.Duration { return time.Duration(p.began.Load()) }

// Run asks until ctx ends.
func (p *prober) Run(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		began := bootTime()
		if !p.any(ctx) {
			began = 0
		}
		p.began.Store(int64(began))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *prober) any(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var answered atomic.Bool
	var group errgroup.Group
	for _, probe := range p.probes {
		group.Go(func() error {
			var d net.Dialer
			c, err := d.DialContext(ctx, probe.Network, probe.Address)
			if err != nil {
				return nil //nolint:nilerr // silence is an answer too
			}
			answered.Store(true)
			cancel()
			return c.Close()
		})
	}
	_ = group.Wait()
	return answered.Load()
}
