package agent_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"tandem/haproxy"
	"tandem/lib/gossip"
	"tandem/lib/gossip/gossiptest"
	"tandem/lib/lease"
	"tandem/lib/vip"
	"tandem/sidecar/agent"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// kernel is the addresses of one node: it keeps state and prints itself as an
// operator would type it.
type kernel struct {
	mu       sync.Mutex
	start    time.Time
	node     string
	role     map[string]vip.Role
	deadline time.Duration
	wanted   []vip.Desired
	log      *journal
	carrier  bool
	events   chan vip.Event

	fence     vip.Fence
	least     time.Duration // the shortest lease that the fence allows
	answered  int
	strangers []vip.Stranger
	sought    map[string]time.Duration // since when, by group
	tracking  vip.Tracking
}

func (k *kernel) Set(group string, d vip.Desired) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deadline, k.wanted = d.Deadline, append(k.wanted, d)
	if k.role[group] == d.Role {
		return nil
	}
	k.role[group] = d.Role
	k.log.add("%s: %s %s", k.node, group, d.Role)
	return nil
}
func (k *kernel) Answer(string) error { k.mu.Lock(); defer k.mu.Unlock(); k.answered++; return nil }
func (k *kernel) Status() vip.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := vip.Status{Fence: k.fence, MinLease: k.least, Tracking: k.tracking, Grace: vip.Grace{Available: k.fence == vip.FenceGate}}
	if k.fence == vip.FenceLifetime {
		s.FenceWhy = "there is no nftables"
	}
	return s
}
func (k *kernel) Events() <-chan vip.Event { return k.events }
func (k *kernel) Carrier(string) bool      { k.mu.Lock(); defer k.mu.Unlock(); return k.carrier }
func (k *kernel) Left(string) (int, error) { return 0, nil }
func (k *kernel) Seek(group string, on bool) ([]vip.Stranger, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !on {
		delete(k.sought, group)
		return nil, false
	}
	if _, yes := k.sought[group]; !yes {
		k.sought[group] = time.Since(k.start)
	}
	if time.Since(k.start)-k.sought[group] < 600*time.Millisecond {
		return nil, false
	}
	return slices.Clone(k.strangers), true
}

func (k *kernel) NextHops(string) (four, six netip.Addr) {
	return netip.MustParseAddrPort(addresses[k.node]).Addr(), six
}
func (k *kernel) MinLease() time.Duration { k.mu.Lock(); defer k.mu.Unlock(); return k.least }

// gate takes the gate from a node, or gives it back, and says so as the real
// one does.
func (k *kernel) gate(yes bool) {
	k.mu.Lock()
	e := vip.Event{Kind: vip.ReasonGateBack}
	k.fence, k.least = vip.FenceGate, 0
	if !yes {
		e.Kind = vip.ReasonGateLost
		k.fence, k.least = vip.FenceLifetime, 2200*time.Millisecond
	}
	k.mu.Unlock()
	k.events <- e
}

// link takes the carrier from the node's interface, or gives it back.
func (k *kernel) link(up bool) {
	k.mu.Lock()
	e := vip.Event{Kind: vip.ReasonCarrierBack}
	if k.carrier = up; !up {
		e.Kind = vip.ReasonCarrierLost
	}
	k.mu.Unlock()
	k.events <- e
}

func (k *kernel) answers() int { k.mu.Lock(); defer k.mu.Unlock(); return k.answered }

// holds says whether the node answers for the group, the fence included.
func (k *kernel) holds(group string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.role[group] == vip.Holding && time.Hour+time.Since(k.start) < k.deadline
}

// proxy is a HAProxy that does at once what it is told.
type proxy struct {
	mu      sync.Mutex
	o       haproxy.Observation
	desired haproxy.Desired
	changed chan struct{}
	node    string
	log     *journal
	deaf    bool // it does nothing that it is told
}

func newProxy(node string, log *journal) *proxy {
	p := &proxy{changed: make(chan struct{}, 1), node: node, log: log}
	p.o = haproxy.Observation{Alive: true, Version: "2.6.12", PID: 100}
	for _, s := range []string{"a-1", "a-2", "b-1", "b-2"} {
		p.o.Servers = append(p.o.Servers, haproxy.Server{ServerID: haproxy.ServerID{Backend: "web", Server: s}, Up: true})
	}
	return p
}

