package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/examples/lab"
)

// The bounds of these tests leave room for a machine that does other things as
// well; what is checked sharply is order and count: who serves afterwards, how
// many requests failed where none may, that no two machines answered. The
// figures come from `make bench`.

func TestMain(m *testing.M) {
	lab.Child()
	if err := lab.Prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "*** whole-system tests are left out:", err)
		_ = os.Setenv("TDLAB_UNABLE", err.Error())
	}
	os.Exit(m.Run())
}

// able skips where there is no lab.
func able(t *testing.T) {
	t.Helper()
	if why := os.Getenv("TDLAB_UNABLE"); why != "" {
		t.Skip("no lab here: " + why)
	}
}

// tandem builds the binary under test.
func tandem(t *testing.T) string {
	t.Helper()
	able(t)
	program := filepath.Join(t.TempDir(), "tandem")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "tandem/sidecar").CombinedOutput()
	if err != nil {
		t.Fatalf("build tandem: %v\n%s", err, out)
	}
	return program
}

// long marks a test that `make test` has no time for.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("TANDEM_TEST_LONG") == "" {
		t.Skip("left out of make test for its length: make test-long")
	}
}

// start builds a lab, and prints the sidecars' logs when the test has failed.
func start(t *testing.T, cfg lab.Config) *lab.Lab {
	t.Helper()
	l, err := lab.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, node := range cfg.System.Nodes() {
				t.Logf("--- %s\n%s", node, tail(l.Log(node, cfg.System.Daemon()), 60))
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// claim is a row of the fault table as a test: its name is what must hold.
type claim struct {
	name   string
	row    string
	within time.Duration // outage
	check  func(t *testing.T, l *lab.Lab, m measurement)
}

func TestPair(t *testing.T) {
	// The grace is shorter than usual because an orderly stop lasts as long, and
	// longer than a planned move is watched.
	l := start(t, lab.Config{System: lab.Tandem{Program: tandem(t), Env: map[string]string{"TANDEM_MOVE_GRACE": "6s"}}})
	playClaims(t, l, claims())
}

// TestPairOverIPv6 is what of TestPair depends on the family of the address, for
// clients that use the IPv6 one of a pair that carries both.
func TestPairOverIPv6(t *testing.T) {
	long(t)
	l := start(t, lab.Config{ByIPv6: true, System: lab.Tandem{Program: tandem(t), Env: map[string]string{"TANDEM_MOVE_GRACE": "6s"}}})
	rows := []string{"haproxy-killed", "power", "gossip-cut", "deaf", "mute", "daemon-killed", "daemon-frozen", "move", "move-old-dies", "move-new-dies", "stop"}
	playClaims(t, l, slices.DeleteFunc(claims(), func(c claim) bool { return !slices.Contains(rows, c.row) }))
}

func playClaims(t *testing.T, l *lab.Lab, claims []claim) {
	t.Helper()
	for _, c := range claims {
		t.Run(c.name, func(t *testing.T) {
			i := slices.IndexFunc(testRows(), func(r row) bool { return r.name == c.row })
			var unsplit func()
			if testRows()[i].only == "sites" { // a row about sites
				unsplit = neverSplit(t, l)
			}
			m, err := measure(t.Context(), l, testRows()[i])
			t.Log(m)
			if unsplit != nil {
				unsplit()
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.Open || m.Outage > c.within {
				t.Errorf("no answer for %v (open %v), want at most %v", m.Outage, m.Open, c.within)
			}
			if m.TwoAnswer > 0 {
				t.Errorf("two load balancers answered for %v", m.TwoAnswer)
			}
			c.check(t, l, m)
		})
	}
}

// testRows are the rows of the bench, the long ones shortened.
func testRows() []row {
	return append([]row{lossRow(10 * time.Second), busyRow(8 * time.Second), restRow(4 * time.Second), floodRow(4 * time.Second)}, rows()...)
}

func claims() []claim {
	const soon, lease = 600 * ms, 1500 * ms // generous: a loaded machine
	return []claim{
		{"when HAProxy dies the other load balancer takes over at once", "haproxy-killed", soon, moved},
		{"when HAProxy hangs the other load balancer takes over", "haproxy-hung", lease, moved},
		{"when the holder loses power the other takes over within a lease", "power", lease, moved},
		{"a holder that is cut off is replaced", "cut", lease, moved},
		{"a holder that its peers have lost is silent before another speaks", "gossip-cut", lease, moved},
		{"a holder that hears nothing is replaced", "deaf", lease, moved},
		{"a holder that is not heard is replaced", "mute", lease, moved},
		{"when the sidecar is killed service goes on", "daemon-killed", lease, moved},
		{"a sidecar that is killed and restarted costs no more", "daemon-restarted", lease, moved},
		{"a frozen sidecar is replaced", "daemon-frozen", lease, moved},
		{"when the witness dies nothing moves", "witness", 200 * ms, stayed},
		{"a planned move breaks nothing", "move", 200 * ms, func(t *testing.T, l *lab.Lab, m measurement) {
			t.Helper()
			moved(t, l, m)
			lossless(t, l, m)
			if m.Broken > 0 || m.Kept == 0 {
				t.Errorf("%d connections broke, %d requests on kept ones; want that all go on within the grace", m.Broken, m.Kept)
			}
		}},
		{"an old holder that dies in the grace leaves nobody hanging", "move-old-dies", soon, func(t *testing.T, l *lab.Lab, m measurement) {
			t.Helper()
			moved(t, l, m)
			lossless(t, l, m)
			noneHangs(t, m)
			if m.Broken == 0 {
				t.Error("no connection of the dead node was reset")
			}
		}},
		{"when the successor dies in the grace the old holder goes on", "move-new-dies", lease, func(t *testing.T, _ *lab.Lab, m measurement) {
			t.Helper()
			if m.After != m.Holder {
				t.Errorf("%s holds, want %s again", or(m.After, "nobody"), m.Holder)
			}
			noneHangs(t, m)
			if m.Broken > 0 {
				t.Errorf("%d connections of the old holder broke", m.Broken)
			}
		}},
		{"an orderly stop hands over", "stop", soon, func(t *testing.T, l *lab.Lab, m measurement) {
			t.Helper()
			moved(t, l, m)
			lossless(t, l, m)
		}},
		{"a reload of HAProxy sends nobody to the standby site", "reload", 200 * ms, func(t *testing.T, l *lab.Lab, m measurement) {
			t.Helper()
			stayed(t, l, m)
			if sites := m.Sites(); len(sites) != 1 {
				t.Errorf("sites %v answered, want the active one only", sites)
			}
		}},
		{"30 % loss moves nothing", "loss", 200 * ms, stayed},
		{"busy loops move nothing", "busy", 500 * ms, stayed},
		{"a flood of garbage moves nothing", "flood", 500 * ms, flooded},
		{"when the active site dies both load balancers use the other", "site-killed", 2 * time.Second, siteFailedOver},
		{"a planned takeover loses no request", "takeover", 200 * ms, func(t *testing.T, l *lab.Lab, m measurement) {
			t.Helper()
			lossless(t, l, m)
			alike(t, l, "a")
		}},
		{"a sidecar at rest is small", "rest", 200 * ms, small},
	}
}

func moved(t *testing.T, _ *lab.Lab, m measurement) {
	t.Helper()
	if m.After != lab.Other(m.Holder) || len(m.Moves) != 1 {
		t.Errorf("%s holds after %s did, moves %v; want the other, at once", or(m.After, "nobody"), m.Holder, m.Moves)
	}
}

func stayed(t *testing.T, l *lab.Lab, m measurement) {
	t.Helper()
	if m.After == "" && len(m.Moves) == 0 {
		// The referee itself may have stood still on a starved machine: what it
		// says of the last instant is asked again.
		for range 50 {
			if m.After = l.Holder(); m.After != "" {
				break
			}
			time.Sleep(100 * ms)
		}
	}
	if m.After != m.Holder || len(m.Moves) != 0 {
		t.Errorf("%s holds after %s did, moves %v; want that it stays", or(m.After, "nobody"), m.Holder, m.Moves)
	}
}

func lossless(t *testing.T, _ *lab.Lab, m measurement) {
	t.Helper()
	if m.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v", m.Failed, m.Requests, m.Errors)
	}
}

// noneHangs: what ends is reset.
func noneHangs(t *testing.T, m measurement) {
	t.Helper()
	for _, r := range m.kept {
		if r.Err == "timeout" {
			t.Errorf("a kept connection got no answer for %v, and no reset", r.Took)
		}
	}
}

// siteFailedOver is about the row in which site a has died.
func siteFailedOver(t *testing.T, l *lab.Lab, m measurement) {
	t.Helper()
	stayed(t, l, m)
	if m.Late > time.Second {
		t.Errorf("site b answered %v after HAProxy had found site a dead", m.Late)
	}
	alike(t, l, "b")
}

// alike tells whether both load balancers use the same site only.
func alike(t *testing.T, l *lab.Lab, site string) {
	t.Helper()
	for _, broken := range routed(t.Context(), l, site) {
		t.Error(broken)
	}
}

func flooded(t *testing.T, l *lab.Lab, m measurement) {
	t.Helper()
	stayed(t, l, m)
	if m.Resident > 64e6 {
		t.Errorf("%d MB resident, want at most 64", m.Resident/1e6)
	}
	if m.Dropped < 1000 {
		t.Errorf("the metric counts %d that were dropped, want thousands", m.Dropped)
	}
}

func small(t *testing.T, l *lab.Lab, m measurement) {
	t.Helper()
	u, err := l.Usage(m.Holder, "tandem")
	if err != nil {
		t.Fatal(err)
	}
	if u.Resident > 40e6 {
		t.Errorf("%d MB resident, want at most 40", u.Resident/1e6)
	}
}

// TestMinorityHoldsNothing is the scenario R4: a load balancer that is left
// alone by the other and by the witness does not take over.
func TestMinorityHoldsNothing(t *testing.T) {
	l := start(t, lab.Config{System: lab.Tandem{Program: tandem(t)}})
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	holder := l.Holder()
	for _, node := range []string{"witness", holder} {
		if err := l.PowerOff(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	from := lab.Now()
	if err := pause(t.Context(), 4*time.Second); err != nil {
		t.Fatal(err)
	}
	if j := l.Referee.Judge(from, lab.Now()); j.Nobody < 3900*ms {
		t.Errorf("somebody answered: %+v", j)
	}
	if err := l.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Errorf("service did not come back: %v", err)
	}
}

// TestEverythingRestartsAtOnce: the decision outlives it, on disk.
func TestEverythingRestartsAtOnce(t *testing.T) {
	l := start(t, lab.Config{System: lab.Tandem{Program: tandem(t)}})
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Tandem(t.Context(), "lb1", "takeover", "b"); err != nil {
		t.Fatal(err)
	}
	if err := pause(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	alike(t, l, "b")
	for _, node := range l.System.Nodes() {
		if err := l.PowerOff(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	from := lab.Now()
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	alike(t, l, "b")
	n, err := l.Client.Noticed(t.Context(), from, lab.Now())
	if err != nil || n.Sites()["a"] > 0 {
		t.Errorf("answers by site %v %v, want b only", n.Sites(), err)
	}
	if j := l.Referee.Judge(from, lab.Now()); j.TwoAnswer > 0 {
		t.Errorf("two load balancers answered for %v", j.TwoAnswer)
	}
}
