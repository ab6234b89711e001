package gossip

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tandem/lib/gossip/gossiptest"
)

// followers measures how long a broadcast of a voter needs to the last of many
// nodes, and what it costs each of them.
func followers(t *testing.T, size int) time.Duration {
	t.Helper()
	network := gossiptest.NewNetwork(1)
	peers := testPeers(3)
	var nodes []*testNode
	for i := 1; i <= size; i++ {
		nodes = append(nodes, start(t, network, fmt.Sprintf("n%d", i), testAddr(i), peers))
	}
	within(t, time.Minute, "all see all", all(nodes, func(n *testNode) bool { return n.table.count() == size }))
	time.Sleep(15 * time.Second) // the joining has been told
	for _, n := range nodes {
		drain(n)
	}
	var datagrams atomic.Int64
	network.Tap(func(string, string, []byte) { datagrams.Add(1) })
	time.Sleep(5 * time.Second)
	atRest := datagrams.Swap(0) / 5
	begin := time.Now()
	if err := nodes[0].Broadcast("site", make([]byte, 800)); err != nil {
		t.Fatal(err)
	}
	last := within(t, 2*time.Second, "all have it", all(nodes[1:], func(n *testNode) bool { return len(n.Messages()) == 1 }))
	time.Sleep(2 * time.Second)
	cost := datagrams.Load() - atRest*int64(time.Since(begin)/time.Second)
	t.Logf("%d nodes: the last one has it after %s; %.1f datagrams a node for one broadcast, %.1f a node and second at rest",
		size, last, float64(cost)/float64(size), float64(atRest)/float64(size))
	for _, n := range nodes[1:] {
		if got := len(n.Messages()); got != 1 {
			t.Errorf("%s got it %d times", n.self, got)
		}
	}
	network.Tap(nil)
	for _, n := range nodes { // without leave: that would be as many broadcasts
		n.transport.Kill()
	}
	stopAll(nodes...)
	return last
}

// Larger clusters: GOSSIP_TEST_FOLLOWERS=300 go test -run Followers -v (a minute).
func TestBroadcastReachesTheLastOfManyFollowers(t *testing.T) {
	size := 40
	if s := os.Getenv("GOSSIP_TEST_FOLLOWERS"); s != "" {
		var err error
		if size, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		if last := followers(t, size); last > time.Second {
			t.Errorf("the last one had it after %s", last)
		}
	})
}

func TestBroadcastDoesNotWaitForARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		peers := testPeers(3)
		var nodes []*testNode
		for i := 1; i <= 3; i++ {
			nodes = append(nodes, start(t, network, fmt.Sprintf("n%d", i), testAddr(i), peers))
		}
		within(t, time.Minute, "all see all", all(nodes, func(n *testNode) bool { return n.table.count() == 3 }))
		for range 10 {
			time.Sleep(gossipInterval * 7 / 10) // at every phase of the rounds
			for _, n := range nodes {
				drain(n)
			}
			if err := nodes[0].Broadcast("site", []byte("b")); err != nil {
				t.Fatal(err)
			}
			within(t, 10*time.Millisecond, "both others have it", all(nodes[1:], func(n *testNode) bool { return len(n.Messages()) == 1 }))
		}
		stopAll(nodes...)
	})
}
