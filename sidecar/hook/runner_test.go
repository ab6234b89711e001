package hook

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a Runner until the test ends.
func start(t *testing.T, cfg Config) *Runner {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	cfg.Backoff, cfg.Node, cfg.Registerer = 5*time.Millisecond, "lb1", prometheus.NewRegistry()
	if cfg.KillWait == 0 {
		cfg.KillWait = 100 * time.Millisecond
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	r := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return r
}

func (r *Runner) get(t *testing.T) Result {
	t.Helper()
	select {
	case res := <-r.Results():
		return res
	case <-time.After(30 * time.Second):
		t.Fatalf("no result; %+v", r.Status())
		return Result{}
	}
}

func job(id string, epoch uint64, commands ...string) Job {
	return Job{ID: id, Lane: "site/default", Epoch: epoch, Commands: commands, Attempts: 1, Event: "takeover", Site: "b"}
}

// one runs a single job.
func one(t *testing.T, cfg Config, j Job) Result {
	t.Helper()
	r := start(t, cfg)
	r.Submit(j)
	return r.get(t)
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// alive says whether a process exists and is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	return !strings.HasPrefix(strings.TrimSpace(string(stat[strings.LastIndexByte(string(stat), ')')+1:])), "Z")
}

func pidIn(t *testing.T, file string) int {
	t.Helper()
	pid := 0
	eventually(t, "a process number in "+file, func() bool {
		n, err := strconv.Atoi(strings.TrimSpace(read(t, file)))
		pid = n
		return err == nil
	})
	return pid
}

func TestCommandsRunInOrderWithTheirEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	j := job("takeover/default/b/7", 7, "echo one $TANDEM_EVENT $TANDEM_SITE $TANDEM_FROM $TANDEM_TO >>"+file,
		"echo two $TANDEM_EPOCH $TANDEM_PLANNED $TANDEM_REASON $TANDEM_NODE [$TANDEM_KEY] $OTHER >>"+file)
	j.From, j.To, j.Reason, j.Planned = "a", "b", "active-unusable", false
	res := one(t, Config{Env: []string{"PATH=" + os.Getenv("PATH"), "TANDEM_KEY=secret", "OTHER=kept"}}, j)
	if !res.OK || res.Reason != ReasonOK || len(res.Commands) != 2 || res.Commands[1].ExitCode != 0 {
		t.Fatalf("%+v", res)
	}
	want := "one takeover b a b\ntwo 7 false active-unusable lb1 [] kept\n"
	if got := read(t, file); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestAFailureEndsTheList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	res := one(t, Config{}, job("x", 1, "echo out; echo err >&2; exit 3", "touch "+file))
	if res.OK || res.Reason != ReasonExit || res.Commands[0].ExitCode != 3 || res.Commands[0].Output != "out\nerr\n" || len(res.Commands) != 1 {
		t.Fatalf("%+v", res)
	}
	if !strings.Contains(res.Detail, "exit status 3") {
		t.Fatal(res.Detail)
	}
	if _, err := os.Stat(file); err == nil {
		t.Fatal("the second command ran")
	}
}

func TestOnlyTheFailedCommandIsRunAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	j := job("x", 1, "echo first >>"+file, `echo second $TANDEM_ATTEMPT >>`+file+`; test $TANDEM_ATTEMPT = 3`)
	j.Attempts = 5
	res := one(t, Config{}, j)
	if !res.OK || res.Attempts != 3 {
		t.Fatalf("%+v", res)
	}
	if got, want := read(t, file), "first\nsecond 1\nsecond 2\nsecond 3\n"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestRetriesAreGivenUp(t *testing.T) {
	j := job("x", 1, "exit 1")
	j.Attempts = 3
	if res := one(t, Config{}, j); res.OK || res.Attempts != 3 || len(res.Commands) != 3 {
		t.Fatalf("%+v", res)
	}
}

func TestADeadlineKillsTheWholeGroup(t *testing.T) {
	for name, trap := range map[string]string{"that obeys": "", "that ignores signals": "trap '' TERM INT HUP; "} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			text := trap + "(" + trap + "echo $$ >" + dir + "/shell; sleep 300) & sh -c '" + trapIn(trap) + "echo $$ >" + dir + "/child; while :; do sleep 0.1; done'"
			begin := time.Now()
			res := one(t, Config{Timeout: 300 * time.Millisecond}, job("x", 1, text))
			if res.Reason != ReasonTimeout || res.OK {
				t.Fatalf("%+v", res)
			}
			if d := time.Since(begin); d > 10*time.Second {
				t.Fatalf("took %v", d)
			}
			for _, f := range []string{"shell", "child"} {
				pid := pidIn(t, filepath.Join(dir, f))
				eventually(t, f+" is gone", func() bool { return !alive(pid) })
			}
		})
	}
}

