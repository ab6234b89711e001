package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryDependencyHasItsRow: what go.mod asks for directly is in the table of
// docs/dependencies.md, and nothing else is.
func TestEveryDependencyHasItsRow(t *testing.T) {
	var asked, told []string
	for line := range strings.Lines(readText(t, "go.mod")) {
		module, _, ok := strings.Cut(strings.TrimSpace(line), " v")
		if ok && strings.Contains(module, "/") {
			if !strings.Contains(line, "// indirect") {
				asked = append(asked, strings.TrimPrefix(module, "require "))
			}
		}
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
	for _, m := range row.FindAllStringSubmatch(readText(t, "docs/dependencies.md"), -1) {
		told = append(told, m[1])
	}
	if len(asked) < 10 {
		t.Fatalf("only %v in go.mod", asked)
	}
	for _, module := range asked {
		if !slices.Contains(told, module) {
			t.Errorf("docs/dependencies.md does not say what %s is for", module)
		}
	}
	for _, module := range told {
		if !slices.Contains(asked, module) {
			t.Errorf("docs/dependencies.md has %s, which go.mod does not ask for", module)
		}
	}
}
