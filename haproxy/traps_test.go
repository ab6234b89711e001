package haproxy

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

// settled waits until HAProxy itself says what is wanted, and checks that it
// stays so for a while: nothing that was given up may come back.
func settled(t *testing.T, p *haproxytest.Process, within time.Duration, want string) {
	t.Helper()
	begin := time.Now()
	for really(t, p) != want {
		if time.Since(begin) > within {
			t.Fatalf("after %v:\nreally %s\nwant   %s", within, really(t, p), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("right after %v", time.Since(begin))
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got := really(t, p); got != want {
			if time.Since(begin) > within {
				t.Fatalf("it did not stay so:\nreally %s\nwant   %s", got, want)
			}
		}
	}
}

const (
	onA = "be/a-1=none be/a-2=none be/b-1=FDRAIN be/b-2=FDRAIN"
	onB = "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=none be/b-2=none"
)

// HAProxy freezes at each point of a conversation while a switch is under way,
// the decision is taken back meanwhile, and it wakes: what counts is the last
// decision, within a second.
func TestFreezeAtEveryPointOfAConversation(t *testing.T) {
	for _, point := range []string{"prompt", "show info", "show servers state", "set server be/b-1 state ready", "set server be/a-1 state drain"} {
		for _, where := range []string{"before", "after"} {
			t.Run(where+" "+point, func(t *testing.T) {
				t.Parallel()
				p := start(t, 2)
				relay := haproxytest.StartRelay(t, p.Socket)
				i := run(t, Config{Socket: relay.Socket, Timeout: 150 * time.Millisecond})
				i.applied(toA)
				var once sync.Once
				frozen := make(chan struct{})
				freeze := func() {
					once.Do(func() {
						p.Signal(syscall.SIGSTOP)
						close(frozen)
					})
				}
				relay.Before(func(piece string) {
					if strings.Contains(piece, point) {
						if where == "after" {
							time.AfterFunc(50*time.Microsecond, freeze)
							return
						}
						freeze()
					}
				})
				i.Set(toB)
				select {
				case <-frozen:
				case <-time.After(20 * time.Second):
					t.Fatal("the conversation never came to this point")
				}
				i.until("hang", gone)
				back := Desired{Epoch: 7, Rules: toA.Rules}
				i.Set(back)
				p.Signal(syscall.SIGCONT)
				i.until("taken back", func(o Observation) bool { return o.Applied == 7 })
				settled(t, p, time.Second, onA)
			})
		}
	}
}

// A freeze shorter than the timeout is nothing.
func TestShortFreezesAreNoFailure(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket, Timeout: 600 * time.Millisecond})
	i.applied(toA)
	var died atomic.Bool
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-i.Changed():
				if !i.Observed().Alive {
					died.Store(true)
				}
			}
		}
	})
	for range 4 {
		p.Signal(syscall.SIGSTOP)
		time.Sleep(200 * time.Millisecond)
		p.Signal(syscall.SIGCONT)
		time.Sleep(100 * time.Millisecond)
	}
	close(stop)
	all.Wait()
	if died.Load() {
		t.Error("it was declared dead")
	}
}

// listen serves a socket with what is not HAProxy.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return path
}

func TestWhatIsNoHAProxyIsNotTakenForOne(t *testing.T) {
	read := func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }
	forever := []byte(strings.Repeat("x", 1<<16))
	cases := map[string]struct {
		serve  func(net.Conn)
		reason []Reason
	}{
		"closes at once":    {func(net.Conn) {}, []Reason{ReasonDied}},
		"closes when asked": {read, []Reason{ReasonDied}},
		"says nothing":      {func(c net.Conn) { read(c); read(c) }, []Reason{ReasonHung}},
		"garbage":           {func(c net.Conn) { read(c); _, _ = c.Write([]byte("\x00\xff\n> ")); read(c) }, []Reason{ReasonBadAnswer}},
		"another protocol":  {func(c net.Conn) { read(c); _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, []Reason{ReasonDied}},
		"only prompts": {func(c net.Conn) {
			for {
				if _, err := c.Write([]byte("\n> ")); err != nil {
					return
				}
			}
		}, []Reason{ReasonBadAnswer}},
		"never ends": {func(c net.Conn) {
			for {
				if _, err := c.Write(forever); err != nil {
					return
				}
			}
		}, []Reason{ReasonBadAnswer, ReasonHung}},
		"dribbles, never ends": {func(c net.Conn) {
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}, []Reason{ReasonHung}},
		"half of the prompt":     {func(c net.Conn) { read(c); _, _ = c.Write([]byte("\n>")) }, []Reason{ReasonDied}},
		"prompt, then nothing":   {func(c net.Conn) { read(c); _, _ = c.Write([]byte("\n> ")); read(c); read(c) }, []Reason{ReasonHung}},
		"master, not a worker":   {func(c net.Conn) { read(c); _, _ = c.Write([]byte("\nmaster> ")); read(c) }, []Reason{ReasonHung}},
		"speaks before it hears": {func(c net.Conn) { _, _ = c.Write([]byte("220 smtp\r\n")); read(c) }, []Reason{ReasonHung, ReasonBadAnswer, ReasonDied}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := run(t, Config{Socket: listen(t, c.serve), Timeout: 150 * time.Millisecond})
			i.Set(toA)
			o, d := i.until("a reason", func(o Observation) bool { return o.Reason != ReasonStarting })
			if o.Alive || o.Detail == "" {
				t.Fatalf("%+v", o)
			}
			found := false
			for _, r := range c.reason {
				found = found || r == o.Reason
			}
			if !found {
				t.Errorf("reason %s, want one of %s (%s)", o.Reason, c.reason, o.Detail)
			}
			if d > 2*time.Second {
				t.Errorf("noticed after %v", d)
			}
		})
	}
}

