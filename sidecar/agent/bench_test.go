package agent_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haproxytech/client-native/v5/runtime"
	"github.com/haproxytech/client-native/v5/runtime/options"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"tandem/haproxy"
	"tandem/haproxy/haproxytest"
	"tandem/lib/gossip"
	"tandem/lib/lease"
	"tandem/sidecar/agent"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

const (
	benchBackends = 100
	benchServers  = 10 // of each backend at each site
)

// stopwatch notes when its HAProxy is first told of each decision.
type stopwatch struct {
	*haproxy.Instance

	mu   sync.Mutex
	told map[uint64]time.Time
}

// Set passes on what HAProxy must do.
func (s *stopwatch) Set(d haproxy.Desired) {
	s.mu.Lock()
	if s.told[d.Epoch].IsZero() {
		s.told[d.Epoch] = time.Now()
	}
	s.mu.Unlock()
	s.Instance.Set(d)
}

func (s *stopwatch) at(epoch uint64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told[epoch]
}

// benchCluster is two load balancers and a witness over real sockets, each load
// balancer with a real HAProxy.
type benchCluster struct {
	agents  []*agent.Agent
	proxies []*haproxytest.Process
	watches []*stopwatch
}

func clock() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano())
}

// freePorts are UDP addresses on loopback that were free a moment ago.
func freePorts(b *testing.B, n int) (all []string) {
	b.Helper()
	for range n {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		all = append(all, c.LocalAddr().String())
	}
	return all
}

func newBenchCluster(b *testing.B) *benchCluster {
	b.Helper()
	var text strings.Builder
	text.WriteString(haproxytest.Global)
	for i := range benchBackends {
		text.WriteString(haproxytest.Backend("be"+strconv.Itoa(i), benchServers))
	}
	c := new(benchCluster)
	names, addrs := []string{"lb1", "lb2", "witness"}, freePorts(b, 3)
	var peers []gossip.Peer
	for i, n := range names {
		peers = append(peers, gossip.Peer{Name: n, Addr: addrs[i]})
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	b.Cleanup(func() { cancel(); wg.Wait() })
	for i, n := range names {
		inc := lease.Incarnation{byte(i + 1), 9: byte(i + 1)}
		g, err := gossip.New(gossip.Config{
			Node: n, Boot: fmt.Sprintf("%x", inc[:4]), Cluster: "bench", Bind: addrs[i], Insecure: true, Peers: peers, Log: zap.NewNop(),
		})
		if err != nil {
			b.Fatal(err)
		}
		cfg := agent.Config{
			Node: n, Incarnation: inc, Cluster: "bench", Role: agent.RoleLB, Voters: names, Peers: map[string]netip.Addr{},
			Tuning: lease.Tuning{Auto: true}, MaxLease: 2600 * time.Millisecond, Groups: []string{"default"},
			Sites: &site.Config{Sites: []site.Site{{Name: "a", Patterns: []string{"*/a-*"}}, {Name: "b", Patterns: []string{"*/b-*"}}}},
		}
		deps := agent.Deps{Now: clock, Network: g, Log: zap.NewNop()}
		if n == "witness" {
			cfg.Role, cfg.Sites = agent.RoleWitness, nil
		} else {
			p := haproxytest.Start(b, text.String())
			w := &stopwatch{Instance: haproxy.New(haproxy.Config{Socket: p.Socket, StateFile: p.Dir + "/state"}), told: map[uint64]time.Time{}}
			wg.Go(func() { _ = w.Run(ctx) })
			deps.LB = w
			c.proxies, c.watches = append(c.proxies, p), append(c.watches, w)
		}
		a, err := agent.New(cfg, deps)
		if err != nil {
			b.Fatal(err)
		}
		c.agents = append(c.agents, a)
		wg.Go(func() { _ = g.Run(ctx) })
		wg.Go(func() { _ = a.Run(ctx) })
	}
	return c
}

// settled says whether a site is active, no switch is under way, and both
// HAProxys were read back to obey.
func (c *benchCluster) settled(site string) (epoch uint64, ok bool) {
	s := c.agents[0].Status().Site
	if s.Active != site || s.Phase != "" {
		return 0, false
	}
	for _, w := range c.watches {
		if w.Observed().Applied < s.Epoch {
			return 0, false
		}
	}
	return s.Epoch, true
}

func (c *benchCluster) await(b *testing.B, site string) uint64 {
	b.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if epoch, ok := c.settled(site); ok {
			return epoch
		}
	}
	b.Fatalf("site %s is not active: %+v", site, c.agents[0].Status().Site)
	return 0
}