func (p *proxy) Set(d haproxy.Desired) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.desired = d
	p.apply()
}

func (p *proxy) apply() {
	if !p.o.Alive || p.deaf {
		return
	}
	var ready []string
	p.o.Servers = slices.Clone(p.o.Servers)
	for i, s := range p.o.Servers {
		r, ok := p.desired.Rule(s.ServerID)
		if ok {
			p.o.Servers[i].Admin = 0
			if r.Want == haproxy.Drain {
				p.o.Servers[i].Admin = haproxy.FDrain
			}
		}
		if p.o.Servers[i].Admin == 0 {
			ready = append(ready, s.Server)
		}
	}
	if p.o.Applied != p.desired.Epoch {
		p.o.Applied = p.desired.Epoch
		p.log.add("%s: ready %s", p.node, strings.Join(ready, " "))
	}
	p.signal()
}

func (p *proxy) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}
func (p *proxy) Changed() <-chan struct{}      { return p.changed }
func (p *proxy) Observed() haproxy.Observation { p.mu.Lock(); defer p.mu.Unlock(); return p.o }

func (p *proxy) die(reason haproxy.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Alive, p.o.Reason, p.o.Applied = false, reason, 0
	p.signal()
}

func (p *proxy) back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Alive, p.o.Reason = true, ""
	p.o.PID++
	p.apply()
}

// hear has it do what it is told, or nothing from now on.
func (p *proxy) hear(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = !yes
	p.apply()
}

func (p *proxy) servers(prefix string, up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Servers = slices.Clone(p.o.Servers)
	for i := range p.o.Servers {
		if strings.HasPrefix(p.o.Servers[i].Server, prefix) {
			p.o.Servers[i].Up = up
		}
	}
	p.signal()
}

func (p *proxy) ready() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, s := range p.o.Servers {
		if s.Admin == 0 {
			out = append(out, s.Server)
		}
	}
	return strings.Join(out, " ")
}

// journal is what happened in the cluster, in order.
type journal struct {
	mu    sync.Mutex
	start time.Time
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

// node is one sidecar of the test cluster.
type node struct {
	*agent.Agent
	kernel  *kernel
	proxy   *proxy
	network *gossip.Gossip
	cancel  context.CancelFunc
	done    chan error
}

// cluster is lb1, lb2 and a witness in one bubble of virtual time.
type cluster struct {
	t     *testing.T
	net   *gossiptest.Network
	log   *journal
	start time.Time
	mu    sync.Mutex // guards nodes while one is booted again
	nodes map[string]*node
	two   int // instants at which two nodes answered
	stop  context.CancelFunc
	wg    sync.WaitGroup
	boots byte
	edit  func(name string, c *agent.Config)
	names []string
	alone bool // pair mode: two holders are possible
	deps  func(name string, d *agent.Deps)
	wires map[string]*gossiptest.Transport
	heirs map[string]*heir // who takes another program's place at the next boot
	// between is called when a program has ended and the next has not started.
	between func()
}

var addresses = map[string]string{"lb1": "10.0.0.11:7946", "lb2": "10.0.0.12:7946", "witness": "10.0.0.13:7946", "lb3": "10.0.0.14:7946", "witness2": "10.0.0.15:7946", "witness3": "10.0.0.16:7946", "lb4": "10.0.0.17:7946", "app-b": "10.0.0.18:7946"}

func newCluster(t *testing.T, names []string, edit func(string, *agent.Config)) *cluster {
	t.Helper()
	return newClusterWith(t, names, edit, nil)
}

func newClusterWith(t *testing.T, names []string, edit func(string, *agent.Config), deps func(string, *agent.Deps)) *cluster {
	t.Helper()
	c := &cluster{
		deps:  deps,
		names: names,
		t:     t, net: gossiptest.NewNetwork(1), start: time.Now(), nodes: map[string]*node{},
		log: &journal{start: time.Now()}, edit: edit, wires: map[string]*gossiptest.Transport{}, heirs: map[string]*heir{},
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.stop = cancel
	for _, n := range names {
		c.boot(ctx, n)
	}
	c.wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// It looks at one after the other, and a move may come between.
				if two := len(c.holders()) > 1; two && len(c.holders()) > 1 {
					c.two++
				}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		for _, n := range c.nodes {
			if err := <-n.done; err != nil && !errors.Is(err, agent.ErrReplaced) {
				t.Errorf("run: %v", err)
			}
		}
		c.wg.Wait()
		time.Sleep(20 * time.Second) // memberlist's leftover timers end inside the bubble
	})
	return c
}