// A table that is cut short or wrong must not be taken for servers that are gone.
func TestTruncatedTableChangesNothing(t *testing.T) {
	for name, answer := range map[string]string{
		"cut in a line": "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port\n2 be 1 a-1 127.0",
		"no header":     "1\n", "empty": "", "another format": "2\n# x\n", "no numbers": "1\n# be_name srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_check_result srv_check_state srv_agent_state srv_fqdn srv_port\nbe a-1 - x x x x x x x - x\n",
		"refused": "[3]: Permission denied\n", "unknown": "[6]: Unknown command: 'show'\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := haproxytest.StartFake(t, "be/a-1", "be/b-1")
			i := run(t, Config{Socket: f.Socket})
			before := i.applied(toA)
			f.Answer("show servers state", answer)
			i.Set(toB)
			o, _ := i.until("failures", func(o Observation) bool { return o.Failures > 1 })
			if !o.Alive || states(o.Servers) != states(before.Servers) || o.Applied == 2 {
				t.Fatalf("%+v", o)
			}
			if log := f.Log(); len(log) != 1 {
				t.Fatalf("sent: %q", log)
			}
		})
	}
}

func TestBacklogFullIsAHang(t *testing.T) {
	p := start(t, 2)
	p.Signal(syscall.SIGSTOP)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for {
		c, err := net.Dial("unix", p.Socket)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	i := run(t, Config{Socket: p.Socket})
	i.Set(toA)
	o, d := i.until("hang", func(o Observation) bool { return o.Reason == ReasonHung })
	t.Logf("backlog of %d; after %v: %s", len(conns), d, o.Detail)
	for _, c := range conns {
		c.Close()
	}
	p.Signal(syscall.SIGCONT)
	i.until("applied", func(o Observation) bool { return o.Applied == 1 })
}

// `stats maxconn` (10 by default) counts all clients of all sockets. When others
// hold them all, HAProxy is not hung, and the connection that was held before
// still obeys.
func TestOthersHoldAllConnections(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	var conns []net.Conn
	for range 20 {
		c, err := net.Dial("unix", p.Socket)
		if err != nil {
			break
		}
		conns = append(conns, c)
	}
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	i.Set(toB)
	o, d := i.until("applied over the held connection", func(o Observation) bool { return o.Applied == 2 })
	t.Logf("after %v: %s %s", d, o.Reason, o.Detail)
	i.until("said so", func(o Observation) bool { return o.Alive && o.Reason == ReasonSocketGone })
	time.Sleep(300 * time.Millisecond)
	if o := i.Observed(); !o.Alive || o.Reason != ReasonSocketGone {
		t.Fatalf("%+v", o)
	}
	for _, c := range conns {
		c.Close()
	}
	i.until("all well", func(o Observation) bool { return o.Reason == "" })
}

func TestRemovedSocketLeavesTheHeldConnection(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	if err := os.Remove(p.Socket); err != nil {
		t.Fatal(err)
	}
	i.until("socket-unusable", func(o Observation) bool { return o.Alive && o.Reason == ReasonSocketGone })
	i.applied(toB)
	p.Signal(syscall.SIGKILL)
	i.until("death", gone)
}

func TestReplacedSocketIsAnotherProcess(t *testing.T) {
	p, other := start(t, 2), start(t, 2)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	if err := os.Rename(other.Socket, p.Socket); err != nil {
		t.Fatal(err)
	}
	i.until("the other as wanted", func(o Observation) bool { return o.PID == other.PID() && o.Applied == 1 })
}

func TestSocketWithoutPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: needs root, to become somebody who may not")
	}
	p := start(t, 1)
	if err := os.Chmod(p.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := syscall.Setfsuid(65534); err != nil {
			done <- err
			return
		}
		_, err := converse(t.Context(), p.Socket, time.Second, time.Second, nil, ahead{})
		done <- err
	}()
	err := <-done
	if err == nil {
		t.Fatal("it was let in")
	}
	f := classify(p.Socket, err)
	if f.Reason != ReasonPermission {
		t.Fatalf("%s: %v", f.Reason, f)
	}
	t.Log(f)
}

// HAProxy ends connections that are idle for `stats timeout`: that is no death.
func TestIdleTimeoutOfTheSocketIsNoDeath(t *testing.T) {
	config := strings.Replace(haproxytest.Global, "nbthread 2", "nbthread 2\n  stats timeout 300ms", 1)
	p := haproxytest.Start(t, config+haproxytest.Backend("be", 2))
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	for end := time.After(1500 * time.Millisecond); ; {
		select {
		case <-i.Changed():
			if o := i.Observed(); !o.Alive {
				t.Fatalf("%+v", o)
			}
			continue
		case <-end:
		}
		break
	}
}
