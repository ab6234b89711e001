package gossip

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	maxStreams       = 16      // at a time, from addresses that are no peer's
	maxStreamsOfOne  = 4       // at a time, from one address; a peer has these for itself
	maxStreamBytes   = 8 << 20 // declared by all streams at a time; peers have as much for themselves
	streamHeaderTime = time.Second
	streamTime       = 5 * time.Second // no stream lasts longer, in either direction
)

// guard stands between the network and memberlist and lets in only what looks
// like ours. It decides by the first bytes, without the key: it keeps out
// strangers who know nothing and bounds what those cost who know the label.
// Whether something is authentic, memberlist decides after it.
type guard struct {
	memberlist.NodeAwareTransport // the inner transport
	header                        header
	counts                        *counters
	heard                         func(from netip.AddrPort)                // something that was let in
	dropped                       func(from netip.AddrPort, reason Reason) // something that was not
	isPeer                        func(netip.Addr) bool

	packets chan *memberlist.Packet
	streams chan net.Conn
	closing chan struct{}
	once    sync.Once
	wait    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[*stream]struct{}
	of     map[netip.Addr]int // streams open, by address
	others int                // streams open that are no peer's
	bytes  [2]int             // declared by the open ones, of peers and of others
}

func newGuard(inner memberlist.NodeAwareTransport, h header, counts *counters) *guard {
	return &guard{
		NodeAwareTransport: inner,
		header:             h,
		counts:             counts,
		heard:              func(netip.AddrPort) {},
		dropped:            func(netip.AddrPort, Reason) {},
		isPeer:             func(netip.Addr) bool { return false },
		packets:            make(chan *memberlist.Packet, 64),
		streams:            make(chan net.Conn),
		closing:            make(chan struct{}),
		open:               map[*stream]struct{}{},
		of:                 map[netip.Addr]int{},
	}
}

// start begins to pass on what comes in. Shutdown ends it.
func (g *guard) start() {
	g.wait.Go(g.passPackets)
	g.wait.Go(g.passStreams)
}

func (g *guard) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *guard) StreamCh() <-chan net.Conn           { return g.streams }

// Shutdown ends everything that goes through the guard, streams in either
// direction included, and returns when its goroutines have ended.
func (g *guard) Shutdown() error {
	g.once.Do(func() {
		close(g.closing)
		g.mu.Lock()
		g.closed = true
		open := make([]*stream, 0, len(g.open))
		for s := range g.open {
			open = append(open, s)
		}
		g.mu.Unlock()
		for _, s := range open {
			_ = s.Close()
		}
	})
	err := g.NodeAwareTransport.Shutdown()
	g.wait.Wait()
	return err
}

func (g *guard) drop(from netip.AddrPort, reason Reason) {
	g.counts.guard.add(reason)
	g.dropped(from, reason)
}

func (g *guard) passPackets() {
	in := g.NodeAwareTransport.PacketCh()
	for {
		select {
		case <-g.closing:
			return
		case p := <-in:
			from := addrPort(p.From)
			if reason := g.header.packet(p.Buf); reason != ReasonNone {
				g.drop(from, reason)
				continue
			}
			g.heard(from)
			select {
			case g.packets <- p:
			case <-g.closing:
				return
			}
		}
	}
}

func (g *guard) passStreams() {
	in := g.NodeAwareTransport.StreamCh()
	for {
		select {
		case <-g.closing:
			return
		case conn := <-in:
			from := addrPort(conn.RemoteAddr())
			s, reason := g.admit(conn, from.Addr())
			if reason != ReasonNone {
				g.drop(from, reason)
				_ = conn.Close()
				continue
			}
			g.wait.Go(func() { g.passStream(s, from) })
		}
	}
}

// passStream reads the header of one stream and hands the stream to memberlist,
// which closes it.
func (g *guard) passStream(s *stream, from netip.AddrPort) {
	_ = s.Conn.SetDeadline(time.Now().Add(streamHeaderTime))
	read, size, reason := g.header.stream(s.Conn)
	if reason == ReasonNone && !g.declare(s, size) {
		reason = ReasonStreams
	}
	if reason != ReasonNone {
		g.drop(from, reason)
		_ = s.Close()
		return
	}
	s.prefix, s.left = read, len(read)+size
	s.end = time.Now().Add(streamTime)
	g.heard(from)
	select {
	case g.streams <- s:
	case <-g.closing:
		_ = s.Close()
	}
}