// switchTo makes a site active and says how long it took from the first decision,
// which enables it, until both HAProxys were read back to have it ready, and
// until they were read back to have the other one drained.
func (c *benchCluster) switchTo(b *testing.B, site string, before uint64) (ready, whole time.Duration, epoch uint64) {
	b.Helper()
	applied := make([][2]time.Time, len(c.watches))
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	for i, w := range c.watches {
		wg.Go(func() {
			for step, want := range []uint64{before + 1, before + 2} {
				for w.Observed().Applied < want && ctx.Err() == nil {
					time.Sleep(200 * time.Microsecond)
				}
				applied[i][step] = time.Now()
			}
		})
	}
	r, err := c.agents[0].Do(ctx, status.Command{Kind: "takeover", Site: site, Actor: "bench"})
	if err != nil || !r.OK {
		b.Fatal(r, err)
	}
	wg.Wait()
	epoch = c.await(b, site)
	began := c.watches[0].at(before + 1)
	if t := c.watches[1].at(before + 1); began.IsZero() || !t.IsZero() && t.Before(began) {
		began = t
	}
	last := func(step int) time.Time {
		return slices.MaxFunc(applied, func(x, y [2]time.Time) int { return x[step].Compare(y[step]) })[step]
	}
	return last(0).Sub(began), last(1).Sub(began), epoch
}

// native does the same through client-native's calls, server by server, on both
// load balancers at once.
func (c *benchCluster) native(b *testing.B, site string) time.Duration {
	b.Helper()
	other := map[string]string{"a": "b", "b": "a"}[site]
	began := time.Now()
	var wg sync.WaitGroup
	for _, p := range c.proxies {
		wg.Go(func() {
			api := new(runtime.SingleRuntime)
			if err := api.Init(p.Socket, 0, 0, options.RuntimeOptions{DoNotCheckRuntimeOnInit: true}); err != nil {
				b.Error(err)
				return
			}
			for s, state := range map[string]string{site: "ready", other: "drain"} {
				for be := range benchBackends {
					for n := range benchServers {
						if err := api.SetServerState("be"+strconv.Itoa(be), s+"-"+strconv.Itoa(n+1), state); err != nil {
							b.Error(err)
							return
						}
					}
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// BenchmarkSiteSwitch: 100 backends of 10 servers at each site, two real
// HAProxys, whole agents with their leases over loopback. `ready` and `whole`
// are counted from the decision; `native` is client-native's way to the same
// states, without any reading back, in the same run.
func BenchmarkSiteSwitch(b *testing.B) {
	c := newBenchCluster(b)
	epoch := c.await(b, "a")
	var ready, whole, native []time.Duration
	to := "b"
	for b.Loop() {
		r, w, e := c.switchTo(b, to, epoch)
		ready, whole, epoch = append(ready, r), append(whole, w), e
		// What is there already is set again, so that tandem has nothing to mend.
		native = append(native, c.native(b, to))
		to = map[string]string{"a": "b", "b": "a"}[to]
	}
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return float64(all[len(all)/2].Microseconds()) / 1000
	}
	b.ReportMetric(median(ready), "ready-ms")
	b.ReportMetric(median(whole), "whole-ms")
	b.ReportMetric(median(native), "native-ms")
	b.ReportMetric(median(native)/median(whole), "x-native")
	b.ReportMetric(0, "ns/op")
}
