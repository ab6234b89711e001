package agent_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tandem/haproxy"
	"tandem/lib/vip"
	"tandem/sidecar/agent"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// machine is what a sidecar of the arena stands beside: a HAProxy and the
// kernel with its addresses. Both outlive the sidecar.
type machine struct {
	*kernel

	proxy *proxy
	hand  *hand
	hooks *commands
	hung  bool // HAProxy stands still
}

// hand is what one sidecar process has of its machine: nothing, once it is
// killed; and its clock does not answer while it is frozen, so that its loop
// stands still wherever it asks for the time.
type hand struct {
	*kernel

	mu   sync.Mutex
	m    *machine
	dead bool
	told bool // it has told HAProxy anything
	ice  chan struct{}
	woke time.Time
}

func (h *hand) is(what *bool) bool { h.mu.Lock(); defer h.mu.Unlock(); return *what }

func (h *hand) freeze() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ice == nil && !h.dead {
		h.ice = make(chan struct{})
	}
}

func (h *hand) thaw() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ice != nil {
		close(h.ice)
		h.ice, h.woke = nil, time.Now()
	}
}

func (h *hand) frozen() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.ice != nil }

// dazed: it stands still, or has not had the time to see what has changed.
func (h *hand) dazed() bool { return h.frozen() || time.Since(h.wokeAt()) < 100*time.Millisecond }

func (h *hand) wokeAt() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.woke }

func (h *hand) wait() {
	h.mu.Lock()
	ice := h.ice
	h.mu.Unlock()
	if ice != nil {
		<-ice
	}
}

// Set sets an address.
func (h *hand) Set(group string, d vip.Desired) error {
	if h.is(&h.dead) {
		return nil
	}
	return h.kernel.Set(group, d)
}

// balancer is the LoadBalancer of a hand; both have a Set.
type balancer struct{ *hand }

// Set tells HAProxy what it must do.
func (b balancer) Set(d haproxy.Desired) {
	if b.is(&b.dead) {
		return
	}
	b.mu.Lock()
	b.told = true
	b.mu.Unlock()
	b.m.proxy.Set(d)
}
func (b balancer) Changed() <-chan struct{}      { return b.m.proxy.Changed() }
func (b balancer) Observed() haproxy.Observation { return b.m.proxy.Observed() }

// arena is a cluster in exclusive order under random faults, and the referee
// who looks every millisecond at who is served by which site.
type arena struct {
	*cluster

	rand     *rand.Rand
	machines map[string]*machine
	graves   []*node
	did      []string

	sight    sync.Mutex // what the referee saw, and who is beside a machine
	both     string     // the first instant at which both sites answered
	switches int
	served   string
}

var arenaLBs = []string{"lb1", "lb2"}

// newArena builds the machines and starts the sidecars.
func newArena(t *testing.T, seed uint64, change func(name string, c *agent.Config)) *arena {
	t.Helper()
	a := &arena{rand: rand.New(rand.NewPCG(seed, 1)), machines: map[string]*machine{}}
	log := &journal{}
	begin := time.Now()
	for _, lb := range arenaLBs {
		k := &kernel{start: begin, node: lb, role: map[string]vip.Role{}, sought: map[string]time.Duration{}, log: log, carrier: true, events: make(chan vip.Event)}
		a.machines[lb] = &machine{kernel: k, proxy: newProxy(lb, log)}
	}
	edit := func(name string, c *agent.Config) {
		c.Sites.Order, c.Sites.FlapMax = site.Exclusive, 1000
		c.Sites.IsolatedAfter = isolatedAfter
		if a.machines[name] != nil {
			c.Hooks = []string{"takeover", "renounce"}
		}
		if change != nil {
			change(name, c)
		}
	}
	a.cluster = newClusterWith(t, []string{"lb1", "lb2", "witness"}, edit, func(name string, d *agent.Deps) {
		m := a.machines[name]
		if m == nil {
			return
		}
		m.mu.Lock()
		clear(m.role) // a stale address is removed before anything else
		m.mu.Unlock()
		now, h := d.Now, &hand{kernel: m.kernel, m: m}
		a.sight.Lock()
		m.hand = h
		a.sight.Unlock()
		d.Now = func() time.Duration { h.wait(); return now() }
		d.Addresses, d.LB = h, balancer{h}
		a.sight.Lock()
		m.hooks = newCommands(name, log, func() time.Duration { return rand.N(300 * time.Millisecond) })
		a.sight.Unlock()
		d.Hooks = m.hooks
	})
	return a
}

