package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tandem/examples/lab"
)

// Every row of the scenario table is a subtest that carries its number, for
// example TestSites/S1_every_component_of_A_dies:_… What is checked sharply is
// order and count; times have generous bounds. Rows of a chapter share a
// deployment and are played in order, so that a row is chosen with its chapter.

func TestMain(m *testing.M) {
	lab.Child()
	if err := lab.Prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "*** the scenarios are left out:", err)
		_ = os.Setenv("TDLAB_UNABLE", err.Error())
	}
	os.Exit(m.Run())
}

func TestSites(t *testing.T)       { playTest(t, sites()) }
func TestArbitration(t *testing.T) { playTest(t, arbitration()) }
func TestBrokers(t *testing.T)     { playTest(t, brokers()) }
func TestFailback(t *testing.T)    { playTest(t, failback()) }
func TestHolding(t *testing.T)     { playTest(t, holding()) }
func TestOperator(t *testing.T)    { playTest(t, operator()) }

// TestApart plays three of its rows; with TANDEM_TEST_LONG=1 all of them.
func TestApart(t *testing.T) {
	c := apart()
	if !long() {
		c.rows = []row{c.rows[0], c.rows[3], c.rows[4]}
	}
	playTest(t, c)
}

// TestCuts plays three of its rows, each at one instant of a switch; with
// TANDEM_TEST_LONG=1 all of them, at each.
func TestCuts(t *testing.T) {
	c := cuts()
	if c.opt.everyInstant = long(); !long() {
		c.rows = []row{c.rows[2], c.rows[5], c.rows[8]}
	}
	playTest(t, c)
}

func long() bool { return os.Getenv("TANDEM_TEST_LONG") != "" }

// TestTheJudgeOfCutsCanFail: see the row.
func TestTheJudgeOfCutsCanFail(t *testing.T) { playTest(t, overlapping()) }

func build(t *testing.T, name, pkg string) string {
	t.Helper()
	if why := os.Getenv("TDLAB_UNABLE"); why != "" {
		t.Skip("no lab here: " + why)
	}
	program := filepath.Join(t.TempDir(), name)
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, pkg).CombinedOutput()
	if err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return program
}

// openStage builds a deployment, and prints the sidecars' logs when the test
// has failed.
func openStage(t *testing.T, c chapter) *stage {
	t.Helper()
	c.opt.tandem, c.opt.program = build(t, "tandem", "tandem/sidecar"), build(t, "hybrid-chat", ".")
	s, err := newStage(t.Context(), c.opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, node := range s.System.Nodes() {
				log := strings.Split(s.Log(node, "tandem"), "\n")
				t.Logf("--- %s\n%s", node, strings.Join(log[max(0, len(log)-80):], "\n"))
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func playTest(t *testing.T, c chapter) {
	t.Helper()
	s := openStage(t, c)
	told := &story{}
	for _, w := range c.rows {
		var played error
		t.Run(w.id+" "+w.name, func(t *testing.T) {
			r := &report{story: told}
			played = w.play(t.Context(), s, r)
			t.Log(strings.Join(r.figures, "; "))
			for _, b := range r.broken {
				t.Error(b)
			}
			if played != nil {
				t.Error(played)
			}
		})
		if played != nil {
			t.Fatalf("%s could not be played to its end, and with it the rest", w.id)
		}
	}
}

// TestEveryRowOfTheTableIsPlayed keeps the list complete.
func TestEveryRowOfTheTableIsPlayed(t *testing.T) {
	played := map[string]bool{}
	for _, c := range chapters() {
		for _, w := range c.rows {
			played[w.id] = true
		}
	}
	for id := range strings.FieldsSeq("S1 S2 S3 S4 S5 S6 S7 S8 R1 R2 R3 R4 R5 R6 R7 B1 B2 B3 B4 B5 B6 B7 C1 C2 X1") {
		if !played[id] {
			t.Errorf("row %s is not played", id)
		}
	}
}

// TestMachinesAgree: what the machines of both sites
// must have in common is the same in both files.
func TestMachinesAgree(t *testing.T) {
	own := map[string]bool{"TANDEM_NODE": true, "TANDEM_SITE": true, "HYBRIDCHAT_SITE": true, "HYBRIDCHAT_ADDRESS": true}
	a, b := read(machineA), read(machineB)
	for name, value := range a {
		if !own[name] && b[name] != value {
			t.Errorf("%s is %q at A and %q at B", name, value, b[name])
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d settings at A, %d at B", len(a), len(b))
	}
	if arbiter := read(machineArbiter); arbiter["TANDEM_PEERS"] != a["TANDEM_PEERS"] {
		t.Errorf("the arbiter's peers are %s", arbiter["TANDEM_PEERS"])
	}
}

// read is an environment file.
func read(text string) map[string]string {
	env := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			env[name] = value
		}
	}
	return env
}
