package hook

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// The commands of these tests do what a script should not. None may hold up its
// lane, cost the sidecar its processor, or leave a zombie; what else the runner
// is hardened against is in runner_test.go: floods, ignored signals, a removed
// directory, a group that was left.

// next runs one more job in the lane: it is neither blocked nor broken.
func next(t *testing.T, r *Runner) {
	t.Helper()
	r.Submit(job("next", 9, "echo well"))
	if res := r.get(t); !res.OK || res.Commands[0].Output != "well\n" {
		t.Errorf("the next job: %+v", res)
	}
	if z := zombies(os.Getpid()); len(z) > 0 {
		t.Errorf("zombies %v", z)
	}
}

// The end of its output is not the end of a command.
func TestACommandMayCloseItsDescriptors(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{})
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	r.Submit(job("x", 1, "echo last words; exec <&- >&- 2>&-; sleep 0.5; touch "+dir+"/end; exit 3"))
	res := r.get(t)
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	if res.Reason != ReasonExit || res.Commands[0].ExitCode != 3 || res.Commands[0].Output != "last words\n" {
		t.Errorf("%+v", res)
	}
	if _, err := os.Stat(dir + "/end"); err != nil {
		t.Errorf("there was a result before the command had ended: %v", err)
	}
	if spent := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()); spent > 400*time.Millisecond {
		t.Errorf("waiting for it took %v of processor time", spent)
	}
	next(t, r)
}

// What a command says is shown to people and sent to other nodes.
func TestBinaryOutputBecomesText(t *testing.T) {
	r := start(t, Config{Output: 4096})
	r.Submit(job("x", 1, `printf 'a\000b\377\376\200c\033[2J\n'; head -c 100000 /dev/urandom; exit 1`))
	res := r.get(t)
	out := res.Commands[0].Output
	if res.Reason != ReasonExit || !utf8.ValidString(out) || !strings.HasPrefix(out, "a\x00b\ufffdc") || len(out) > 3*4096+100 {
		t.Errorf("%+v: %d bytes, %.20q", res.Reason, len(out), out)
	}
	b, err := json.Marshal(res.Commands[0])
	var again Command
	if err != nil || json.Unmarshal(b, &again) != nil || again.Output != out {
		t.Errorf("it does not survive the way to another node: %v", err)
	}
	next(t, r)
}

// A grandchild that keeps the output open, and says nothing, is not waited for.
func TestAGrandchildMayHoldTheOutput(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{})
	begin := time.Now()
	r.Submit(job("x", 1, "(exec sleep 300) & echo $! >"+dir+"/pid; echo done"))
	res := r.get(t)
	pid := pidIn(t, dir+"/pid")
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if !res.OK || res.Commands[0].Output != "done\n" || time.Since(begin) > 10*time.Second {
		t.Errorf("%+v after %v", res, time.Since(begin))
	}
	if !alive(pid) {
		t.Error("what it left running was killed")
	}
	next(t, r)
}

// One that has a session of its own escapes the deadline, holds the output, and
// is not waited for either.
func TestADeadlineIsKeptWhenASessionEscapes(t *testing.T) {
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: needs setsid (util-linux)")
	}
	dir := t.TempDir()
	r := start(t, Config{Timeout: 300 * time.Millisecond})
	begin := time.Now()
	r.Submit(job("x", 1, setsid+" sh -c 'echo $$ >"+dir+"/pid; trap \"\" TERM; while :; do sleep 0.1; done' & wait"))
	res := r.get(t)
	pid := pidIn(t, dir+"/pid")
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if res.Reason != ReasonTimeout || time.Since(begin) > 10*time.Second {
		t.Errorf("%+v after %v", res, time.Since(begin))
	}
	next(t, r)
}

// A command that forks without end, and whose children ignore signals, is gone
// with all of them after its deadline.
func TestADeadlineEndsAHundredForks(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{Timeout: 2 * time.Second})
	r.Submit(job("x", 1, `trap "" TERM HUP INT; i=0
while [ $i -lt 100 ]; do i=$((i+1)); (trap "" TERM; sh -c 'echo $$ >`+dir+`/$0; exec sleep 300' $i; :) & done
touch `+dir+`/all; wait`))
	if res := r.get(t); res.Reason != ReasonTimeout {
		t.Fatalf("%+v", res)
	}
	if _, err := os.Stat(dir + "/all"); err != nil {
		t.Fatalf("it was killed before it had forked: %v", err)
	}
	files, _ := filepath.Glob(dir + "/[0-9]*")
	if len(files) == 0 {
		t.Fatal("no fork is known")
	}
	for _, f := range files {
		pid := pidIn(t, f)
		eventually(t, "fork "+filepath.Base(f)+" is gone", func() bool { return !alive(pid) })
	}
	next(t, r)
}

// There is nothing to read: a command that asks a question gets no answer, and
// does not wait for one.
func TestACommandReadsNothing(t *testing.T) {
	r := start(t, Config{})
	begin := time.Now()
	r.Submit(job("x", 1, "cat; read answer || echo no answer"))
	if res := r.get(t); !res.OK || res.Commands[0].Output != "no answer\n" || time.Since(begin) > 10*time.Second {
		t.Errorf("%+v after %v", res, time.Since(begin))
	}
	next(t, r)
}

// A command may fill its limits: of open files here.
func TestACommandMayExhaustItsDescriptors(t *testing.T) {
	r := start(t, Config{})
	r.Submit(job("x", 1, "ulimit -n 3 2>/dev/null; echo x | cat; exec 9</dev/null; exit 5"))
	if res := r.get(t); res.OK || len(res.Commands) != 1 || res.Commands[0].ExitCode == 0 {
		t.Errorf("%+v", res)
	}
	next(t, r)
}