func (c *cluster) boot(ctx context.Context, name string) {
	c.t.Helper()
	c.bootAt(ctx, name, name, addresses[name], "")
}

// bootAt starts a node on a machine: elsewhere than the node of that name should
// be, or saying that it is elsewhere than it is.
func (c *cluster) bootAt(ctx context.Context, machine, name, at, advertise string) {
	c.t.Helper()
	c.boots++
	inc := lease.Incarnation{c.boots, 1, 2, 3, 9: c.boots}
	from := c.heirs[name]
	delete(c.heirs, name)
	if from != nil {
		inc = from.State.Lease.Incarnation
	}
	log := zap.NewNop()
	if testing.Verbose() {
		log = zaptest.NewLogger(c.t).Named(name)
	}
	peers := []gossip.Peer{}
	addr := map[string]netip.Addr{}
	for _, n := range c.names {
		if n == "lb3" || n == "app-b" {
			continue // a follower: nobody lists it
		}
		peers = append(peers, gossip.Peer{Name: n, Addr: addresses[n]})
		addr[n] = netip.MustParseAddrPort(addresses[n]).Addr()
	}
	c.wires[machine] = c.net.Transport(at)
	g, err := gossip.New(gossip.Config{
		Node: name, Boot: fmt.Sprintf("%x", inc[:4]), Cluster: "test", Bind: at, Advertise: advertise, Insecure: true,
		Peers: peers, Log: zap.NewNop(), Transport: c.wires[machine], Broadcasts: from.broadcasts(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	cfg := agent.Config{
		Node: name, Incarnation: inc, Cluster: "test", Role: agent.RoleLB, Voters: c.names,
		Peers: addr, Mode: lease.ModeQuorum, Tuning: lease.Tuning{Auto: true}, MaxLease: 2600 * time.Millisecond,
		Groups: []string{"default"}, VIPs: map[string][]string{"default": {"10.0.0.100"}}, MoveGrace: 5 * time.Second,
		Sites: &site.Config{Sites: []site.Site{{Name: "a", Patterns: []string{"*/a-*"}}, {Name: "b", Patterns: []string{"*/b-*"}}}},
	}
	deps := agent.Deps{Now: func() time.Duration { return time.Hour + time.Since(c.start) }, Network: g, Log: log}
	n := &node{done: make(chan error, 1)}
	if strings.HasPrefix(name, "witness") {
		cfg.Role = agent.RoleWitness
	} else {
		n.kernel = &kernel{start: c.start, node: name, role: map[string]vip.Role{}, sought: map[string]time.Duration{}, log: c.log, carrier: true, fence: vip.FenceGate, events: make(chan vip.Event)}
		n.proxy = newProxy(name, c.log)
		if from != nil { // the machine is the same
			n.kernel, n.proxy = c.nodes[name].kernel, c.nodes[name].proxy
		}
		deps.Addresses, deps.LB = n.kernel, n.proxy
	}
	if from != nil {
		cfg.Succession = &from.Succession
	}
	n.network = g
	if c.edit != nil {
		c.edit(name, &cfg)
	}
	if c.deps != nil {
		c.deps(name, &deps)
	}
	if n.Agent, err = agent.New(cfg, deps); err != nil {
		c.t.Fatal(err)
	}
	n.Keep()
	nodeCtx, cancel := context.WithCancel(ctx)
	n.cancel = cancel
	netCtx, stopNet := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Run(netCtx) })
	go func() {
		err := n.Run(nodeCtx)
		stopNet()
		wg.Wait()
		n.done <- err
		close(n.done)
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[machine] = n
}

// holders are the nodes that answer for the address now.
func (c *cluster) holders() []string {
	var out []string
	for _, n := range []string{"lb1", "lb2"} {
		c.mu.Lock()
		node := c.nodes[n]
		c.mu.Unlock()
		if node != nil && node.kernel.holds("default") {
			out = append(out, n)
		}
	}
	return out
}

// until waits for a condition and returns how long it took.
func (c *cluster) until(what string, within time.Duration, ok func() bool) time.Duration {
	c.t.Helper()
	began := time.Now()
	for time.Since(began) < within {
		if ok() {
			return time.Since(began)
		}
		time.Sleep(time.Millisecond)
	}
	c.t.Fatalf("%s: not within %s\n%s\nstatus of lb1: %+v", what, within, c.log.text(), c.nodes["lb1"].Status())
	return 0
}

func (c *cluster) held(by string) func() bool {
	return func() bool { return slices.Equal(c.holders(), []string{by}) }
}

func (c *cluster) routed(to string) func() bool {
	return func() bool { return c.nodes["lb1"].proxy.ready() == to && c.nodes["lb2"].proxy.ready() == to }
}

func inBubble(t *testing.T, edit func(string, *agent.Config), story func(c *cluster)) {
	t.Helper()
	bubble(t, []string{"lb1", "lb2", "witness"}, edit, story)
}

func bubble(t *testing.T, names []string, edit func(string, *agent.Config), story func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, names, edit)
		c.until("first holder", 8*time.Second, c.held("lb1"))
		c.until("site a routed", 2*time.Second, c.routed("a-1 a-2"))
		c.until("all healthy", 5*time.Second, func() bool { return c.nodes["lb1"].Status().Health == status.Healthy })
		story(c)
		if c.two > 0 && !c.alone {
			t.Errorf("two nodes answered at %d instants\n%s", c.two, c.log.text())
		}
	})
}

