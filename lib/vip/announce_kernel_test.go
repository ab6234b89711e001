package vip

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func (l *lab) mac(node string) string {
	l.t.Helper()
	return strings.TrimSpace(l.in(node, "cat", "/sys/class/net/eth0/address"))
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
	mac := l.mac("a")
	for _, ip := range []string{vip4, vip6} {
		l.eventually(2*time.Second, "client knows the holder", func() bool { return strings.Contains(l.neighbour("c", ip), mac) })
	}
	for range 3 {
		for _, ip := range []string{vip4 + "/32", vip6 + "/128"} {
			b.ask("claim %s", ip)
			bare, _, _ := strings.Cut(ip, "/")
			took := l.eventually(time.Second, "client's cache right again", func() bool {
				return strings.Contains(l.neighbour("c", bare), mac)
			})
			t.Logf("%s: right again within %s", ip, took)
		}
	}
	for _, as := range a.status().Groups[0].Addresses {
		if as.Foreign == 0 {
			t.Errorf("not counted: %+v", as)
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

// A Linux neighbour that changed less than a second ago ignores other forms.
func TestMoveAndBackWithinASecondIsHeededAtOnce(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	m := newMover(l)
	m.node["a"].ask("hold web 500ms")
	c := l.client("c", "ping", vip4+":80", "20ms")
	time.Sleep(200 * time.Millisecond)
	from, to := "a", "b"
	for range 4 {
		m.move(from, to, 5*time.Second)
		took := l.eventually(90*time.Millisecond+m.gap, "client's cache follows", func() bool {
			return strings.Contains(l.neighbour("c", vip4), l.mac(to))
		})
		t.Logf("followed within %s", took)
		from, to = to, from
	}
	_ = c.finish()
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
