package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// asInit is the command line that starts a program as process 1 of a namespace of
// its own, as the one of a container is, with three orphans. Where the kernel
// forbids that, the test is skipped.
func asInit(t *testing.T) []string {
	t.Helper()
	unshare := []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--map-root-user")
	}
	if out, err := exec.CommandContext(t.Context(), unshare[0], append(unshare[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: no namespace of process numbers can be made here: %v %s", err, out)
	}
	return append(unshare, "sh", "-c", `for i in 1 2 3; do (sleep 600 &); done; exec "$0" "$@"`)
}

// process is one of the machine's, by its number outside of any namespace.
type process struct {
	pid  int
	name string
	dead bool // it has ended, and nobody has waited for it
}

// childrenOf lists the children of a process, from /proc/PID/stat: pid (comm)
// state ppid and so on.
func childrenOf(t *testing.T, parent int) []process {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("%v, %d processes", err, len(stats))
	}
	var out []process
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
		fields := strings.Fields(string(b[to+1:]))
		if pid, err := strconv.Atoi(strings.Fields(string(b))[0]); err == nil && fields[1] == strconv.Itoa(parent) {
			out = append(out, process{pid, string(b[from+1 : to]), fields[0] == "Z"})
		}
	}
	return out
}

// TestProcessOneIsReplacedInPlace: in a container the sidecar is process 1. It goes
// on as that, answers, ends in order, and collects the orphans that ended before,
// at about the time of, and after a restart.
func TestProcessOneIsReplacedInPlace(t *testing.T) {
	in := install(t, asInit(t)...)
	inside := childrenOf(t, in.cmd.Process.Pid)
	if len(inside) != 1 {
		t.Fatalf("unshare has the children %v", inside)
	}
	sidecar := inside[0].pid
	in.stop = func() error { return syscall.Kill(sidecar, syscall.SIGTERM) }
	number := func() string { // inside
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", sidecar))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nNSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		fields := strings.Fields(line)
		return fields[len(fields)-1]
	}
	orphans := childrenOf(t, sidecar)
	if number() != "1" || len(orphans) != 3 {
		t.Fatalf("number %s inside, children %v; want 1, and three orphans", number(), orphans)
	}
	before, err := in.status()
	if err != nil {
		t.Fatal(err)
	}
	end := func(p process) {
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			t.Errorf("%v: %v", p, err)
		}
	}
	collected := func(n int) func() bool { // none but the first n orphans
		return func() bool {
			return !slices.ContainsFunc(childrenOf(t, sidecar), func(p process) bool {
				return slices.ContainsFunc(orphans[:n], func(o process) bool { return o.pid == p.pid })
			})
		}
	}
	end(orphans[0])
	in.until("the first orphan is collected", collected(1))
	for n := range 2 {
		if n == 0 {
			end(orphans[1])
		}
		if code, out := in.restart(); code != exitOK || !strings.Contains(out, "went on in place") {
			t.Fatalf("restart: %d %s", code, out)
		}
	}
	in.until("the second orphan is collected", collected(2))
	end(orphans[2])
	in.until("the third orphan is collected", collected(3))
	after, err := in.status()
	if err != nil || after.Process.Boot != before.Process.Boot || after.Process.Restarts != 2 || number() != "1" {
		t.Errorf("number %s inside, status %+v %v; before: %+v", number(), after.Process, err, before.Process)
	}
}
