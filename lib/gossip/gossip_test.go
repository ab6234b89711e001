package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tandem/lib/gossip/gossiptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testKey = []byte("0123456789abcdef0123456789abcdef")

// testNode is a running node on a network in memory.
type testNode struct {
	*Gossip
	t         *testing.T
	addr      string
	transport *gossiptest.Transport
	cancel    context.CancelFunc
	done      chan error
}

var boots int

func testPeers(n int) []Peer {
	var out []Peer
	for i := 1; i <= n; i++ {
		out = append(out, Peer{Name: fmt.Sprintf("n%d", i), Addr: testAddr(i)})
	}
	return out
}

func testAddr(i int) string { return fmt.Sprintf("10.0.%d.%d:7946", i/250, i%250+1) }

// start starts a node; change may alter its configuration.
func start(t *testing.T, network *gossiptest.Network, name, addr string, peers []Peer, change ...func(*Config)) *testNode {
	t.Helper()
	boots++
	n := &testNode{t: t, addr: addr, transport: network.Transport(addr), done: make(chan error, 1)}
	cfg := Config{
		Node: name, Boot: fmt.Sprintf("%08x", boots), Cluster: "test", Bind: addr,
		Keys: [][]byte{testKey}, Peers: peers, Transport: n.transport,
	}
	for _, f := range change {
		f(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Gossip = g
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.done <- g.Run(ctx) }()
	return n
}

// stop leaves the cluster.
func (n *testNode) stop() {
	n.t.Helper()
	n.cancel()
	if err := <-n.done; err != nil {
		n.t.Errorf("run of %s: %v", n.self, err)
	}
}

// crash ends the process without a word.
func (n *testNode) crash() {
	n.t.Helper()
	n.transport.Kill()
	n.stop()
}

func (n *testNode) names() []string {
	var out []string
	for _, m := range n.Members() {
		out = append(out, m.Node)
	}
	return out
}

// stopAll stops nodes and lets memberlist's timers end.
func stopAll(nodes ...*testNode) {
	for _, n := range nodes {
		n.cancel()
	}
	for _, n := range nodes {
		if err := <-n.done; err != nil {
			n.t.Errorf("run of %s: %v", n.self, err)
		}
	}
	time.Sleep(gossiptest.Rest)
}

// within waits until something is true and returns how long it took.
func within(t *testing.T, limit time.Duration, what string, f func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !f() {
		if time.Since(begin) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

func all(nodes []*testNode, f func(*testNode) bool) func() bool {
	return func() bool { return !slices.ContainsFunc(nodes, func(n *testNode) bool { return !f(n) }) }
}

func cluster(t *testing.T, network *gossiptest.Network, size int) []*testNode {
	t.Helper()
	var nodes []*testNode
	for i := 1; i <= size; i++ {
		nodes = append(nodes, start(t, network, fmt.Sprintf("n%d", i), testAddr(i), testPeers(size)))
	}
	within(t, 3*time.Second, "all see all", all(nodes, func(n *testNode) bool { return len(n.Members()) == size }))
	return nodes
}

// TestWhoHasMembersCanSend: whoever waits for members before it tells them
// something would find itself there, and lose what it tells.
func TestWhoHasMembersCanSend(t *testing.T) {
	g, err := New(Config{Node: "n1", Boot: "0000000a", Cluster: "test", Bind: testAddr(1), Keys: [][]byte{testKey}, Peers: testPeers(2)})
	if err != nil {
		t.Fatal(err)
	}
	g.table.put(node(g.self, "10.0.0.2")) // as memberlist does while it starts
	if m, err := g.Members(), g.Send("n2", []byte("x")); len(m) > 0 || !errors.Is(err, ErrNotRunning) {
		t.Errorf("members %v, while sending fails: %v", m, err)
	}
}

func TestThreeNodesFindEachOtherAndTalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		nodes := cluster(t, network, 3)
		if err := nodes[0].Send("n2", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got := string(<-nodes[1].Messages()); got != "hello" {
			t.Errorf("n2 got %q", got)
		}
		large := make([]byte, 100_000)
		large[0] = 7
		if err := nodes[0].Send("n3", large); err != nil {
			t.Fatal(err)
		}
		if got := <-nodes[2].Messages(); !slices.Equal(got, large) {
			t.Errorf("n3 got %d bytes", len(got))
		}
		if err := nodes[0].Broadcast("site", []byte("decision")); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes[1:] {
			if got := string(<-n.Messages()); got != "decision" {
				t.Errorf("%s got %q", n.self, got)
			}
		}
		stopAll(nodes...)
	})
}
