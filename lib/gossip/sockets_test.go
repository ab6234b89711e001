package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// realNode runs on real sockets of the loopback.
type realNode struct {
	*Gossip
	t      *testing.T
	cancel context.CancelFunc
	done   chan error
}

func startReal(t *testing.T, name, bind string, peers []Peer, change ...func(*Config)) *realNode {
	t.Helper()
	boots++
	cfg := Config{Node: name, Boot: fmt.Sprintf("%08x", boots), Cluster: "test", Bind: bind, Keys: [][]byte{testKey}, Peers: peers}
	for _, f := range change {
		f(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &realNode{Gossip: g, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { n.done <- g.Run(ctx) }()
	t.Cleanup(n.stop)
	return n
}

func (n *realNode) stop() {
	n.cancel()
	select {
	case err := <-n.done:
		n.done <- err
		if err != nil {
			n.t.Errorf("run of %s: %v", n.self, err)
		}
	case <-time.After(10 * time.Second):
		n.t.Errorf("run of %s does not end", n.self)
	}
}

// freePort is a port that nobody has on the loopback addresses of the tests.
func freePort(t *testing.T) uint16 {
	t.Helper()
	s, err := listen(netip.MustParseAddrPort("127.0.0.1:0"), &counters{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown() //nolint:errcheck // never fails
	return s.addr.Port()
}

// realPair is two nodes that are members of each other.
func realPair(t *testing.T) (a, b *realNode) {
	t.Helper()
	port := freePort(t)
	peers := []Peer{
		{Name: "n1", Addr: fmt.Sprintf("127.0.0.1:%d", port)},
		{Name: "n2", Addr: fmt.Sprintf("127.0.0.2:%d", port)},
	}
	a = startReal(t, "n1", peers[0].Addr, peers)
	b = startReal(t, "n2", peers[1].Addr, peers)
	within(t, 10*time.Second, "joined", func() bool { return len(a.Members()) == 2 && len(b.Members()) == 2 })
	return a, b
}

func TestRealSocketsCarryMessages(t *testing.T) {
	a, b := realPair(t)
	if err := a.Send("n2", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := string(<-b.Messages()); got != "hello" {
		t.Errorf("got %q", got)
	}
	large := bytes.Repeat([]byte("x"), MaxMessage)
	if err := b.Send("n1", large); err != nil {
		t.Fatal(err)
	}
	if got := <-a.Messages(); !bytes.Equal(got, large) {
		t.Errorf("got %d bytes", len(got))
	}
	if err := b.Send("n1", append(large, 'x')); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a message that is too large: %v", err)
	}
}

func TestBothFamiliesFromTheUnspecifiedAddress(t *testing.T) {
	port := freePort(t)
	peers := []Peer{
		{Name: "n1", Addr: fmt.Sprintf("127.0.0.1:%d", port)},
		{Name: "n2", Addr: fmt.Sprintf("[::1]:%d", port)},
	}
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6 loopback: %v", err)
	}
	_ = probe.Close()
	// One process listens on every address, as in a container; the two talk by
	// way of different families.
	a := startReal(t, "n1", fmt.Sprintf("0.0.0.0:%d", port), peers[:1])
	within(t, 5*time.Second, "started", func() bool { return a.Health().Running })
	if got := a.Health().Advertise.String(); got != peers[0].Addr {
		t.Errorf("advertises %s, want its entry among the peers", got)
	}
	s, err := listen(netip.MustParseAddrPort("[::]:0"), &counters{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown() //nolint:errcheck // never fails
	for _, to := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		if _, err := s.WriteTo([]byte("x"), net.JoinHostPort(to, strconv.Itoa(int(port)))); err != nil {
			t.Errorf("send to %s: %v", to, err)
		}
	}
	within(t, 5*time.Second, "all three came in", func() bool { return a.Health().Dropped[ReasonUnlabelled] == 3 })
}

func TestPortInUseNamesAddressAndMend(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		port := freePort(t)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		var taken io.Closer
		var err error
		if network == "tcp" {
			taken, err = net.Listen(network, addr)
		} else {
			taken, err = net.ListenPacket(network, addr)
		}
		if err != nil {
			t.Fatal(err)
		}
		g, err := New(Config{Node: "n1", Boot: "00000001", Cluster: "test", Bind: addr, Insecure: true})
		if err != nil {
			t.Fatal(err)
		}
		err = g.Run(context.Background())
		var bind *BindError
		if !errors.As(err, &bind) || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "choose another port") {
			t.Errorf("%s taken: %v", network, err)
		}
		if err := g.Run(context.Background()); err == nil {
			t.Error("a second run was begun")
		}
		_ = taken.Close()
	}
	g, err := New(Config{Node: "n1", Boot: "00000001", Cluster: "test", Bind: "192.0.2.1:7946", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(context.Background()); !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "no interface") {
		t.Errorf("address of nobody: %v", err)
	}
}

// stranger has no key. It may know the label, which goes over the wire in clear.
type stranger struct {
	t    *testing.T
	conn net.PacketConn
	to   net.Addr
}

func newStranger(t *testing.T, from, to string) *stranger {
	t.Helper()
	conn, err := net.ListenPacket("udp", from+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	return &stranger{t: t, conn: conn, to: addr}
}

func (s *stranger) send(b []byte) {
	if _, err := s.conn.WriteTo(b, s.to); err != nil {
		s.t.Errorf("stranger sends: %v", err)
	}
}

// beat sends numbered messages from a to b until stop is called, which returns
// how many were sent, how many arrived, the longest gap between arrivals, and how
// many other messages arrived.
func beat(a, b *Gossip, to string) (stop func() (sent, got int, gap time.Duration, others int)) {
	done, ended := make(chan struct{}), make(chan struct{})
	var out, in, others int
	var gap time.Duration
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = a.Send(to, []byte("renew"))
				out++
			case m := <-b.Messages():
				if string(m) != "renew" {
					others++
					continue
				}
				in++
				gap, last = max(gap, time.Since(last)), time.Now()
			}
		}
	}()
	return func() (int, int, time.Duration, int) {
		time.Sleep(50 * time.Millisecond)
		close(done)
		<-ended
		return out, in, gap, others
	}
}

// recordDatagrams keeps real datagrams of two real nodes.
func recordDatagrams(t *testing.T) (label string, datagrams [][]byte) {
	t.Helper()
	s, err := listen(netip.MustParseAddrPort("127.0.0.9:0"), &counters{})
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	defer s.Shutdown() //nolint:errcheck // never fails
	peers := []Peer{{Name: "tap", Addr: s.addr.String()}}
	n := startReal(t, "n1", "127.0.0.1:0", peers)
	within(t, 5*time.Second, "started", func() bool { return n.Health().Running })
	for _, size := range []int{0, 60, 200, MaxDatagram} {
		if err := n.Send("tap", bytes.Repeat([]byte("r"), size)); err != nil {
			t.Fatal(err)
		}
		datagrams = append(datagrams, (<-s.packets).Buf)
	}
	n.stop()
	return n.label, datagrams
}

func TestChangedCutRepeatedAndResentDatagrams(t *testing.T) {
	_, recorded := recordDatagrams(t)
	a, b := realPair(t)
	stop := beat(a.Gossip, b.Gossip, "n2")
	s := newStranger(t, "127.0.0.7", b.Health().Advertise.String())
	sentOut := 0
	for _, d := range recorded[:3] {
		for i := range d {
			for _, v := range []byte{0, 1, 10, 244, 255, d[i] ^ 1, d[i] ^ 0x80} {
				m := bytes.Clone(d)
				m[i] = v
				s.send(m)
				sentOut++
			}
			s.send(d[:i])
			s.send(append(bytes.Clone(d[:i]), d...))
			sentOut += 2
			if i%8 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	for _, d := range recorded { // a replay is authentic, as the package says
		for range 100 {
			s.send(d)
		}
	}
	time.Sleep(100 * time.Millisecond)
	out, in, gap, _ := stop()
	h := b.Health()
	t.Logf("%d altered datagrams; %d of %d messages arrived, longest gap %s; dropped %v", sentOut, in, out, gap, h.Dropped)
	if in < out*9/10 || len(b.Members()) != 2 {
		t.Errorf("%d of %d messages arrived, members %v", in, out, b.Members())
	}
	for _, r := range []Reason{ReasonVersion, ReasonNotEncrypted, ReasonOtherCluster, ReasonUnlabelled, ReasonShort} {
		if h.Dropped[r] == 0 {
			t.Errorf("nothing was dropped as %s", r)
		}
	}
}

// TestMemberlistPanicsWithoutTheGuard shows why the version byte is looked at:
// without it one recorded datagram with one changed byte ends the process. It
// runs in a process of its own. When it fails, memberlist has been mended.
func TestMemberlistPanicsWithoutTheGuard(t *testing.T) {
	if os.Getenv("GOSSIP_TEST_PANIC") != "" {
		_, recorded := recordDatagrams(t)
		ring, _ := memberlist.NewKeyring(nil, testKey)
		c := memberlist.DefaultLocalConfig()
		c.Name, c.BindAddr, c.BindPort, c.AdvertisePort, c.Label, c.Keyring = "m", "127.0.0.1", 0, 0, "gossip/test", ring
		c.LogOutput = io.Discard
		m, err := memberlist.Create(c)
		if err != nil {
			t.Fatal(err)
		}
		s := newStranger(t, "127.0.0.7", m.LocalNode().Address())
		for _, d := range recorded {
			d[2+len("gossip/test")] = 0
			s.send(d)
		}
		time.Sleep(2 * time.Second)
		_ = m.Shutdown()
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestMemberlistPanicsWithoutTheGuard$")
	cmd.Env = append(os.Environ(), "GOSSIP_TEST_PANIC=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("slice bounds out of range")) {
		t.Errorf("memberlist did not panic: %v\n%s", err, out)
	}
}

// TestFloodsAndFatStreamsCostLittle lets strangers of a process of their own do
// their worst for three seconds.
func TestFloodsAndFatStreamsCostLittle(t *testing.T) {
	if to := os.Getenv("GOSSIP_TEST_ATTACK"); to != "" {
		attack(t, to)
		return
	}
	a, b := realPair(t)
	runtime.GC()
	begin := heapInUse()
	var peak uint64
	watch, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-watch:
				return
			case <-time.After(10 * time.Millisecond):
				peak = max(peak, heapInUse())
			}
		}
	}()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFloodsAndFatStreamsCostLittle$", "-test.v")
	cmd.Env = append(os.Environ(), "GOSSIP_TEST_ATTACK="+b.Health().Advertise.String())
	stop := beat(a.Gossip, b.Gossip, "n2")
	ended := make(chan struct{})
	large := 0
	var sending sync.WaitGroup
	sending.Go(func() { // a peer keeps its streams for itself
		for {
			select {
			case <-ended:
				return
			case <-time.After(200 * time.Millisecond):
				large++
				_ = a.Send("n2", bytes.Repeat([]byte{byte(large)}, 50_000))
			}
		}
	})
	report, err := cmd.CombinedOutput()
	close(ended)
	sending.Wait()
	out, in, gap, arrived := stop()
	close(watch)
	<-watched
	if err != nil {
		t.Fatalf("attack: %v\n%s", err, report)
	}
	h := b.Health()
	t.Logf("%s", report)
	t.Logf("heap of both nodes %.1f MB before, %.1f MB at most; %d of %d messages, longest gap %s; dropped %v",
		float64(begin)/1e6, float64(peak)/1e6, in, out, gap, h.Dropped)
	if peak > 64_000_000 {
		t.Errorf("heap grew to %.1f MB, at most 64 are allowed", float64(peak)/1e6)
	}
	if in < out*8/10 || gap > 2*time.Second || len(b.Members()) != 2 {
		t.Errorf("%d of %d messages arrived, longest gap %s, members %v", in, out, gap, b.Members())
	}
	t.Logf("%d of %d large messages arrived over streams", arrived, large)
	if arrived < large*8/10 { // some are replaced by the next one while they wait
		t.Errorf("%d of %d large messages of a peer arrived", arrived, large)
	}
	for _, r := range []Reason{ReasonUnlabelled, ReasonOtherCluster, ReasonVersion, ReasonOversized, ReasonStreams, ReasonStreamsOfOne} {
		if h.Dropped[r] == 0 {
			t.Errorf("nothing was dropped as %s", r)
		}
	}
}

// attack sends garbage of five kinds and opens fat streams from 12 addresses,
// some with an honest size, some not, some slowly.
func attack(t *testing.T, target string) {
	t.Helper()
	const label = labelPrefix + "test"
	var group sync.WaitGroup
	var floods, streams atomic.Uint64
	end := time.Now().Add(3 * time.Second)
	for i, g := range [][]byte{
		bytes.Repeat([]byte{7}, 100),                         // knows nothing
		sealed(label, 1, 100),                                // knows the label
		append(sealed(label, 1, 0), make([]byte, 60_000)...), // and is fat
		sealed("gossip/prod", 1, 100),                        // is of another cluster
		sealed(label, 0, 1000),                               // tries the version
	} {
		s := newStranger(t, fmt.Sprintf("127.0.1.%d", i+1), target)
		group.Go(func() {
			for time.Now().Before(end) {
				for range 20 {
					s.send(g)
					floods.Add(1)
				}
				time.Sleep(4 * time.Millisecond)
			}
		})
	}
	for i := range 60 {
		group.Go(func() {
			for time.Now().Before(end) {
				streams.Add(1)
				fatStream(t, fmt.Sprintf("127.0.2.%d", i%12+1), target, label, i%3)
			}
		})
	}
	group.Wait()
	t.Logf("%d datagrams, %d streams", floods.Load(), streams.Load())
}

// heapInUse is what this process has in use for its heap and its stacks.
func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

var fat = make([]byte, maxStream)

func fatStream(t *testing.T, from, to, label string, kind int) {
	t.Helper()
	d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	size := uint32(maxStream)
	if kind == 1 {
		size = 20 << 20
	}
	_, _ = conn.Write(sealedStream(label, 10, size, 1))
	if kind == 2 {
		time.Sleep(500 * time.Millisecond)
	}
	_, _ = conn.Write(fat[:len(fat)-100]) // never complete
	_, _ = conn.Read(make([]byte, 1))
}

func TestAnswersAreLookedAtToo(t *testing.T) {
	// Somebody has taken the peer's address and answers a join with a size of
	// 20 MiB, with the older version, in clear, or not at all.
	for _, c := range []struct {
		name   string
		answer []byte
		reason Reason
	}{
		{"fat", sealedStream("", 10, 20<<20, 1)[2:], ReasonFailed},
		{"older version", sealedStream("", 10, 100, 0)[2:], ReasonFailed},
		{"in clear", []byte{6, 0, 0, 0, 0, 0}, ReasonNotEncrypted},
		{"hangs up", nil, ReasonClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.3:0")
			if err != nil {
				t.Fatal(err)
			}
			var accepting sync.WaitGroup
			accepting.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.ReadFull(conn, make([]byte, 100))
					if c.answer != nil {
						_, _ = conn.Write(append(bytes.Clone(c.answer), make([]byte, 1000)...))
					}
					_ = conn.Close()
				}
			})
			n := startReal(t, "n1", "127.0.0.1:0", []Peer{{Name: "n2", Addr: l.Addr().String()}})
			within(t, 5*time.Second, "the reason is "+string(c.reason), func() bool {
				return n.Health().Peers[0].Reason == c.reason
			})
			if c.answer != nil && n.Health().Dropped[ReasonForeignAnswer] == 0 {
				t.Error("not counted")
			}
			n.stop()
			_ = l.Close()
			accepting.Wait()
		})
	}
}

