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

func TestReloadedInMidBatch(t *testing.T) {
	p := large(t)
	relay := haproxytest.StartRelay(t, p.Socket)
	i := run(t, Config{Socket: relay.Socket, StateFile: filepath.Join(p.Dir, "state")})
	i.applied(toA)
	old := p.PID()
	reloaded := make(chan struct{})
	interrupt(relay, func() {
		go func() {
			p.Reload()
			close(reloaded)
		}()
		time.Sleep(20 * time.Millisecond)
	})
	i.Set(toB)
	<-reloaded
	i.until("all as wanted", func(o Observation) bool { return wholeOnB(o) && o.PID == p.PID() })
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

func TestMasterReloadLeavesNoOldWorker(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 500))
	p.StartMaster()
	i := run(t, Config{Socket: p.Socket, StateFile: filepath.Join(p.Dir, "state")})
	i.applied(toA)
	worker := i.Observed().PID
	i.Set(toB)
	p.Signal(syscall.SIGUSR2) // in mid-batch
	i.until("the new worker as wanted", func(o Observation) bool { return o.PID != worker && o.Applied == 2 })
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
