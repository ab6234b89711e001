// Package gossiptest is a network in memory for package gossip, with loss,
// latency, repetition and cuts in one direction or both. It works inside of
// testing/synctest bubbles, where hours pass in no time:
//
//	net := gossiptest.NewNetwork(1)
//	g, err := gossip.New(gossip.Config{Bind: "10.0.0.1:7946", Transport: net.Transport("10.0.0.1:7946"), ...})
//
// A test in a bubble that has stopped its nodes sleeps for Rest before it ends,
// so that the timers that memberlist leaves behind end inside of the bubble.
//
// The faults are drawn from a seed, but runs are not repeatable: memberlist uses
// randomness of its own. Assert bounds, not sequences.
package gossiptest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// Rest is how long after the end of a node memberlist's last timer fires.
const Rest = 15 * time.Second

// Network connects transports. Addresses are written ip:port.
type Network struct {
	mu       sync.Mutex
	rand     *rand.Rand
	nodes    map[string]*Transport
	cut      map[[2]string]bool // from, to
	loss     float64
	repeat   float64
	min, max time.Duration
	tap      func(from, to string, b []byte)
}

// NewNetwork is a network without faults.
func NewNetwork(seed uint64) *Network {
	return &Network{rand: rand.New(rand.NewPCG(seed, 0)), nodes: map[string]*Transport{}, cut: map[[2]string]bool{}}
}

// Transport attaches a node. A second call for the same address takes the place
// of the first, as a restarted process does.
func (n *Network) Transport(addr string) *Transport {
	t := &Transport{
		net: n, addr: addr, udp: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)),
		packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn, 64), done: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[addr] = t
	return t
}

// Cut stops everything between two addresses.
func (n *Network) Cut(a, b string) { n.CutOneWay(a, b); n.CutOneWay(b, a) }

// CutOneWay stops everything from one address to another. Streams need both
// directions.
func (n *Network) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] = true
}

// Isolate cuts an address off from all that are attached now.
func (n *Network) Isolate(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.nodes {
		n.cut[[2]string{addr, other}] = true
		n.cut[[2]string{other, addr}] = true
	}
}

// Partition cuts between the groups and leaves what is within a group alone.
func (n *Network) Partition(groups ...[]string) {
	for i, a := range groups {
		for _, b := range groups[i+1:] {
			for _, x := range a {
				for _, y := range b {
					n.Cut(x, y)
				}
			}
		}
	}
}

// Heal ends all cuts.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Loss loses each datagram with probability p. Streams are reliable.
func (n *Network) Loss(p float64) { n.set(func() { n.loss = p }) }

// Duplicate delivers each datagram twice with probability p.
func (n *Network) Duplicate(p float64) { n.set(func() { n.repeat = p }) }

// Latency delays each datagram by a random time between the two, which also
// reorders them. Streams are not delayed.
func (n *Network) Latency(from, to time.Duration) { n.set(func() { n.min, n.max = from, to }) }

// Tap shows every datagram that is sent, before it is lost or delivered.
func (n *Network) Tap(f func(from, to string, b []byte)) { n.set(func() { n.tap = f }) }

// Inject delivers a datagram as if it came from an address.
func (n *Network) Inject(from, to string, b []byte) {
	n.mu.Lock()
	t := n.nodes[to]
	n.mu.Unlock()
	if t != nil {
		t.push(net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), b)
	}
}

func (n *Network) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// send decides the fate of one datagram.
func (n *Network) send(from *Transport, to string, b []byte) {
	n.mu.Lock()
	tap := n.tap
	t := n.nodes[to]
	times := 1
	if t == nil || n.cut[[2]string{from.addr, to}] || n.rand.Float64() < n.loss {
		times = 0
	} else if n.rand.Float64() < n.repeat {
		times = 2
	}
	var delays [2]time.Duration
	for i := range times {
		delays[i] = n.min
		if n.max > n.min {
			delays[i] += time.Duration(n.rand.Int64N(int64(n.max - n.min)))
		}
	}
	n.mu.Unlock()
	b = append([]byte(nil), b...)
	if tap != nil {
		tap(from.addr, to, b)
	}
	for _, d := range delays[:times] {
		if d == 0 {
			t.push(from.udp, b)
			continue
		}
		time.AfterFunc(d, func() { t.push(from.udp, b) })
	}
}

// severed says whether a stream between two addresses can carry anything.
func (n *Network) severed(a, b string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[[2]string{a, b}] || n.cut[[2]string{b, a}]
}

// Transport is one node's end of a Network; it is a memberlist.Transport.
type Transport struct {
	net     *Network
	addr    string
	udp     *net.UDPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
	once    sync.Once
	done    chan struct{}
}

// Kill takes the node off the network, without a word to the others, as if its
// machine had lost power. The process that uses it may be stopped afterwards.
func (t *Transport) Kill() {
	t.once.Do(func() { close(t.done) })
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.net.nodes[t.addr] == t {
		delete(t.net.nodes, t.addr)
	}
}

// Shutdown implements memberlist.Transport.
func (t *Transport) Shutdown() error { t.Kill(); return nil }

func (t *Transport) dead() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (t *Transport) push(from *net.UDPAddr, b []byte) {
	if t.dead() {
		return
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: from, Timestamp: time.Now()}
	select {
	case t.packets <- p:
	default: // as a full socket buffer does
	}
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.udp.IP, t.udp.Port, nil
}

// WriteTo implements memberlist.Transport.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	if !t.dead() {
		t.net.send(t, addr, b)
	}
	return time.Now(), nil
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// DialTimeout implements memberlist.Transport: across a cut it waits for the
// time-out, and an address where nobody listens refuses.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	if t.dead() || t.net.severed(t.addr, addr) {
		select {
		case <-time.After(timeout):
		case <-t.done:
		}
		return nil, fmt.Errorf("dial tcp %s: i/o timeout", addr)
	}
	t.net.mu.Lock()
	other := t.net.nodes[addr]
	t.net.mu.Unlock()
	if other == nil {
		return nil, fmt.Errorf("dial tcp %s: %w", addr, syscall.ECONNREFUSED)
	}
	near, far := net.Pipe()
	from := &net.TCPAddr{IP: t.udp.IP, Port: 40000}
	to := &net.TCPAddr{IP: other.udp.IP, Port: other.udp.Port}
	select {
	case other.streams <- &conn{Conn: far, net: t.net, near: addr, far: t.addr, local: to, remote: from}:
		return &conn{Conn: near, net: t.net, near: t.addr, far: addr, local: from, remote: to}, nil
	default:
		return nil, errors.New("dial tcp " + addr + ": backlog full: i/o timeout")
	}
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// conn is a stream whose bytes vanish while its addresses are cut apart.
type conn struct {
	net.Conn
	net           *Network
	near, far     string
	local, remote net.Addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Write(b []byte) (int, error) {
	if c.net.severed(c.near, c.far) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
