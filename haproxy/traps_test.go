package haproxy

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

// settled checks that HAProxy itself says what is wanted within the time since
// begin, and goes on saying so: nothing that was given up may come back. It says
// false, and why, if this machine stood still so that it cannot be told.
func settled(t *testing.T, p *haproxytest.Process, begin time.Time, within time.Duration, want string) bool {
	t.Helper()
	const (
		further = 300 * time.Millisecond // how much longer it must stay so
		looks   = 20                     // so many at least, after the time
		starved = 150 * time.Millisecond // a look and a pause that take so long measure the machine
	)
	var right, worst time.Duration
	wrong := ""
	for late := 0; late < looks || time.Since(begin) < within+further; {
		asked := time.Now()
		got := really(t, p)
		time.Sleep(5 * time.Millisecond)
		worst = max(worst, time.Since(asked)-5*time.Millisecond)
		if got == want && right == 0 {
			right = time.Since(begin)
		}
		if asked.Sub(begin) < within {
			continue
		}
		if late++; got != want {
			wrong = got
			break
		}
	}
	switch {
	case wrong == "":
		t.Logf("first right after %v", right)
		return true
	case worst > starved:
		t.Logf("NOT MEASURED: a look took %v on this machine", worst)
		return false
	}
	t.Fatalf("after %v, at %v:\nreally %s\nwant   %s", within, time.Since(begin), wrong, want)
	return false
}

const (
	onA = "be/a-1=none be/a-2=none be/b-1=FDRAIN be/b-2=FDRAIN"
	onB = "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=none be/b-2=none"
)

// measured repeats what came to nothing because this machine stood still.
func measured(t *testing.T, once func() bool) {
	t.Helper()
	for range 5 {
		if once() {
			return
		}
	}
	t.Fatal("NOT MEASURED: this machine stood still five times")
}

// talk is what a relay has seen of a conversation: the last change that the
// client sent, and the piece that is passing now.
type talk struct{ change, piece string }

// asked says whether the piece is a question of its own, behind that change.
func (k talk) readBack(change string) bool {
	return strings.Contains(k.change, change) && k.piece == askTable+"\n"
}

// freezing are the points at which a switch can be caught: each write of a
// conversation, and half of each kind of answer.
var freezing = []struct {
	name   string
	answer bool // half of a piece from HAProxy, else a piece to it
	at     func(talk) bool
}{
	{"an opening", false, func(k talk) bool { return k.piece == greet }},
	{"the questions over the held connection", false, func(k talk) bool { return k.piece == "show info\n"+askTable+"\n" }},
	{"ready", false, func(k talk) bool { return strings.Contains(k.piece, "state ready") }},
	{"the read-back of ready", false, func(k talk) bool { return k.readBack("state ready") }},
	{"drain", false, func(k talk) bool { return strings.Contains(k.piece, "state drain") }},
	{"the read-back of drain", false, func(k talk) bool { return k.readBack("state drain") }},
	{"the answer to show info", true, func(k talk) bool { return strings.Contains(k.piece, "Pid:") }},
	{"the answer to ready", true, func(k talk) bool {
		return strings.Contains(k.change, "state ready") && strings.Trim(k.piece, prompt) == ""
	}},
	{"the table after ready", true, func(k talk) bool {
		return strings.Contains(k.change, "state ready") && strings.HasPrefix(k.piece, tableStart)
	}},
	{"the answer to drain", true, func(k talk) bool {
		return strings.Contains(k.change, "state drain") && strings.Trim(k.piece, prompt) == ""
	}},
}

// HAProxy freezes at each point of a conversation while a switch is under way,
// the decision is taken back meanwhile, and it wakes. Asserted is: a second after
// it woke, by a clock that starts before, its table is that of the last decision,
// and is so in each of at least 20 further looks past tandem, over 0.3 s.
// What happens within that second is not asserted: commands that were in its
// queue are carried out first.
func TestFreezeAtEveryPointOfAConversation(t *testing.T) {
	for _, point := range freezing {
		places := []string{"before", "after"}
		if point.answer {
			places = []string{"half of"}
		}
		for _, place := range places {
			t.Run(place+" "+point.name, func(t *testing.T) {
				t.Parallel()
				measured(t, func() bool { return freezeAndTakeBack(t, place, point.answer, point.at) })
			})
		}
	}
}

