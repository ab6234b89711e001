package vip

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
)

const (
	hour = time.Hour
	ms   = time.Millisecond
)

func hold(deadline time.Duration) Desired { return Desired{Role: Holding, Deadline: deadline} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func said(t *testing.T, k *machine, want ...string) {
	t.Helper()
	if got := k.take(); got != strings.Join(want, "\n") {
		t.Errorf("did\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestGateOpensFirstAndClosesFirst(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32", "fd77::100/128")
	must(t, m.Set("web", hold(hour+500*ms)))
	said(t, k,
		"nft { 10.77.0.100 until 1h0m0.5s; fd77::100 until 1h0m0.5s }",
		"ip addr replace 10.77.0.100/32 dev eth0 valid_lft 2 preferred_lft 2",
		"ip -6 addr replace fd77::100/128 dev eth0 valid_lft 2 preferred_lft 0 nodad",
		"arping -c 1 -A -I eth0 10.77.0.100",
		"ndsend fd77::100 eth0")
	c.at += 100 * ms
	must(t, m.Set("web", hold(c.at+500*ms)))
	said(t, k, "nft { 10.77.0.100 until 1h0m0.6s; fd77::100 until 1h0m0.6s }") // a renewal
	must(t, m.Set("web", Desired{}))
	said(t, k,
		"nft { 10.77.0.100 until 1ns; fd77::100 until 1ns }",
		"ip addr del 10.77.0.100/32 dev eth0",
		"ip addr del fd77::100/128 dev eth0",
		"nft {  }")
	must(t, m.Set("web", Desired{}))
	said(t, k)
}

func TestLifetimeIsExtendedRarelyAndAlwaysOutlastsTheLease(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	puts := 0
	for range 100 { // ten seconds
		must(t, m.Set("web", hold(c.at+500*ms)))
		puts += strings.Count(k.take(), "ip addr replace")
		if ca := m.groups[0].addrs[0]; ca.lives <= c.at+500*ms {
			t.Fatalf("at %s the address lives until %s", c.at, ca.lives)
		}
		c.at += 100 * ms
	}
	if puts < 20 || puts > 30 {
		t.Errorf("extended %d times in ten seconds", puts)
	}
}

func TestFrozenWhileTakingUpLetsGoAtOnce(t *testing.T) {
	for _, f := range []Fence{FenceGate, FenceLifetime} {
		m, k, c := fixture(t, f, "10.77.0.100/32")
		k.freeze = func() { c.at += 10 * time.Second }
		if err := m.Set("web", hold(hour+500*ms)); !errors.Is(err, ErrLate) {
			t.Errorf("%s: %v", f, err)
		}
		if len(k.have) != 0 || strings.Contains(k.take(), "arping") {
			t.Errorf("%s: kept or announced after its deadline", f)
		}
	}
}

func TestLateSetTakesNothingUp(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	if err := m.Set("web", hold(c.at)); !errors.Is(err, ErrLate) {
		t.Error(err)
	}
	said(t, k)
}

func TestWokenProcessLetsGoBeforeItSends(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	must(t, m.Set("web", hold(c.at+300*ms)))
	k.take()
	c.at += time.Minute // frozen; a timer of its own may fire later than all else
	must(t, m.Answer("web"))
	m.groups[0].addrs[0].nextCall = c.at
	m.due(m.groups[0])
	if why := m.contradict(claim{ip: web4, at: theirHW}, "eth0"); why != IgnoredNotHeld {
		t.Errorf("heeded (%q) an announcement after the deadline", why)
	}
	said(t, k)
	m.step()
	said(t, k, "nft { 10.77.0.100 until 1ns }", "ip addr del 10.77.0.100/32 dev eth0", "nft {  }")
	must(t, m.Answer("web"))
	m.contradict(claim{ip: web4, at: theirHW}, "eth0")
	said(t, k)
}

func TestAnnouncementsKeepTheirSchedule(t *testing.T) {
	m, k, c := fixture(t, FenceLifetime, "10.77.0.100/32")
	var at []time.Duration
	for c.at < hour+31*time.Second {
		must(t, m.Set("web", hold(c.at+2*time.Second)))
		m.step()
		for range strings.Count(k.take(), "arping") {
			at = append(at, c.at-hour)
		}
		c.at += 50 * ms
	}
	want := []time.Duration{0, 100 * ms, 300 * ms, time.Second, 3 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second}
	if len(at) != len(want) {
		t.Fatalf("announced at %v", at)
	}
	for i := range want {
		if d := at[i] - want[i]; d < 0 || d > 200*ms {
			t.Errorf("announced at %v, want %v", at, want)
		}
	}
}

func TestForeignAnnouncementsAreAnsweredWithoutAFlood(t *testing.T) {
	m, k, c := fixture(t, FenceLifetime, "10.77.0.100/32")
	must(t, m.Set("web", hold(hour+20*time.Second)))
	c.at += 20 * ms
	k.take()
	for range 1000 { // one a millisecond
		m.contradict(claim{ip: web4, at: theirHW}, "eth0")
		c.at += ms
		m.step()
	}
	c.at += answerEvery
	m.step()
	n := strings.Count(k.take(), "arping")
	if n < 15 || n > 30 {
		t.Errorf("answered %d times in a second, want about 20", n)
	}
	as := m.Status().Groups[0].Addresses[0]
	if as.Foreign != 1000 || as.Announcements != uint64(n+1) { // the first was the taking up
		t.Errorf("counted %+v, %d answers", as, n)
	}
	if foreign, sent := testutil.ToFloat64(m.metrics.foreigns.WithLabelValues("web")), testutil.ToFloat64(m.metrics.announces.WithLabelValues("web")); foreign != 1000 || sent != float64(n+1) {
		t.Errorf("metrics: %v foreign, %v sent, want 1000 and %d", foreign, sent, n+1)
	}
	if why := m.contradict(claim{ip: web4, at: theirHW}, "eth1"); why != IgnoredOtherLink {
		t.Error(why)
	}
	must(t, m.Set("web", Desired{}))
	if why := m.contradict(claim{ip: web4, at: theirHW}, "eth0"); why != IgnoredNotHeld {
		t.Error(why)
	}
}

func TestPlannedMoveAsTheGateSeesIt(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32", "fd77::100/128")
	old := connection{remote: netip.MustParseAddrPort("10.77.0.9:999"), local: netip.AddrPortFrom(web4, 80)}
	k.conns[web4] = []connection{old}
	d := hold(hour + 500*ms)
	d.Predecessor, d.StraysUntil = netip.MustParseAddr("10.77.0.2"), hour+30*time.Second
	must(t, m.Set("web", d))
	got := k.take()
	for i, want := range []string{
		"nft flush set mine", "10.77.0.100 until 1ns watch;", "nft add element mine # 1",
		"10.77.0.100 until 1h0m0.5s watch relay 10.77.0.2 until 1h0m30s; fd77::100 until 1h0m0.5s watch relay fe80::2 until 1h0m30s",
	} {
		if !strings.Contains(strings.Split(got, "\n")[i], want) {
			t.Errorf("step %d: %s\nwant %s", i, strings.Split(got, "\n")[i], want)
		}
	}
	// It yields in turn: strays still go to the predecessor.
	must(t, m.Set("web", Desired{
		Role: Yielding, Deadline: c.at + 20*time.Second, NewUntil: c.at + 200*ms, Successor: netip.MustParseAddr("10.77.0.2"),
	}))
	if got := k.take(); !strings.Contains(got, "10.77.0.100 until 1h0m20s yield fresh 1h0m0.2s late 10.77.0.2 self 10.77.0.1 watch relay 10.77.0.2") ||
		strings.Contains(got, "arping") {
		t.Error(got)
	}
	c.at += 5 * time.Second
	m.step()
	if got := k.take(); strings.Contains(got, "arping") || strings.Contains(got, "del") {
		t.Error(got)
	}
	// It takes up again: what has ended meanwhile is none of its own any more,
	// and strays are told all the while.
	k.conns[web4] = nil
	d.Deadline, d.StraysUntil = c.at+500*ms, d.StraysUntil+time.Second
	must(t, m.Set("web", d))
	if got := k.take(); !strings.HasPrefix(got, "nft flush set mine\nnft { ") || !strings.Contains(got, "\nnft add element mine # 0\nnft { ") || strings.Count(got, "watch relay 10.77.0.2") != 2 {
		t.Error(got)
	}
	must(t, m.Set("web", Desired{Role: Yielding, Deadline: hour + 20*time.Second, NewUntil: c.at, Successor: netip.MustParseAddr("10.77.0.2")}))
	k.take()
	c.at = hour + 20*time.Second - 100*ms
	m.step()
	if got := k.take(); !strings.Contains(got, "ss -K src 10.77.0.100") || strings.Contains(got, "addr del") {
		t.Error(got)
	}
	c.at += 100 * ms
	m.step()
	if got := k.take(); !strings.Contains(got, "ip addr del 10.77.0.100/32") || strings.Contains(got, "ss -K") {
		t.Error(got)
	}
}

func TestOnlyAHolderYields(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	if err := m.Set("web", Desired{Role: Yielding, Deadline: c.at + time.Minute}); !errors.Is(err, ErrNotHolding) {
		t.Error(err)
	}
	said(t, k)
}

func TestWithoutTheGateYieldingIsShort(t *testing.T) {
	m, k, c := fixture(t, FenceLifetime, "10.77.0.100/32")
	must(t, m.Set("web", hold(c.at+2*time.Second)))
	must(t, m.Set("web", Desired{Role: Yielding, Deadline: c.at + 30*time.Second, NewUntil: c.at + 200*ms}))
	if s := m.Status(); s.Grace.Available || s.Groups[0].Deadline != c.at+200*ms {
		t.Errorf("%+v", s)
	}
	c.at += 200 * ms
	m.step()
	if len(k.have) != 0 {
		t.Error("still there after 200 ms")
	}
}

// measured compares what tandem_vip_fence says with the fence in force.
func measured(t *testing.T, m *Manager, want Fence) {
	t.Helper()
	for _, f := range []Fence{FenceGate, FenceLifetime, FenceNone} {
		v := 0.0
		if f == want {
			v = 1
		}
		if got := testutil.ToFloat64(m.metrics.fences.WithLabelValues(string(f))); got != v {
			t.Errorf("tandem_vip_fence for %s is %v, want %v", f, got, v)
		}
	}
}

func TestLostGateIsSaidAndComesBack(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32", "fd77::100/128")
	must(t, m.Set("web", hold(c.at+500*ms)))
	measured(t, m, FenceGate)
	k.refuse["nft"] = unix.EPERM
	c.at += 100 * ms
	k.take()
	must(t, m.Set("web", hold(c.at+500*ms)))
	if got := k.take(); strings.Count(got, "valid_lft 1 ") != 2 { // what was the backstop is the fence now
		t.Errorf("the lifetimes are not shortened: %s", got)
	}
	if s := m.Status(); s.Fence != FenceLifetime || s.FenceWhy == "" || s.MinLease != minLease6 {
		t.Errorf("%+v", s)
	}
	measured(t, m, FenceLifetime)
	delete(k.refuse, "nft")
	c.at += 2 * time.Second
	must(t, m.Set("web", hold(c.at+3*time.Second)))
	if s := m.Status(); s.Fence != FenceGate || s.MinLease != 0 {
		t.Errorf("%+v", s)
	}
	measured(t, m, FenceGate)
	if a, b := (<-m.Events()).Kind, (<-m.Events()).Kind; a != ReasonGateLost || b != ReasonGateBack {
		t.Error(a, b)
	}
}

func TestFlushedRulesComeBackWithOurConnections(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	k.conns[web4] = []connection{{}}
	d := hold(c.at + 2*time.Second)
	d.Predecessor, d.StraysUntil = netip.MustParseAddr("10.77.0.2"), c.at+30*time.Second
	must(t, m.Set("web", d))
	k.take()
	k.noRules = true
	c.at += gateEvery
	m.step()
	if got := k.take(); !strings.Contains(got, "mine # 1") || !strings.HasSuffix(got, "relay 10.77.0.2 until 1h0m30s }") {
		t.Error(got)
	}
	if e := <-m.Events(); e.Kind != ReasonGateFlushed {
		t.Error(e)
	}
}

func TestOneFailedAddressDoesNotKeepTheOthers(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32", "10.77.0.101/32")
	k.refuse["ip"] = unix.ENODEV
	if err := m.Set("web", hold(c.at+time.Second)); !errors.Is(err, unix.ENODEV) || strings.Count(err.Error(), "take up") != 2 {
		t.Error(err)
	}
	s := m.Status().Groups[0]
	if s.Trouble == "" || s.Addresses[1].Error == "" || s.Role != Holding {
		t.Errorf("%+v", s)
	}
	delete(k.refuse, "ip")
	must(t, m.Set("web", hold(c.at+time.Second)))
	if s := m.Status().Groups[0]; s.Trouble != "" || !s.Addresses[0].Present || s.Addresses[1].Error != "" {
		t.Errorf("%+v", s)
	}
}

func TestNoAddressesIsValid(t *testing.T) {
	m, err := New(Config{Now: bootTime, Groups: []Group{{Name: "cloud"}}})
	must(t, err)
	must(t, m.Clean())
	must(t, m.Set("cloud", hold(bootTime()+time.Second)))
	if !m.Carrier("cloud") || m.MinLease() != 0 || m.Status().Groups[0].Role != Holding {
		t.Errorf("%+v", m.Status())
	}
	must(t, m.Set("cloud", Desired{}))
	if err := m.Set("none", Desired{}); !errors.Is(err, ErrGroup) {
		t.Error(err)
	}
}

func TestLifetimes(t *testing.T) {
	for _, c := range []struct {
		fence Fence
		six   bool
		left  time.Duration
		want  int
	}{
		{FenceGate, false, 300 * ms, 2},
		{FenceGate, true, 1000 * ms, 2},
		{FenceGate, false, 1001 * ms, 3},
		{FenceGate, false, 30 * time.Second, 31},
		{FenceLifetime, false, 2200 * ms, 1},
		{FenceLifetime, false, 3039 * ms, 1},
		{FenceLifetime, false, 3040 * ms, 2},
		{FenceLifetime, true, 2600 * ms, 1},
		{FenceLifetime, true, 3500 * ms, 2},
		{FenceLifetime, true, 300 * ms, 1}, // no less is possible
	} {
		if got := lifetime(c.fence, c.six, c.left); got != c.want {
			t.Errorf("%s, IPv6 %v, %s left: %d s, want %d", c.fence, c.six, c.left, got, c.want)
		}
	}
}

// A renewal that is acknowledged late leaves less time than the kernel needs for
// its second: another one would outlast the deadline.
func TestLateAcknowledgementDoesNotExtendBeyondTheDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		address string
		lease   time.Duration
		least   time.Duration // the time left with which a second surely ends in time
	}{
		"IPv4": {"10.77.0.100/32", minLease4, 2040 * ms},
		"IPv6": {"fd77::100/128", minLease6, 2500 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			m, k, at := fixture(t, FenceLifetime, c.address)
			extended := func(left time.Duration) bool {
				t.Helper()
				must(t, m.Set("web", hold(at.at+left)))
				return strings.Contains(k.take(), "replace")
			}
			if !extended(c.lease) {
				t.Fatal("not taken up")
			}
			for i, step := range []struct {
				after, left time.Duration
				want        bool
			}{
				{200 * ms, c.lease - 10*ms, true},
				{200 * ms, c.least, true},
				{200 * ms, c.least - ms, false},
				{200 * ms, c.lease, true},
				{100 * ms, 300 * ms, false},
				{299 * ms, 300 * ms, false},
				{ms, 300 * ms, true}, // it would run out while the lease is ours
			} {
				at.at += step.after
				if got := extended(step.left); got != step.want {
					t.Errorf("step %d, %s left: extended %v", i, step.left, got)
				}
			}
		})
	}
}

