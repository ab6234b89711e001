package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/agent"
	"tandem/sidecar/config"
	"tandem/sidecar/status"
)

// installed is a sidecar of one node, started from a file that can be replaced.
type installed struct {
	t    *testing.T
	file string
	env  []string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	stop func() error // in place of a SIGTERM to cmd
}

// installedAs names the file by which this test's own program is tandem.
const installedAs = "_TEST_INSTALLED_AS"

// install starts it, by the command line before its own if there is one.
func install(t *testing.T, by ...string) *installed {
	t.Helper()
	dir := t.TempDir()
	in := &installed{t: t, file: filepath.Join(dir, "tandem"), log: &bytes.Buffer{}}
	in.env = append(os.Environ(), installedAs+"="+in.file,
		"TANDEM_NODE=lb1", "TANDEM_PEERS=lb1=127.0.0.1:"+freePort(t), "TANDEM_BIND=127.0.0.1:"+freePort(t), "TANDEM_KEY="+checkKey,
		"TANDEM_API=off", "TANDEM_SOCKET="+filepath.Join(dir, "s"), "TANDEM_HAPROXY_SOCKET="+filepath.Join(dir, "none"), "TANDEM_LOG_LEVEL=warn")
	in.sound()
	line := append(slices.Clone(by), in.file, "run")
	in.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), line[0], line[1:]...)
	in.cmd.Env, in.cmd.Stdout, in.cmd.Stderr = in.env, in.log, in.log
	if err := in.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if in.stop == nil || in.stop() != nil {
			_ = in.cmd.Process.Signal(syscall.SIGTERM)
		}
		if err := in.cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("the sidecar ended with %v:\n%s", err, in.log)
		}
	})
	in.until("it answers", func() bool { _, err := in.status(); return err == nil })
	return in
}

// put replaces the program's file in one step, as an installer does.
func (in *installed) put(write func(path string) error) {
	in.t.Helper()
	if err := write(in.file + ".new"); err != nil {
		in.t.Fatal(err)
	}
	if err := os.Rename(in.file+".new", in.file); err != nil {
		in.t.Fatal(err)
	}
}

// sound puts this test's own program there, which is tandem by that name.
func (in *installed) sound() {
	self, err := os.Executable()
	if err != nil {
		in.t.Fatal(err)
	}
	in.put(func(path string) error { return os.Symlink(self, path) })
}

func (in *installed) script(text string) {
	in.put(func(path string) error { return os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755) })
}

func (in *installed) status() (st status.Status, err error) {
	p := &program{env: in.env}
	ctx, cancel := context.WithTimeout(in.t.Context(), time.Second)
	defer cancel()
	return st, p.client().get(ctx, "/v1/status", &st)
}

func (in *installed) until(what string, ok func() bool) {
	in.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			in.t.Fatalf("not within 20 s: %s\n%s", what, in.log)
		}
	}
}

// restart is the command; it returns the exit code and what was printed.
func (in *installed) restart() (int, string) {
	var out bytes.Buffer
	code := (&program{env: in.env, stdout: &out, stderr: &out}).run([]string{"restart"})
	return code, out.String()
}

// TestAProgramIsReplacedInItsProcess: by command and by signal, again and again.
func TestAProgramIsReplacedInItsProcess(t *testing.T) {
	in := install(t)
	before, err := in.status()
	if err != nil {
		t.Fatal(err)
	}
	if code, out := in.restart(); code != exitOK || !strings.Contains(out, "went on in place") {
		t.Fatalf("restart: %d %s", code, out)
	}
	if err := in.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	in.until("the second restart", func() bool { st, err := in.status(); return err == nil && st.Process.Restarts == 2 })
	after, err := in.status()
	if err != nil || after.Process.Boot != before.Process.Boot || !after.Process.Started.After(before.Process.Started) || after.QuarantineMS > before.QuarantineMS {
		t.Errorf("status after two restarts: %+v %v; before: %+v", after.Process, err, before.Process)
	}
}

