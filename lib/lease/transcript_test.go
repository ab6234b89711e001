package lease

import (
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
	})
}

func argsOf(d *datadriven.TestData) string {
	var words []string
	for _, a := range d.CmdArgs {
		words = append(words, strings.ReplaceAll(a.String(), " ", ""))
	}
	return strings.Join(words, " ")
}
