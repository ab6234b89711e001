package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tandem/lib/gossip/gossiptest"
)

func sees(names ...string) func(*testNode) bool {
	return func(n *testNode) bool { return slices.Equal(n.names(), names) }
}

// drain throws away what waits in the inbox and returns how much it was.
func drain(n *testNode) int {
	for count := 0; ; count++ {
		select {
		case <-n.Messages():
		default:
			return count
		}
	}
}

func TestDeadNodeIsDroppedButStillSentTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 3)
		toDead := 0
		network.Tap(func(from, to string, b []byte) {
			if from == nodes[0].addr && to == nodes[2].addr && len(b) > 1000 {
				toDead++
			}
		})
		nodes[2].crash()
		took := within(t, 15*time.Second, "survivors drop n3", all(nodes[:2], sees("n1", "n2")))
		t.Logf("dropped after %s", took)
		for range 10 {
			if err := nodes[0].Send("n3", make([]byte, MaxDatagram)); err != nil {
				t.Errorf("send to a dead voter: %v", err)
			}
		}
		if toDead != 10 {
			t.Errorf("%d datagrams went to the configured address of the dead voter, want 10", toDead)
		}
		time.Sleep(2 * time.Second) // attempts to join it
		h := nodes[0].Health()
		if p := h.Peers[1]; p.Name != "n3" || p.Member || p.Reason != ReasonRefused {
			t.Errorf("health of n3: %+v, want %s", p, ReasonRefused)
		}
		stopAll(nodes[:2]...)
	})
}

func TestPartitionHeals(t *testing.T) {
	for _, cut := range []time.Duration{700 * time.Millisecond, 9 * time.Second, 2 * time.Minute} {
		t.Run(cut.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := gossiptest.NewNetwork(1)
				nodes := cluster(t, network, 5)
				network.Partition([]string{testAddr(1), testAddr(2)}, []string{testAddr(3), testAddr(4), testAddr(5)})
				time.Sleep(cut)
				if got := nodes[0].Health().Peers[3]; cut > time.Minute && got.Reason != ReasonUnreachable {
					t.Errorf("n5 as seen by n1: %+v, want %s", got, ReasonUnreachable)
				}
				network.Heal()
				took := within(t, 3*time.Second, "all see all again", all(nodes, sees("n1", "n2", "n3", "n4", "n5")))
				t.Logf("healed after %s", took)
				stopAll(nodes...)
			})
		})
	}
}

func TestTrafficFromMissingPeerJoinsItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 2)
		network.Cut(testAddr(1), testAddr(2))
		within(t, 15*time.Second, "both alone", all(nodes, func(n *testNode) bool { return len(n.Members()) == 1 }))
		var worst time.Duration
		stop := make(chan struct{})
		go func() { // what a lease does
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					_ = nodes[0].Send("n2", []byte("renew"))
				}
			}
		}()
		network.Heal()
		worst = within(t, 2*time.Second, "both see both", all(nodes, sees("n1", "n2")))
		t.Logf("joined %s after the heal", worst)
		close(stop)
		stopAll(nodes...)
	})
}

func TestOneWayCutHealsAndTheOtherWayCarriesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 2)
		network.CutOneWay(testAddr(1), testAddr(2))
		time.Sleep(20 * time.Second)
		drain(nodes[0])
		for i := range 100 {
			if err := nodes[1].Send("n1", []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Millisecond)
		if got := drain(nodes[0]); got != 100 {
			t.Errorf("%d of 100 messages came through the open direction", got)
		}
		network.Heal()
		took := within(t, 3*time.Second, "both see both", all(nodes, sees("n1", "n2")))
		t.Logf("healed after %s", took)
		stopAll(nodes...)
	})
}