// TestABrokenProgramChangesNothing: it is tried before anything happens.
func TestABrokenProgramChangesNothing(t *testing.T) {
	in := install(t)
	before, err := in.status()
	if err != nil {
		t.Fatal(err)
	}
	sound := filepath.Join(t.TempDir(), "tandem")
	if self, err := os.Executable(); err != nil || os.Symlink(self, sound) != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"echo 'cannot execute' >&2; exit 126": "cannot execute",
		"exit 0":                              "no tandem that knows how to",
		"echo 'tandem: unknown command \"can-succeed\"' >&2; exit 2":                           "of a version that does not know how to",
		"exec env TANDEM_CLUSTER=other " + installedAs + "=" + sound + " " + sound + " \"$@\"": "in cluster other at",
		"exec env TANDEM_PEERS= " + installedAs + "=" + sound + " " + sound + " \"$@\"":        "TANDEM_PEERS: required",
	} {
		in.script(text)
		if code, out := in.restart(); code != exitFailed || !strings.Contains(out, want) || !strings.Contains(out, "nothing has changed") {
			t.Errorf("%s: exit code %d, %s", text, code, out)
		}
	}
	in.put(func(path string) error { return os.WriteFile(path, []byte("#!/nonexistent\n"), 0o755) })
	if code, out := in.restart(); code != exitFailed || !strings.Contains(out, "nothing has changed") {
		t.Errorf("without an interpreter: %d %s", code, out)
	}
	after, err := in.status()
	if err != nil || after.Process.Started != before.Process.Started {
		t.Errorf("status %+v %v, want the program of before %+v", after.Process, err, before.Process)
	}
	in.sound()
	if code, out := in.restart(); code != exitOK {
		t.Errorf("with a sound program after all: %d %s", code, out)
	}
}

// TestAProgramWithoutItsStateBeginsAfresh, under another incarnation, and says
// why.
func TestAProgramWithoutItsStateBeginsAfresh(t *testing.T) {
	in := install(t)
	before, err := in.status()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "tandem")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	in.script("[ $1 = run ] && exec 9</dev/null && export " + inheritFD + "=9\nexport " + installedAs + "=" + link + "\nexec " + link + " \"$@\"")
	code, out := in.restart()
	if code != exitFailed || !strings.Contains(out, agent.ReasonAfresh+": what this node held moves") {
		t.Errorf("restart: %d %s", code, out)
	}
	after, err := in.status()
	if err != nil || after.Process.Boot == before.Process.Boot || after.Process.Restarts != 0 {
		t.Errorf("status %+v %v, want another incarnation than %+v", after.Process, err, before.Process)
	}
	found := false
	for _, r := range after.Recent {
		found = found || r.Event == "restart" && r.Reason == agent.ReasonAfresh && strings.Contains(r.Detail, "no state of tandem's")
	}
	if !found {
		t.Errorf("the history does not say it: %+v", after.Recent)
	}
}

func sample(t *testing.T) inheritance {
	t.Helper()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	return inheritance{
		PID: os.Getpid(), BootID: boot, Identity: "lb1 (lb) in cluster tandem at 0.0.0.0:7946", Settings: map[string]string{"TANDEM_X": "1"}, Keys: []string{"a", "b"},
		Agent: agent.Succession{Taken: bootTime(), Version: "1", State: agent.State{Lease: lease.Snapshot{Node: "lb1"}}},
	}
}

