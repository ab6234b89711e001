package hold

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask is HAProxy: one question, and its answer within d.
type asker struct {
	t    *testing.T
	conn net.Conn
	id   uint16
}

func (a *asker) ask(name string) {
	a.t.Helper()
	a.id++
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Id = a.id
	b, err := m.Pack()
	if err == nil {
		_, err = a.conn.Write(b)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// heard returns the answer's code and whether it has an address; ok is false
// when nothing came.
func (a *asker) heard(d time.Duration) (code int, address, ok bool) {
	a.t.Helper()
	b := make([]byte, 512)
	_ = a.conn.SetReadDeadline(time.Now().Add(d))
	n, err := a.conn.Read(b)
	if err != nil {
		return 0, false, false
	}
	m := new(dns.Msg)
	if err := m.Unpack(b[:n]); err != nil {
		a.t.Fatal(err)
	}
	if m.Id != a.id {
		a.t.Fatalf("answer to question %d, want %d", m.Id, a.id)
	}
	return m.Rcode, len(m.Answer) == 1, true
}

// start runs a responder on a free port.
func start(t *testing.T) (*Responder, *asker) {
	t.Helper()
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(free.LocalAddr().String())
	_ = free.Close()
	r, err := New(Config{Addr: addr, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for r.listening() == nil {
		time.Sleep(time.Millisecond)
	}
	conn, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return r, &asker{t: t, conn: conn}
}

func (r *Responder) listening() net.PacketConn {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.conn
}

const (
	soon   = 5 * time.Second        // for what must come
	silent = 100 * time.Millisecond // for what must not
)

func TestBackendWithServerIsAnswered(t *testing.T) {
	r, a := start(t)
	r.Set(map[string]bool{"Web": true, "chat": false})
	for _, name := range []string{"web.hold.", "WEB.Hold.", "go.hold."} {
		a.ask(name)
		if code, address, ok := a.heard(soon); !ok || code != dns.RcodeSuccess || !address {
			t.Errorf("%s: code %d, address %v, answered %v; want an address", name, code, address, ok)
		}
	}
}

func TestBackendWithoutServerIsAnsweredWhenItHasOne(t *testing.T) {
	r, a := start(t)
	r.Set(map[string]bool{"web": false, "chat": true})
	a.ask("web.hold.")
	if _, _, ok := a.heard(silent); ok {
		t.Fatal("answered, although there is no server")
	}
	r.Set(map[string]bool{"web": true, "chat": true})
	if _, address, ok := a.heard(soon); !ok || !address {
		t.Fatal("the question that waited got no answer")
	}
	r.Set(map[string]bool{"web": true, "chat": true})
	if _, _, ok := a.heard(silent); ok {
		t.Error("answered twice")
	}
}

// TestQuestionWaitsUntilItIsKnownThatThereIsNoServer: HAProxy knows first.
func TestQuestionWaitsUntilItIsKnownThatThereIsNoServer(t *testing.T) {
	r, a := start(t)
	r.Set(map[string]bool{"web": true})
	a.ask("web.hold.")
	for len(r.waiting()) == 0 {
		time.Sleep(time.Millisecond)
	}
	r.Set(map[string]bool{"web": false})
	if _, _, ok := a.heard(2 * confirm); ok {
		t.Fatal("answered, although there is no server")
	}
	r.Set(map[string]bool{"web": true})
	if _, address, ok := a.heard(soon); !ok || !address {
		t.Fatal("the question that waited got no answer")
	}
}

func (r *Responder) waiting() []question {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.kept
}

func TestForeignNameHoldsNobody(t *testing.T) {
	r, a := start(t)
	a.ask("bot.hold.")
	if _, _, ok := a.heard(silent); ok {
		t.Fatal("answered before anything is known")
	}
	r.Set(map[string]bool{"web": false})
	if code, _, ok := a.heard(soon); !ok || code != dns.RcodeNameError {
		t.Fatalf("code %d, answered %v; want that the name does not exist", code, ok)
	}
	for _, name := range []string{"bot.hold.", "example.org."} {
		a.ask(name)
		if code, _, ok := a.heard(soon); !ok || code != dns.RcodeNameError {
			t.Errorf("%s: code %d, answered %v; want that it does not exist", name, code, ok)
		}
	}
}

func TestHostileQuestionsDoNoHarm(t *testing.T) {
	r, a := start(t)
	r.Set(map[string]bool{"web": false})
	for range 3 * keepAtMost {
		a.ask("web.hold.")
	}
	for _, b := range [][]byte{nil, {0}, make([]byte, 511), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")} {
		if _, err := a.conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for answered := false; !answered; { // the flood may have filled the socket's buffer
		a.ask("example.org.")
		code, _, ok := a.heard(silent)
		if answered = ok; ok && code != dns.RcodeNameError {
			t.Fatalf("code %d", code)
		}
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if len(r.kept) > keepAtMost {
		t.Errorf("%d questions are kept, want at most %d", len(r.kept), keepAtMost)
	}
}

func TestPortInUseIsTriedAgain(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Addr: netip.MustParseAddrPort(taken.LocalAddr().String()), Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	time.Sleep(20 * time.Millisecond)
	_ = taken.Close()
	for end := time.Now().Add(soon); r.listening() == nil && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if r.listening() == nil {
		t.Error("the port is free again and not in use")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