// serving lists the sites that answer through a load balancer. One whose
// sidecar is frozen or dead counts as long as it has the address, and so does
// one that hung and has not been told yet what changed meanwhile; one whose
// sidecar runs counts in any case, as soon as that has told it anything.
func (a *arena) serving(lb string) (sites []string) {
	m := a.machines[lb]
	h := m.hand
	if !m.holds("default") && (h.dazed() || h.is(&h.dead) || !h.is(&h.told)) {
		return nil
	}
	m.proxy.mu.Lock()
	hung, asBefore := m.hung, !m.proxy.o.Alive || m.proxy.deaf
	m.proxy.mu.Unlock()
	if hung || asBefore && !m.holds("default") {
		return nil
	}
	for s := range strings.FieldsSeq(m.proxy.ready()) {
		if name := s[:1]; !slices.Contains(sites, name) {
			sites = append(sites, name)
		}
	}
	return sites
}

// starting lists the sites that are being started beside a load balancer whose
// sidecar lives and has had the time to end what it must.
func (a *arena) starting(lb string) []string {
	m := a.machines[lb]
	if h := m.hand; h.is(&h.dead) || h.frozen() || time.Since(h.wokeAt()) < 100*time.Millisecond+killing {
		return nil
	}
	return m.hooks.starting()
}

// referee looks until the story is over.
func (a *arena) referee(ctx context.Context) {
	look := func() {
		a.sight.Lock()
		defer a.sight.Unlock()
		one, two := a.serving("lb1"), a.serving("lb2")
		all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(one, two))))
		if len(all) > 1 && a.both == "" {
			a.both = fmt.Sprintf("after %v: lb1 → %v, lb2 → %v", time.Since(a.start), one, two)
		}
		for _, lb := range arenaLBs {
			if s := a.starting(lb); len(s) > 0 && a.both == "" && slices.ContainsFunc(all, func(x string) bool { return !slices.Contains(s, x) }) {
				a.both = fmt.Sprintf("after %v: %s starts %v, served is %v", time.Since(a.start), lb, s, all)
			}
		}
		if len(all) == 1 && all[0] != a.served {
			a.served = all[0]
			a.switches++
		}
		shared := func() bool { return a.machines["lb1"].holds("default") && a.machines["lb2"].holds("default") }
		if once := shared(); once && shared() && a.both == "" { // a move may come between two looks
			a.both = fmt.Sprintf("after %v: both have the address", time.Since(a.start))
		}
	}
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		look()
	}
}

// seen is the site served last, and the first instant at which both were.
func (a *arena) seen() (served, both string) {
	a.sight.Lock()
	defer a.sight.Unlock()
	return a.served, a.both
}

// kill ends a sidecar without any goodbye; start brings another one up.
func (a *arena) kill(lb string) {
	h := a.machines[lb].hand
	h.mu.Lock()
	was := h.dead
	h.dead = true
	h.mu.Unlock()
	if was {
		return
	}
	h.thaw()
	a.wires[lb].Kill()
	a.nodes[lb].cancel()
	a.graves = append(a.graves, a.nodes[lb])
}

func (a *arena) bring(lb string) {
	if h := a.machines[lb].hand; h.is(&h.dead) {
		a.boot(a.t.Context(), lb)
	}
}

// hang stops HAProxy, or lets it go on: what it did before it does again until
// the sidecar has seen it and told it.
func (a *arena) hang(lb string, hung bool) {
	m := a.machines[lb]
	p := m.proxy
	p.mu.Lock()
	was := m.hung
	m.hung = hung
	p.mu.Unlock()
	if was == hung {
		return
	}
	p.hear(false)
	if hung {
		time.Sleep(100 * time.Millisecond)
		p.die("hangs")
		return
	}
	time.Sleep(time.Duration(a.rand.IntN(50)) * time.Millisecond)
	p.back()
	time.Sleep(time.Duration(a.rand.IntN(50)) * time.Millisecond)
	p.hear(true)
}

