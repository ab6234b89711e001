package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/examples/lab"
	"tandem/sidecar/status"
)

// Nobody may set the clock of the machine that the tests run on. So the sidecar
// is built with another clock: its source is the real one, and the Go runtime's
// reading of the wall clock has an offset, which the process reads from a file
// again and again. HAProxy, the client and the referee have the true time.

// setClock adds an offset to the runtime's wall clock, for linux/amd64.
const setClock = `
package runtime

import (
	"internal/runtime/atomic"
	_ "unsafe" // for go:linkname
)

//go:linkname clockAhead
var clockAhead atomic.Int64 // seconds

func trueNow() (sec int64, nsec int32, mono int64)

//go:linkname time_now time.now
func time_now() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = trueNow()
	return sec + clockAhead.Load(), nsec, mono
}
`

// readClock keeps the offset as the file named by CLOCK_AHEAD has it.
const readClock = `
package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	_ "unsafe" // for go:linkname
)

//go:linkname clockAhead runtime.clockAhead
var clockAhead atomic.Int64

func init() {
	go func() {
		for ; ; time.Sleep(10 * time.Millisecond) {
			var ahead int64
			if b, err := os.ReadFile(os.Getenv("CLOCK_AHEAD")); err == nil {
				if n, _ := fmt.Sscan(string(b), &ahead); n == 1 {
					clockAhead.Store(ahead)
				}
			}
		}
	}()
}
`

