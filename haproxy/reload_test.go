package haproxy

import (
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

func large(t *testing.T) *haproxytest.Process {
	t.Helper()
	return haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("be", 1000))
}

func count(servers []Server, drained bool, prefix string) (n int) {
	for _, s := range servers {
		if strings.HasPrefix(s.Server, prefix) && s.Drained() == drained {
			n++
		}
	}
	return n
}

// interrupt calls a function when a switch of 1,000 servers is half sent.
func interrupt(relay *haproxytest.Relay, do func()) {
	var once sync.Once
	pieces := 0
	relay.Before(func(piece string) {
		if strings.Contains(piece, "state drain") {
			if pieces++; pieces == 2 {
				once.Do(do)
			}
		}
	})
}

func wholeOnB(o Observation) bool {
	return o.Applied == 2 && count(o.Servers, false, "b-") == 1000 && count(o.Servers, true, "a-") == 1000
}

func TestKilledInMidBatchAndStartedAgain(t *testing.T) {
	p := large(t)
	relay := haproxytest.StartRelay(t, p.Socket)
	i := run(t, Config{Socket: relay.Socket, StateFile: filepath.Join(p.Dir, "state")})
	i.applied(toA)
	interrupt(relay, func() { p.Signal(syscall.SIGKILL) })
	i.Set(toB)
	i.until("death", gone)
	p.Start()
	i.until("all as wanted", func(o Observation) bool { return wholeOnB(o) && o.PID == p.PID() })
}

// reloadInMidBatch has HAProxy reloaded when a switch is half sent. The rest is
// passed on when the new process answers, so that it meets the old one, which
// refuses it: its proxies are stopped.
func reloadInMidBatch(t *testing.T, p *haproxytest.Process, reload func()) *running {
	t.Helper()
	relay := haproxytest.StartRelay(t, p.Socket)
	i := run(t, Config{Socket: relay.Socket, StateFile: filepath.Join(p.Dir, "state"), Timeout: 10 * time.Second})
	before := i.applied(toA)
	reloaded := make(chan []Server, 1)
	interrupt(relay, func() {
		reload()
		// The old one may need up to a second to notice; 2.6.0 does not say when.
		stops := func(log string) bool {
			return strings.Contains(log, "Proxy be stopped") || strings.Contains(log, "Stopping backend be")
		}
		for end := time.Now().Add(1500 * time.Millisecond); !stops(p.Log()) && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		}
		raw, err := p.Ask(askTable)
		if err != nil {
			t.Errorf("the new process: %v", err)
		}
		table, err := ParseServers(strings.TrimSuffix(raw, "\n"), nil)
		if err != nil {
			t.Errorf("the new process: %v", err)
		}
		reloaded <- table
	})
	i.Set(toB)
	select {
	case table := <-reloaded:
		if n := count(table, true, "a-"); n == 1000 {
			t.Fatal("all was sent already: not in mid-batch")
		}
	case <-time.After(patience):
		t.Fatal("no reload")
	}
	o, _ := i.until("all as wanted", func(o Observation) bool { return wholeOnB(o) && o.PID != before.PID })
	switch refused := o.Failures - before.Failures; {
	case refused > 0:
		t.Logf("%d commands refused by the old process", refused)
	case strings.HasPrefix(o.Version, "2.6.0"):
		t.Log("this old process obeys, though it is stopping")
	default:
		t.Error("no command met the old process")
	}
	return i
}

func TestReloadedInMidBatch(t *testing.T) {
	p := large(t)
	old := p.PID()
	reloadInMidBatch(t, p, func() { p.Reload() })
	gonePID(t, old)
}

func gonePID(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the old process is still there: a connection of ours keeps it")
		}
	}
}

// answering is the pid of the process that answers at the socket.
func answering(p *haproxytest.Process) int {
	answer, err := p.Ask("show info")
	if err != nil {
		return 0
	}
	info, _ := ParseInfo(answer)
	return info.PID
}

func TestMasterReloadLeavesNoOldWorker(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 1000))
	p.StartMaster()
	worker := answering(p)
	reloadInMidBatch(t, p, func() {
		p.Signal(syscall.SIGUSR2)
		for end := time.Now().Add(patience); answering(p) == worker || answering(p) == 0; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Error("no new worker")
				return
			}
		}
	})
	var answer string
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, _ = haproxytest.AskWithin(p.Master(), "show proc", 100*time.Millisecond)
		if _, old, found := strings.Cut(answer, "# old workers\n"); strings.Contains(answer, "# workers") && (!found || !strings.Contains(strings.Split(old, "#")[0], "worker")) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("an old worker is kept:\n%s", answer)
		}
	}
	t.Logf("\n%s", answer)
}

// In master-worker mode the master keeps the socket open when its worker dies:
// connections are accepted by nobody, and the end of the held one is all there is.
func TestDeathOfAWorkerUnderItsMaster(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 2))
	p.StartMaster()
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	time.Sleep(20 * time.Millisecond)
	if err := syscall.Kill(i.Observed().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	o, d := i.until("death", gone)
	t.Logf("after %v: %s: %s", d, o.Reason, o.Detail)
	if d > 250*time.Millisecond {
		t.Errorf("noticed after %v", d)
	}
}

// Before 2.5 a worker lists the workers of its master among its servers. No
// pattern covers them, and no command goes there.
func TestTheMastersWorkersAreNoServers(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 1))
	p.StartMaster()
	t.Logf("\n%s", p.Do("show servers state"))
	i := run(t, Config{Socket: p.Socket})
	o := i.applied(Desired{Epoch: 1, Rules: []Rule{{Pattern: "*/*", Want: Drain}}})
	if got := states(o.Servers); got != "be/a-1=FDRAIN be/b-1=FDRAIN" || o.Changes != 2 {
		t.Errorf("%s, %d commands", got, o.Changes)
	}
	if raw := p.Do("show servers state"); strings.Contains(raw, master) && !strings.Contains(raw, master+" 1 cur-1 - 2 0 ") {
		t.Errorf("\n%s", raw)
	}
}