func TestSlotsOfStrangers(t *testing.T) {
	n := startReal(t, "n1", "127.0.0.1:0", nil)
	within(t, 5*time.Second, "started", func() bool { return n.Health().Running })
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.Dial("tcp", n.Health().Advertise.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	begin := time.Now()
	var silent []net.Conn
	for i := range 40 { // ten addresses, four each, all silent
		silent = append(silent, dial(fmt.Sprintf("127.0.6.%d", i%10+1)))
	}
	within(t, 5*time.Second, "all but 16 are closed", func() bool { return n.Health().Dropped[ReasonStreams] == 24 })
	if took := time.Since(begin); took > 900*time.Millisecond {
		t.Skipf("this machine is too slow to tell closed from timed out: %s", took)
	}
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a silent stream is still open: %v", err)
		}
	}
	if h := n.Health(); h.Dropped[ReasonSlow] != 16 {
		t.Errorf("dropped %v, want 16 as %s", h.Dropped, ReasonSlow)
	}
	for range 6 { // after it the slots are free again
		dial("127.0.6.1")
	}
	within(t, 5*time.Second, "two of six are closed, or more where the slots became free late", func() bool {
		return n.Health().Dropped[ReasonStreamsOfOne] >= 2
	})
	if d := n.Health().Dropped[ReasonStreamsOfOne]; d > 5 {
		t.Errorf("%d of six were closed: no slot has become free", d)
	}
}

