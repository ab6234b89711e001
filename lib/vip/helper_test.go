package vip

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// The tests that touch a kernel run this test binary again inside a network
// namespace, as one of the helpers below, and talk to it by lines of text.
const helperEnv = "TANDEM_VIP_TEST_HELPER"

func TestMain(m *testing.M) {
	switch helper := os.Getenv(helperEnv); helper {
	case "":
		goleak.VerifyTestMain(m)
	case "sidecar":
		os.Exit(runSidecar())
	case "server":
		os.Exit(runServer(os.Args[1], os.Args[2:]))
	case "client":
		os.Exit(runClient(os.Args[1:]))
	case "caller":
		os.Exit(runCaller(os.Args[1], atoi(os.Args[2])))
	default:
		fmt.Fprintln(os.Stderr, "no such helper:", helper)
		os.Exit(2)
	}
}

func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// trap has the process stop itself when the gate next reads the clock for a
// transaction: what it then writes comes too late, if it is woken too late.
var trap atomic.Bool

func trappedClock() time.Duration {
	now := bootTime()
	if !trap.Load() {
		return now
	}
	if pc, _, _, ok := runtime.Caller(1); ok && strings.HasSuffix(runtime.FuncForPC(pc).Name(), ".elements") && trap.CompareAndSwap(true, false) {
		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
	}
	return now
}

// sidecar is a Manager with somebody who renews: `hold 300ms` renews a lease of
// 300 ms until told otherwise. A strict one (STRICT=1) stops renewing when it
// finds that the lease has run out meanwhile, as one that asks voters does.
type sidecar struct {
	m       *Manager
	strict  bool
	mu      sync.Mutex
	lease   map[string]time.Duration
	renewed map[string]time.Duration
	want    map[string]Desired
	errors  map[string]string
}

func sidecarConfig(text string) Config {
	cfg := Config{Node: os.Getenv("NODE"), Cluster: "test", Now: trappedClock, DisableGate: os.Getenv("NOGATE") != ""}
	for group := range strings.SplitSeq(text, ";") {
		name, list, _ := strings.Cut(group, "=")
		g := Group{Name: name}
		for a := range strings.SplitSeq(list, ",") {
			p, i, _ := strings.Cut(a, "@")
			g.Addresses = append(g.Addresses, Address{netip.MustParsePrefix(p), i})
		}
		cfg.Groups = append(cfg.Groups, g)
	}
	return cfg
}

func runSidecar() int {
	cfg := sidecarConfig(os.Getenv("VIPS"))
	if os.Getenv("VERBOSE") != "" {
		cfg.Log, _ = zap.NewDevelopment()
	}
	m, err := New(cfg)
	if err == nil {
		err = m.Clean()
	}
	if err != nil {
		fmt.Println("err", err)
		return 1
	}
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer cancel()
	s := &sidecar{
		m: m, strict: os.Getenv("STRICT") != "", lease: map[string]time.Duration{}, renewed: map[string]time.Duration{},
		want: map[string]Desired{}, errors: map[string]string{},
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	wg.Go(func() { s.renew(ctx) })
	fmt.Println("ready", m.Status().Fence)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(s.command(strings.Fields(in.Text())))
		if in.Text() == "quit" {
			break
		}
	}
	cancel()
	wg.Wait()
	fmt.Println("gone")
	return 0
}

func (s *sidecar) renew(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		s.mu.Lock()
		for g, d := range s.lease {
			now := bootTime() // once: who is stopped from here on comes too late
			if s.strict && now-s.renewed[g] >= d {
				delete(s.lease, g)
				continue
			}
			s.renewed[g] = now
			w := s.want[g]
			w.Deadline = now + d
			if err := s.m.Set(g, w); err != nil {
				s.errors[g] = err.Error()
			}
		}
		s.mu.Unlock()
	}
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

func addr(args []string, i int) netip.Addr {
	if len(args) <= i || args[i] == "-" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(args[i])
}

// command: hold GROUP LEASE [STRAYS PRED [PRED6]], yield GROUP GRACE NEW [SUCC
// [SUCC6]], away GROUP, status, events, quit.
func (s *sidecar) command(a []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := bootTime()
	var err error
	switch a[0] {
	case "hold":
		d := Desired{Role: Holding, Deadline: bootTime() + duration(a[2])}
		if len(a) > 3 {
			d.StraysUntil = bootTime() + duration(a[3])
			d.Predecessor, d.Predecessor6 = addr(a, 4), addr(a, 5)
		}
		s.lease[a[1]], s.want[a[1]], s.renewed[a[1]] = duration(a[2]), d, began
		err = s.m.Set(a[1], d)
	case "yield":
		delete(s.lease, a[1])
		now := bootTime()
		err = s.m.Set(a[1], Desired{
			Role: Yielding, Deadline: now + duration(a[2]), NewUntil: now + duration(a[3]),
			Successor: addr(a, 4), Successor6: addr(a, 5),
		})
	case "away":
		delete(s.lease, a[1])
		err = s.m.Set(a[1], Desired{})
	case "claim": // as a stranger: say that an address is ours
		p := netip.MustParsePrefix(a[1])
		err = newSpeaker().Announce(Address{p, "eth0"})
	case "probe":
		found, perr := s.m.Probe(context.Background(), a[1])
		out := "probe"
		for _, f := range found {
			out += fmt.Sprintf(" %s@%s", f.Address.Prefix.Addr(), f.At)
		}
		if err = perr; err == nil {
			return out
		}
	case "bench": // renew a group so many times
		for i := range atoi(a[2]) {
			d := Desired{Role: Holding, Deadline: bootTime() + time.Second + time.Duration(i)*time.Millisecond}
			if err = s.m.Set(a[1], d); err != nil {
				break
			}
		}
	case "trap":
		trap.Store(true)
	case "lapse": // stop renewing, say nothing
		delete(s.lease, a[1])
	case "status":
		b, jerr := json.Marshal(s.m.Status())
		if jerr == nil {
			return string(b)
		}
		err = jerr
	case "errors":
		return fmt.Sprint(s.errors)
	case "events":
		var out []string
		for {
			select {
			case e := <-s.m.Events():
				out = append(out, string(e.Kind))
				continue
			default:
			}
			return "events " + strings.Join(out, " ")
		}
	case "quit":
	}
	if err != nil {
		return "err " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return fmt.Sprintf("ok %s %s", began, bootTime()-began)
}

// runServer answers every line with its name, on TCP port 80 of any address, as
// HAProxy does with a wildcard bind. At the line "bye" it closes. On UDP it
// answers at the addresses given, or at those of the group web.
func runServer(name string, datagrams []string) int {
	if len(datagrams) == 0 {
		datagrams = []string{vip4, vip6}
	}
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		fmt.Println("err", err)
		return 1
	}
	for _, ip := range datagrams {
		// The address is not there yet.
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			})
		}}
		u, err := lc.ListenPacket(context.Background(), "udp", net.JoinHostPort(ip, "80"))
		if err != nil {
			fmt.Println("err", err)
			return 1
		}
		go func() {
			buf := make([]byte, 512)
			for {
				n, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = u.WriteTo(buf[:n], from)
			}
		}()
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		go func() {
			defer c.Close()
			for in := bufio.NewScanner(c); in.Scan() && in.Text() != "bye"; {
				if _, err := fmt.Fprintln(c, name); err != nil {
					return
				}
			}
		}()
	}
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
