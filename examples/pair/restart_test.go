package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/examples/lab"
	"tandem/sidecar/status"
)

// inPlace puts a program where the lab's sidecars were started from, in one step.
func inPlace(t *testing.T, program, file string) {
	t.Helper()
	next := file + ".next"
	_ = os.Remove(next)
	if err := os.Link(program, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// restartsInTest is how often the holder's program is replaced;
// TANDEM_TEST_RESTARTS says otherwise, for figures.
const restartsInTest = 4

// TestRestartInPlace replaces programs under load. Where the new one is sound,
// nothing moves, no request fails and no connection breaks; where it is broken,
// nothing happens; where it is late, the other node takes over, never two answer,
// and the history says why.
func TestRestartInPlace(t *testing.T) {
	long(t)
	able(t)
	one, two := build(t, "../..", "one", ""), build(t, "../..", "two", "")
	file := filepath.Join(t.TempDir(), "tandem")
	inPlace(t, one, file)
	l := start(t, lab.Config{System: lab.Tandem{Program: file, Env: map[string]string{"TANDEM_MOVE_GRACE": "1s"}}})
	settle := func() string {
		t.Helper()
		if err := l.Settled(t.Context(), 30*time.Second); err != nil {
			t.Fatal(err)
		}
		return l.Holder()
	}
	holder := settle()

	t.Run("a sound program", func(t *testing.T) {
		times := restartsInTest
		if n, err := strconv.Atoi(os.Getenv("TANDEM_TEST_RESTARTS")); err == nil {
			times = n
		}
		order := append(slices.Repeat([]string{holder}, times), map[string]string{"lb1": "lb2", "lb2": "lb1"}[holder], "witness")
		from := lab.Now()
		for i, node := range order {
			inPlace(t, [2]string{two, one}[i%2], file)
			out, err := l.Tandem(t.Context(), node, "restart")
			if err != nil {
				t.Fatal(err)
			}
			t.Log(strings.TrimSpace(out))
			st, ok := statusOf(t, l, node)
			if want := [2]string{"two", "one"}[i%2]; !ok || st.Version != want || st.Process.Outcome != "in-place" {
				t.Errorf("%s after the restart: version %s, %+v, want version %s", node, st.Version, st.Process, want)
			}
			if err := pause(t.Context(), 600*ms); err != nil {
				t.Fatal(err)
			}
		}
		unmoved(t, l, from, holder)
		for _, node := range order {
			st, _ := statusOf(t, l, node)
			if st.Health != status.Healthy {
				t.Errorf("%s: %s %v", node, st.Health, st.Problems)
			}
		}
	})

	t.Run("a broken program", func(t *testing.T) {
		from := lab.Now()
		broken := script(t, "exit 1")
		inPlace(t, broken, file)
		pid := l.Proc(holder, "tandem").Spec.Args // the command line needs a program that works
		l.System = withProgram(l, one)
		out, err := l.Tandem(t.Context(), holder, "restart")
		if err == nil || !strings.Contains(err.Error(), "nothing has changed") {
			t.Errorf("restart with a broken program %v: %v %s", pid, err, out)
		}
		if err := pause(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		unmoved(t, l, from, holder)
	})

	t.Run("a program that starts late", func(t *testing.T) {
		from := lab.Now()
		inPlace(t, script(t, fmt.Sprintf("[ $1 = run ] && sleep 3\nexec %s \"$@\"", two)), file)
		out, err := l.Tandem(t.Context(), holder, "restart")
		if err == nil || !strings.Contains(err.Error(), "longer than the lease") {
			t.Errorf("restart with a late program: %v %s", err, out)
		}
		to := lab.Now()
		n, err := l.Client.Noticed(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		j := l.Referee.Judge(from, to)
		t.Logf("%d requests, %d failed, longest gap %v, moves %v", n.Requests, n.Failed, n.Outage.Round(ms), j.Moves)
		if l.Holder() == holder || len(j.Moves) != 1 || j.TwoAnswer > 0 {
			t.Errorf("%s holds, moves %v, two answered for %v", l.Holder(), j.Moves, j.TwoAnswer)
		}
		told := ""
		until(t, 10*time.Second, "the other knows why", func() bool {
			told, err = l.Tandem(t.Context(), l.Holder(), "history", "--json")
			return err == nil && strings.Contains(told, "too-late") && strings.Contains(told, "longer than the lease: ")
		})
	})
}

func withProgram(l *lab.Lab, program string) lab.System {
	system, _ := l.System.(lab.Tandem) // the only one here
	system.Program = program
	return system
}

// unmoved fails the test if anybody noticed anything since from.
func unmoved(t *testing.T, l *lab.Lab, from time.Duration, holder string) {
	t.Helper()
	to := lab.Now()
	n, err := l.Client.Noticed(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	j := l.Referee.Judge(from, to)
	t.Logf("%d requests, %d failed, longest gap %v, %d kept connections broke", n.Requests, n.Failed, n.Outage.Round(ms), n.Broken)
	if stall := max(n.Lag, j.Blind); stall > 500*ms {
		t.Logf("the machine stood still for %v: what the client noticed says nothing", stall)
	} else if n.Requests == 0 || n.Failed > 0 || n.Broken > 0 {
		t.Errorf("%d of %d requests failed, %d connections broke: %v", n.Failed, n.Requests, n.Broken, n.Errors)
	}
	if len(j.Moves) > 0 || j.TwoAnswer > 0 || l.Holder() != holder {
		t.Errorf("moves %v, two answered for %v, %q holds; want %q all the time", j.Moves, j.TwoAnswer, l.Holder(), holder)
	}
}