func TestHAProxyOfTheHolderDies(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.nodes["lb1"].proxy.die("refused")
		took := c.until("lb2 takes over", time.Second, c.held("lb2"))
		if took > 20*time.Millisecond {
			t.Errorf("hand-over took %s, want a few round trips", took)
		}
		c.nodes["lb1"].proxy.back()
		time.Sleep(3 * time.Second)
		if !c.held("lb2")() {
			t.Errorf("holders %v, want lb2 to keep the address (failback never)", c.holders())
		}
	})
}

func TestHolderIsCutOff(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.net.Isolate(addresses["lb1"])
		took := c.until("lb2 takes over", 3*time.Second, c.held("lb2"))
		t.Logf("took %s", took)
		if took > 800*time.Millisecond {
			t.Errorf("took %s, want at most the lease and a bit", took)
		}
		c.net.Heal()
		time.Sleep(3 * time.Second)
		if !c.held("lb2")() {
			t.Errorf("holders %v after the heal, want lb2", c.holders())
		}
	})
}

func TestWitnessDies(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.net.Isolate(addresses["witness"])
		time.Sleep(5 * time.Second)
		if !c.held("lb1")() {
			t.Errorf("holders %v, want lb1", c.holders())
		}
		if s := c.nodes["lb1"].Status(); s.Health != status.Degraded {
			t.Errorf("health %s %v, want degraded", s.Health, s.Problems)
		}
	})
}

func TestPlannedMove(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		// Asked of the other node: the command finds its way to the holder.
		r, err := c.nodes["lb2"].Do(t.Context(), status.Command{Kind: "move", To: "lb2", Actor: "test"})
		if err != nil || !r.OK {
			t.Fatalf("move: %+v %v", r, err)
		}
		if !c.held("lb2")() {
			t.Errorf("holders %v, want lb2", c.holders())
		}
		if !strings.Contains(c.log.text(), "lb1: default yielding\nlb2: default holding") {
			t.Errorf("want lb1 to yield before lb2 holds:\n%s", c.log.text())
		}
		time.Sleep(6 * time.Second)
		if !strings.HasSuffix(c.log.text(), "lb1: default away") {
			t.Errorf("want lb1 to let go after the grace:\n%s", c.log.text())
		}
	})
}