// admit takes a slot for a stream that came in.
func (g *guard) admit(conn net.Conn, from netip.Addr) (*stream, Reason) {
	peer := g.isPeer(from)
	key := from
	if from.Is6() { // a host has a whole /64 to choose from
		p, _ := from.Prefix(64)
		key = p.Addr()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, ReasonClosed
	case g.of[key] >= maxStreamsOfOne:
		return nil, ReasonStreamsOfOne
	case !peer && g.others >= maxStreams:
		return nil, ReasonStreams
	}
	s := &stream{Conn: conn, guard: g, key: key, inbound: true, stranger: !peer}
	g.open[s] = struct{}{}
	g.of[key]++
	if s.stranger {
		g.others++
	}
	return s, ReasonNone
}

// declare takes the room that a stream's content will need.
func (g *guard) declare(s *stream, size int) bool {
	if !g.header.encrypted {
		return true // nothing is declared in clear
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	room := &g.bytes[s.class()]
	if *room+size > maxStreamBytes {
		return false
	}
	*room += size
	s.size = size
	return true
}

// release gives back what a stream took.
func (g *guard) release(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.open[s]; !ok {
		return
	}
	delete(g.open, s)
	if !s.inbound {
		return
	}
	g.bytes[s.class()] -= s.size
	if g.of[s.key]--; g.of[s.key] == 0 {
		delete(g.of, s.key)
	}
	if s.stranger {
		g.others--
	}
}

// DialAddressTimeout opens a stream whose answer is looked at before memberlist
// sees it, and which ends by itself: memberlist sets no deadline for writing.
func (g *guard) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := g.NodeAwareTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	s := &stream{Conn: conn, guard: g, answer: true, end: time.Now().Add(streamTime)}
	g.mu.Lock()
	closed := g.closed
	if !closed {
		g.open[s] = struct{}{}
	}
	g.mu.Unlock()
	if closed {
		_ = conn.Close()
		return nil, fmt.Errorf("dial %s: %w", a.Addr, net.ErrClosed)
	}
	_ = conn.SetDeadline(s.end)
	return s, nil
}

// DialTimeout is DialAddressTimeout for a node without a name.
func (g *guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// stream is a connection in either direction with what the guard keeps about it.
type stream struct {
	net.Conn
	guard    *guard
	key      netip.Addr // of the slot
	inbound  bool
	stranger bool
	size     int

	// Used by the one goroutine that reads.
	prefix []byte    // read already, to be read again
	left   int       // bytes that may still be read
	answer bool      // the header of the answer is still to be read
	end    time.Time // no deadline is later
	once   sync.Once
}

// class is 1 for strangers.
func (s *stream) class() int {
	if s.stranger {
		return 1
	}
	return 0
}

// Read gives memberlist the header again, then the rest of what was declared.
func (s *stream) Read(b []byte) (int, error) {
	if s.answer {
		s.answer = false
		if err := s.readAnswer(); err != nil {
			return 0, err
		}
	}
	if s.left <= 0 {
		return 0, io.EOF
	}
	if len(b) > s.left {
		b = b[:s.left]
	}
	var n int
	var err error
	if len(s.prefix) > 0 {
		n = copy(b, s.prefix)
		s.prefix = s.prefix[n:]
	} else {
		n, err = s.Conn.Read(b)
	}
	s.left -= n
	return n, err
}

// readAnswer looks at the first bytes of an answer. It may come from anybody
// who has taken the peer's address, so it is checked like a stream to us.
func (s *stream) readAnswer() error {
	first := recorder{r: s.Conn}
	read, size, reason := s.guard.header.body(&first)
	switch {
	case reason == ReasonNone:
	case first.err != nil:
		return first.err
	default:
		from := addrPort(s.RemoteAddr())
		s.guard.counts.guard.add(ReasonForeignAnswer)
		s.guard.dropped(from, reason)
		return fmt.Errorf("%s: %w", reason, errAnswer)
	}
	s.prefix, s.left = read, len(read)+size
	return nil
}

// recorder keeps the error of a reader.
type recorder struct {
	r   io.Reader
	err error
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil {
		r.err = err
	}
	return n, err
}

// SetDeadline never goes beyond the end of the stream.
func (s *stream) SetDeadline(t time.Time) error {
	if !s.end.IsZero() && (t.IsZero() || t.After(s.end)) {
		t = s.end
	}
	return s.Conn.SetDeadline(t)
}

// Close closes the connection and gives back its slot.
func (s *stream) Close() error {
	err := net.ErrClosed
	s.once.Do(func() {
		err = s.Conn.Close()
		s.guard.release(s)
	})
	return err
}

// addrPort is a network address as a value; invalid if it is of no known kind.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	case nil:
		return ap
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
