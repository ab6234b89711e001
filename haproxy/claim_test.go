package haproxy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

// claimed has another process take the claim on a socket, as a user, until the
// returned function is called.
func claimed(t *testing.T, socket string, user uint32) (pid int, end func()) {
	t.Helper()
	name, _, err := claimName(socket)
	if err != nil {
		t.Fatal(err)
	}
	process, input, output := asUser(t, user, claimVariable, name)
	if said, err := output.ReadString('\n'); said != "taken\n" {
		t.Fatalf("%q %v", said, err)
	}
	return process.Pid, func() {
		_ = input.Close()
		_, _ = output.ReadString('\n') // its end
	}
}

func rivalOf(o Observation) string {
	for _, w := range o.Warnings {
		if w.Kind == WarnRival {
			return w.Detail
		}
	}
	return ""
}

// Two tandems at one HAProxy would each take the other's drains for a person's.
// The second changes nothing, at HAProxy or on disk, says who is before it, and
// takes over when that one ends.
func TestTwoTandemsAtOneHAProxy(t *testing.T) {
	p := haproxytest.New(t, haproxytest.Global+haproxytest.Backend("be", 2)+"  http-request set-header X-Site %[str(default),map({dir}/site.map,none)]\n")
	siteMap := filepath.Join(p.Dir, "site.map")
	if err := os.WriteFile(siteMap, []byte("default none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	pid, end := claimed(t, p.Socket, 0)
	before := really(t, p)
	cfg := Config{Socket: p.Socket, StateFile: filepath.Join(p.Dir, "state"), JournalFile: filepath.Join(p.Dir, "journal"), MapFile: siteMap}
	i := run(t, cfg)
	d := toB
	d.Map = map[string]string{"default": "b"}
	i.Set(d)
	o, _ := i.until("the other one named", func(o Observation) bool { return o.Alive && rivalOf(o) != "" && len(o.Pending) == 2 })
	if want := fmt.Sprintf("pid %d of user 0", pid); !strings.Contains(rivalOf(o), want) || !o.Alive || o.Reason != "" || o.Applied != 0 {
		t.Errorf("%+v", o)
	}
	p.Reload() // nor anything after a reload
	i.until("the new process", func(o Observation) bool { return o.PID == p.PID() && len(o.Pending) == 2 })
	time.Sleep(2 * verifyClaim)
	if got := really(t, p); got != before {
		t.Errorf("it was written to: %s", got)
	}
	if got := p.Do("get map " + siteMap + " default"); !strings.Contains(got, `value="none"`) {
		t.Errorf("the map: %s", got)
	}
	for _, path := range []string{cfg.StateFile, cfg.JournalFile} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s was written: %v", path, err)
		}
	}
	end()
	i.until("it takes over", func(o Observation) bool { return o.Applied == 2 && rivalOf(o) == "" && o.Map.Current })
	if got := really(t, p); got != onB {
		t.Error(got)
	}
	fileSays(t, cfg.StateFile, func(table []Server) bool { return states(table) == onB })
}

// The claim is the same by whatever path the socket is reached, and goes with
// whoever had it. What the first drained is the second's own if the two have one
// journal, and else a person's.
func TestTwoPathsOfOneSocket(t *testing.T) {
	for name, c := range map[string]struct {
		journals [2]string
		held     int
		want     string
	}{
		"one journal":  {[2]string{"j", "j"}, 0, onB},
		"two journals": {[2]string{"j", "k"}, 2, "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=FDRAIN be/b-2=FDRAIN"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, 2)
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(p.Dir, link); err != nil {
				t.Fatal(err)
			}
			first := run(t, Config{Socket: p.Socket, JournalFile: filepath.Join(p.Dir, c.journals[0])})
			first.applied(Desired{Epoch: 9, Rules: []Rule{{Pattern: "*/*", Want: Ready}}})
			second := run(t, Config{Socket: filepath.Join(link, filepath.Base(p.Socket)), JournalFile: filepath.Join(p.Dir, c.journals[1])})
			second.Set(toB)
			second.until("the first named", func(o Observation) bool { return strings.Contains(rivalOf(o), "another path") })
			first.applied(toA)
			second.until("seen", func(o Observation) bool { return states(o.Servers) == onA })
			if rivalOf(first.Observed()) != "" {
				t.Errorf("%+v", first.Observed().Warnings)
			}
			first.stop()
			second.until("it takes over", func(o Observation) bool { return rivalOf(o) == "" && o.Applied == 2 && len(o.Held) == c.held })
			if got := really(t, p); got != c.want {
				t.Error(got)
			}
		})
	}
}

// One that has the claim and is stopped has it still, though nobody more fits into
// its backlog.
func TestAStoppedTandemHasItsClaim(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	pid, _ := claimed(t, socket, 0)
	c := claim{socket: socket}
	want := fmt.Sprintf("pid %d of user 0", pid)
	if got := c.hold(); got != want {
		t.Fatalf("%q", got)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	name, owner, err := claimName(socket)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; !errors.Is(err, syscall.EAGAIN); n++ {
		if _, err = holder(name, owner); n > 1<<16 {
			t.Fatal("its backlog is never full: this tests nothing")
		}
	}
	if got := c.hold(); got != want {
		t.Errorf("%q", got)
	}
}

// Anybody on the machine may take a name. Of a user who could not write to HAProxy
// nobody is afraid.
func TestAStrangersClaimStopsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: needs root, to run something as somebody else")
	}
	p := start(t, 2)
	claimed(t, p.Socket, 65534)
	i := run(t, Config{Socket: p.Socket})
	if o := i.applied(toB); rivalOf(o) != "" {
		t.Errorf("%+v", o.Warnings)
	}
}
