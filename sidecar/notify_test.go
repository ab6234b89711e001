package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"tandem/sidecar/status"
)

// loop is an agent whose loop can be made to hang.
type loop struct {
	mu    sync.Mutex
	stuck bool
	st    status.Status
}

func (l *loop) Live() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stuck {
		return errors.New("no answer")
	}
	return nil
}

func (l *loop) Status() status.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.st
}

func (l *loop) set(f func(*loop)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
}

// manager is the service manager's end of sd_notify.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "90000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	return &manager{t, conn}
}

// next is the next message within the time, as lines; nil is silence.
func (m *manager) next(within time.Duration) []string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.conn.Read(b)
	if err != nil {
		return nil
	}
	return strings.Split(string(b[:n]), "\n")
}

// await skips messages until one has the line; it gives the lines before it.
func (m *manager) await(line string) (before []string) {
	m.t.Helper()
	for {
		lines := m.next(10 * time.Second)
		if lines == nil {
			m.t.Fatalf("%q was not said; before: %v", line, before)
		}
		if slices.Contains(lines, line) {
			return before
		}
		before = append(before, lines...)
	}
}

func TestTheServiceManagerIsTold(t *testing.T) {
	m := newManager(t)
	l := &loop{st: status.Status{
		Node: "lb1", Health: status.Healthy, QuarantineMS: 1000, Leases: []status.Lease{{Resource: "vip/default", Holder: "lb1"}},
		Groups: []status.Site{{Group: "default", Active: "a"}},
	}}
	stop := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- newNotifier(stop, l, zap.NewNop()).Run(ctx) }()

	m.await("STATUS=starts")
	m.await("STATUS=just started, keeps silent until no lease from before can be alive")
	l.set(func(l *loop) { l.st.QuarantineMS = 0 })
	m.await("READY=1")
	m.await("WATCHDOG=1")
	l.set(func(l *loop) { l.st.Health, l.st.Problems = status.Degraded, []string{"witness is silent", "more"} })
	m.await("STATUS=degraded, holds vip/default, site a: witness is silent (and 1 more)")

	// A loop that hangs is not vouched for.
	l.set(func(l *loop) { l.stuck = true })
	for m.next(300*time.Millisecond) != nil { // what was under way
	}
	if lines := m.next(500 * time.Millisecond); lines != nil {
		t.Errorf("the loop hangs, and %v was said", lines)
	}
	l.set(func(l *loop) { l.stuck = false })
	m.await("WATCHDOG=1")

	close(stop)
	m.await("STOPPING=1")
	if lines := m.next(5 * time.Second); !slices.Equal(lines, []string{"WATCHDOG=1"}) {
		t.Errorf("%v while it hands over, want that the watchdog is held off", lines)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWithoutAServiceManagerNobodyIsTold(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := newNotifier(nil, nil, zap.NewNop()).Run(t.Context()); err != nil {
		t.Error(err)
	}
}