func freezeAndTakeBack(t *testing.T, place string, answer bool, at func(talk) bool) (told bool) {
	t.Helper()
	p := start(t, 2)
	relay := haproxytest.StartRelay(t, p.Socket)
	i := run(t, Config{Socket: relay.Socket, Timeout: 150 * time.Millisecond})
	defer i.stop()
	i.applied(toA)

	var mu sync.Mutex
	var once sync.Once
	seen := talk{}
	frozen, woken := make(chan struct{}), make(chan struct{})
	wake := sync.OnceFunc(func() { close(woken) })
	defer wake() // else the relay would wait for ever
	freeze := func() {
		once.Do(func() {
			p.Signal(syscall.SIGSTOP)
			close(frozen)
		})
	}
	look := func(piece string, sent bool) bool {
		mu.Lock()
		defer mu.Unlock()
		seen.piece = piece
		found := sent != answer && at(seen)
		if sent && strings.HasPrefix(piece, "set server ") {
			seen.change = piece
		}
		return found
	}
	relay.Before(func(piece string) {
		switch found := look(piece, true); {
		case found && place == "after":
			time.AfterFunc(50*time.Microsecond, freeze)
		case found:
			freeze()
		}
	})
	relay.Half(func(piece string) {
		if look(piece, false) {
			freeze()
			<-woken
		}
	})
	i.Set(toB)
	select {
	case <-frozen:
	case <-time.After(patience):
		t.Fatal("the conversation never came to this point")
	}
	i.until("hang", gone)
	i.Set(Desired{Epoch: 7, Rules: toA.Rules})
	begin := time.Now()
	p.Signal(syscall.SIGCONT)
	wake()
	told = settled(t, p, begin, time.Second, onA)
	i.until("taken back", func(o Observation) bool { return o.Applied == 7 })
	return told
}

