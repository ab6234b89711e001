package haproxy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"tandem/haproxy/haproxytest"
)

// patience is how long a test waits for what must come; how soon it must come is
// asserted separately.
const patience = 20 * time.Second

var (
	toA = Desired{Epoch: 1, Rules: []Rule{{Pattern: "*/a-*", Want: Ready}, {Pattern: "*/b-*", Want: Drain}}}
	toB = Desired{Epoch: 2, Rules: []Rule{{Pattern: "*/b-*", Want: Ready}, {Pattern: "*/a-*", Want: Drain}}}
)

// running is an Instance under test.
type running struct {
	*Instance
	t    *testing.T
	stop func()
}

func run(t *testing.T, cfg Config) *running {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = zaptest.NewLogger(t)
	}
	i := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("run does not end")
		}
	}
	t.Cleanup(stop)
	return &running{i, t, stop}
}

// until waits for an observation and returns it, with how long that took.
func (r *running) until(what string, ok func(Observation) bool) (Observation, time.Duration) {
	r.t.Helper()
	start := time.Now()
	end := time.After(patience)
	for {
		if o := r.Observed(); ok(o) {
			return o, time.Since(start)
		}
		select {
		case <-r.Changed():
		case <-end:
			o := r.Observed()
			r.t.Fatalf("waited in vain for: %s\n%+v", what, o)
		}
	}
}

func (r *running) applied(d Desired) Observation {
	r.t.Helper()
	r.Set(d)
	o, _ := r.until(fmt.Sprintf("epoch %d applied", d.Epoch), func(o Observation) bool { return o.Applied == d.Epoch })
	return o
}

func alive(o Observation) bool { return o.Alive }
func gone(o Observation) bool  { return !o.Alive }

// states prints the servers as backend/server=admin, for comparison.
func states(servers []Server) string {
	var words []string
	for _, s := range servers {
		words = append(words, s.String()+"="+s.Admin.String())
	}
	return strings.Join(words, " ")
}

// really asks HAProxy itself, past everything under test.
func really(t *testing.T, p *haproxytest.Process) string {
	t.Helper()
	servers, err := ParseServers(strings.TrimSuffix(p.Do("show servers state"), "\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return states(servers)
}

func start(t *testing.T, servers int) *haproxytest.Process {
	t.Helper()
	return haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("be", servers))
}

func TestAppliesWhatIsWanted(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket})
	o := i.applied(toA)
	if want := "be/a-1=none be/a-2=none be/b-1=FDRAIN be/b-2=FDRAIN"; states(o.Servers) != want || really(t, p) != want {
		t.Fatalf("observed %s\nreally   %s\nwant     %s", states(o.Servers), really(t, p), want)
	}
	o = i.applied(toB)
	if want := "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=none be/b-2=none"; states(o.Servers) != want || really(t, p) != want {
		t.Fatalf("observed %s\nreally   %s\nwant     %s", states(o.Servers), really(t, p), want)
	}
	if o.Version == "" || o.PID != p.PID() || o.Level != "admin" || o.Started.IsZero() && p.AtLeast(2, 5) || o.Reason != "" {
		t.Fatalf("facts of the process: %+v", o)
	}
}

func TestDeathIsNoticedAtOnce(t *testing.T) {
	var took []time.Duration
	for range 5 {
		p := start(t, 1)
		i := run(t, Config{Socket: p.Socket})
		i.applied(toA)
		time.Sleep(30 * time.Millisecond)
		p.Signal(syscall.SIGKILL)
		o, d := i.until("death", gone)
		took = append(took, d)
		if o.Reason != ReasonRefused && o.Reason != ReasonDied {
			t.Errorf("reason %s", o.Reason)
		}
		if o.Applied != 0 {
			t.Errorf("applied %d although it is gone", o.Applied)
		}
		i.stop()
	}
	slices.Sort(took)
	t.Logf("noticed after %v", took)
	if took[0] > 25*time.Millisecond {
		t.Errorf("death noticed after %v at best", took[0])
	}
}

func TestHangIsNoticedWithinTimeoutAndAPoll(t *testing.T) {
	p := start(t, 1)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	p.Signal(syscall.SIGSTOP)
	defer p.Signal(syscall.SIGCONT)
	o, d := i.until("hang", gone)
	t.Logf("noticed after %v: %s", d, o.Detail)
	if o.Reason != ReasonHung {
		t.Errorf("reason %s", o.Reason)
	}
	if d < 200*time.Millisecond || d > time.Second { // a machine that stands still is given another look
		t.Errorf("noticed after %v", d)
	}
	p.Signal(syscall.SIGCONT)
	_, d = i.until("recovery", alive)
	t.Logf("recovered after %v", d)
}

func TestEveryAbsenceHasItsReason(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	p := haproxytest.New(t, haproxytest.Global+"  \n"+haproxytest.Backend("be", 1))
	cases := []struct {
		name   string
		before func() string
		reason Reason
	}{
		{"no socket", func() string { return filepath.Join(dir, "nothing") }, ReasonNoSocket},
		{"nobody listens", func() string {
			if err := os.WriteFile(dead, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return dead
		}, ReasonRefused},
		{"not yet started", func() string { return p.Socket }, ReasonNoSocket},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			i := run(t, Config{Socket: c.before()})
			i.Set(toA)
			o, _ := i.until(c.name, func(o Observation) bool { return o.Reason == c.reason })
			if o.Alive || o.Detail == "" {
				t.Fatalf("%+v", o)
			}
			t.Log(o.Detail)
		})
	}
	t.Run("and it keeps trying", func(t *testing.T) {
		i := run(t, Config{Socket: p.Socket})
		i.Set(toA)
		i.until("absent", func(o Observation) bool { return o.Reason == ReasonNoSocket })
		p.Start()
		i.until("applied", func(o Observation) bool { return o.Applied == 1 })
	})
}

