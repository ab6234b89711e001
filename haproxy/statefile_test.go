package haproxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"tandem/haproxy/haproxytest"
)

// sites are two sites of one web server each, behind a HAProxy, and a load of
// about 1,000 requests a second on it, each over a new connection.
type sites struct {
	t    *testing.T
	p    *haproxytest.Process
	url  string
	a, b atomic.Int64 // answers of each
	fail atomic.Int64 // everything else

	counted int64 // of all three, by served
}

func startSites(t *testing.T, start func(*haproxytest.Process)) *sites {
	t.Helper()
	s := &sites{t: t}
	port := haproxytest.Ports(t, 1)[0]
	s.url = "http://127.0.0.1:" + port + "/"
	config := haproxytest.Global + "  option redispatch 1\n  retries 3\nfrontend f\n  bind 127.0.0.1:" + port + "\n  default_backend be\nbackend be\n"
	for _, name := range []string{"a", "b"} {
		config += "  server " + name + "-1 " + serveSite(t, name) + " check inter 200ms fall 2\n"
	}
	s.p = haproxytest.New(t, config)
	start(s.p)
	return s
}

func serveSite(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveAt(t, l, name)
}

func serveAt(t *testing.T, l net.Listener, name string) string {
	t.Helper()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })}
	done := make(chan struct{})
	go func() { _ = server.Serve(l); close(done) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l.Addr().String()
}