// TestAStateIsNotMistaken: it is of this version, whole, of this process, of this
// boot, and of a moment ago.
func TestAStateIsNotMistaken(t *testing.T) {
	good, err := sample(t).encode()
	if err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) error {
		_, err := readInheritance(bytes.NewReader(b), func(in inheritance) error { return in.own(bootTime()) })
		return err
	}
	if err := read(good); err != nil {
		t.Errorf("a sound state: %v", err)
	}
	head, _, _ := bytes.Cut(good, []byte("\n"))
	for want, b := range map[string][]byte{
		"no state of tandem's": nil,
		"hash does not fit":    good[:len(good)-1],
		"of version":           bytes.Replace(good, fmt.Appendf(nil, " %d ", agent.StateVersion), fmt.Appendf(nil, " %d ", agent.StateVersion+1), 1),
		"damaged":              append(append([]byte{}, head...), []byte("\n{}")...),
	} {
		if err := read(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	for want, change := range map[string]func(*inheritance){
		"of process":      func(in *inheritance) { in.PID++ },
		"of another boot": func(in *inheritance) { in.BootID = "x" },
		"ago, at most":    func(in *inheritance) { in.Agent.Taken -= 2 * inheritLife },
		"was taken -59m":  func(in *inheritance) { in.Agent.Taken += time.Hour - time.Millisecond },
	} {
		in := sample(t)
		change(&in)
		b, err := in.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := read(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// TestARestartChangesNoSetting: neither what must be the same on all nodes, nor the
// keys in the middle of a rotation.
func TestARestartChangesNoSetting(t *testing.T) {
	load := func(more ...string) config.Config {
		t.Helper()
		cfg, err := config.Load(append([]string{"TANDEM_NODE=lb1", "TANDEM_PEERS=lb1=127.0.0.1,lb2=127.0.0.2,w=127.0.0.3", "TANDEM_KEY=" + checkKey}, more...))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	in := sample(t)
	in.Settings = load().Shared()
	if err := in.fits(load(), []string{"b", "a"}); err != nil {
		t.Errorf("the same: %v", err)
	}
	for want, err := range map[string]error{
		"TANDEM_MOVE_GRACE means something else":                                in.fits(load("TANDEM_MOVE_GRACE=3s"), in.Keys),
		"it is of lb1 (lb) in cluster tandem at 0.0.0.0:7946, this is lb2 (lb)": in.fits(load("TANDEM_NODE=lb2"), in.Keys),
		"keys are being rotated":                                                in.fits(load(), []string{"a"}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// TestAStateSurvivesItsEncoding, the numbers of all sizes included.
func TestAStateSurvivesItsEncoding(t *testing.T) {
	in := sample(t)
	in.Broadcasts, in.Agent.State.Lease.Seq, in.Agent.State.Lease.Rand = 1<<63, 1<<62+1, 1<<64-1
	in.Agent.State.Lease.Wake = 1<<63 - 1
	b, err := in.encode()
	if err != nil {
		t.Fatal(err)
	}
	out, err := decodeInheritance(b)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := json.Marshal(in)
	y, _ := json.Marshal(out)
	if !bytes.Equal(x, y) || out.Agent.State.Lease.Rand != in.Agent.State.Lease.Rand {
		t.Errorf("was\n%s\nis\n%s", x, y)
	}
}

// TestAProgramThatCannotBeExecutedChangesNothing: it passed its trial and is gone
// when its turn comes. The former one goes on, and hears its signals.
func TestAProgramThatCannotBeExecutedChangesNothing(t *testing.T) {
	in := install(t)
	before, err := in.status()
	if err != nil {
		t.Fatal(err)
	}
	sound := filepath.Join(t.TempDir(), "tandem")
	if self, err := os.Executable(); err != nil || os.Symlink(self, sound) != nil {
		t.Fatal(err)
	}
	in.script(installedAs + "=" + sound + " " + sound + " \"$@\" && rm " + in.file)
	code, out := in.restart()
	if code != exitFailed || !strings.Contains(out, agent.ReasonNotDone) || !strings.Contains(out, "no such file") {
		t.Errorf("restart: %d %s", code, out)
	}
	st, err := in.status()
	if err != nil || !st.Process.Started.Equal(before.Process.Started) || st.Process.Outcome != agent.ReasonNotDone {
		t.Errorf("status %+v %v, want the program of before: %+v", st.Process, err, before.Process)
	}
	in.sound()
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
		if err := in.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	in.until("the restart", func() bool { st, err := in.status(); return err == nil && st.Process.Restarts == 1 })
}