func TestRestartIsANewBootAtOnce(t *testing.T) {
	for _, c := range []struct {
		name, addr string
		crash      bool
	}{
		{"crash, same address", testAddr(3), true},
		{"crash, new address", testAddr(9), true},
		{"leave, same address", testAddr(3), false},
		{"leave, new address", testAddr(9), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := gossiptest.NewNetwork(1)
				nodes := cluster(t, network, 3)
				if c.crash {
					nodes[2].crash()
				} else {
					nodes[2].stop()
				}
				nodes[2] = start(t, network, "n3", c.addr, testPeers(3))
				boot := nodes[2].cfg.Boot
				took := within(t, 2*time.Second, "all know the new boot", all(nodes, func(n *testNode) bool {
					m, ok := n.table.get("n3")
					return ok && m.Boot == boot && m.Addr == netip.MustParseAddrPort(c.addr) && len(n.Members()) == 3
				}))
				t.Logf("known after %s", took)
				drain(nodes[2])
				if err := nodes[0].Send("n3", []byte("hello")); err != nil {
					t.Fatal(err)
				}
				if got := string(<-nodes[2].Messages()); got != "hello" {
					t.Errorf("restarted node got %q", got)
				}
				time.Sleep(time.Minute)
				if h := nodes[0].Health(); h.NameClashes != 0 || h.Members != 3 {
					t.Errorf("a restart was taken for a clash of names, or the old boot stayed: %+v", h)
				}
				stopAll(nodes...)
			})
		})
	}
}

// TestAProgramIsReplacedUnderItsName: after a moment in which nobody noticed, and
// after one so long that it was thought dead. Its broadcasts are taken all the
// same, each once.
func TestAProgramIsReplacedUnderItsName(t *testing.T) {
	for _, away := range []time.Duration{100 * time.Millisecond, 30 * time.Second} {
		t.Run(away.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := gossiptest.NewNetwork(1)
				nodes := cluster(t, network, 3)
				for range 5 {
					if err := nodes[2].Broadcast("key", []byte("former")); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				drain(nodes[0])
				gone := 0
				boot, count := nodes[2].cfg.Boot, nodes[2].Broadcasts()
				nodes[2].transport.Kill()
				for end := time.Now().Add(away); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					if !sees("n1", "n2", "n3")(nodes[0]) {
						gone++
					}
				}
				former := nodes[2]
				nodes[2] = start(t, network, "n3", testAddr(3), testPeers(3), func(c *Config) { c.Boot, c.Broadcasts = boot, count })
				took := within(t, 3*time.Second, "all see all", all(nodes, sees("n1", "n2", "n3")))
				t.Logf("seen after %v; missed at %d looks before", took, gone)
				if away < time.Second && gone > 0 {
					t.Errorf("missed at %d looks", gone)
				}
				if err := nodes[2].Broadcast("key", []byte("successor")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				if n := drain(nodes[0]); n != 1 {
					t.Errorf("%d broadcasts came, want the successor's, once", n)
				}
				former.stop()
				stopAll(nodes...)
			})
		})
	}
}

func TestLeaveIsKnownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 5)
		begin := time.Now()
		nodes[4].cancel()
		took := within(t, time.Second, "the others know", all(nodes[:4], sees("n1", "n2", "n3", "n4")))
		if err := <-nodes[4].done; err != nil {
			t.Error(err)
		}
		t.Logf("known after %s, process ended after %s", took, time.Since(begin))
		if time.Since(begin) > time.Second {
			t.Errorf("leaving took %s", time.Since(begin))
		}
		if err := nodes[4].Send("n1", []byte("x")); !errors.Is(err, ErrNotRunning) {
			t.Errorf("send after the end: %v", err)
		}
		stopAll(nodes[:4]...)
	})
}

// A process of its own that was given the name, and a copy of the running one,
// boot and all.
func TestTwoProcessesOfOneNameAreReported(t *testing.T) {
	for _, copied := range []bool{false, true} {
		t.Run(fmt.Sprintf("copied %v", copied), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := gossiptest.NewNetwork(1)
				nodes := cluster(t, network, 3)
				twin := start(t, network, "n2", testAddr(7), testPeers(3), func(c *Config) {
					if copied {
						c.Boot = nodes[1].cfg.Boot
					}
				})
				witnesses := []*testNode{nodes[0], nodes[2], twin}
				if !copied { // else nobody tells the one that was copied
					witnesses = append(witnesses, nodes[1])
				}
				within(t, 40*time.Second, "all report the clash", all(witnesses, func(n *testNode) bool {
					c := n.Health().Clashes
					return len(c) == 1 && c[0].Node == "n2" && len(c[0].At) == 2 && c[0].At[0].String() == testAddr(2) && c[0].At[1].String() == testAddr(7)
				}))
				if !slices.ContainsFunc(twin.Members(), func(m Member) bool { return m.Node == "n2" && m.Self }) {
					t.Error("a twin does not list itself under its name")
				}
				twin.stop()
				within(t, copyLife+5*time.Second, "the clash is over", all(nodes, func(n *testNode) bool { return len(n.Health().Clashes) == 0 }))
				stopAll(nodes...)
			})
		})
	}
}

