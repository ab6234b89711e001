package haproxy

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

// Each command of a batch has its own answer, and a refusal is found wherever it
// stands, also that of an unknown command, which HAProxy calls mere information.
func TestEachRefusalIsFoundInABatch(t *testing.T) {
	p := start(t, 2)
	c := open(t, p.Socket)
	commands := []string{
		"set server be/a-1 state drain",
		"set server be/nosuch state drain",
		"set server nosuch/a-1 state drain",
		"set server be/a-2 state drain",
		"set server be/a-1 state bogus",
		"nonsense",
		"set server be/b-1 state drain",
	}
	complaints, err := c.send(commands)
	if err != nil {
		t.Fatal(err)
	}
	var refused []string
	for _, complaint := range complaints {
		refused = append(refused, complaint.Command)
		if complaint.Text == "" || complaint.Command != "nonsense" && !strings.HasPrefix(complaint.Text, "[3]: ") {
			t.Errorf("%+v", complaint)
		}
	}
	if want := []string{commands[1], commands[2], commands[4], commands[5]}; !slices.Equal(refused, want) {
		t.Errorf("refused: %q", refused)
	}
	if got := really(t, p); got != "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=FDRAIN be/b-2=none" {
		t.Error(got)
	}
}

// HAProxy 3.2.0 takes nothing more, and answers nothing more, once its buffer of 16 KB
// has been full. So less than that is under way before it has answered.
func TestNoMoreIsUnderWayThanHAProxyTakes(t *testing.T) {
	ours, its := net.Pipe()
	heard := make(chan int, 1)
	go func() {
		n, _ := io.Copy(io.Discard, its) // and never a word
		heard <- int(n)
	}()
	c := &conversation{conn: ours, silence: 100 * time.Millisecond, until: time.Now().Add(patience), limit: maxReply, numbered: true}
	var commands []string
	for range 10000 {
		commands = append(commands, Command{ServerID{"be", "a-1"}, Drain}.String())
	}
	if _, err := c.send(commands); err == nil {
		t.Fatal("nobody answered, and that is no error")
	}
	_ = ours.Close()
	if n := <-heard; n > 12<<10 || n < batchBytes {
		t.Errorf("%d bytes were under way", n)
	}
	_ = its.Close()
	rest := commands
	for next := 0; next < len(commands); {
		batch, n := batchOf(commands, next)
		if n <= next || batch != strings.Join(rest[:n-next], "\n")+"\n" {
			t.Fatalf("from %d to %d: %q", next, n, batch)
		}
		rest, next = rest[n-next:], n
	}
}

// What tandem refuses as a name, HAProxy refuses too, or reads as something else;
// what tandem allows, HAProxy allows.
func TestNamesAreThoseThatHAProxyAllows(t *testing.T) {
	binary := haproxytest.Binary(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "haproxy.cfg")
	global := strings.NewReplacer("{socket}", filepath.Join(dir, "s"), "{dir}", dir).Replace(haproxytest.Global)
	accepts := func(name string) bool {
		t.Helper()
		if err := os.WriteFile(path, []byte(global+"backend be\n  server "+name+" 127.0.0.1:9\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.CommandContext(t.Context(), binary, "-c", "-f", path).Run() == nil
	}
	if name := "aZ09_.:-"; !accepts(name) || !(ServerID{"be", name}).Valid() {
		t.Errorf("%q is refused", name)
	}
	for _, bad := range []string{" ", ";", "/", "#", "\\", "\n", "é", "*", "?", "%", "="} {
		if name := "a" + bad + "b"; accepts(name) || (ServerID{"be", name}).Valid() {
			t.Errorf("%q is allowed", name)
		}
	}
}

// A drain leaves the checks running: the death of a drained server is seen, its
// last check before that, and its return. One that is dead and made ready stays
// down, and gets no request.
func TestADrainedServerIsStillChecked(t *testing.T) {
	port := haproxytest.Ports(t, 2)
	p := haproxytest.Start(t, haproxytest.Global+"frontend f\n  bind 127.0.0.1:"+port[0]+"\n  default_backend be\nbackend be\n  retries 0\n"+
		"  server a-1 "+serveSite(t, "a")+" check inter 100ms fall 3 rise 1\n  server b-1 127.0.0.1:"+port[1]+" check inter 100ms fall 3 rise 1\n")
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	down := func(o Observation) bool {
		s := serverOf(o, "b-1")
		return s.Drained() && !s.Up && s.Oper == OperStopped
	}
	i.until("dead and drained", down)

	var requests atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:"+port[1])
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { requests.Add(1); _, _ = io.WriteString(w, "b") })}
	served := make(chan struct{})
	go func() { _ = server.Serve(l); close(served) }()
	stop := sync.OnceFunc(func() { _ = server.Close(); <-served })
	t.Cleanup(stop)
	i.until("alive and drained", func(o Observation) bool { s := serverOf(o, "b-1"); return s.Drained() && s.Up })
	stop()
	i.until("its last check failed", func(o Observation) bool { return serverOf(o, "b-1").Failing })
	i.until("dead again", down)

	for n, d := range []Desired{toB, toA, toB} { // made ready it is as dead as before
		d.Epoch = uint64(10 + n)
		if s := serverOf(i.applied(d), "b-1"); s.Up {
			t.Fatalf("step %d: it is said to be up: %+v", n, s)
		}
	}
	resp, err := http.Get("http://127.0.0.1:" + port[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable { // 503 at once: nobody was tried
		t.Errorf("answered %d", resp.StatusCode)
	}
}

// A HAProxy that is told to stop when its clients have gone (SIGUSR1), or at once
// (SIGTERM), serves nobody new: it is not alive, and no connection of tandem's
// keeps it.
func TestASoftStopIsNoticed(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"SIGUSR1": syscall.SIGUSR1, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			p := start(t, 2)
			i := run(t, Config{Socket: p.Socket})
			i.applied(toA)
			p.Signal(sig)
			o, d := i.until("its end", gone)
			t.Logf("after %v: %s: %s", d, o.Reason, o.Detail)
			if o.Applied != 0 || o.Detail == "" {
				t.Errorf("%+v", o)
			}
			select {
			case <-p.Exited():
			case <-time.After(patience):
				t.Fatal("a connection of ours keeps it")
			}
			p.Start()
			i.until("the next as wanted", func(o Observation) bool { return o.PID == p.PID() && o.Applied == 1 })
		})
	}
}