// HAProxy freezes when it is to shut the sessions on the site that was drained.
// The decision is taken back, and it wakes: it shuts them all the same, which
// nobody can undo. Asserted is that nothing is shut after that, and that the
// table is that of the last decision within a second.
func TestFreezeBeforeSessionsAreShut(t *testing.T) {
	measured(t, func() bool {
		url, p := hangingSite(t)
		relay := haproxytest.StartRelay(t, p.Socket)
		i := run(t, Config{Socket: relay.Socket, Timeout: 150 * time.Millisecond})
		defer i.stop()
		i.applied(toA)
		first := request(t, p, url, 1)
		var once sync.Once
		var shut atomic.Int32
		frozen := make(chan struct{})
		relay.Before(func(piece string) {
			if strings.HasPrefix(piece, "shutdown sessions server be/a-1\n") {
				shut.Add(1)
				once.Do(func() {
					p.Signal(syscall.SIGSTOP)
					close(frozen)
				})
			}
		})
		i.Set(Desired{Epoch: 3, Rules: []Rule{toB.Rules[0], {Pattern: "*/a-*", Want: Drain, Close: true}}})
		select {
		case <-frozen:
		case <-time.After(patience):
			t.Fatal("no session was to be shut")
		}
		i.until("hang", gone)
		i.Set(Desired{Epoch: 7, Rules: toA.Rules})
		begin := time.Now()
		p.Signal(syscall.SIGCONT)
		if code := <-first; code != http.StatusBadGateway && code != 0 {
			t.Fatalf("answer %d", code)
		}
		i.until("taken back", func(o Observation) bool { return o.Applied == 7 })
		second := request(t, p, url, 1)
		told := settled(t, p, begin, time.Second, "be/a-1=none be/b-1=FDRAIN")
		select {
		case code := <-second:
			t.Fatalf("a session that came after the decision was taken back ended: %d", code)
		default:
		}
		if n := shut.Load(); n != 1 {
			t.Fatalf("sent %d times", n)
		}
		return told
	})
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
		"master, not a worker":   {func(c net.Conn) { read(c); _, _ = c.Write([]byte("\nmaster> ")); read(c) }, []Reason{ReasonBadAnswer}},
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
	// The next has a socket of another level, which is asked for anew.
	lower := haproxytest.Start(t, strings.Replace(haproxytest.Global, "level admin", "level operator", 1)+haproxytest.Backend("be", 2))
	if err := os.Rename(lower.Socket, p.Socket); err != nil {
		t.Fatal(err)
	}
	o, _ := i.until("the next, and its level", func(o Observation) bool { return o.PID == lower.PID() && len(o.Pending) == 2 })
	if o.Level != "operator" || o.Reason != ReasonNotAdmin {
		t.Errorf("%+v", o)
	}
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
// The held connection is asked every 80 ms, so that it is idle for longer here.
// HAProxy 2.6.12 ends but some, of those that have asked only once (measured), so
// the relay does it to all besides.
func TestIdleTimeoutOfTheSocketIsNoDeath(t *testing.T) {
	const idle = 50 * time.Millisecond
	config := strings.Replace(haproxytest.Global, "nbthread 2", "nbthread 2\n  stats timeout 50ms", 1) + haproxytest.Backend("be", 2)
	t.Run("HAProxy's own", func(t *testing.T) {
		measured(t, func() bool { return aliveWhileEnded(t, haproxytest.Start(t, config), 0, 2) })
	})
	t.Run("of all", func(t *testing.T) {
		measured(t, func() bool { return aliveWhileEnded(t, start(t, 2), idle, 10) })
	})
}

// aliveWhileEnded checks that HAProxy counts as alive all the while until so many
// connections have been ended by it, or by the relay when they were idle.
func aliveWhileEnded(t *testing.T, p *haproxytest.Process, idle time.Duration, ends int) (told bool) {
	t.Helper()
	relay := haproxytest.StartRelay(t, p.Socket)
	relay.EndIdle(idle)
	i := run(t, Config{Socket: relay.Socket})
	defer i.stop()
	i.applied(toA)
	before := relay.Ended()
	var worst time.Duration
	for begin := time.Now(); relay.Ended()-before < ends; {
		if time.Since(begin) > patience {
			t.Fatalf("%d connections were ended: this tests nothing", relay.Ended()-before)
		}
		asleep := time.Now()
		select {
		case <-i.Changed():
		case <-time.After(5 * time.Millisecond):
			worst = max(worst, time.Since(asleep)-5*time.Millisecond)
		}
		if o := i.Observed(); !o.Alive {
			// What has ended must be answered afresh within endGrace.
			if worst > endGrace/2 {
				t.Logf("NOT MEASURED: this machine stood still for %v", worst)
				return false
			}
			t.Fatalf("%+v", o)
		}
	}
	if o := i.Observed(); o.Processes != 1 || o.Applied != toA.Epoch {
		t.Errorf("%+v", o)
	}
	return true
}

// A socket whose mode is changed while tandem runs: what is held open still obeys,
// and the status says what is wrong. When HAProxy dies then, it is said to be
// closed, and all is well when the mode is.
func TestThePermissionOfTheSocketIsTakenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: needs root, to become somebody who may not")
	}
	const nobody = 65534
	p := start(t, 2)
	mode := func(m os.FileMode) {
		t.Helper()
		if err := errors.Join(os.Chmod(p.Dir, 0o755), os.Chown(p.Socket, nobody, nobody), os.Chmod(p.Socket, m)); err != nil {
			t.Fatal(err)
		}
	}
	mode(0o600)
	_, input, output := asUser(t, nobody, keepVariable, p.Socket)
	until := func(words ...string) {
		t.Helper()
		missing := func(line string) bool {
			return slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		}
		for line := ""; line == "" || missing(line); {
			var err error
			if line, err = output.ReadString('\n'); err != nil {
				t.Fatalf("waited in vain for %q: %v", words, err)
			}
			t.Log(strings.TrimSpace(line))
		}
	}
	until("alive=true applied=1")
	mode(0)
	until("alive=true applied=1 socket-unusable: not allowed to open", "set its mode", "permission denied")
	if _, err := input.Write([]byte("b")); err != nil {
		t.Fatal(err)
	}
	until("alive=true applied=2 socket-unusable")
	if got := really(t, p); got != onB {
		t.Error(got)
	}
	mode(0o600)
	until("alive=true applied=2 :")
	mode(0)
	until("alive=true applied=2 socket-unusable")
	p.Signal(syscall.SIGKILL)
	until("alive=false applied=0 permission-denied")
	<-p.Exited()
	p.Start()
	mode(0o600)
	until("alive=true applied=2 :")
	if got := really(t, p); got != onB {
		t.Error(got)
	}
}
