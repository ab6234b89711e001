package lab

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Child()
	if err := Prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "*** tests with network namespaces are left out:", err)
		_ = os.Setenv("TDLAB_UNABLE", err.Error())
	}
	os.Exit(m.Run())
}

// byHand is a system that does nothing: the test moves the address itself.
type byHand struct{}

func (byHand) Name() string          { return "by hand" }
func (byHand) Nodes() []string       { return LBs() }
func (byHand) Standby() bool         { return true }
func (byHand) Daemon() string        { return "nothing" }
func (byHand) Settle() time.Duration { return 0 }
func (byHand) Spec(*Lab, *Node) (Spec, error) {
	return Spec{Name: "nothing", Args: []string{"sleep", "1000"}}, nil
}

func give(t *testing.T, l *Lab, verb, lb string) {
	t.Helper()
	err := ipBatch(t.Context(), l.Node(lb).NS,
		"addr "+verb+" "+VIP().String()+"/32 dev eth0", "addr "+verb+" "+VIP6().String()+"/128 dev eth0 nodad")
	if err != nil {
		t.Fatal(err)
	}
	if verb != "add" {
		return
	}
	// The client has to learn it.
	if _, err := run(t.Context(), "", "ip", "-n", l.Node("client").NS, "neigh", "flush", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
}

func build(t *testing.T) *Lab {
	t.Helper()
	if why := os.Getenv("TDLAB_UNABLE"); why != "" {
		t.Skip("no lab here: " + why)
	}
	l, err := New(t.Context(), Config{System: byHand{}, IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		out, err := exec.Command("ip", "netns", "list").CombinedOutput()
		if err != nil || strings.Contains(string(out), l.name) {
			t.Errorf("namespaces are left: %s %v", out, err)
		}
	})
	return l
}

// TestLab shows that the instruments measure what they say: each part breaks
// something whose effect is known.
func TestLab(t *testing.T) {
	l := build(t)
	give(t, l, "add", "lb1")
	if err := l.Steady(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	t.Run("the holder is the one that answers", func(t *testing.T) {
		if h := l.Holder(); h != "lb1" {
			t.Errorf("holder %q, want lb1", h)
		}
		n := l.Client.Recent(200 * ms)
		if n.LBs["lb1"] < 20 || n.LBs["lb2"] > 0 || n.Sites()["a"] == 0 || n.Sites()["b"] > 0 {
			t.Errorf("served by %v %v, want lb1 and site a", n.LBs, n.Servers)
		}
	})
	t.Run("an outage is measured", func(t *testing.T) { measuresOutage(t, l) })
	t.Run("two that answer are seen", func(t *testing.T) { seesTwo(t, l) })
	t.Run("who has the address and does not answer is told apart", func(t *testing.T) { tellsApart(t, l) })
	t.Run("a link is cut one way", func(t *testing.T) { cutsOneWay(t, l) })
	t.Run("a node without power is gone and comes back bare", func(t *testing.T) { losesPower(t, l) })
	t.Run("a dead site is noticed by both HAProxys", func(t *testing.T) { losesSite(t, l) })
	t.Run("a reload loses nothing", func(t *testing.T) { reloads(t, l) })
}

func measuresOutage(t *testing.T, l *Lab) {
	t.Helper()
	from := Now()
	give(t, l, "del", "lb1")
	if err := Sleep(t.Context(), 400*ms); err != nil {
		t.Fatal(err)
	}
	give(t, l, "add", "lb1")
	if err := l.Steady(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	n, err := l.Client.Noticed(t.Context(), from, Now())
	if err != nil {
		t.Fatal(err)
	}
	if n.Outage < 300*ms || n.Outage > 1500*ms || n.Open || n.Failed == 0 {
		t.Errorf("outage %v (open %v), failed %d; want about 400ms", n.Outage, n.Open, n.Failed)
	}
	if j := l.Referee.Judge(from, Now()); j.Nobody < 300*ms || len(j.Moves) != 0 || j.TwoAnswer != 0 {
		t.Errorf("referee: %+v, want nobody for about 400ms", j)
	}
}

func seesTwo(t *testing.T, l *Lab) {
	t.Helper()
	from := Now()
	give(t, l, "add", "lb2")
	_ = Sleep(t.Context(), 200*ms)
	give(t, l, "del", "lb2")
	j := l.Referee.Judge(from, Now())
	if j.TwoAnswer < 100*ms || j.TwoHave < 100*ms {
		t.Errorf("referee: %+v, want two for 200ms", j)
	}
}

// tellsApart stands a gate before the address, as tandem does.
func tellsApart(t *testing.T, l *Lab) {
	t.Helper()
	from := Now()
	gate := "table arp test {\n chain in {\n type filter hook input priority 0;\n arp daddr ip " + VIP().String() + " drop\n }\n}\n" +
		"table ip6 test {\n chain in {\n type filter hook input priority 0;\n icmpv6 type nd-neighbor-solicit drop\n }\n}\n"
	if _, err := run(t.Context(), gate, "ip", "netns", "exec", l.Node("lb1").NS, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	_ = Sleep(t.Context(), 200*ms)
	last := l.Referee.Last()
	if _, err := run(t.Context(), "delete table arp test\ndelete table ip6 test\n", "ip", "netns", "exec", l.Node("lb1").NS, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(last.Have, []string{"lb1"}) || len(last.Answer) != 0 {
		t.Errorf("have %v answer %v, want lb1 and nobody", last.Have, last.Answer)
	}
	if j := l.Referee.Judge(from, Now()); j.Nobody < 100*ms {
		t.Errorf("referee: %+v, want nobody for 200ms", j)
	}
}

func cutsOneWay(t *testing.T, l *Lab) {
	t.Helper()
	if err := l.Mute(t.Context(), "lb1"); err != nil {
		t.Fatal(err)
	}
	_ = Sleep(t.Context(), 100*ms)
	if a := l.Referee.Last().Answer; len(a) != 0 {
		t.Errorf("a mute node is heard: %v", a)
	}
	// It still hears: the packets of the client arrive.
	before := received(t, l)
	_ = Sleep(t.Context(), 100*ms)
	if after := received(t, l); after <= before {
		t.Errorf("a mute node hears nothing: %d packets then, %d now", before, after)
	}
	if err := l.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Steady(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

func received(t *testing.T, l *Lab) int {
	t.Helper()
	out, err := run(t.Context(), "", "ip", "netns", "exec", l.Node("lb1").NS, "cat", "/sys/class/net/eth0/statistics/rx_packets")
	if err != nil {
		t.Fatal(err)
	}
	n, _ := atoi(strings.TrimSpace(out))
	return n
}

func losesPower(t *testing.T, l *Lab) {
	t.Helper()
	if err := l.PowerOff(t.Context(), "lb1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netnsDir + "/" + l.Node("lb1").NS); err == nil {
		t.Error("its kernel is still there")
	}
	_ = Sleep(t.Context(), 50*ms)
	if last := l.Referee.Last(); len(last.Have)+len(last.Answer) != 0 {
		t.Errorf("have %v answer %v, want nobody", last.Have, last.Answer)
	}
	if err := l.PowerOn(t.Context(), "lb1"); err != nil {
		t.Fatal(err)
	}
	_ = Sleep(t.Context(), 50*ms)
	if last := l.Referee.Last(); len(last.Have)+len(last.Answer) != 0 {
		t.Errorf("after the boot have %v answer %v, want nobody", last.Have, last.Answer)
	}
	give(t, l, "add", "lb1")
	if err := l.Steady(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

func losesSite(t *testing.T, l *Lab) {
	t.Helper()
	from := Now()
	if err := l.KillSite("a"); err != nil {
		t.Fatal(err)
	}
	err := waitFor(t.Context(), 5*time.Second, "detection", func() bool { return l.Detected("a", from) > 0 })
	if err != nil {
		t.Fatal(err)
	}
	states, err := l.ServerStates(t.Context(), "lb2")
	if err != nil || states["web/a-1"] != "down" || states["web/b-1"] != "ready" {
		t.Errorf("states %v %v", states, err)
	}
	err = waitFor(t.Context(), 5*time.Second, "answer of site b", func() bool {
		n := l.Client.Recent(200 * ms)
		return n.Sites()["b"] > 0
	})
	if err != nil {
		t.Error(err)
	}
	if err = l.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func reloads(t *testing.T, l *Lab) {
	t.Helper()
	if err := l.Steady(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	from := Now()
	old := l.Proc("lb1", "haproxy").PID
	if err := l.ReloadHAProxy(t.Context(), "lb1"); err != nil {
		t.Fatal(err)
	}
	if l.Proc("lb1", "haproxy").PID == old {
		t.Error("it is still the old one")
	}
	n, err := l.Client.Noticed(t.Context(), from, Now())
	if err != nil || n.Failed > 0 {
		t.Errorf("failed %d %v %v, want none", n.Failed, n.Errors, err)
	}
}

// TestCrashedLabIsCleanedUp leaves behind what a lab that was killed leaves.
func TestCrashedLabIsCleanedUp(t *testing.T) {
	if why := os.Getenv("TDLAB_UNABLE"); why != "" {
		t.Skip("no lab here: " + why)
	}
	ns, dir := prefix+"999999-7-lb1", "/tmp/"+prefix+"999999-7"
	if _, err := run(t.Context(), "", "ip", "netns", "add", ns); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	left := exec.Command("ip", "netns", "exec", ns, "sleep", "1000")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	_ = Sleep(t.Context(), 50*ms)
	names, err := CleanStale(t.Context())
	if err != nil || !slices.Contains(names, prefix+"999999-7") {
		t.Errorf("cleaned %v %v", names, err)
	}
	if left.Wait() == nil {
		t.Error("its process is still there")
	}
	for _, path := range []string{netnsDir + "/" + ns, dir} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}
