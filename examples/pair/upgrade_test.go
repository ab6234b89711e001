package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/examples/lab"
	"tandem/sidecar/status"
)

// build compiles a sidecar from a source tree, as a version of its own.
func build(t *testing.T, dir, name, flags string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "tandem-"+name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags", "-X main.version="+name+" "+flags, "-o", program, "./sidecar")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return program
}

// oldSource is the source of the commit before the present one. Where there is
// no history (a copy of the files), it is the present source.
func oldSource(t *testing.T) string {
	t.Helper()
	const here = "../.."
	dir := t.TempDir()
	commit := or(os.Getenv("TANDEM_TEST_OLD"), "HEAD~1")
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `git -C "$0" archive "$1" | tar -x -C "$2"`, here, commit, dir).CombinedOutput()
	if _, missing := os.Stat(filepath.Join(dir, "sidecar", "main.go")); err != nil || missing != nil {
		t.Logf("no source of %s (%v %s): the old version is the present source too", commit, err, out)
		return here
	}
	return dir
}

// upgradeOrders are those in which the nodes of a cluster can be upgraded. The
// short one is the holder alone, which comes first against all advice.
func upgradeOrders(all bool) [][]string {
	if !all {
		return [][]string{{"lb1"}}
	}
	return [][]string{
		{"witness", "lb1", "lb2"},
		{"witness", "lb2", "lb1"},
		{"lb1", "lb2", "witness"},
		{"lb1", "witness", "lb2"},
		{"lb2", "lb1", "witness"},
		{"lb2", "witness", "lb1"},
	}
}

// upgrade stops a node's sidecar in order and starts another version in its
// place. It says whether the node held the address.
func upgrade(t *testing.T, l *lab.Lab, node, program string) (held bool) {
	t.Helper()
	held = l.Holder() == node
	spec := l.Proc(node, "tandem").Spec
	if err := l.Stop(t.Context(), node, "tandem", syscall.SIGTERM, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	spec.Args = []string{program, "run"}
	if err := l.Start(node, spec); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, node+" takes part again", func() bool {
		st, ok := statusOf(t, l, node)
		return ok && st.QuarantineMS == 0 && (st.Health == status.Healthy || st.Health == status.Degraded) &&
			!slices.ContainsFunc(st.Nodes, func(n status.Node) bool { return !n.Alive || n.Role == "lb" && !n.Eligible })
	})
	return held
}

func statusOf(t *testing.T, l *lab.Lab, node string) (st status.Status, ok bool) {
	t.Helper()
	out, _ := l.Tandem(t.Context(), node, "status", "--json") // its exit code is about health
	return st, json.Unmarshal([]byte(out), &st) == nil
}

func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := lab.Now() + limit; !ok(); {
		if lab.Now() > end {
			t.Fatalf("not within %v: %s", limit, what)
		}
		if err := pause(t.Context(), 50*ms); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRollingUpgrade runs the version of the previous commit and one that reads
// a later version of the messages in one cluster. The address moves when its
// holder is stopped and at no other time, no new connection fails, and the
// later version is spoken exactly while all nodes read it. `make upgrade` plays
// all orders, upwards and downwards.
func TestRollingUpgrade(t *testing.T) {
	long(t)
	tandem(t) // skips where there is no lab
	all := os.Getenv("TANDEM_TEST_UPGRADE") == "all"
	older := build(t, oldSource(t), "older", "")
	newer := build(t, "../..", "newer", "-X main.protocol=2")
	system := lab.Tandem{Program: older, Env: map[string]string{
		"TANDEM_MOVE_GRACE": "1s",
		"TANDEM_LEASE":      "2s", // two of three voters are left at times: a machine that stands still is no matter here
	}}
	l := start(t, lab.Config{System: system})
	system.Program = newer // the command line from now on: the older one drops what it does not know
	l.System = system
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, order := range upgradeOrders(all) {
		t.Run(strings.Join(order, " "), func(t *testing.T) {
			roll(t, l, order, newer, 2)
			if all {
				roll(t, l, order, older, 1)
			}
		})
	}
}

// roll brings all nodes to a version, one after the other.
func roll(t *testing.T, l *lab.Lab, order []string, program string, protocol int) {
	t.Helper()
	from, moves := lab.Now(), 0
	for i, node := range order {
		if upgrade(t, l, node, program) {
			moves++
		}
		if i+1 < len(l.System.Nodes()) && protocol > 1 {
			spoken(t, l, 1, order[:i+1]...)
		}
	}
	if protocol > 1 && len(order) == len(l.System.Nodes()) {
		spoken(t, l, protocol, order...)
	}
	to := lab.Now()
	n, err := l.Client.Noticed(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	j := l.Referee.Judge(from, to)
	t.Logf("%v to protocol %d: %d requests, %d failed, longest gap %v, %d moves, %d kept connections broke",
		order, protocol, n.Requests, n.Failed, n.Outage.Round(ms), len(j.Moves), n.Broken)
	if stall := max(n.Lag, j.Blind); stall > 500*ms {
		t.Logf("the machine stood still for %v: what the client noticed says nothing", stall)
	} else if n.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v", n.Failed, n.Requests, n.Errors)
	}
	if len(j.Moves) != moves || j.TwoAnswer > 0 {
		t.Errorf("moves %v, want %d; two answered for %v", j.Moves, moves, j.TwoAnswer)
	}
	l.Client.Forget(to)
	l.Referee.Forget(from)
}

// spoken waits until the nodes speak a version of the messages. Those of the
// older binary may be too old to tell.
func spoken(t *testing.T, l *lab.Lab, version int, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		until(t, 10*time.Second, node+" speaks the right version", func() bool {
			st, ok := statusOf(t, l, node)
			return ok && st.Protocol.Speaks == version && st.Protocol.Newest == 2
		})
	}
}
