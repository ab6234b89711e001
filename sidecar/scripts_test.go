package main

import (
	"bufio"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var forShell = regexp.MustCompile(`^#!\s*\S*/(env\s+)?(ba|da)?sh\b`)

// scripts are all files of the repository that a shell runs, by their path from
// the root.
func scripts(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", "vendor"}, name):
			return fs.SkipDir
		case entry.Type().IsRegular() && forShell.MatchString(firstLine(t, path)):
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func firstLine(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	line, _, _ := bufio.NewReader(f).ReadLine()
	return string(line)
}

// TestScriptsAreClean runs shellcheck over every script there is: hooks and
// installation as well as what builds and tests. What a script reads in is
// looked at with it.
func TestScriptsAreClean(t *testing.T) {
	all := scripts(t)
	for _, name := range []string{
		".ci/run", ".ci/tools", ".ci/vuln", ".ci/licences", "examples/cloud/aws/move", "examples/cloud/follow", "examples/compose/bases",
		"examples/systemd/install.sh", "examples/systemd/try.sh", "examples/hybrid-chat/HAScripts/takeover.sh",
	} {
		if !slices.Contains(all, name) {
			t.Errorf("%s is not among the scripts: %s", name, strings.Join(all, " "))
		}
	}
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("NOT TESTED: shellcheck is not installed")
	}
	cmd := exec.CommandContext(t.Context(), "shellcheck", append([]string{"--external-sources", "--check-sourced", "--source-path", "SCRIPTDIR"}, all...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