func TestWhyAPeerIsNoMember(t *testing.T) {
	other := [][]byte{bytes.Repeat([]byte{9}, 32)}
	for _, c := range []struct {
		name   string
		one    func(*Config)
		two    func(*Config)
		want   Reason // that n1 gives for n2
		back   Reason // that n2 gives for n1
		absent bool
	}{
		{name: "wrong key", two: func(c *Config) { c.Keys = other }, want: ReasonWrongKey, back: ReasonWrongKey},
		{name: "other cluster", two: func(c *Config) { c.Cluster = "prod" }, want: ReasonOtherCluster, back: ReasonOtherCluster},
		{name: "not encrypted", two: func(c *Config) { c.Keys, c.Insecure = nil, true }, want: ReasonNotEncrypted, back: ReasonEncrypted},
		{name: "absent", absent: true, want: ReasonRefused},
		{name: "other name", two: func(c *Config) { c.Node = "foo" }, want: ReasonOtherName, back: ReasonNone},
		{name: "own address", one: func(c *Config) { c.Peers[1].Addr = c.Bind }, two: func(c *Config) { c.Peers = nil }, want: ReasonOtherName},
		{name: "no such name", one: func(c *Config) { c.Peers[1].Addr = "nowhere.invalid" }, absent: true, want: ReasonUnresolved},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lookup := func(c *Config) {
					c.lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
				}
				if c.one == nil {
					c.one = func(*Config) {}
				}
				if c.two == nil {
					c.two = func(*Config) {}
				}
				network := gossiptest.NewNetwork(1)
				nodes := []*testNode{start(t, network, "n1", testAddr(1), testPeers(2), lookup, c.one)}
				if !c.absent {
					nodes = append(nodes, start(t, network, "n2", testAddr(2), testPeers(2), lookup, c.two))
				}
				for range 20 { // a lease sends whether the peer is a member or not
					time.Sleep(100 * time.Millisecond)
					_ = nodes[0].Send("n2", []byte("renew"))
					if !c.absent {
						_ = nodes[1].Send("n1", []byte("renew"))
					}
				}
				if got := nodes[0].Health().Peers[0]; got.Reason != c.want || got.Member || got.Reason.Mend() == "" {
					t.Errorf("n1 says of n2: %+v, want %s", got, c.want)
				}
				if peers := nodes[len(nodes)-1].Health().Peers; !c.absent && len(peers) > 0 && peers[0].Reason != c.back {
					t.Errorf("n2 says of n1: %+v, want %s", peers[0], c.back)
				}
				stopAll(nodes...)
			})
		})
	}
}

func TestPeersByNameFollowTheNameServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		var where sync.Map
		where.Store("one.test", netip.MustParseAddr("10.0.0.2"))
		where.Store("two.test", netip.MustParseAddr("10.0.0.3"))
		peers := []Peer{{Name: "n1", Addr: "one.test"}, {Name: "n2", Addr: "two.test:7946"}}
		var hang atomic.Bool
		lookup := func(c *Config) {
			c.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
				if hang.Load() {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				ip, _ := where.Load(host)
				return []netip.Addr{ip.(netip.Addr)}, nil
			}
		}
		nodes := []*testNode{
			start(t, network, "n1", "10.0.0.2:7946", peers, lookup),
			start(t, network, "n2", "10.0.0.3:7946", peers, lookup),
		}
		within(t, 3*time.Second, "joined by name", all(nodes, sees("n1", "n2")))
		nodes[1].crash()
		where.Store("two.test", netip.MustParseAddr("10.0.0.9"))
		nodes[1] = start(t, network, "n2", "10.0.0.9:7946", peers, lookup)
		within(t, 3*time.Second, "joined at the new address", all(nodes, sees("n1", "n2")))
		hang.Store(true)
		time.Sleep(2 * time.Minute)
		if err := nodes[0].Send("n2", []byte("hello")); err != nil {
			t.Errorf("send while the name server hangs: %v", err)
		}
		if got := string(<-nodes[1].Messages()); got != "hello" {
			t.Errorf("n2 got %q", got)
		}
		stopAll(nodes...)
	})
}

func TestFollowersJoinThroughAnyVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 2)
		peers := append(testPeers(2), Peer{Name: "n3", Addr: testAddr(3)}) // n3 is down
		follower := start(t, network, "edge", testAddr(50), peers)
		within(t, 10*time.Second, "the follower is in", all(append(nodes, follower), sees("edge", "n1", "n2")))
		if err := nodes[0].Send("edge", []byte("hello")); err != nil {
			t.Errorf("send to the learned address: %v", err)
		}
		if got := string(<-follower.Messages()); got != "hello" {
			t.Errorf("follower got %q", got)
		}
		follower.crash()
		within(t, 20*time.Second, "the follower is out", all(nodes, sees("n1", "n2")))
		if err := nodes[0].Send("edge", nil); !errors.Is(err, ErrUnknownNode) {
			t.Errorf("send to a follower that is gone: %v", err)
		}
		stopAll(nodes...)
	})
}

func TestNewestBroadcastReachesEveryoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 5)
		network.Loss(0.1)
		network.Duplicate(0.3)
		network.Latency(0, 20*time.Millisecond)
		for i := range 50 {
			if err := nodes[0].Broadcast("site", fmt.Appendf(nil, "a%02d", i)); err != nil {
				t.Fatal(err)
			}
			if err := nodes[1].Broadcast("site", fmt.Appendf(nil, "b%02d", i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		for _, n := range nodes[2:] {
			last := map[byte]string{}
			for len(n.Messages()) > 0 {
				m := string(<-n.Messages())
				if m <= last[m[0]] {
					t.Errorf("%s got %s after %s", n.self, m, last[m[0]])
				}
				last[m[0]] = m
			}
			if last['a'] != "a49" || last['b'] != "b49" {
				t.Errorf("%s has %v, want the newest of both origins", n.self, last)
			}
		}
		if err := nodes[0].Broadcast("site", make([]byte, MaxBroadcast+1)); err == nil {
			t.Error("a broadcast that can never be sent was taken")
		}
		stopAll(nodes...)
	})
}

func TestLargestBroadcastFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		long := func(c *Config) { c.Cluster = string(bytes.Repeat([]byte("c"), maxName)) }
		name := string(bytes.Repeat([]byte("n"), maxName))
		peers := []Peer{{Name: name, Addr: testAddr(1)}}
		nodes := []*testNode{start(t, network, name, testAddr(1), peers, long), start(t, network, "n2", testAddr(2), peers, long)}
		within(t, 5*time.Second, "joined", all(nodes, func(n *testNode) bool { return len(n.Members()) == 2 }))
		if err := nodes[0].Broadcast(string(bytes.Repeat([]byte("k"), maxKey)), make([]byte, MaxBroadcast)); err != nil {
			t.Fatal(err)
		}
		within(t, time.Second, "arrived", func() bool { return len(nodes[1].Messages()) == 1 })
		stopAll(nodes...)
	})
}

func TestLocalStateIsExchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 2)
		if err := nodes[0].SetLocalState([]byte("state")); err != nil {
			t.Fatal(err)
		}
		drain(nodes[1])
		time.Sleep(21 * time.Second) // two exchanges
		if got := string(<-nodes[1].Messages()); got != "state" {
			t.Errorf("n2 got %q", got)
		}
		if err := nodes[0].SetLocalState(make([]byte, MaxState+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("state too large: %v", err)
		}
		stopAll(nodes...)
	})
}

func TestInsecureNodesTalkInClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		insecure := func(c *Config) { c.Keys, c.Insecure = nil, true }
		nodes := []*testNode{
			start(t, network, "n1", testAddr(1), testPeers(2), insecure),
			start(t, network, "n2", testAddr(2), testPeers(2), insecure),
		}
		within(t, 3*time.Second, "joined", all(nodes, sees("n1", "n2")))
		var seen []byte
		network.Tap(func(_, _ string, b []byte) { seen = append(seen, b...) })
		if err := nodes[0].Send("n2", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got := string(<-nodes[1].Messages()); got != "hello" {
			t.Errorf("got %q", got)
		}
		network.Tap(nil)
		if !bytes.Contains(seen, []byte("hello")) {
			t.Error("it was not in clear, or not seen")
		}
		large := bytes.Repeat([]byte("x"), 100_000)
		if err := nodes[0].Send("n2", large); err != nil {
			t.Fatal(err)
		}
		if got := <-nodes[1].Messages(); !bytes.Equal(got, large) {
			t.Errorf("got %d bytes", len(got))
		}
		stopAll(nodes...)
	})
}

func TestKeysRotateWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 3)
		old, fresh := testKey, bytes.Repeat([]byte{5}, 32)
		for _, n := range nodes {
			drain(n)
		}
		sentTo := 0
		for _, ring := range [][][]byte{{old, fresh}, {fresh, old}, {fresh}} {
			for _, n := range nodes {
				if err := n.SetKeys(ring); err != nil {
					t.Fatal(err)
				}
				for range 10 {
					_ = nodes[0].Send("n2", []byte("renew"))
					_ = nodes[1].Send("n1", []byte("renew"))
					sentTo++
					time.Sleep(50 * time.Millisecond)
				}
			}
		}
		for _, n := range nodes[:2] {
			if got := drain(n); got != sentTo {
				t.Errorf("%s got %d of %d messages", n.self, got, sentTo)
			}
		}
		if got := nodes[0].Health().Keys; !slices.Equal(got, []string{KeyID(fresh)}) {
			t.Errorf("keys afterwards: %v", got)
		}
		if !all(nodes, sees("n1", "n2", "n3"))() {
			t.Error("a member was lost")
		}
		stopAll(nodes...)
	})
}

func TestSlowReaderLosesTheOldestAndIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 2)
		drain(nodes[1])
		for i := range inboxLength + 100 {
			_ = nodes[0].Send("n2", fmt.Appendf(nil, "%05d", i))
			if i%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(10 * time.Millisecond)
		if n := nodes[1].Health().MessagesDropped[ReasonFull]; n != 100 {
			t.Errorf("%d dropped, want 100", n)
		}
		if got := drain(nodes[1]); got != inboxLength {
			t.Errorf("%d messages kept", got)
		}
		stopAll(nodes...)
	})
}

func TestSendNeverBlocksOnAPeerThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 3)
		network.Isolate(testAddr(3))
		begin := time.Now()
		large := make([]byte, 500_000)
		for i := range 200 {
			large[0] = byte(i % 3)
			if err := nodes[0].Send("n3", large); err != nil {
				t.Fatal(err)
			}
			if err := nodes[0].Send("n3", large[:100]); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("400 sends took %s of virtual time", took)
		}
		nodes[0].outboxes.mu.Lock()
		waiting := len(nodes[0].outboxes.boxes["n3"].waiting)
		nodes[0].outboxes.mu.Unlock()
		if waiting > maxKinds {
			t.Errorf("%d large messages wait, at most %d may", waiting, maxKinds)
		}
		begin = time.Now()
		stopAll(nodes...)
		if took := time.Since(begin) - gossiptest.Rest; took > 2*time.Second {
			t.Errorf("the end took %s", took)
		}
	})
}

func TestHeartbeatsThroughLossLatencyAndRepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 3)
		network.Loss(0.3)
		network.Duplicate(0.1)
		network.Latency(time.Millisecond, 30*time.Millisecond)
		got, last, gap := 0, time.Now(), time.Duration(0)
		for begin := time.Now(); time.Since(begin) < 30*time.Second; {
			_ = nodes[0].Send("n2", []byte("renew"))
			select {
			case <-nodes[1].Messages():
				got++
				gap, last = max(gap, time.Since(last)), time.Now()
			case <-time.After(50 * time.Millisecond):
			}
		}
		t.Logf("%d messages, longest gap %s", got, gap)
		if gap > time.Second {
			t.Errorf("longest gap %s", gap)
		}
		stopAll(nodes...)
	})
}
