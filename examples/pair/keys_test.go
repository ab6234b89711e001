package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/examples/lab"
)

// Keys of a laboratory: no secrets.
const (
	oldKey = "dGhlIGZpcnN0IGtleSBvZiB0aGUgbGFib3JhdG9yeSA="
	newKey = "dGhlIHNlY29uZCBrZXkgb2YgdGhlIGxhYm9yYXRvcnk="
)

func keyFile(n *lab.Node) string { return filepath.Join(n.Dir, "key") }

func writeKeys(t *testing.T, l *lab.Lab, node string, keys ...string) {
	t.Helper()
	if err := os.WriteFile(keyFile(l.Node(node)), []byte(strings.Join(keys, ",")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestKeysAreRotatedWithoutARestart replaces the key of a running cluster in
// three steps. Nothing moves, nobody notices, and no message between the nodes
// is ever unreadable, so no renewal is missed for it.
func TestKeysAreRotatedWithoutARestart(t *testing.T) {
	l := start(t, lab.Config{System: lab.Tandem{Program: tandem(t), NodeEnv: func(_ *lab.Lab, n *lab.Node) map[string]string {
		if _, err := os.Stat(keyFile(n)); err != nil {
			if err := os.WriteFile(keyFile(n), []byte(oldKey+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return map[string]string{"TANDEM_KEY": "", "TANDEM_KEY_FILE": keyFile(n)}
	}}})
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	wanted := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(wanted, []byte(newKey), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := func(args ...string) (string, error) {
		return l.Tandem(t.Context(), "lb1", append([]string{"keys"}, args...)...)
	}
	if out, err := keys(wanted); err == nil {
		t.Fatalf("the new key is said to be held before anybody has it:\n%s", out)
	}
	from, holder := lab.Now(), l.Holder()
	for i, step := range [][]string{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
		began := lab.Now()
		for _, node := range l.System.Nodes() {
			writeKeys(t, l, node, step...)
		}
		// The old ones may agree still: not before the first has looked.
		if err := pause(t.Context(), 2500*ms); err != nil {
			t.Fatal(err)
		}
		if out, err := keys(wanted, "--wait", "--timeout", "30s"); err != nil {
			t.Fatalf("step %d: %v\n%s", i+1, err, out)
		}
		out, err := keys("--wait", "--timeout", "30s")
		if err != nil {
			t.Fatalf("step %d: %v\n%s", i+1, err, out)
		}
		t.Logf("step %d took %v\n%s", i+1, (lab.Now() - began).Round(ms), out)
	}
	out, err := keys()
	if err != nil || strings.Count(out, "held by") != 1 || strings.Count(out, "3 of 3") != 1 {
		t.Errorf("want one key that all hold: %v\n%s", err, out)
	}
	to := lab.Now()
	n, err := l.Client.Noticed(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	j := l.Referee.Judge(from, to)
	if n.Failed > 0 || len(j.Moves) > 0 || j.TwoAnswer > 0 || l.Holder() != holder {
		t.Errorf("%d of %d requests failed, moves %v", n.Failed, n.Requests, j.Moves)
	}
	for _, node := range l.System.Nodes() {
		log := l.Log(node, "tandem")
		for _, word := range []string{"ecrypt packet", "wrong-key", "lease-expired"} {
			if strings.Contains(log, word) {
				t.Errorf("the log of %s says %q", node, word)
			}
		}
		if got := strings.Count(log, `"event":"keys"`); got < 3 {
			t.Errorf("the log of %s tells of %d changes of keys, want 3 or more", node, got)
		}
	}
}
