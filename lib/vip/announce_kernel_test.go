package vip

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func (l *lab) mac(node string) string {
	l.t.Helper()
	return strings.TrimSpace(l.in(node, "cat", "/sys/class/net/eth0/address"))
}

// news is what a command says, line by line.
type news struct {
	mu  sync.Mutex
	all strings.Builder
}

func (n *news) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all.Write(b)
}

// count is how many lines have all of the words.
func (n *news) count(words ...string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	lines := 0
	for line := range strings.Lines(n.all.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			lines++
		}
	}
	return lines
}

// hearNeighbours notes every change of a node's neighbour cache, which may not
// last until anybody can look.
func (l *lab) hearNeighbours(node string) *news {
	l.t.Helper()
	n := &news{}
	cmd := exec.Command("ip", "-n", l.ns(node), "monitor", "neigh")
	cmd.Stdout = n
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	const trial = "10.77.0.250"
	l.eventually(2*time.Second, "changes are heard", func() bool {
		l.in(node, "ip", "neigh", "replace", trial, "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "stale")
		l.in(node, "ip", "neigh", "del", trial, "dev", "eth0")
		return n.count(trial) > 0
	})
	return n
}

func (l *lab) neighbour(node, ip string) string {
	l.t.Helper()
	return l.in(node, "ip", "neigh", "show", ip)
}

func TestForeignAnnouncementIsAnsweredAndTheHolderHasTheLastWord(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	l.server("a")
	a := l.sidecar("a", both)
	b := l.sidecar("b", both) // holds nothing; here it plays the stranger
	a.ask("hold web 500ms")
	clients := []*proc{l.client("c", "ping", vip4+":80", "20ms"), l.client("c", "ping", "["+vip6+"]:80", "20ms")}
	mac, theirs := l.mac("a"), l.mac("b")
	for _, ip := range []string{vip4, vip6} {
		l.eventually(2*time.Second, "client knows the holder", func() bool { return strings.Contains(l.neighbour("c", ip), mac) })
	}
	heard := l.hearNeighbours("c")
	for range 3 {
		for i, ip := range []string{vip4 + "/32", vip6 + "/128"} {
			bare, _, _ := strings.Cut(ip, "/")
			count := func() AddressStatus { return a.status().Groups[0].Addresses[i] }
			before, poisoned := count(), heard.count(bare+" ", theirs)
			b.ask("claim %s", ip)
			l.eventually(time.Second, "client believes the stranger", func() bool { return heard.count(bare+" ", theirs) > poisoned })
			took := l.eventually(time.Second, "client's cache right again", func() bool {
				return strings.Contains(l.neighbour("c", bare), mac)
			})
			t.Logf("%s: right again within %s", ip, took)
			l.eventually(time.Second, "counted and answered", func() bool {
				now := count()
				return now.Foreign > before.Foreign && now.Announcements > before.Announcements
			})
		}
	}
	if got := a.ask("events"); !strings.Contains(got, string(ReasonForeign)) {
		t.Error(got)
	}
	if got := b.status().Groups[0].Addresses[0]; got.Foreign != 0 {
		t.Errorf("who holds nothing heeds nothing: %+v", got)
	}
	for _, c := range clients {
		if r := c.finish(); r.Answered == 0 {
			t.Errorf("%+v", r)
		}
	}
}

// A cache that was changed without a packet is right again with the next of the
// announcements that go on every ten seconds.
func TestUnheardPoisonIsMendedByTheNextAnnouncement(t *testing.T) {
	t.Parallel()
	l := newLab(t, "a", "b", "c")
	a := l.sidecar("a", both)
	a.ask("hold web 500ms")
	mac, theirs := l.mac("a"), l.mac("b")
	time.Sleep(11 * time.Second) // the schedule of a taking up is over
	for _, ip := range []string{vip4, vip6} {
		l.in("c", "ip", "neigh", "replace", ip, "lladdr", theirs, "dev", "eth0", "nud", "stale")
		if got := l.neighbour("c", ip); !strings.Contains(got, theirs) {
			t.Fatalf("the poison did not take: %s", got)
		}
	}
	began := time.Now()
	for _, ip := range []string{vip4, vip6} {
		l.eventually(15*time.Second-time.Since(began), ip+" right again", func() bool {
			time.Sleep(50 * time.Millisecond)
			return strings.Contains(l.neighbour("c", ip), mac)
		})
		t.Logf("%s: right again after %s", ip, time.Since(began))
	}
	for _, as := range a.status().Groups[0].Addresses {
		if as.Foreign != 0 {
			t.Errorf("somebody was heard: %+v", as)
		}
	}
}

// A Linux neighbour that changed less than a second ago ignores other forms.
func TestMoveAndBackWithinASecondIsHeededAtOnce(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	m := newMover(l)
	m.node["a"].ask("hold web 500ms")
	clients := []*proc{l.client("c", "ping", vip4+":80", "20ms"), l.client("c", "ping", "["+vip6+"]:80", "20ms")}
	time.Sleep(200 * time.Millisecond)
	from, to := "a", "b"
	for range 4 {
		m.move(from, to, 5*time.Second)
		for _, ip := range []string{vip4, vip6} {
			took := l.eventually(90*time.Millisecond+m.gap, "client's cache follows", func() bool {
				return strings.Contains(l.neighbour("c", ip), l.mac(to))
			})
			t.Logf("%s: followed within %s", ip, took)
		}
		from, to = to, from
	}
	for _, c := range clients {
		_ = c.finish()
	}
}

func TestStrangerWhoAnswersForAnAddressIsFound(t *testing.T) {
	l := newLab(t, "a", "b")
	a := l.sidecar("a", both)
	if got := a.ask("probe web"); got != "probe" {
		t.Errorf("nobody has it, and yet: %s", got)
	}
	l.in("b", "ip", "addr", "add", vip4+"/24", "dev", "eth0")
	l.in("b", "ip", "addr", "add", vip6+"/64", "dev", "eth0", "nodad")
	if got, want := a.ask("probe web"), fmt.Sprintf("probe %s@%s %s@%s", vip4, l.mac("b"), vip6, l.mac("b")); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if out := l.neighbour("b", "10.77.0.1"); strings.Contains(out, "FAILED") {
		t.Error(out)
	}
}

func BenchmarkSet(b *testing.B) {
	for name, vips := range map[string]string{
		"one address":   "web=" + vip4 + "/32@eth0",
		"dual stack":    both,
		"ten addresses": "web=" + tenAddresses(),
	} {
		for _, env := range []string{"NOGATE=", "NOGATE=1"} {
			b.Run(name+" "+env, func(b *testing.B) {
				l := newLab(b, "a")
				a := l.sidecar("a", vips, env)
				a.ask("bench web 10")
				b.ResetTimer()
				a.ask("bench web %d", b.N)
			})
		}
	}
}

func tenAddresses() string {
	var out []string
	for _, last := range "0123456789" {
		out = append(out, "10.77.1."+string(last)+"/32@eth0")
	}
	return strings.Join(out, ",")
}