// TestLifeThatIsLeftWithoutTheGate: a program that is replaced leaves the address
// to the kernel for no longer than this, as docs/operations.md says of tandem
// restart. Acknowledgements come at once, or so late that not each extends it.
func TestLifeThatIsLeftWithoutTheGate(t *testing.T) {
	for _, c := range []struct {
		address     string
		lease, late time.Duration
		least, most time.Duration
	}{
		{"10.77.0.100/32", minLease4, ms, 800 * ms, time.Second},
		{"10.77.0.100/32", minLease4, 170 * ms, 400 * ms, time.Second},
		{"fd77::100/128", minLease6, ms, 800 * ms, time.Second},
		{"fd77::100/128", minLease6, 170 * ms, 400 * ms, time.Second},
		{"10.77.0.100/32", 4 * time.Second, ms, 1800 * ms, 2 * time.Second},
		{"fd77::100/128", 4 * time.Second, ms, 1800 * ms, 2 * time.Second},
	} {
		m, _, at := fixture(t, FenceLifetime, c.address)
		least, most := time.Hour, time.Duration(0)
		left := func() time.Duration { return m.groups[0].addrs[0].lives - at.at }
		for range 200 { // a renewal every 200 ms
			if at.at > hour {
				least = min(least, left())
			}
			must(t, m.Set("web", hold(at.at+c.lease-c.late)))
			most = max(most, left())
			at.at += 200 * ms
		}
		if least < c.least || least > c.least+200*ms || most != c.most {
			t.Errorf("%s, lease %s, acknowledged after %s: %s to %s are left, want %s to %s", c.address, c.lease, c.late, least, most, c.least, c.most)
		}
	}
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	a := Address{netip.MustParsePrefix("10.0.0.1/32"), "eth0"}
	for name, groups := range map[string][]Group{
		"no name":        {{}},
		"name twice":     {{Name: "a"}, {Name: "a"}},
		"address twice":  {{Name: "a", Addresses: []Address{a}}, {Name: "b", Addresses: []Address{a}}},
		"no address":     {{Name: "a", Addresses: []Address{{Interface: "eth0"}}}},
		"multicast":      {{Name: "a", Addresses: []Address{{netip.MustParsePrefix("224.0.0.1/32"), "eth0"}}}},
		"no interface":   {{Name: "a", Addresses: []Address{{Prefix: a.Prefix}}}},
		"long interface": {{Name: "a", Addresses: []Address{{a.Prefix, "interfacename0123"}}}},
	} {
		if _, err := New(Config{Now: bootTime, Groups: groups}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestMissingCapabilityIsNamedWithItsMend(t *testing.T) {
	for hex, want := range map[string]string{
		"000001ffffffffff": "",
		"0000000000003000": "",
		"0000000000002000": "NET_ADMIN",
		"0000000000001000": "NET_RAW",
		"0000000000000000": "NET_ADMIN NET_RAW",
	} {
		lack, err := missing(hex)
		must(t, err)
		var names []string
		for _, c := range lack {
			names = append(names, c.Name)
			if !strings.Contains(c.Mend(), "cap_add: ["+c.Name) || !strings.Contains(c.Mend(), "AmbientCapabilities=CAP_"+c.Name) {
				t.Error(c.Mend())
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", hex, got, want)
		}
	}
}

func TestTableNameIsOursAndValid(t *testing.T) {
	if got := tableName("prod", "lb1.example"); got != "tandem_prod_lb1.example" {
		t.Error(got)
	}
	seen := map[string]bool{}
	for _, c := range [][2]string{{"a_b", "c"}, {"a", "b_c"}, {"a", "b c"}, {"a", "b/c"}, {"c", strings.Repeat("n", 500)}, {"c", strings.Repeat("n", 501)}} {
		name := tableName(c[0], c[1])
		if seen[name] || len(name) > 200 || strings.ContainsAny(name, " /") {
			t.Errorf("%q %q: %s", c[0], c[1], name)
		}
		seen[name] = true
	}
}

func TestTenRemovalsAreAFight(t *testing.T) {
	var r repairs
	for i := range 9 {
		if at, begins := r.note(time.Duration(i) * time.Second); at != time.Duration(i)*time.Second || begins {
			t.Fatalf("removal %d: %s %v", i, at, begins)
		}
	}
	if at, begins := r.note(9 * time.Second); at != 10*time.Second || !begins {
		t.Error(at, begins)
	}
	if _, begins := r.note(9500 * ms); begins {
		t.Error("alerts twice")
	}
	if at, _ := r.note(time.Minute); at != time.Minute || r.contested {
		t.Error("a fight must end", at)
	}
}
