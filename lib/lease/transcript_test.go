package lease

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestTranscripts plays the stories in testdata/stories: read them in their
// order.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		t.Helper()
		play := &play{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			t.Helper()
			lines := []string{strings.TrimSpace(d.Cmd + " " + argsOf(d))}
			lines = append(lines, strings.Split(d.Input, "\n")...)
			for _, line := range lines {
				if err := play.do(line); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
			return play.told()
		})
		if play.w.failed() {
			t.Errorf("a promise is broken: %s", play.w.check.failure)
		}
	})
}

// TestAShrunkFailureIsAStory: what the simulation prints when it has found
// something can be put into testdata and is told there in the same words.
func TestAShrunkFailureIsAStory(t *testing.T) {
	m := mutantOf(t, noA2)
	seed := uint64(1)
	for ; !draw(seed).run(&m).w.failed(); seed++ {
	}
	short := draw(seed).shrink(&m, 100)
	path := filepath.Join(t.TempDir(), "found")
	told := short.transcript(&m)
	if !strings.Contains(told, "VIOLATION") {
		t.Fatalf("no violation in\n%s", told)
	}
	if err := os.WriteFile(path, []byte(told), 0o600); err != nil {
		t.Fatal(err)
	}
	again := &play{mutant: &m}
	directives := 0
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		t.Helper()
		directives++
		if err := again.do(strings.TrimSpace(d.Cmd + " " + argsOf(d))); err != nil {
			d.Fatalf(t, "%v", err)
		}
		return again.told()
	})
	if directives != len(short) || !again.w.failed() {
		t.Errorf("%d of %d lines were played, failed: %v", directives, len(short), again.w.failed())
	}
}

func argsOf(d *datadriven.TestData) string {
	var words []string
	for _, a := range d.CmdArgs {
		words = append(words, strings.ReplaceAll(a.String(), " ", ""))
	}
	return strings.Join(words, " ")
}