func TestMoveToANodeThatIsNotFitIsRefused(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.nodes["lb2"].proxy.die("refused")
		time.Sleep(time.Second)
		r, err := c.nodes["lb1"].Do(t.Context(), status.Command{Kind: "move", To: "lb2"})
		if err != nil || r.OK || r.Reason != "not-eligible" {
			t.Errorf("move: %+v %v, want refused as not-eligible", r, err)
		}
	})
}

func TestStopHandsOver(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.nodes["lb1"].cancel()
		took := c.until("lb2 takes over", time.Second, c.held("lb2"))
		if took > 20*time.Millisecond {
			t.Errorf("took %s", took)
		}
		c.until("site lease follows", 2*time.Second, func() bool {
			for _, l := range c.nodes["lb2"].Status().Leases {
				if l.Resource == "site" {
					return l.Holder == "lb2"
				}
			}
			return false
		})
	})
}

func TestSiteFailsOverOnBothLoadBalancersAlike(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.nodes["lb1"].proxy.servers("a-", false)
		time.Sleep(100 * time.Millisecond)
		if !c.routed("a-1 a-2")() {
			t.Error("switched although lb2 still sees site a")
		}
		c.nodes["lb2"].proxy.servers("a-", false)
		c.until("site b routed", time.Second, c.routed("b-1 b-2"))
		c.until("status says b", time.Second, func() bool {
			return c.nodes["witness"].Status().Site.Active == "b" || c.nodes["lb2"].Status().Site.Active == "b"
		})
		c.nodes["lb1"].proxy.servers("a-", true)
		c.nodes["lb2"].proxy.servers("a-", true)
		time.Sleep(2 * time.Second)
		r, err := c.nodes["lb2"].Do(t.Context(), status.Command{Kind: "takeover", Site: "a", Actor: "test"})
		if err != nil || !r.OK {
			t.Fatalf("takeover: %+v %v", r, err)
		}
		c.until("site a routed", time.Second, c.routed("a-1 a-2"))
	})
}

func TestPathNotSite(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.nodes["lb1"].proxy.servers("a-", false)
		c.until("the address goes where site a is seen", 3*time.Second, c.held("lb2"))
		if !c.routed("a-1 a-2")() {
			t.Error("the site was switched although lb2 sees it")
		}
	})
}

func TestLastResort(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.nodes["lb2"].proxy.die("refused")
		time.Sleep(100 * time.Millisecond)
		c.nodes["lb1"].proxy.die("refused")
		time.Sleep(3 * time.Second)
		if !c.held("lb1")() {
			t.Errorf("holders %v, want lb1 to stay as last resort", c.holders())
		}
		c.nodes["lb2"].proxy.back()
		c.until("lb2 takes over", time.Second, c.held("lb2"))
	})
}

func TestRestartedNodeCatchesUpBeforeItIsEligible(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		c.nodes["lb1"].proxy.servers("a-", false)
		c.nodes["lb2"].proxy.servers("a-", false)
		c.until("site b routed", time.Second, c.routed("b-1 b-2"))
		c.nodes["lb2"].cancel()
		if err := <-c.nodes["lb2"].done; err != nil {
			t.Fatal(err)
		}
		c.boot(t.Context(), "lb2")
		c.nodes["lb2"].proxy.servers("a-", false)
		c.until("lb2 routes as decided", 5*time.Second, func() bool { return c.nodes["lb2"].proxy.ready() == "b-1 b-2" })
		if !c.held("lb1")() {
			t.Errorf("holders %v, want lb1", c.holders())
		}
	})
}