// A command may leave the group that it was started in, for that of the sidecar
// for example, which nobody kills.
func TestADeadlineKillsACommandThatLeftItsGroup(t *testing.T) {
	perl, err := exec.LookPath("perl")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: needs perl, to change the process group")
	}
	begin := time.Now()
	text := "exec " + perl + ` -e 'setpgrp(0, getpgrp(getppid())) or die; $SIG{TERM} = "IGNORE"; sleep 300'`
	res := one(t, Config{Timeout: 300 * time.Millisecond}, job("x", 1, text))
	if res.Reason != ReasonTimeout || res.OK {
		t.Fatalf("%+v", res)
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Fatalf("took %v", d)
	}
}

// The reader of a flood leaves the processor to others: it is the flood that waits.
func TestAnEndlessFloodIsReadSlowly(t *testing.T) {
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	res := one(t, Config{Timeout: 2 * time.Second}, job("x", 1, "yes"))
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	if res.Reason != ReasonTimeout || !strings.Contains(res.Commands[0].Output, "bytes left out") {
		t.Fatalf("%+v", res)
	}
	spent := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	if spent > time.Second {
		t.Errorf("reading it for 2 s took %v of processor time", spent)
	}
}

func trapIn(trap string) string { return strings.ReplaceAll(trap, "'", `"`) }

func TestAFloodOfOutputIsBounded(t *testing.T) {
	res := one(t, Config{Output: 1000}, job("x", 1, "echo begin; head -c 50000000 /dev/zero | tr '\\0' x; echo; echo end"))
	out := res.Commands[0].Output
	if !res.OK || len(out) > 1100 || !strings.HasPrefix(out, "begin\n") || !strings.HasSuffix(out, "x\nend\n") || !strings.Contains(out, "bytes left out") {
		t.Fatalf("%d bytes: %.40q … %q", len(out), out, out[len(out)-10:])
	}
}

func TestOutputKeepsBothEnds(t *testing.T) {
	o := newOutput(10)
	for _, s := range []string{"abc", "defgh", "ij"} {
		o.add([]byte(s))
	}
	if got := o.String(); got != "abcdefghij" {
		t.Fatal(got)
	}
	for i := range 26 {
		o.add([]byte{byte('A' + i)})
	}
	if got := o.String(); got != "abcde\n… 26 bytes left out …\nVWXYZ" {
		t.Fatal(got)
	}
}

// A takeover script that starts a service in the background has ended all the
// same, and the service lives on, also when it writes.
func TestWhatACommandLeavesRunningLivesOn(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	res := one(t, Config{}, job("x", 1, "(echo $$; while :; do echo noise; date +%N >"+dir+"/beat; sleep 0.02; done) & echo $! >"+dir+"/pid; echo started"))
	if !res.OK || time.Since(begin) > 10*time.Second || !strings.Contains(res.Commands[0].Output, "started") {
		t.Fatalf("%+v", res)
	}
	pid := pidIn(t, dir+"/pid")
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	for range 3 {
		was := read(t, dir+"/beat")
		eventually(t, "the service goes on writing", func() bool { return read(t, dir+"/beat") != was })
	}
	if strings.Count(res.Commands[0].Output, "noise") > 50 {
		t.Fatal("its noise is kept")
	}
}

func TestACommandMayRemoveItsOwnDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "scripts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "takeover.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncd "+dir+" && rm -rf "+dir+"\necho gone\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := start(t, Config{})
	r.Submit(job("1", 1, script))
	if res := r.get(t); !res.OK || res.Commands[0].Output != "gone\n" {
		t.Fatalf("%+v", res)
	}
	r.Submit(job("2", 2, script))
	if res := r.get(t); res.OK || res.Commands[0].ExitCode != 127 || !strings.Contains(res.Commands[0].Output, "not found") {
		t.Fatalf("%+v", res)
	}
}