// With a request under way it goes on for that one alone.
func TestASoftStopWithARequestUnderWay(t *testing.T) {
	c := startLong(t)
	i := run(t, Config{Socket: c.p.Socket})
	i.applied(toA)
	answer := c.ask("a-1", "1")
	c.p.Signal(syscall.SIGUSR1)
	o, d := i.until("its end", gone)
	t.Logf("after %v: %s: %s", d, o.Reason, o.Detail)
	time.Sleep(500 * time.Millisecond)
	if o := i.Observed(); o.Alive {
		t.Errorf("%+v", o)
	}
	select {
	case <-c.p.Exited():
		t.Fatal("it did not wait for the request: this tests nothing")
	case code := <-answer:
		t.Fatalf("the request ended with %d", code)
	default:
	}
}

// Nothing else is ever sent. `set maxconn frontend`, which kills HAProxy 2.6.12, is
// not among it, nor anything that ends or sets maintenance, a weight or health.
var sent = regexp.MustCompile(`^(prompt|show info|show cli level|set severity-output number|show servers state|show stat (-1|be) [124] -1` +
	`|set server be/[ab]-\d+ state (ready|drain)|shutdown sessions server be/a-\d+` +
	// client-native's, for the map:
	`|set severity-output number;show map .*|show map .*|set map \S+ default [ab]|set severity-output number;set map \S+ default [ab]` +
	`|(set severity-output number;)?add map \S+ <<|default [ab]|)$`)

func TestOnlyTheseCommandsAreSent(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 2)+"  http-request set-header X-Site %[str(default),map({dir}/site.map,none)]\n")
	siteMap := filepath.Join(p.Dir, "site.map")
	if err := os.WriteFile(siteMap, []byte("default none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	relay := haproxytest.StartRelay(t, p.Socket)
	var mu sync.Mutex
	lines := map[string]int{}
	relay.Before(func(piece string) {
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.Lines(piece) {
			lines[strings.TrimSuffix(line, "\n")]++
		}
	})
	i := run(t, Config{Socket: relay.Socket, MapFile: siteMap, StateFile: filepath.Join(p.Dir, "state"), JournalFile: filepath.Join(p.Dir, "journal")})
	person := []string{"set server be/a-1 state maint", "set server be/b-1 weight 0", "set server be/b-2 state ready", "set server be/a-1 state ready"}
	for n, d := range []Desired{toA, closing(2), toA, closing(4)} {
		d.Epoch = uint64(n + 1)
		d.Map = map[string]string{"default": []string{"a", "b"}[n%2]}
		i.Set(d)
		i.until("applied", func(o Observation) bool { return o.Applied == d.Epoch && o.Map.Current })
		p.Do(person[n])
		if n == 1 {
			p.Reload()
			i.until("the next process", func(o Observation) bool { return o.PID == p.PID() && o.Applied == d.Epoch })
		}
	}
	time.Sleep(2 * closeEvery) // whatever is done once a second
	mu.Lock()
	defer mu.Unlock()
	for line, times := range lines {
		if !sent.MatchString(line) {
			t.Errorf("%d times: %q", times, line)
		}
	}
	for _, line := range []string{"set server be/b-2 state drain", "set server be/b-2 state ready", "show stat be 4 -1", "show servers state"} {
		if lines[line] == 0 {
			t.Errorf("%q was never sent: this tests nothing", line)
		}
	}
}

// The socket of a master process has no servers. Whoever names it is told so.
func TestAMastersSocketIsSaidToBeOne(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 1))
	p.StartMaster()
	i := run(t, Config{Socket: p.Master()})
	i.Set(toA)
	o, _ := i.until("said", func(o Observation) bool { return o.Reason == ReasonBadAnswer })
	if o.Alive || !strings.Contains(o.Detail, "master process") {
		t.Errorf("%+v", o)
	}
	if got := really(t, p); !strings.HasPrefix(got, "be/a-1=none be/b-1=none") {
		t.Error(got)
	}
}
