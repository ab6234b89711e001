package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAFailedSBOMLeavesNothing, neither an empty file nor less than there was:
// make sbom is given a Go that lists the modules, and either prints what the
// binary is made of or fails in the middle of it.
func TestAFailedSBOMLeavesNothing(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("NOT TESTED: make is not installed")
	}
	dir := t.TempDir()
	file, fake := filepath.Join(dir, "tandem.cdx.json"), filepath.Join(dir, "go")
	run := func(script string) (string, error) {
		t.Helper()
		if err := os.WriteFile(fake, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		// -o: the binary is there, it need not be built.
		cmd := exec.CommandContext(t.Context(), "make", "--no-print-directory", "-o", "build", "sbom", "BIN="+dir, "GO="+fake)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	left := func() string {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		text, _ := os.ReadFile(file) // none is as good as an empty one here
		return strings.Join(names, " ") + ": " + string(text)
	}
	const half = "cat >/dev/null; echo '{'; "
	if out, err := run(half + "exit 1"); err == nil || left() != "go: " {
		t.Errorf("%v, left %q\n%s", err, left(), out)
	}
	if out, err := run(half + "echo '}'"); err != nil || left() != "go tandem.cdx.json: {\n}\n" {
		t.Errorf("%v, left %q\n%s", err, left(), out)
	}
	if out, err := run(half + "exit 1"); err == nil || left() != "go tandem.cdx.json: {\n}\n" {
		t.Errorf("%v, left %q\n%s", err, left(), out)
	}
}