func TestALaneIsSerialAndLanesAreNot(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{})
	critical := "mkdir " + dir + "/lock && sleep 0.05 && rmdir " + dir + "/lock"
	for i := range 4 {
		r.Submit(job(fmt.Sprint(i), 1, critical))
	}
	other := job("other", 1, "echo done")
	other.Lane = "notify/default"
	blocked := job("blocked", 1, "while ! test -e "+dir+"/go; do sleep 0.01; done")
	blocked.Lane = "notify/mail"
	r.Submit(blocked)
	r.Submit(other)
	var got []string
	for range 5 {
		res := r.get(t)
		if !res.OK {
			t.Fatalf("%+v", res)
		}
		got = append(got, res.Job.ID)
	}
	if i := slices.Index(got, "other"); i < 0 || slices.Contains(got, "blocked") {
		t.Fatal(got)
	}
	if got = slices.DeleteFunc(got, func(id string) bool { return id == "other" }); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		t.Fatal(got)
	}
	if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if res := r.get(t); res.Job.ID != "blocked" {
		t.Fatalf("%+v", res)
	}
}

func TestAStaleEpochIsRefused(t *testing.T) {
	r := start(t, Config{})
	r.Submit(job("new", 9, "true"))
	r.get(t)
	r.Submit(job("old", 8, "true"))
	if res := r.get(t); res.OK || res.Reason != ReasonStale || len(res.Commands) != 0 {
		t.Fatalf("%+v", res)
	}
	r.Fence("site/default", 12)
	r.Submit(job("between", 11, "true"))
	if res := r.get(t); res.Reason != ReasonStale {
		t.Fatalf("%+v", res)
	}
}

// A decision that asks nothing of this node ends what an earlier one asked, and
// refuses what of it comes late, in lanes that have had no job too. The phase in
// force goes on.
func TestAFenceEndsWhatWasOvertaken(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{})
	r.Fence("notify/default", 7)
	late := job("late", 6, "touch "+dir+"/late")
	late.Lane = "notify/default"
	r.Submit(late)
	if res := r.get(t); res.Job.ID != "late" || res.Reason != ReasonStale {
		t.Fatalf("%+v", res)
	}
	r.Submit(job("running", 3, "echo $$ >"+dir+"/pid; while ! test -e "+dir+"/go; do sleep 0.01; done"))
	pid := pidIn(t, dir+"/pid")
	r.Submit(job("queued", 3, "touch "+dir+"/queued"))
	r.Fence("site/default", 3)
	r.Fence("site/default", 2)
	r.Fence("notify/default", 9)
	if s := r.Status(); !alive(pid) || len(s) != 2 || s[0].Epoch != 9 || s[1].Epoch != 3 || s[1].Waiting != 1 {
		t.Fatalf("ended by its own decision, an earlier one or that of another lane: %+v", s)
	}
	r.Fence("site/default", 4)
	reasons := map[string]Reason{}
	for range 2 {
		res := r.get(t)
		reasons[res.Job.ID] = res.Reason
	}
	if reasons["running"] != ReasonSuperseded || reasons["queued"] != ReasonSuperseded {
		t.Fatal(reasons)
	}
	eventually(t, "the overtaken command is gone", func() bool { return !alive(pid) })
	for _, name := range []string{"late", "queued"} {
		if _, err := os.Stat(dir + "/" + name); err == nil {
			t.Fatalf("the overtaken job %q ran", name)
		}
	}
	r.Submit(job("present", 4, "true"))
	if res := r.get(t); res.Job.ID != "present" || !res.OK {
		t.Fatalf("%+v", res)
	}
}

// When all voters have forgotten, epochs begin again; a node that lives through
// that would refuse every job.
func TestALaneThatForgetsBeginsAgain(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{})
	r.Submit(job("x", 900, "true"))
	r.get(t)
	r.Submit(job("old", 901, "echo $$ >"+dir+"/pid; sleep 300"))
	pid := pidIn(t, dir+"/pid")
	r.Fence("notify/default", 900)
	r.Forget("site/default")
	r.Forget("notify/default")
	if res := r.get(t); res.Job.ID != "old" || res.Reason != ReasonSuperseded {
		t.Fatalf("%+v", res)
	}
	eventually(t, "what ran is gone", func() bool { return !alive(pid) })
	again, notify := job("x", 2, "true"), job("n", 2, "true")
	notify.Lane = "notify/default"
	for _, j := range []Job{again, notify} {
		r.Submit(j)
		if res := r.get(t); res.Job.ID != j.ID || !res.OK || res.Repeated {
			t.Fatalf("%+v", res)
		}
	}
}

