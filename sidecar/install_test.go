package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstallAndRemove runs examples/systemd/install.sh for a directory in
// place of this machine, each step twice.
func TestInstallAndRemove(t *testing.T) {
	script := filepath.Join(root, "examples/systemd/install.sh")
	dir, program := t.TempDir(), filepath.Join(t.TempDir(), "tandem")
	run := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{script}, args...)...)
		cmd.Env = append(os.Environ(), "DESTDIR="+dir)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Fatalf("install.sh %s: exit %d, %v, want %d\n%s", strings.Join(args, " "), code, err, want, out)
		}
		return string(out)
	}
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	modes := func(want map[string]os.FileMode) {
		t.Helper()
		for name, mode := range want {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil || st.Mode().Perm() != mode {
				t.Errorf("%s: %v %v, want mode %o", name, st, err, mode)
			}
		}
	}
	run(2)
	run(2, "edge")
	run(2, "remove", "everything")
	run(2, "lb", filepath.Join(dir, "nothing"))
	write(program, "one", 0o755)
	if out := run(0, "lb", program); !strings.Contains(out, "tandem.env before the first start") || !strings.Contains(out, "put the key") {
		t.Errorf("the first time it says what is left to do: %s", out)
	}
	env := filepath.Join(dir, "etc/tandem/tandem.env")
	write(env, "TANDEM_NODE=mine\n", 0o644)
	write(filepath.Join(dir, "etc/tandem/key"), "secret\n", 0o644)
	write(program, "two", 0o755)
	if out := run(0, "lb", program); strings.Contains(out, "edit") || strings.Contains(out, "put the key") {
		t.Errorf("the second time there is nothing left to do: %s", out)
	}
	modes(map[string]os.FileMode{
		"etc/tandem": 0o750, "etc/tandem/tandem.env": 0o640, "etc/tandem/key": 0o640,
		"usr/local/bin/tandem": 0o755, "etc/systemd/system/tandem.service": 0o644,
	})
	for name, want := range map[string]string{env: "TANDEM_NODE=mine\n", filepath.Join(dir, "usr/local/bin/tandem"): "two"} {
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q %v, want %q", name, b, err, want)
		}
	}
	run(0, "remove")
	run(0, "remove")
	modes(map[string]os.FileMode{"etc/tandem/tandem.env": 0o640})
	for _, name := range []string{"usr/local/bin/tandem", "etc/systemd/system/tandem.service"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	run(0, "witness", program)
	if b, _ := os.ReadFile(filepath.Join(dir, "etc/systemd/system/tandem.service")); !strings.Contains(string(b), "third voter") {
		t.Error("the witness has not the unit of a witness")
	}
	run(0, "remove", "--purge")
	run(0, "remove", "--purge")
	if _, err := os.Stat(filepath.Join(dir, "etc/tandem")); err == nil {
		t.Error("--purge leaves /etc/tandem")
	}
}