func TestStopWhilePeersHang(t *testing.T) {
	// The peer takes connections and never reads: a stopped process.
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	n := startReal(t, "n1", "127.0.0.1:0", []Peer{{Name: "n2", Addr: l.Addr().String()}})
	within(t, 5*time.Second, "started", func() bool { return n.Health().Running })
	begin := time.Now()
	for i := range 100 {
		if err := n.Send("n2", append([]byte{byte(i)}, make([]byte, MaxMessage-1)...)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("100 large sends to a stopped process took %s", took)
	}
	time.Sleep(200 * time.Millisecond)
	begin = time.Now()
	n.stop()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
}

func TestNodesLeaveNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		a, b := realPair(t)
		a.stop()
		b.stop()
	}
	within(t, 10*time.Second, "goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
}

func TestFirstPrivateOrRoutedAddressIsAdvertised(t *testing.T) {
	g, err := New(Config{
		Node: "n1", Boot: "00000001", Cluster: "test", Bind: "0.0.0.0:7946", Insecure: true,
		Peers: []Peer{{Name: "n2", Addr: "127.0.0.2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := g.advertised(context.Background(), netip.MustParseAddrPort("0.0.0.0:7946"), 7946, 0)
	if err != nil || got.String() != "127.0.0.1:7946" {
		t.Errorf("by the route to a peer: %v, %v", got, err)
	}
	g.cfg.Advertise = "198.51.100.7:1"
	if got, err := g.advertised(context.Background(), netip.MustParseAddrPort("0.0.0.0:7946"), 7946, 0); err != nil || got.String() != "198.51.100.7:1" {
		t.Errorf("as configured: %v, %v", got, err)
	}
	if ip, ok := privateAddr(); ok && (!ip.IsPrivate() || ip.IsLoopback()) {
		t.Errorf("%s is not private", ip)
	}
}