// fault does one thing to the cluster.
func (a *arena) fault() {
	lb, other := "lb1", "lb2"
	if a.rand.IntN(2) == 0 {
		lb, other = other, lb
	}
	s := []string{"a", "b"}[a.rand.IntN(2)]
	m := a.machines[lb]
	what := []struct {
		name string
		do   func()
	}{
		{"isolate " + lb, func() { a.net.Isolate(addresses[lb]) }},
		{"cut lb1 lb2", func() { a.net.Cut(addresses["lb1"], addresses["lb2"]) }},
		{lb + " is not heard", func() { a.oneWay(lb, other, "witness") }},
		{lb + " does not hear " + other, func() { a.net.CutOneWay(addresses[other], addresses[lb]) }},
		{lb + " hears nobody", func() {
			a.net.CutOneWay(addresses[other], addresses[lb])
			a.net.CutOneWay(addresses["witness"], addresses[lb])
		}},
		{"cut witness", func() { a.net.Isolate(addresses["witness"]) }},
		{"heal", a.net.Heal},
		{"heal", a.net.Heal},
		{"heal", a.net.Heal},
		{"freeze " + lb, m.hand.freeze},
		{"thaw", a.thaw},
		{"thaw", a.thaw},
		{"kill " + lb, func() { a.kill(lb) }},
		{"start " + lb, func() { a.bring(lb) }},
		{"start " + other, func() { a.bring(other) }},
		{"haproxy of " + lb + " hangs", func() { a.hang(lb, true) }},
		{"haproxy of " + lb + " goes on", func() { a.hang(lb, false) }},
		{s + " dies", func() { a.servers(s, false) }},
		{s + " dies for " + lb, func() { m.proxy.servers(s, false) }},
		{"a and b live", func() { a.servers("a", true); a.servers("b", true) }},
		{"a and b live", func() { a.servers("a", true); a.servers("b", true) }},
		{"takeover " + s, func() { a.command(other, "takeover", s) }},
		{"takeover " + s, func() { a.command(lb, "takeover", s) }},
		{"move to " + lb, func() { a.move(other, lb) }},
		{"move to " + lb, func() { a.move(lb, lb) }},
		{"loss", func() { a.net.Loss(0.3) }},
		{"no loss", func() { a.net.Loss(0) }},
	}
	f := what[a.rand.IntN(len(what))]
	a.did = append(a.did, fmt.Sprintf("%v %s", time.Since(a.start), f.name))
	f.do()
}

func (a *arena) oneWay(from string, to ...string) {
	for _, n := range to {
		a.net.CutOneWay(addresses[from], addresses[n])
	}
}

func (a *arena) thaw() {
	for _, lb := range arenaLBs {
		a.machines[lb].hand.thaw()
	}
}

func (a *arena) servers(prefix string, up bool) {
	for _, lb := range arenaLBs {
		a.machines[lb].proxy.servers(prefix+"-", up)
	}
}

func (a *arena) command(at, kind, s string) { a.ask(at, status.Command{Kind: kind, Site: s}) }

// move has the address moved, and a while later the decision follows it.
func (a *arena) move(at, to string) { a.ask(at, status.Command{Kind: "move", To: to}) }

func (a *arena) ask(at string, c status.Command) {
	if h := a.machines[at].hand; h.frozen() || h.is(&h.dead) {
		return
	}
	c.Actor = "test"
	n := a.nodes[at]
	a.wg.Go(func() {
		ctx, cancel := context.WithTimeout(a.t.Context(), 3*time.Second)
		defer cancel()
		_, _ = n.Do(ctx, c) // may be refused, or never answered
	})
}

// round has a switch begin, lets faults come at any moment around it, and
// gives the cluster time, or none, to get over them.
func (a *arena) round() {
	pause := func() {
		time.Sleep([]time.Duration{0, time.Millisecond, 15 * time.Millisecond, 100 * time.Millisecond, 600 * time.Millisecond, 2 * time.Second}[a.rand.IntN(6)])
	}
	if a.rand.IntN(4) > 0 {
		a.calm()
		time.Sleep(3 * time.Second)
	}
	if a.rand.IntN(2) == 0 {
		a.swing()
	}
	for range 1 + a.rand.IntN(2) {
		a.fault()
		pause()
	}
	served, _ := a.seen()
	to := map[string]string{"a": "b", "b": "a"}[served]
	if a.rand.IntN(2) == 0 && to != "" {
		a.did = append(a.did, fmt.Sprintf("%v %s dies", time.Since(a.start), served))
		a.servers(served, false)
	} else if to != "" {
		a.did = append(a.did, fmt.Sprintf("%v takeover %s", time.Since(a.start), to))
		for _, lb := range arenaLBs {
			a.command(lb, "takeover", to)
		}
	}
	for range 1 + a.rand.IntN(3) {
		pause()
		a.fault()
	}
	time.Sleep(time.Duration(a.rand.IntN(7000)) * time.Millisecond)
}

