package lease

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// modelRun is one exhaustive check: which model, with which switches, and
// whether it must fail.
type modelRun struct {
	name, model string
	defines     string
	fails       bool
	long        bool // only with TANDEM_TEST_MODEL=full
}

// The sound model passes under each setting, so that a mutant that fails under
// one fails by its mutation.
const (
	two   = "BALLOTS=2 VOTER_RESTARTS=1 BIDDER_RESTARTS=1"
	three = "BALLOTS=3 VOTER_RESTARTS=0 BIDDER_RESTARTS=0 LEASE=1"
	bids  = "BIDS_ONLY LEASE=1 BALLOTS=2 VOTER_RESTARTS=0 BIDDER_RESTARTS=1" // neither renewals nor releases
)

var modelRuns = []modelRun{
	{"two ballots, a voter and a bidder restart", "lease.pml", two, false, false},
	{"a renewal is won: the model can do it", "lease.pml", "RENEWALS_NEVER_WIN " + two, true, false},
	{"three ballots", "lease.pml", three, false, false},
	{"three ballots, a voter restarts", "lease.pml", "BALLOTS=3 VOTER_RESTARTS=1 BIDDER_RESTARTS=0 LEASE=1", false, true},
	{"three ballots, a bidder restarts", "lease.pml", "BALLOTS=3 VOTER_RESTARTS=0 BIDDER_RESTARTS=1 LEASE=1", false, true},
	{"bids alone, a bidder restarts", "lease.pml", bids, false, false},
	{"the value, two ballots", "value.pml", "BALLOTS=2", false, false},
	{"the value, three ballots", "value.pml", "BALLOTS=3", false, true},
	{"A2 removed", "lease.pml", "MUTANT_NO_A2 " + two, true, false},
	{"replies counted instead of voters", "lease.pml", "MUTANT_REPLIES " + two, true, false},
	{"deadline taken when the reply arrives", "lease.pml", "MUTANT_DEADLINE " + bids, true, false},
	{"owner identified by node", "lease.pml", "MUTANT_OWNER_BY_NODE " + two, true, false},
	{"quarantine shortened", "lease.pml", "MUTANT_QUARANTINE " + two, true, false},
	{"ballots used again", "lease.pml", "MUTANT_BALLOTS_AGAIN " + bids, true, false},
	{"release ignores the ballot", "lease.pml", "MUTANT_RELEASE_ANY " + three, true, false},
	{"late renewal under a released ballot", "lease.pml", "MUTANT_LATE_RENEWAL " + three, true, false},
	{"accepted by a voter that promised higher", "value.pml", "MUTANT_PROMISED_HIGHER", true, false},
	{"value of the first reply", "value.pml", "MUTANT_FIRST_REPLY", true, false},
	{"value of the highest epoch", "value.pml", "MUTANT_HIGHEST_EPOCH", true, false},
}

// TestModel checks the Promela models with spin, exhaustively, and that the
// mutants fail in them as they do in the simulation.
func TestModel(t *testing.T) {
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT CHECKED: %s is not installed (apt-get install spin gcc)", tool)
		}
	}
	if testing.Short() {
		t.Skip("NOT CHECKED: -short")
	}
	for _, run := range modelRuns {
		t.Run(run.name, func(t *testing.T) {
			if run.long && os.Getenv("TANDEM_TEST_MODEL") != "full" {
				t.Skip("takes minutes: set TANDEM_TEST_MODEL=full")
			}
			out := run.check(t)
			failed := strings.Contains(out, "assertion violated")
			complete := strings.Contains(out, "errors: 0") && !strings.Contains(out, "max search depth too small") &&
				!strings.Contains(out, "out of memory")
			states := regexp.MustCompile(`(\d+) states, stored`).FindStringSubmatch(out)
			switch {
			case run.fails && !failed:
				t.Errorf("the mutant was not found:\n%s", out)
			case !run.fails && !complete:
				t.Errorf("not shown:\n%s", out)
			case states != nil:
				t.Logf("%s states, violated: %v", states[1], failed)
			}
		})
	}
}

// check generates, compiles and runs the verifier.
func (r modelRun) check(t *testing.T) string {
	t.Helper()
	source, err := filepath.Abs(filepath.Join("model", r.model))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	command := func(name string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	args := []string{"-a"}
	for d := range strings.FieldsSeq(r.defines) {
		args = append(args, "-D"+d)
	}
	command("spin", append(args, source)...)
	// -O1: most verifiers take longer to compile than to run.
	command("gcc", "-w", "-O1", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=3000", "-o", "pan", "pan.c")
	return command("./pan", "-E", "-m100000", "-w22")
}