// TestNobodyHoldsBeforeItHasCaughtUp: lb2 comes back after a switch, and its
// HAProxy answers and does nothing that it is told. It routes to the old site,
// so it must not get the address, not even when lb1 is gone.
func TestNobodyHoldsBeforeItHasCaughtUp(t *testing.T) {
	deaf := false
	deps := func(_ string, d *agent.Deps) {
		if p, ok := d.LB.(*proxy); ok {
			p.deaf = deaf
		}
	}
	bubbleWith(t, []string{"lb1", "lb2", "witness"}, nil, deps, func(c *cluster) {
		c.ready()
		c.nodes["lb2"].cancel()
		if err := <-c.nodes["lb2"].done; err != nil {
			t.Fatal(err)
		}
		c.takeover("b")
		c.until("lb1 routes to b", 5*time.Second, func() bool { return c.nodes["lb1"].proxy.ready() == "b-1 b-2" })
		deaf = true
		c.boot(c.t.Context(), "lb2")
		lb2 := func() (n status.Node) {
			all := c.nodes["lb1"].Status().Nodes
			return all[slices.IndexFunc(all, func(n status.Node) bool { return n.Name == "lb2" })]
		}
		c.until("lb2 says what it waits for", 5*time.Second, func() bool { n := lb2(); return n.Alive && n.Reason == "catching-up" })
		for range 60 {
			time.Sleep(50 * time.Millisecond)
			if n := lb2(); n.Eligible || n.Reason != "catching-up" {
				t.Fatalf("lb2 is eligible %v (%s), and its HAProxy routes to %q", n.Eligible, n.Reason, c.nodes["lb2"].proxy.ready())
			}
		}
		c.wires["lb1"].Kill()
		c.nodes["lb1"].cancel()
		for range 5000 {
			time.Sleep(time.Millisecond)
			if c.nodes["lb2"].kernel.holds("default") {
				t.Fatalf("lb2 holds the address, and its HAProxy routes to %q\n%s", c.nodes["lb2"].proxy.ready(), c.log.text())
			}
		}
		c.nodes["lb2"].proxy.hear(true)
		c.until("lb2 holds", 2*time.Second, c.held("lb2"))
		if r := c.nodes["lb2"].proxy.ready(); r != "b-1 b-2" {
			t.Errorf("lb2 holds and routes to %q, want site b", r)
		}
	})
}

func TestFailbackWaits(t *testing.T) {
	inBubble(t, func(_ string, c *agent.Config) { c.VIPFailback = 5 * time.Second }, func(c *cluster) {
		t := c.t
		c.nodes["lb1"].proxy.die("refused")
		c.until("lb2 takes over", time.Second, c.held("lb2"))
		c.nodes["lb1"].proxy.back()
		time.Sleep(4500 * time.Millisecond)
		if !c.held("lb2")() {
			t.Fatalf("holders %v, want lb2 before the failback delay is over", c.holders())
		}
		c.until("lb1 takes back", 2*time.Second, c.held("lb1"))
	})
}

// TestFailbackDoesNotFlap: a node that comes and goes gets nothing back, and one
// that stays gets it back once.
func TestFailbackDoesNotFlap(t *testing.T) {
	for name, fault := range map[string]struct{ begin, end func(c *cluster) }{
		"its HAProxy dies": {
			func(c *cluster) { c.nodes["lb1"].proxy.die("refused") },
			func(c *cluster) { c.nodes["lb1"].proxy.back() },
		},
		"it is cut off": {
			func(c *cluster) { c.net.Isolate(addresses["lb1"]) },
			func(c *cluster) { c.net.Heal() },
		},
		"its link goes down": {
			func(c *cluster) { c.nodes["lb1"].kernel.link(false) },
			func(c *cluster) { c.nodes["lb1"].kernel.link(true) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(_ string, c *agent.Config) { c.VIPFailback = 5 * time.Second }, func(c *cluster) {
				t := c.t
				takeUps := func() int { return strings.Count(c.log.text(), "lb1: default holding") }
				before := takeUps()
				fault.begin(c)
				c.until("lb2 takes over", 2*time.Second, c.held("lb2"))
				for range 5 {
					time.Sleep(3 * time.Second)
					fault.end(c)
					time.Sleep(3 * time.Second)
					if !c.held("lb2")() {
						t.Fatalf("holders %v, want lb2 while lb1 comes and goes\n%s", c.holders(), c.log.text())
					}
					fault.begin(c)
				}
				time.Sleep(3 * time.Second)
				if n := takeUps() - before; n > 0 {
					t.Errorf("lb1 took the address up %d times while it came and went", n)
				}
				fault.end(c)
				if took := c.until("lb1 takes back", 15*time.Second, c.held("lb1")); took < 5*time.Second {
					t.Errorf("taken back after %s, want the failback delay", took)
				}
				time.Sleep(30 * time.Second)
				if n := takeUps() - before; n != 1 || !c.held("lb1")() {
					t.Errorf("lb1 took the address up %d times when it stayed, want once; holders %v\n%s", n, c.holders(), c.log.text())
				}
			})
		})
	}
}