// swing moves the address to the other load balancer, for the round to go on when
// the decision is about to follow it, or has just done so.
func (a *arena) swing() {
	from, to := "lb1", "lb2"
	if a.machines["lb2"].holds("default") {
		from, to = to, from
	}
	a.did = append(a.did, fmt.Sprintf("%v swing to %s", time.Since(a.start), to))
	a.move(from, to)
	time.Sleep(1500*time.Millisecond + time.Duration(a.rand.IntN(1200))*time.Millisecond)
}

// follows counts how often the decision was handed over for the address's sake,
// as the load balancers that live remember it.
func (a *arena) follows() int {
	seen := map[string]bool{}
	for _, lb := range arenaLBs {
		for _, h := range a.nodes[lb].History(1000) {
			if h.Event == "let-go" && h.Reason == "follows-address" {
				seen[fmt.Sprint(h.At, h.Node)] = true
			}
		}
	}
	return len(seen)
}

// calm ends all trouble.
func (a *arena) calm() {
	a.did = append(a.did, fmt.Sprintf("%v calm", time.Since(a.start)))
	a.net.Loss(0)
	a.net.Heal()
	a.thaw()
	for _, lb := range arenaLBs {
		a.bring(lb)
		a.hang(lb, false)
	}
	a.servers("a", true)
	a.servers("b", true)
}

// mend ends all trouble; then both load balancers must come to serve one site.
func (a *arena) mend() {
	a.calm()
	settled := func() bool {
		one := a.machines["lb1"].proxy.ready()
		return (one == "a-1 a-2" || one == "b-1 b-2") && a.machines["lb2"].proxy.ready() == one &&
			a.machines["lb1"].holds("default") != a.machines["lb2"].holds("default")
	}
	for range 120 { // a takeover that failed is tried again after a minute
		if time.Sleep(time.Second); settled() {
			return
		}
	}
	a.t.Errorf("all is well, and lb1 serves %q, lb2 %q\n%s", a.machines["lb1"].proxy.ready(), a.machines["lb2"].proxy.ready(), strings.Join(a.did, "\n"))
}

// isolatedAfter is what the sidecar configures with TANDEM_LEASE=auto.
const isolatedAfter = 4300 * time.Millisecond

// TestExclusiveNeverServesTwoSites lets whole sidecars, with their leases, play
// against an adversary who cuts, freezes, kills and commands at random, with
// short and with long breaks. TANDEM_SEEDS sets how many games are played.
func TestExclusiveNeverServesTwoSites(t *testing.T) {
	seeds := 3
	if s := os.Getenv("TANDEM_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	total, follows := 0, 0
	for seed := range seeds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := playArena(t, uint64(seed)+rand.Uint64())
				a.sight.Lock()
				defer a.sight.Unlock()
				total, follows = total+a.switches, follows+a.follows()
			})
		})
	}
	t.Logf("%d changes of site in %d games; the decision followed the address %d times", total, seeds, follows)
	if total < 2*seeds || follows < seeds/2 {
		t.Errorf("%d changes of site in %d games, and the decision followed the address %d times: nothing was tried", total, seeds, follows)
	}
}

// open waits until site a is served, and has the referee look on until close.
func (a *arena) open() (closeUp func()) {
	a.t.Helper()
	a.until("site a served", 10*time.Second, func() bool {
		return a.machines["lb1"].proxy.ready() == "a-1 a-2" && a.machines["lb2"].proxy.ready() == "a-1 a-2"
	})
	ctx, stop := context.WithCancel(a.t.Context())
	a.wg.Go(func() { a.referee(ctx) })
	return stop
}