func TestALaterDecisionSupersedes(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{})
	forever := job("running", 1, "echo $$ >"+dir+"/pid; sleep 300")
	forever.Attempts = 0
	r.Submit(forever)
	pid := pidIn(t, dir+"/pid")
	r.Submit(job("queued", 1, "touch "+dir+"/queued"))
	r.Submit(job("later", 2, "true"))
	reasons := map[string]Reason{}
	for range 3 {
		res := r.get(t)
		reasons[res.Job.ID] = res.Reason
	}
	if reasons["running"] != ReasonSuperseded || reasons["queued"] != ReasonSuperseded || reasons["later"] != ReasonOK {
		t.Fatal(reasons)
	}
	eventually(t, "the superseded command is gone", func() bool { return !alive(pid) })
	if _, err := os.Stat(dir + "/queued"); err == nil {
		t.Fatal("a superseded job ran")
	}
}

// In a lane that one node fills, the last word counts, whatever its epoch.
func TestTheNewestTakesThePlaceOfAllBefore(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{})
	newest := func(id string, epoch uint64, command string) Job {
		j := job(id, epoch, command)
		j.Newest, j.Attempts, j.Addresses = true, 0, []string{"10.0.0.100", "2001:db8::100"}
		return j
	}
	r.Submit(newest("take-up", 7, "echo $$ >"+dir+"/pid; sleep 300"))
	pid := pidIn(t, dir+"/pid")
	r.Submit(newest("let-go", 7, "touch "+dir+"/queued; exit 1")) // until it succeeds
	r.Submit(newest("again", 6, "echo $TANDEM_EPOCH $TANDEM_ADDRESSES"))
	reasons := map[string]Reason{}
	var last Result
	for range 3 {
		last = r.get(t)
		reasons[last.Job.ID] = last.Reason
	}
	if reasons["take-up"] != ReasonSuperseded || reasons["let-go"] != ReasonSuperseded || reasons["again"] != ReasonOK {
		t.Fatal(reasons)
	}
	if out := last.Commands[0].Output; out != "6 10.0.0.100 2001:db8::100\n" {
		t.Fatalf("the last word was %q", out)
	}
	eventually(t, "the superseded command is gone", func() bool { return !alive(pid) })
	if _, err := os.Stat(dir + "/queued"); err == nil {
		t.Fatal("a superseded job ran")
	}
}

// A success that comes every few seconds is not for the log; a failure is.
func TestAQuietSuccessIsNotLogged(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	r := start(t, Config{Log: zap.New(core)})
	for _, command := range []string{"true", "false"} {
		j := job(command, 1, command)
		j.Quiet = true
		r.Submit(j)
		r.get(t)
	}
	if got := logs.FilterMessage("hook").All(); len(got) != 1 || got[0].ContextMap()["id"] != "false" {
		t.Fatalf("%+v", got)
	}
}

// A notification is repeated until a later one takes its place; meanwhile the
// status says when the next attempt is due.
func TestRetriesEndWhenSuperseded(t *testing.T) {
	r := start(t, Config{})
	r.cfg.Backoff = time.Hour // before any job
	j := job("n1", 1, "exit 1")
	j.Attempts = 0
	r.Submit(j)
	eventually(t, "the second attempt is due", func() bool {
		s := r.Status()
		return len(s) == 1 && s[0].Running != nil && !s[0].NextTry.IsZero() && s[0].Attempt == 1
	})
	r.Submit(job("n2", 2, "true"))
	if res := r.get(t); res.Job.ID != "n1" || res.Reason != ReasonSuperseded {
		t.Fatalf("%+v", res)
	}
	if res := r.get(t); res.Job.ID != "n2" || !res.OK {
		t.Fatalf("%+v", res)
	}
}

func TestTheSameJobRunsOnce(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{})
	j := job("x", 1, "echo run >>"+dir+"/log; while ! test -e "+dir+"/go; do sleep 0.01; done")
	r.Submit(j)
	r.Submit(j)
	if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if res := r.get(t); !res.OK || res.Repeated {
		t.Fatalf("%+v", res)
	}
	r.Submit(j)
	if res := r.get(t); !res.OK || !res.Repeated {
		t.Fatalf("%+v", res)
	}
	if got := read(t, dir+"/log"); got != "run\n" {
		t.Fatalf("%q", got)
	}
}

func TestSubmitNeverBlocks(t *testing.T) {
	r := start(t, Config{Queue: 4}) // whose results nobody reads
	begin := time.Now()
	for i := range 500 {
		r.Submit(job(fmt.Sprint(i), uint64(i), "sleep 300"))
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Fatalf("took %v", d)
	}
	r.Status()
}