// TestTheDelayOfAFailbackBeginsAnew with each tenure: what the preferred node was
// when this one held the last time says nothing of now, when it has just died.
func TestTheDelayOfAFailbackBeginsAnew(t *testing.T) {
	short := func(_ string, c *agent.Config) {
		// A lease so short that lb2 takes up while lb1 still passes for alive.
		c.VIPFailback, c.Tuning = 5*time.Second, lease.Tuning{Fixed: 200 * time.Millisecond}
	}
	inBubble(t, short, func(c *cluster) {
		t := c.t
		c.nodes["lb1"].proxy.die("refused")
		c.until("lb2 takes over", 2*time.Second, c.held("lb2"))
		c.nodes["lb1"].proxy.back()
		time.Sleep(2 * time.Second) // the delay has begun
		if r, err := c.nodes["lb2"].Do(t.Context(), status.Command{Kind: "move", To: "lb1"}); err != nil || !r.OK {
			t.Fatalf("move: %+v %v", r, err)
		}
		c.until("lb1 holds", 2*time.Second, c.held("lb1"))
		time.Sleep(10 * time.Second)
		takeUps := func() int { return strings.Count(c.log.text(), "lb2: default holding") }
		before := takeUps()
		c.net.Isolate(addresses["lb1"])
		c.until("lb2 takes over again", 3*time.Second, c.held("lb2"))
		time.Sleep(3 * time.Second)
		if n := takeUps() - before; n != 1 || !c.held("lb2")() {
			t.Errorf("lb2 took the address up %d times, want once: it handed it to a node that is cut off\n%s", n, c.log.text())
		}
	})
}

// TestAPeersReturnIsAnsweredByTheHolder: whoever was cut off with it may have
// heard nobody, or somebody else.
func TestAPeersReturnIsAnsweredByTheHolder(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		lb1, lb2 := c.nodes["lb1"].kernel, c.nodes["lb2"].kernel
		at := [2]int{lb1.answers(), lb2.answers()}
		c.net.Isolate(addresses["lb2"])
		time.Sleep(5 * time.Second)
		if n := lb1.answers() - at[0]; n != 0 {
			t.Errorf("announced %d times for a peer that is gone", n)
		}
		c.net.Heal()
		c.until("the holder announces", 5*time.Second, func() bool { return lb1.answers() > at[0] })
		time.Sleep(10 * time.Second)
		if n := lb1.answers() - at[0]; n != 1 {
			t.Errorf("the holder announced %d times, want once", n)
		}
		if n := lb2.answers() - at[1]; n != 0 {
			t.Errorf("lb2, which holds nothing, announced %d times", n)
		}
	})
}

// bubbleFrom tells a story from the first instant on.
func bubbleFrom(t *testing.T, names []string, edit func(string, *agent.Config), story func(c *cluster)) {
	t.Helper()
	bubbleWith(t, names, edit, nil, story)
}

func bubbleWith(t *testing.T, names []string, edit func(string, *agent.Config), deps func(string, *agent.Deps), story func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newClusterWith(t, names, edit, deps)
		story(c)
		if c.two > 0 && !c.alone {
			t.Errorf("two nodes answered at %d instants\n%s", c.two, c.log.text())
		}
	})
}

// pair is two voters and no witness.
func pair(_ string, c *agent.Config) { c.Mode = lease.ModePair }

func TestPairGoesOnAloneAndSaysSo(t *testing.T) {
	bubble(t, []string{"lb1", "lb2"}, pair, func(c *cluster) {
		t := c.t
		c.net.Isolate(addresses["lb1"])
		c.alone = true // the link is cut, both live: the price of two voters
		c.until("lb2 goes on alone", 5*time.Second, func() bool { return slices.Contains(c.holders(), "lb2") })
		s := c.nodes["lb2"].Status()
		if !s.Unsafe || s.Health != status.Degraded {
			t.Errorf("unsafe %v, health %s %v: want unsafe and degraded", s.Unsafe, s.Health, s.Problems)
		}
		c.net.Heal()
		c.until("one holder after the heal", 5*time.Second, func() bool { return len(c.holders()) == 1 })
		holder := c.holders()
		time.Sleep(5 * time.Second)
		if !slices.Equal(c.holders(), holder) {
			t.Errorf("holders %v, want %v to stay", c.holders(), holder)
		}
		c.until("safe again", 5*time.Second, func() bool { return !c.nodes["lb1"].Status().Unsafe && !c.nodes["lb2"].Status().Unsafe })
	})
}