func TestLevelsBelowAdminAreAliveAndSaidSo(t *testing.T) {
	for _, level := range []string{"user", "operator"} {
		t.Run(level, func(t *testing.T) {
			p := haproxytest.Start(t, strings.Replace(haproxytest.Global, "level admin", "level "+level, 1)+haproxytest.Backend("be", 1))
			i := run(t, Config{Socket: p.Socket})
			i.Set(toA)
			o, _ := i.until("not-admin", func(o Observation) bool {
				return o.Reason == ReasonNotAdmin && len(o.Servers) == 2 && len(o.Pending) > 0
			})
			if !o.Alive || o.Level != level || o.Applied != 0 || len(o.Pending) != 1 {
				t.Fatalf("%+v", o)
			}
		})
	}
}

func TestReloadWithoutStateFileIsPutRight(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toB)
	old := p.PID()
	p.Reload()
	o, d := i.until("the new process as wanted", func(o Observation) bool { return o.PID == p.PID() && o.Applied == 2 })
	t.Logf("after %v", d)
	if want := "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=none be/b-2=none"; really(t, p) != want {
		t.Fatalf("really %s", really(t, p))
	}
	if o.Processes != 2 {
		t.Errorf("%d processes seen", o.Processes)
	}
	// The connection that was held must not keep the old process alive.
	end := time.Now().Add(3 * time.Second)
	for syscall.Kill(old, 0) == nil {
		if time.Now().After(end) {
			t.Fatal("the old process is still there: a connection of ours keeps it")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestObserveModeTouchesNothing(t *testing.T) {
	p := start(t, 1)
	before := really(t, p)
	i := run(t, Config{Socket: p.Socket, Observe: true, StateFile: filepath.Join(p.Dir, "state"), JournalFile: filepath.Join(p.Dir, "journal")})
	i.Set(toA)
	o, _ := i.until("pending", func(o Observation) bool { return len(o.Pending) == 1 })
	if got := o.Pending[0].String(); got != "set server be/b-1 state drain" {
		t.Errorf("pending %s", got)
	}
	i.stop()
	if after := really(t, p); after != before {
		t.Errorf("before %s after %s", before, after)
	}
	for _, name := range []string{"state", "journal"} {
		if _, err := os.Stat(filepath.Join(p.Dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s was written: %v", name, err)
		}
	}
}

func TestBusyMachineIsNoFailure(t *testing.T) {
	p := start(t, 10)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var busy []*exec.Cmd
	for range 4 {
		c := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		busy = append(busy, c)
	}
	for end := time.After(2 * time.Second); ; {
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
	cancel()
	for _, c := range busy {
		_ = c.Wait() // killed
	}
}

func TestRecoveryOfTheSameProcessIsAppliedAgain(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket, Timeout: 150 * time.Millisecond})
	i.applied(toA)
	for range 5 {
		p.Signal(syscall.SIGSTOP)
		i.until("hang", gone)
		p.Signal(syscall.SIGCONT)
		i.until("applied", func(o Observation) bool { return o.Applied == 1 })
	}
}

func TestInstanceKeepsTheMap(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 1)+"  http-request set-header X-Site %[str(default),map({dir}/site.map,none)]\n")
	path := filepath.Join(p.Dir, "site.map")
	if err := os.WriteFile(path, []byte("default none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	i := run(t, Config{Socket: p.Socket, MapFile: path})
	d := toA
	d.Map = map[string]string{"default": "a"}
	i.Set(d)
	i.until("map and servers", func(o Observation) bool { return o.Map.Current && o.Applied == 1 })
	if got := p.Do("get map " + path + " default"); !strings.Contains(got, `value="a"`) {
		t.Fatal(got)
	}
}

// A fault that stays is tried again at the pace of the watch, not as fast as the
// machine can.
func TestLastingFaultIsNoBusyLoop(t *testing.T) {
	f := haproxytest.StartFake(t, "be/a-1")
	f.Answer("show servers state", "1\n")
	i := run(t, Config{Socket: f.Socket})
	i.Set(toA)
	time.Sleep(500 * time.Millisecond)
	if o := i.Observed(); o.Failures == 0 || o.Failures > 60 {
		t.Errorf("%d failures in half a second", o.Failures)
	}
}

// One server that will not become ready does not keep the other site routed.
func TestReadyThatDoesNotStickKeepsNoDrainBack(t *testing.T) {
	f := haproxytest.StartFake(t, "be/a-1", "be/b-1", "be/b-2")
	i := run(t, Config{Socket: f.Socket})
	i.applied(toA)
	f.Answer("set server be/b-1 state ready", "[3]: No such server.\n")
	i.Set(toB)
	o, _ := i.until("a drained", func(o Observation) bool { return len(o.Servers) == 3 && o.Servers[0].Admin == FDrain })
	if o.Applied == 2 {
		t.Errorf("applied, although b-1 is not ready: %s", states(o.Servers))
	}
}