func playArena(t *testing.T, seed uint64) *arena {
	t.Helper()
	a := newArena(t, seed, nil)
	t.Cleanup(func() {
		for _, n := range a.graves {
			if err := <-n.done; err != nil {
				t.Logf("a killed node ended with: %v", err)
			}
		}
	})
	defer a.open()()
	for range 8 {
		a.round()
		if _, both := a.seen(); both != "" {
			break
		}
	}
	a.mend()
	if _, both := a.seen(); both != "" {
		t.Errorf("seed %d: both sites answered %s\n%s", seed, both, strings.Join(a.did, "\n"))
	}
	return a
}

// TestTheArenaCatches shows that the referee does see what must not be: a
// decider that does not wait for a load balancer that it cannot hear, a HAProxy
// that wakes with the address and with what it knew before, and a takeover that
// was cancelled and goes on.
func TestTheArenaCatches(t *testing.T) {
	for name, tc := range map[string]struct {
		isolated time.Duration
		hooks    []string
		play     func(*arena)
	}{
		"a decider that does not wait": {time.Millisecond, nil, func(a *arena) {
			a.net.Cut(addresses["lb1"], addresses["lb2"])
			a.machines["lb1"].proxy.servers("a-", false)
			time.Sleep(5 * time.Second)
		}},
		"a takeover that goes on": {isolatedAfter, []string{"takeover"}, func(a *arena) {
			take := func(d time.Duration) {
				for _, lb := range arenaLBs {
					h := a.machines[lb].hooks
					h.mu.Lock()
					h.stays, h.takes = true, func() time.Duration { return d }
					h.mu.Unlock()
				}
			}
			take(30 * time.Second)
			a.command("lb1", "takeover", "b")
			time.Sleep(time.Second)
			take(0)
			a.command("lb1", "takeover", "a")
			time.Sleep(20 * time.Second)
		}},
		"a HAProxy that wakes": {isolatedAfter, nil, func(a *arena) {
			a.command("lb1", "takeover", "b")
			a.until("b served", 10*time.Second, func() bool { s, _ := a.seen(); return s == "b" })
			p := a.machines["lb1"].proxy
			p.mu.Lock()
			p.deaf = true
			p.o.Servers = slices.Clone(p.o.Servers)
			for i := range p.o.Servers {
				p.o.Servers[i].Admin ^= haproxy.FDrain
			}
			p.mu.Unlock()
			time.Sleep(50 * time.Millisecond)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newArena(t, 1, func(_ string, c *agent.Config) { c.Sites.IsolatedAfter, c.Hooks = tc.isolated, tc.hooks })
				a.until("lb1 holds", 10*time.Second, func() bool { return a.machines["lb1"].holds("default") })
				defer a.open()()
				tc.play(a)
				if _, both := a.seen(); both == "" {
					t.Errorf("both sites were served and the referee has not seen it\n%s", a.log.text())
				}
			})
		})
	}
}

// TestAHAProxyThatWakesServesNothingOld: in exclusive order, the HAProxy of the
// holder hangs, and lb2 routes and has no carrier, so that nobody else can have
// the address. An operator switches to the other site; when the HAProxy wakes,
// it knows only the old one.
func TestAHAProxyThatWakesServesNothingOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArena(t, 1, nil)
		a.until("lb1 holds", 10*time.Second, func() bool { return a.machines["lb1"].holds("default") })
		defer a.open()()
		two := a.machines["lb2"]
		two.mu.Lock()
		two.carrier = false
		two.mu.Unlock()
		a.until("lb2 is not eligible", 3*time.Second, func() bool {
			all := a.nodes["lb1"].Status().Nodes
			return slices.ContainsFunc(all, func(n status.Node) bool { return n.Name == "lb2" && n.Reason == "no-carrier" })
		})
		a.hang("lb1", true)
		time.Sleep(time.Second)
		a.command("lb1", "takeover", "b")
		a.until("lb2 routes to b", 20*time.Second, func() bool { return two.proxy.ready() == "b-1 b-2" })
		a.hang("lb1", false)
		a.until("lb1 serves b", 5*time.Second, func() bool {
			one := a.machines["lb1"]
			return one.holds("default") && one.proxy.ready() == "b-1 b-2"
		})
		if _, both := a.seen(); both != "" {
			t.Errorf("both sites answered %s\n%s", both, a.log.text())
		}
	})
}