// load asks 1,000 times a second until the returned function is called.
func (s *sites) load() (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	var all sync.WaitGroup
	const clients = 10
	for range clients {
		all.Go(func() {
			tick := time.NewTicker(clients * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					s.ask(client)
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
		transport.CloseIdleConnections()
	}
}

func (s *sites) ask(client *http.Client) {
	resp, err := client.Get(s.url)
	if err != nil {
		s.fail.Add(1)
		return
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	switch {
	case err == nil && string(body) == "a":
		s.a.Add(1)
	case err == nil && string(body) == "b":
		s.b.Add(1)
	default:
		s.fail.Add(1)
	}
}

func (s *sites) instance(name string) Config {
	return Config{Socket: s.p.Socket, StateFile: filepath.Join(s.p.Dir, "state"), JournalFile: filepath.Join(s.p.Dir, "journal"), Log: zaptest.NewLogger(s.t).Named(name)}
}

// fileSays waits until the server-state file drains exactly the server.
func (s *sites) fileSays(server string) {
	s.t.Helper()
	fileSays(s.t, filepath.Join(s.p.Dir, "state"), func(table []Server) bool {
		drained := drainedOf(table)
		return len(drained) == 1 && drained[ServerID{"be", server}]
	})
}

// fileSays waits until the server-state file has a table that is as it should be.
func fileSays(t *testing.T, path string, ok func([]Server) bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(path)
		if table, err := ParseServers(string(b), nil); err == nil && ok(table) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the file says %s", b)
		}
	}
}

// TestStaleFileAndNoJournal has a file of the time when a was active, b is active
// now, and no journal says whose the drains are. They came out of the file.
func TestStaleFileAndNoJournal(t *testing.T) {
	stale := func(t *testing.T) (p *haproxytest.Process, cfg Config) {
		t.Helper()
		p = start(t, 2)
		raw := strings.TrimSuffix(p.Do("show servers state"), "\n")
		p.Signal(syscall.SIGKILL)
		<-p.Exited()
		cfg = Config{Socket: p.Socket, StateFile: filepath.Join(p.Dir, "state")}
		patched := Patch(raw, []Command{{ServerID{"be", "b-1"}, Drain}, {ServerID{"be", "b-2"}, Drain}})
		if err := os.WriteFile(cfg.StateFile, []byte(patched), 0o600); err != nil {
			t.Fatal(err)
		}
		return p, cfg
	}
	asOnB := func(t *testing.T, i *running) Observation {
		t.Helper()
		o := i.applied(toB)
		if states(o.Servers) != onB || len(o.Held) != 0 {
			t.Fatalf("%s %+v", states(o.Servers), o.Held)
		}
		return o
	}
	t.Run("HAProxy first", func(t *testing.T) {
		p, cfg := stale(t)
		p.Start()
		if got := really(t, p); got != onA {
			t.Fatalf("HAProxy did not load the file: %s", got)
		}
		asOnB(t, run(t, cfg))
	})
	t.Run("HAProxy first, journal spoilt", func(t *testing.T) {
		p, cfg := stale(t)
		p.Start()
		cfg.JournalFile = filepath.Join(p.Dir, "journal")
		if err := os.WriteFile(cfg.JournalFile, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		asOnB(t, run(t, cfg))
	})
	t.Run("sidecar first", func(t *testing.T) {
		p, cfg := stale(t)
		i := run(t, cfg)
		i.until("absence", func(o Observation) bool { return o.Reason == ReasonRefused || o.Reason == ReasonNoSocket })
		i.Set(toB)
		fileSays(t, cfg.StateFile, func(table []Server) bool { return states(table) == onB })
		p.Start()
		if o := asOnB(t, i); o.Changes != 0 {
			t.Errorf("%d commands: HAProxy did not start as wanted", o.Changes)
		}
	})
	t.Run("a person's drain that is in the file", func(t *testing.T) {
		p, cfg := stale(t)
		p.Start()
		i := run(t, cfg)
		i.applied(toA)
		p.Do("set server be/a-1 state drain")
		p.Do("set server be/a-2 state maint")
		i.until("held", func(o Observation) bool { return heldAs(o, "a-1") == HoldDrain && heldAs(o, "a-2") == HoldMaintenance })
		fileSays(t, cfg.StateFile, func(table []Server) bool { return drainedOf(table)[ServerID{"be", "a-1"}] })
		i.stop()
		o := run(t, cfg).applied(toA) // nobody can tell the drain from one left over
		if want := "be/a-1=none be/a-2=FMAINT be/b-1=FDRAIN be/b-2=FDRAIN"; states(o.Servers) != want {
			t.Fatalf("%s %+v", states(o.Servers), o.Held)
		}
	})
	t.Run("a person's drain that is not in the file", func(t *testing.T) {
		p, cfg := stale(t)
		p.Start()
		p.Do("set server be/b-1 state ready")
		p.Do("set server be/a-1 state drain")
		o := run(t, cfg).applied(toA)
		if want := "be/a-1=FDRAIN be/a-2=none be/b-1=FDRAIN be/b-2=FDRAIN"; states(o.Servers) != want || heldAs(o, "a-1") != HoldDrain {
			t.Fatalf("%s %+v", states(o.Servers), o.Held)
		}
	})
}

// enough is the rate, in requests a second, below which a load was no load.
const enough = 500

// TestNoRequestToTheStandbySite has another HAProxy process start under load. The
// control is the same without the server-state file: there requests do come to
// the standby site, so that the test can fail.
func TestNoRequestToTheStandbySite(t *testing.T) {
	plain := func(p *haproxytest.Process) { p.Start() }
	master := func(p *haproxytest.Process) { p.StartMaster() }
	cases := []struct {
		name     string
		start    func(*haproxytest.Process)
		happens  func(*sites)
		failures bool // HAProxy is away for a moment
	}{
		{"reload -sf", plain, func(s *sites) { s.p.Reload() }, false},
		{"reload of a master", master, func(s *sites) { s.p.Signal(syscall.SIGUSR2) }, false},
		{"crash and restart", plain, func(s *sites) { s.p.Signal(syscall.SIGKILL); <-s.p.Exited(); s.p.Start() }, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := startSites(t, c.start)
			i := run(t, s.instance("tandem"))
			i.applied(toB)
			s.fileSays("a-1")
			s.underLoad(i, c.happens)
			if s.a.Load() != 0 {
				t.Errorf("%d requests to the standby site", s.a.Load())
			}
			// HAProxy itself may reset a connection or two that wait for the process
			// that goes; that is not what this is about.
			if s.fail.Load() > 2+s.b.Load()/100 && !c.failures {
				t.Errorf("%d requests failed", s.fail.Load())
			}
		})
		t.Run(c.name+" without the file", func(t *testing.T) {
			s := startSites(t, c.start)
			cfg := s.instance("tandem")
			cfg.StateFile = ""
			i := run(t, cfg)
			i.applied(toB)
			for range 5 { // tandem may be quick
				if s.underLoad(i, c.happens); s.a.Load() > 0 {
					return
				}
			}
			t.Error("no request to the standby site: the test with the file shows nothing")
		})
	}
}

// underLoad has another process started under load, and waits until it is as
// wanted.
func (s *sites) underLoad(i *running, happens func(*sites)) {
	s.t.Helper()
	pid := i.Observed().PID
	begin := time.Now()
	stop := s.load()
	time.Sleep(200 * time.Millisecond)
	happens(s)
	i.until("another process as wanted", func(o Observation) bool { return o.PID != pid && o.Applied == 2 })
	time.Sleep(200 * time.Millisecond)
	stop()
	s.served(begin)
}

// served says what the load since begin came to, and fails if that is nothing.
func (s *sites) served(begin time.Time) {
	s.t.Helper()
	a, b, fail := s.a.Load(), s.b.Load(), s.fail.Load()
	rate := float64(a+b+fail-s.counted) / time.Since(begin).Seconds()
	s.counted = a + b + fail
	s.t.Logf("standby %d, active %d, failed %d; %.0f a second", a, b, fail, rate)
	if rate < enough {
		s.t.Logf("NOT MEASURED at 1,000 requests a second, nor at %d: this machine is busy", enough)
	}
	if b == 0 {
		s.t.Fatal("nothing was served")
	}
}

// HAProxy and sidecar start together, as after a power loss, and the decision
// changed while HAProxy was away: the file was put in step with it.
func TestDecisionChangedWhileHAProxyWasAway(t *testing.T) {
	s := startSites(t, func(p *haproxytest.Process) { p.Start() })
	i := run(t, s.instance("before"))
	i.applied(toA)
	s.fileSays("b-1")
	s.p.Signal(syscall.SIGKILL)
	<-s.p.Exited()
	i.stop() // everything is off
	i = run(t, s.instance("after"))
	i.until("absence", func(o Observation) bool { return o.Reason == ReasonRefused })
	i.Set(toB)
	s.fileSays("a-1")
	begin := time.Now()
	stop := s.load()
	s.p.Start()
	i.until("as wanted", func(o Observation) bool { return o.Applied == 2 })
	time.Sleep(300 * time.Millisecond)
	stop()
	s.served(begin)
	if n := s.a.Load(); n != 0 {
		t.Errorf("%d requests to the standby site", n)
	}
}

// Whatever the file says, what is wanted is there at once, and the drains of a
// stale file are not taken for a person's.
func TestBadStateFilesArePutRightAtOnce(t *testing.T) {
	cases := map[string]func(path, good string) error{
		"missing":   func(path, _ string) error { return os.Remove(path) },
		"empty":     func(path, _ string) error { return os.WriteFile(path, nil, 0o600) },
		"garbage":   func(path, _ string) error { return os.WriteFile(path, []byte("\x00\x01 garbage\n\n1\n"), 0o600) },
		"truncated": func(path, good string) error { return os.WriteFile(path, []byte(good[:len(good)-60]), 0o600) },
		"stale": func(path, good string) error {
			stale := Patch(good, []Command{{ServerID{"be", "a-1"}, Ready}, {ServerID{"be", "b-1"}, Drain}})
			return os.WriteFile(path, []byte(stale), 0o600)
		},
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			s := startSites(t, func(p *haproxytest.Process) { p.Start() })
			i := run(t, s.instance("tandem"))
			i.applied(toB)
			s.fileSays("a-1")
			path := filepath.Join(s.p.Dir, "state")
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s.p.Signal(syscall.SIGKILL)
			<-s.p.Exited()
			i.until("death", gone)
			if err := spoil(path, string(good)); err != nil {
				t.Fatal(err)
			}
			s.p.Start()
			begin := time.Now()
			o, _ := i.until("as wanted", func(o Observation) bool { return o.PID == s.p.PID() && o.Applied == 2 })
			t.Logf("right %v after it answered", time.Since(begin))
			if want := "be/a-1=FDRAIN be/b-1=none"; states(o.Servers) != want || len(o.Held) != 0 {
				t.Fatalf("%s %+v", states(o.Servers), o.Held)
			}
			s.fileSays("a-1")
		})
	}
}

