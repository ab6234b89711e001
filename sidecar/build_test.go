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

// TestCasesOfRapidAreIgnored: rapid writes down what it finds beside whatever
// package it fails in.
func TestCasesOfRapidAreIgnored(t *testing.T) {
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("NOT TESTED: this is no clone")
	}
	for path, ignored := range map[string]bool{
		"testdata/rapid/x.fail":                               true,
		"lib/lease/testdata/rapid/TestX/x.fail":               true,
		"examples/kubernetes/validate/testdata/rapid/x":       true,
		"lib/lease/testdata/stories/01_three_nodes_start.txt": false,
	} {
		out, err := exec.CommandContext(t.Context(), "git", "-C", root, "check-ignore", "--no-index", path).Output()
		if (err == nil) != ignored {
			t.Errorf("%s: ignored %v, want %v: %s", path, err == nil, ignored, out)
		}
	}
}