func TestPairNodeThatIsCutOffHoldsNothing(t *testing.T) {
	var cut atomic.Bool
	edit := func(name string, c *agent.Config) {
		pair(name, c)
		if name == "lb1" {
			c.Probe = func() time.Duration {
				if cut.Load() {
					return 0 // reaches nobody outside
				}
				return math.MaxInt64 // at any time
			}
		}
	}
	bubble(t, []string{"lb1", "lb2"}, edit, func(c *cluster) {
		t := c.t
		cut.Store(true)
		c.net.Isolate(addresses["lb1"])
		c.until("lb2 alone holds", 5*time.Second, c.held("lb2"))
		time.Sleep(3 * time.Second)
		if !c.held("lb2")() {
			t.Errorf("holders %v, want lb2 alone", c.holders())
		}
	})
}

func TestExclusiveDrainsWhatIsCutOffBeforeTheOtherSiteIsEnabled(t *testing.T) {
	edit := func(_ string, c *agent.Config) {
		c.Sites.Order, c.Sites.IsolatedAfter = site.Exclusive, 4300*time.Millisecond
	}
	inBubble(t, edit, func(c *cluster) {
		t := c.t
		both := 0
		done := make(chan struct{})
		c.wg.Go(func() {
			defer close(done)
			for range 20000 {
				r := c.nodes["lb1"].proxy.ready() + c.nodes["lb2"].proxy.ready()
				if strings.Contains(r, "a-") && strings.Contains(r, "b-") {
					both++
				}
				time.Sleep(time.Millisecond)
			}
		})
		c.net.Isolate(addresses["lb1"])
		c.nodes["lb2"].proxy.servers("a-", false)
		c.until("lb2 routes to b", 10*time.Second, func() bool { return c.nodes["lb2"].proxy.ready() == "b-1 b-2" })
		if r := c.nodes["lb1"].proxy.ready(); r != "" {
			t.Errorf("lb1 is cut off and still routes to %s", r)
		}
		c.net.Heal()
		c.until("lb1 follows", 5*time.Second, c.routed("b-1 b-2"))
		<-done
		if both > 0 {
			t.Errorf("both sites were routed to at %d instants\n%s", both, c.log.text())
		}
	})
}

func TestMaintenanceHandsOverAndStaysOut(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		r, err := c.nodes["lb2"].Do(t.Context(), status.Command{Kind: "maintenance", Node: "lb1", On: true})
		if err != nil || !r.OK {
			t.Fatalf("maintenance: %+v %v", r, err)
		}
		c.until("lb2 holds", time.Second, c.held("lb2"))
		if !strings.Contains(c.log.text(), "lb1: default yielding\nlb2: default holding") {
			t.Errorf("want lb1 to serve what it carries before lb2 holds:\n%s", c.log.text())
		}
		time.Sleep(6 * time.Second)
		if !strings.HasSuffix(c.log.text(), "lb1: default away") {
			t.Errorf("want lb1 to let go after the grace:\n%s", c.log.text())
		}
		c.nodes["lb2"].proxy.die("refused")
		time.Sleep(2 * time.Second)
		if !c.held("lb2")() {
			t.Errorf("holders %v, want lb2 as last resort: lb1 is in maintenance", c.holders())
		}
	})
}

func TestACommandIsCarriedOutOnceThoughAskedAgain(t *testing.T) {
	inBubble(t, nil, func(c *cluster) {
		t := c.t
		cmd := status.Command{ID: "once", Kind: "takeover", Site: "b"}
		for range 3 {
			if r, err := c.nodes["lb2"].Do(t.Context(), cmd); err != nil || !r.OK {
				t.Fatalf("takeover: %+v %v", r, err)
			}
		}
		n := 0
		for _, h := range c.nodes["lb1"].History(1000) {
			if h.Event == "switch" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d switches, want 1", n)
		}
	})
}