func TestStopKillsWhatRuns(t *testing.T) {
	dir := t.TempDir()
	pid := 0
	t.Run("run", func(t *testing.T) {
		r := start(t, Config{})
		r.Submit(job("x", 1, "echo $$ >"+dir+"/pid; sleep 300"))
		pid = pidIn(t, dir+"/pid")
	})
	if alive(pid) {
		t.Fatal("it goes on")
	}
}

// As process 1 of a container the sidecar inherits orphans; here the test
// process is made a subreaper instead.
func TestOrphansDoNotBecomeZombies(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	dir := t.TempDir()
	r := start(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Reaper{Log: zap.NewNop()}.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.Submit(job("x", 1, "for i in 1 2 3; do (setsid sleep 0.2 & echo $! >"+dir+"/$i) & done; wait"))
	if res := r.get(t); !res.OK {
		t.Fatalf("%+v", res)
	}
	for i := 1; i <= 3; i++ {
		pid := pidIn(t, fmt.Sprintf("%s/%d", dir, i))
		eventually(t, "the orphan is collected", func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
			return os.IsNotExist(err)
		})
	}
	if z := zombies(os.Getpid()); len(z) > 0 {
		t.Fatalf("zombies %v", z)
	}
}

// The reaper never takes the end of a command away from the one who waits for
// it, however often it looks.
func TestReaperLeavesCommandsAlone(t *testing.T) {
	r := start(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			Reaper{Log: zap.NewNop()}.collect()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	for i := range 20 {
		r.Submit(job(strconv.Itoa(i), 1, "exit 7"))
		if res := r.get(t); res.Commands[0].ExitCode != 7 {
			t.Fatalf("%+v", res)
		}
	}
}

func TestAShellThatCannotStartIsAResult(t *testing.T) {
	res := one(t, Config{}, job("x", 1, "/no/such/script"))
	if res.OK || res.Commands[0].ExitCode != 127 {
		t.Fatalf("%+v", res)
	}
	if res := one(t, Config{}, job("y", 1)); res.Reason != ReasonNoCommand {
		t.Fatalf("%+v", res)
	}
	if res := one(t, Config{}, job("z", 1, "kill -9 $$")); res.Reason != ReasonSignal {
		t.Fatalf("%+v", res)
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string][]string{
		"":                            nil,
		" ; ;":                        nil,
		"/a.sh":                       {"/a.sh"},
		"/a.sh; /b.sh --x=1 ;":        {"/a.sh", "/b.sh --x=1"},
		`echo "a;b"; echo 'c;d' \; e`: {`echo "a;b"`, `echo 'c;d' \; e`},
		`echo 'it\'; x`:               {`echo 'it\'`, "x"},
	} {
		if got := Split(in); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// A process that stood still, and has heard of no decision since, starts nothing
// more of a job; what it was told meanwhile ends the job.
func TestAGuardedJobWaitsUntilItIsSure(t *testing.T) {
	dir := t.TempDir()
	var sure atomic.Bool
	sure.Store(true)
	r := start(t, Config{Sure: sure.Load})
	two := func(id string, epoch uint64) Job {
		j := job(id, epoch, "touch "+dir+"/"+id+"-began; while ! test -e "+dir+"/"+id+"-go; do sleep 0.01; done", "touch "+dir+"/"+id+"-second")
		j.Guarded = true
		return j
	}
	there := func(name string) bool { _, err := os.Stat(dir + "/" + name); return err == nil }
	for i, id := range []string{"waits", "ends"} {
		sure.Store(true)
		r.Submit(two(id, uint64(2*i)))
		eventually(t, "its first command runs", func() bool { return there(id + "-began") })
		sure.Store(false)
		if err := os.WriteFile(dir+"/"+id+"-go", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its second command is due", func() bool { return strings.Contains(r.Status()[0].Command, "second") })
		time.Sleep(100 * time.Millisecond)
		if there(id + "-second") {
			t.Fatalf("%s: the second command was started", id)
		}
		if id == "ends" {
			r.Fence("site/default", 9)
			if res := r.get(t); res.OK || res.Reason != ReasonSuperseded || len(res.Commands) != 1 {
				t.Errorf("%+v", res)
			}
			continue
		}
		sure.Store(true)
		if res := r.get(t); !res.OK || !there(id+"-second") {
			t.Errorf("%+v", res)
		}
	}
	if there("ends-second") {
		t.Error("the second command of what was ended ran")
	}
	unguarded := job("other", 9, "true")
	sure.Store(false)
	r.Submit(unguarded)
	if res := r.get(t); !res.OK {
		t.Errorf("one that need not be sure: %+v", res)
	}
}