func TestFileIsRestoredWhenSomebodyRemovesIt(t *testing.T) {
	s := startSites(t, func(p *haproxytest.Process) { p.Start() })
	i := run(t, s.instance("tandem"))
	i.applied(toA)
	s.fileSays("b-1")
	if err := os.Remove(filepath.Join(s.p.Dir, "state")); err != nil {
		t.Fatal(err)
	}
	s.fileSays("b-1")
	i.stop()
	left, err := filepath.Glob(filepath.Join(s.p.Dir, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// What HAProxy loads is what HAProxy printed, so a file made by Patch must load.
func TestPatchedFileIsAcceptedByHAProxy(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 2))
	p.Start()
	raw := strings.TrimSuffix(p.Do("show servers state"), "\n")
	p.Signal(syscall.SIGKILL)
	<-p.Exited()
	patched := Patch(raw, []Command{{ServerID{"be", "a-2"}, Drain}, {ServerID{"be", "b-1"}, Drain}})
	if err := os.WriteFile(filepath.Join(p.Dir, "state"), []byte(patched), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	if got, want := really(t, p), "be/a-1=none be/a-2=FDRAIN be/b-1=FDRAIN be/b-2=none"; got != want {
		t.Fatalf("%s", got)
	}
}

// hangingSite is a HAProxy with a site a that never answers and a site b that
// does.
func hangingSite(t *testing.T) (url string, p *haproxytest.Process) {
	t.Helper()
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { _ = server.Serve(l); close(served) }()
	t.Cleanup(func() { _ = server.Close(); <-served })
	port := haproxytest.Ports(t, 1)[0]
	p = haproxytest.Start(t, haproxytest.Global+"frontend f\n  bind 127.0.0.1:"+port+"\n  default_backend be\nbackend be\n  server a-1 "+l.Addr().String()+"\n  server b-1 "+serveSite(t, "b")+"\n")
	return "http://127.0.0.1:" + port, p
}

// request has n clients ask, waits until HAProxy has that many sessions on a-1,
// and returns where their answers come: the status, 0 for none.
func request(t *testing.T, p *haproxytest.Process, url string, n int) <-chan int {
	t.Helper()
	answers := make(chan int, n)
	for range n {
		go func() { // ends with the answer, or with HAProxy
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := (&http.Client{Transport: transport}).Get(url)
			if err != nil {
				answers <- 0
				return
			}
			_ = resp.Body.Close()
			answers <- resp.StatusCode
		}()
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		current := make(map[ServerID]int)
		stat := p.Do("show stat be 4 -1")
		if err := ParseSessions(stat, current); err != nil {
			t.Fatal(err)
		}
		if current[ServerID{"be", "a-1"}] == n {
			return answers
		}
		if time.Now().After(end) {
			t.Fatal(stat)
		}
	}
}

func TestSessionsLeftOnADrainedSiteAreShut(t *testing.T) {
	url, p := hangingSite(t)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	answers := request(t, p, url, 3)
	i.applied(toB)
	select {
	case code := <-answers:
		t.Fatalf("a drain alone ended a session: %d", code)
	case <-time.After(200 * time.Millisecond):
	}
	closing := toB
	closing.Epoch, closing.Rules = 3, []Rule{toB.Rules[0], {Pattern: "*/a-*", Want: Drain, Close: true}}
	i.Set(closing)
	o, d := i.until("shut", func(o Observation) bool { return o.SessionsClosed == 3 })
	t.Logf("after %v", d)
	for range 3 {
		if code := <-answers; code != http.StatusBadGateway && code != 0 {
			t.Errorf("answer %d", code)
		}
	}
	i.until("none left", func(o Observation) bool { return o.SessionsLeft == 0 })
	if !o.Alive {
		t.Errorf("%+v", o)
	}
}
