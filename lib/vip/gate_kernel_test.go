package vip

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const both = "web=" + vip4 + "/32@eth0," + vip6 + "/128@eth0"

// The holder renews every 50 ms, so that its last deadline is at most one lease
// after it was stopped.
func lastAnswerBefore(t *testing.T, l *lab, a *proc, lease time.Duration, s unix.Signal) {
	t.Helper()
	a.ask("hold web %s", lease)
	pings := map[string]*proc{
		"IPv4": l.client("c", "ping", vip4+":80", "2ms"),
		"IPv6": l.client("c", "ping", "["+vip6+"]:80", "2ms"),
	}
	time.Sleep(500 * time.Millisecond)
	at := a.signal(s)
	time.Sleep(lease + 400*time.Millisecond)
	if !l.has("a", vip4) {
		t.Error("the address is gone already: this tested the lifetime, not the gate")
	}
	for name, c := range pings {
		r := c.finish()
		after := r.LastAnswer - at
		t.Logf("%s, lease %s, %v: last answer %s after the signal", name, lease, s, after)
		if after > lease {
			t.Errorf("%s: answered %s after the signal, later than the lease of %s", name, after, lease)
		}
		if after < lease-150*time.Millisecond || r.Answered < 100 {
			t.Errorf("%s: silent too early: %s, %d answers", name, after, r.Answered)
		}
	}
}

func TestFrozenHolderIsSilentByItsDeadline(t *testing.T) {
	l := newLab(t, "a", "c")
	l.server("a")
	a := l.sidecar("a", both)
	lastAnswerBefore(t, l, a, 300*time.Millisecond, unix.SIGSTOP)
	// Address resolution is silent as well, for who has forgotten us.
	l.in("c", "ip", "neigh", "flush", "dev", "eth0")
	c4, c6 := l.client("c", "ping", vip4+":80", "20ms"), l.client("c", "ping", "["+vip6+"]:80", "20ms")
	time.Sleep(300 * time.Millisecond)
	if r4, r6 := c4.finish(), c6.finish(); r4.Answered+r6.Answered > 0 {
		t.Errorf("answered while frozen: %+v %+v", r4, r6)
	}
	if out := l.in("c", "ip", "neigh", "show"); strings.Contains(out, vip4+" dev eth0 lladdr") || strings.Contains(out, vip6+" dev eth0 lladdr") {
		t.Errorf("a frozen holder answered address resolution:\n%s", out)
	}
	dump := l.client("c", "ping", vip4+":80", "2ms")
	a.signal(unix.SIGCONT)
	a.ask("away web")
	time.Sleep(100 * time.Millisecond)
	_ = dump.finish()
}

func TestKilledHolderIsSilentByItsDeadline(t *testing.T) {
	l := newLab(t, "a", "c")
	l.server("a")
	lastAnswerBefore(t, l, l.sidecar("a", both), 500*time.Millisecond, unix.SIGKILL)
	l.eventually(4*time.Second, "the kernel removes the addresses", func() bool { return !l.has("a", vip4) && !l.has("a", vip6) })
}

func TestHolderThatIsNotRenewedLetsGoByItself(t *testing.T) {
	l := newLab(t, "a")
	a := l.sidecar("a", both)
	a.ask("hold web 300ms")
	a.ask("lapse web")
	took := l.eventually(400*time.Millisecond, "let go", func() bool { return !l.has("a", vip4) && !l.has("a", vip6) })
	t.Logf("gone %s after the last renewal", took)
	if got := a.ask("events"); !strings.Contains(got, string(ReasonDeadlinePassed)) {
		t.Error(got)
	}
}

func TestGateIsBackAfterAFlushAndOtherTablesStand(t *testing.T) {
	l := newLab(t, "a", "c")
	l.in("a", "nft", "add table inet operator { chain c { type filter hook input priority 0; counter; }; }")
	l.server("a")
	a := l.sidecar("a", both)
	a.ask("hold web 500ms")
	clients := []*proc{l.client("c", "dial", vip4+":80", "5ms"), l.client("c", "dial", "["+vip6+"]:80", "5ms")}
	// One after the other, as soon as the last was noticed.
	for _, flush := range []string{"flush table ip tandem_test_a", "flush table ip6 tandem_test_a", "delete table arp tandem_test_a", "flush ruleset"} {
		l.in("a", "nft", flush)
		took := l.eventually(200*time.Millisecond, "gate back after "+flush, func() bool {
			rules := l.in("a", "nft", "list", "ruleset")
			return strings.Contains(rules, "table ip tandem_test_a") && strings.Count(rules, "ip daddr != @serve") == 1 &&
				strings.Contains(rules, "table ip6 tandem_test_a") && strings.Count(rules, "ip6 daddr != @serve") == 1 &&
				strings.Contains(rules, "table arp tandem_test_a")
		})
		t.Logf("%s: back within %s", flush, took)
		l.eventually(time.Second, "event", func() bool { return strings.Contains(a.ask("events"), string(ReasonGateFlushed)) })
	}
	l.in("a", "nft", "add table inet operator { chain c { type filter hook input priority 0; counter; }; }")
	// The other sidecar of this kernel has tables of its own.
	b := l.start("a", "sidecar", []string{"VIPS=other=10.77.0.101/32@eth0", "NODE=b"})
	b.ask("hold other 500ms")
	time.Sleep(300 * time.Millisecond)
	b.ask("quit")
	b.line()
	time.Sleep(300 * time.Millisecond) // some looks at the rules
	if got := a.ask("events"); got != "events" {
		t.Errorf("another sidecar came and went, and to the first one something happened: %s", got)
	}
	for _, c := range clients {
		if r := c.finish(); r.Failed > 0 || r.Answered < 100 {
			t.Errorf("%+v", r)
		}
	}
	rules := l.in("a", "nft", "list", "ruleset")
	if strings.Contains(rules, "tandem_test_b") || !strings.Contains(rules, "tandem_test_a") {
		t.Errorf("a clean stop must remove its own tables and no others:\n%s", rules)
	}
	a.ask("quit")
	a.line()
	rules = l.in("a", "nft", "list", "ruleset")
	if strings.Contains(rules, "tandem") || !strings.Contains(rules, "operator") {
		t.Errorf("after a clean stop:\n%s", rules)
	}
	if l.has("a", vip4) || l.has("a", vip6) {
		t.Error("address left after a clean stop")
	}
}
