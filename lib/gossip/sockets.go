package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sys/unix"
)

// BindError is returned by Run when the gossip address cannot be listened on.
type BindError struct {
	Addr string
	Err  error
}

func (e *BindError) Error() string {
	mend := "choose another bind address"
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		mend = "another process has the port: stop it or choose another port"
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		mend = "no interface of this machine has the address: bind to 0.0.0.0 or to an address that is there"
	case errors.Is(e.Err, syscall.EACCES):
		mend = "ports below 1024 need a privilege: choose a higher one"
	}
	return fmt.Sprintf("listen on %s: %v: %s", e.Addr, e.Err, mend)
}

func (e *BindError) Unwrap() error { return e.Err }

// socketBuffer is asked for in each direction. The default would do for the
// traffic, but not for what the kernel keeps: datagrams to a machine that is
// gone wait up to 3 s for its hardware address and are counted against our
// socket, which then has no room for the peers that are alive. Measured on Linux
// 6.18: 50 datagrams of 200 bytes a second to each of two machines that are gone
// fill the default of 208 KiB in 1.8 s.
const socketBuffer = 4 << 20

// sockets is memberlist's network transport as we need it. Unlike memberlist's
// own it never waits when it sends a datagram, keeps of each datagram no more
// than its bytes (memberlist's keeps 64 KiB), and can always be shut down.
type sockets struct {
	udp     *net.UDPConn
	raw     syscall.RawConn
	tcp     net.Listener
	six     bool // the socket speaks IPv6, perhaps both
	addr    netip.AddrPort
	dialer  func(network, addr string, timeout time.Duration) (net.Conn, error)
	cancel  context.CancelFunc
	counts  *counters
	packets chan *memberlist.Packet
	streams chan net.Conn
	closing chan struct{}
	once    sync.Once
	wait    sync.WaitGroup
}

// listen opens the sockets; reading from them begins with start.
func listen(bind netip.AddrPort, counts *counters) (*sockets, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sockets{
		dialer: func(network, addr string, timeout time.Duration) (net.Conn, error) {
			d := net.Dialer{Timeout: timeout}
			if !bind.Addr().IsUnspecified() { // a peer is known by its address
				d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(bind.Addr(), 0))
			}
			return d.DialContext(ctx, network, addr)
		},
		cancel:  cancel,
		counts:  counts,
		packets: make(chan *memberlist.Packet, 64),
		streams: make(chan net.Conn),
		closing: make(chan struct{}),
	}
	if err := s.bind(ctx, bind); err != nil {
		cancel()
		return nil, &BindError{Addr: bind.String(), Err: err}
	}
	return s, nil
}

// bind listens on one port with both protocols. With port 0 the kernel chooses
// one for TCP, which may be taken for UDP; then it is asked again.
func (s *sockets) bind(ctx context.Context, bind netip.AddrPort) error {
	var err error
	for range 10 {
		var lc net.ListenConfig
		if s.tcp, err = lc.Listen(ctx, "tcp", bind.String()); err != nil {
			return err
		}
		s.addr = addrPort(s.tcp.Addr())
		var pc net.PacketConn
		pc, err = lc.ListenPacket(ctx, "udp", netip.AddrPortFrom(bind.Addr(), s.addr.Port()).String())
		if err == nil {
			s.udp = pc.(*net.UDPConn)
			break
		}
		_ = s.tcp.Close()
		if bind.Port() != 0 {
			return err
		}
	}
	if err != nil {
		return err
	}
	local := s.udp.LocalAddr().(*net.UDPAddr)
	s.six = local.IP.To4() == nil
	if s.raw, err = s.udp.SyscallConn(); err == nil {
		err = s.raw.Control(grow)
	}
	if err != nil {
		_ = s.tcp.Close()
		_ = s.udp.Close()
	}
	return err
}

// grow enlarges both buffers, beyond the system's limit where we may.
func grow(fd uintptr) {
	for _, o := range [][2]int{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[0], socketBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[1], socketBuffer) // as much as is allowed
		}
	}
}

func (s *sockets) start() {
	s.wait.Go(s.receive)
	s.wait.Go(s.accept)
}

func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }
func (s *sockets) StreamCh() <-chan net.Conn           { return s.streams }

// FinalAdvertiseAddr repeats what it is told: the address was found before.
func (s *sockets) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return finalAdvertise(ip, port)
}

func finalAdvertise(ip string, port int) (net.IP, int, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, 0, fmt.Errorf("parse advertise address %q: %w", ip, err)
	}
	return net.IP(a.Unmap().AsSlice()), port, nil
}

// WriteTo sends a datagram or fails; it does not wait for room.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("parse address %q: %w", addr, err)
	}
	sa, err := s.sockaddr(to)
	if err != nil {
		return time.Time{}, err
	}
	var sent error
	err = s.raw.Write(func(fd uintptr) bool {
		for {
			sent = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sa)
			if !errors.Is(sent, unix.EINTR) {
				return true
			}
		}
	})
	if err == nil {
		err = sent
	}
	switch {
	case err == nil:
		return time.Now(), nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		s.counts.sends.add(ReasonSendBuffer)
	default:
		s.counts.sends.add(ReasonSendFailed)
	}
	return time.Now(), fmt.Errorf("send to %s: %w", addr, err)
}

// WriteToAddress is WriteTo.
func (s *sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return s.WriteTo(b, a.Addr)
}

func (s *sockets) sockaddr(to netip.AddrPort) (unix.Sockaddr, error) {
	ip := to.Addr().Unmap()
	switch {
	case !s.six && ip.Is4():
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: ip.As4()}, nil
	case s.six:
		sa := &unix.SockaddrInet6{Port: int(to.Port()), Addr: ip.As16()}
		if zone := ip.Zone(); zone != "" {
			i, err := net.InterfaceByName(zone)
			if err != nil {
				return nil, fmt.Errorf("find interface of %s: %w", to, err)
			}
			sa.ZoneId = uint32(i.Index)
		}
		return sa, nil
	default:
		return nil, fmt.Errorf("send to %s: bound to IPv4 only", to)
	}
}

// DialTimeout opens a stream; Shutdown ends the attempt.
func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return s.dialer("tcp", addr, timeout)
}

// DialAddressTimeout is DialTimeout.
func (s *sockets) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return s.DialTimeout(a.Addr, timeout)
}

// Shutdown closes the sockets and returns when nobody reads from them any more.
func (s *sockets) Shutdown() error {
	s.once.Do(func() {
		close(s.closing)
		s.cancel()
		_ = s.tcp.Close()
		_ = s.udp.Close()
	})
	s.wait.Wait()
	return nil
}

func (s *sockets) receive() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if !s.pause(err, ReasonReceiveFailed) {
				return
			}
			continue
		}
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}
		select {
		case s.packets <- p:
		case <-s.closing:
			return
		}
	}
}

func (s *sockets) accept() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			if !s.pause(err, ReasonAcceptFailed) {
				return
			}
			continue
		}
		select {
		case s.streams <- conn:
		case <-s.closing:
			_ = conn.Close()
			return
		}
	}
}

// pause counts a failure of a socket and waits a little, so that one that fails
// for good costs nothing. It says whether to go on.
func (s *sockets) pause(err error, reason Reason) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	s.counts.guard.add(reason)
	select {
	case <-s.closing:
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}