// tandemWithAClock builds the sidecar so.
func tandemWithAClock(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("what is put in the place of the runtime's clock is for linux/amd64")
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root := strings.TrimSpace(output(t, "go", "env", "GOROOT"))
	clock := filepath.Join(root, "src", "runtime", "time_linux_amd64.s")
	source, err := os.ReadFile(clock)
	if err != nil {
		t.Fatal(err)
	}
	const symbol = "TEXT time·now<ABIInternal>("
	if strings.Count(string(source), symbol) != 1 {
		t.Fatalf("%s does not read the clock as it used to: this test has to learn it again", clock)
	}
	sidecar := strings.TrimSpace(output(t, "go", "list", "-f", "{{.Dir}}", "tandem/sidecar"))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		clock: write("clock.s", strings.Replace(string(source), symbol, "TEXT ·trueNow<ABIInternal>(", 1)),
		filepath.Join(root, "src", "runtime", "timeasm.go"): write("clock.go", setClock),
		filepath.Join(sidecar, "zz_clock.go"):               write("read.go", readClock),
	}})
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "tandem")
	output(t, "go", "build", "-buildvcs=false", "-overlay", write("overlay.json", string(overlay)), "-o", program, "tandem/sidecar")
	return program
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// TestTheClockIsSet an hour forward, an hour back and right again, on the holder,
// on the other load balancer and on the witness, while a site decision is paused:
// nothing moves, no request fails, and every status is as sane as before. Then a
// failover and a planned move, with three clocks that disagree.
func TestTheClockIsSet(t *testing.T) {
	long(t)
	tandem(t) // skips where there is no lab
	file := func(n *lab.Node) string { return filepath.Join(n.Dir, "ahead") }
	system := lab.Tandem{
		Program: tandemWithAClock(t),
		NodeEnv: func(_ *lab.Lab, n *lab.Node) map[string]string { return map[string]string{"CLOCK_AHEAD": file(n)} },
	}
	l := start(t, lab.Config{System: system})
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	set := func(node string, ahead time.Duration) {
		t.Helper()
		path := file(l.Node(node))
		err := os.WriteFile(path+".new", []byte(fmt.Sprint(int64(ahead.Seconds()), "\n")), 0o600)
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatal(err)
		}
		until(t, 10*time.Second, node+"'s clock is set", func() bool {
			st, ok := statusOf(t, l, node)
			return ok && (time.Since(st.At)+ahead).Abs() < time.Minute
		})
	}
	holder := l.Holder()
	if out, err := l.Tandem(t.Context(), holder, "pause", "10m"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	began := time.Now()
	from := lab.Now()
	for _, node := range []string{holder, lab.Other(holder), "witness"} {
		for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
			set(node, ahead)
			if err := pause(t.Context(), 2*time.Second); err != nil {
				t.Fatal(err)
			}
			saneStatus(t, l, fmt.Sprintf("%s %v ahead", node, ahead), 10*time.Minute-time.Since(began))
		}
	}
	undisturbed(t, l, from)

	set("lb1", time.Hour)
	set("lb2", -time.Hour)
	from = lab.Now()
	// On a machine so busy that the successor comes too late the old holder takes
	// the address back, and the command says that it may be tried again.
	until(t, 10*time.Second, "moved", func() bool {
		_, err := l.Tandem(t.Context(), holder, "move", "--to", lab.Other(holder))
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
	until(t, 10*time.Second, "the other holds", func() bool { return l.Holder() == lab.Other(holder) })
	newest(t, l, "take-up", lab.Other(holder))
	if err := l.Kill(lab.Other(holder), "haproxy"); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the first holds again", func() bool { return l.Holder() == holder })
	newest(t, l, "take-up", holder)
	if j := l.Referee.Judge(from, lab.Now()); j.TwoAnswer > 0 || len(j.Moves) < 2 || len(j.Moves)%2 != 0 {
		t.Errorf("two answered for %v, moves %v; want one to the other, and back", j.TwoAnswer, j.Moves)
	}
	saneStatus(t, l, "after a failover", 10*time.Minute-time.Since(began))
}

// undisturbed: since then nothing moved and no request failed, unless the machine
// stood still.
func undisturbed(t *testing.T, l *lab.Lab, from time.Duration) {
	t.Helper()
	to := lab.Now()
	n, err := l.Client.Noticed(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	j := l.Referee.Judge(from, to)
	t.Logf("%v: %d requests, %d failed, longest gap %v, %d moves", (to - from).Round(time.Second), n.Requests, n.Failed, n.Outage.Round(ms), len(j.Moves))
	if len(j.Moves) > 0 || j.TwoAnswer > 0 {
		t.Errorf("moves %v, two answered for %v; want that nothing moves", j.Moves, j.TwoAnswer)
	}
	if n.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v; the machine stood still for %v", n.Failed, n.Requests, n.Errors, max(n.Lag, j.Blind))
	}
}

// saneStatus looks at what every node shows of times.
func saneStatus(t *testing.T, l *lab.Lab, when string, left time.Duration) {
	t.Helper()
	for _, node := range l.System.Nodes() {
		st, ok := statusOf(t, l, node)
		if !ok || st.Health == status.NotServing || st.Health == status.Unknown {
			t.Errorf("%s: %s is %s: %v", when, node, or(string(st.Health), "silent"), st.Problems)
			continue
		}
		for _, lease := range st.Leases {
			if lease.ExpiresInMS <= 0 || lease.ExpiresInMS > 5000 {
				t.Errorf("%s: %s shows a lease of %s with %d ms left", when, node, lease.Resource, lease.ExpiresInMS)
			}
		}
		for _, n := range st.Nodes {
			if n.AgeMS < 0 || n.AgeMS > 10_000 || !n.Alive {
				t.Errorf("%s: %s heard %s %d ms ago (alive %v)", when, node, n.Name, n.AgeMS, n.Alive)
			}
		}
		if len(st.Groups) == 0 {
			continue // a witness knows no sites
		}
		if st.Site.Since == nil {
			t.Errorf("%s: %s does not show since when site %s is active", when, node, st.Site.Active)
		} else if age := st.At.Sub(*st.Site.Since); age < 0 || age > 20*time.Minute {
			t.Errorf("%s: %s shows site %s active for %v", when, node, st.Site.Active, age)
		}
		if st.PausedUntil == nil {
			t.Errorf("%s: %s shows no pause", when, node)
		} else if d := st.PausedUntil.Sub(st.At); (d - left).Abs() > time.Minute {
			t.Errorf("%s: %s shows a pause of another %v, want %v", when, node, d, left)
		}
	}
}

// newest: what has just happened to the address comes last in the history of every
// node.
func newest(t *testing.T, l *lab.Lab, event, node string) {
	t.Helper()
	for _, asked := range l.System.Nodes() {
		until(t, 5*time.Second, fmt.Sprintf("%s's history ends with the %s of %s", asked, event, node), func() bool {
			st, _ := statusOf(t, l, asked)
			for _, x := range slices.Backward(st.Recent) {
				if x.Event == event && x.Resource == "vip/default" {
					return x.Node == node
				}
			}
			return false
		})
	}
}

// TestBootClocksHoursApart: what leases are measured with says how long each
// machine has run, which is never the same. Every sidecar is in a time namespace of
// its own, and one of them comes into another.
func TestBootClocksHoursApart(t *testing.T) {
	long(t)
	program := tandem(t)
	if out, err := exec.CommandContext(t.Context(), "unshare", "-T", "--boottime", "3600", "true").CombinedOutput(); err != nil {
		t.Skipf("this kernel has no time namespaces, or lets nobody make one: %v %s", err, out)
	}
	l := start(t, lab.Config{System: lab.Tandem{Program: program, Env: map[string]string{"TANDEM_MOVE_GRACE": "1s"}}})
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	from := lab.Now()
	settle := func(node string, boottime int) {
		t.Helper()
		spec := l.Proc(node, "tandem").Spec
		spec.Args = []string{"unshare", "-T", "--boottime", fmt.Sprint(boottime), "--monotonic", fmt.Sprint(boottime / 2), program, "run"}
		if err := l.Stop(t.Context(), node, "tandem", syscall.SIGTERM, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := l.Start(node, spec); err != nil {
			t.Fatal(err)
		}
		until(t, 20*time.Second, node+" takes part again", func() bool {
			st, ok := statusOf(t, l, node)
			return ok && st.QuarantineMS == 0 && st.Health == status.Healthy
		})
	}
	settle("witness", 5*3600)
	settle("lb2", 3600)
	settle("lb1", 1000*3600)
	settle("lb1", 2*3600) // as if it had booted anew, with what it left on disk and in the kernel
	to := lab.Now()
	n, err := l.Client.Noticed(t.Context(), from, to)
	if err != nil || n.Failed > 0 {
		t.Errorf("%d of %d requests failed: %v %v", n.Failed, n.Requests, n.Errors, err)
	}
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	from = lab.Now()
	if err := pause(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	undisturbed(t, l, from)
	holder := l.Holder()
	from = lab.Now()
	if err := l.PowerOff(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "the other holds", func() bool { return l.Holder() == lab.Other(holder) })
	if took := lab.Now() - from; took > 3*time.Second {
		t.Errorf("the other holds after %v, want a lease", took)
	}
	if j := l.Referee.Judge(from, lab.Now()); j.TwoAnswer > 0 {
		t.Errorf("two answered for %v", j.TwoAnswer)
	}
}
