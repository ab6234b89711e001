package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/examples/lab"
	"tandem/sidecar/status"
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

// holdAll says whether all nodes hold just these keys and encrypt with the
// first. It learns the names of the keys: the first step has the old one alone.
func holdAll(t *testing.T, l *lab.Lab, ids map[string]string, keys []string) bool {
	t.Helper()
	out, _ := l.Tandem(t.Context(), "lb1", "keys", "--json") // its exit code says whether they agree
	var report status.Keys
	if json.Unmarshal([]byte(out), &report) != nil || len(report.Nodes) != len(l.System.Nodes()) {
		return false
	}
	for _, k := range report.Keys {
		if len(ids) == 0 {
			ids[oldKey] = k.ID
		} else if k.ID != ids[oldKey] {
			ids[newKey] = k.ID
		}
	}
	var want []string
	for _, k := range keys {
		want = append(want, ids[k])
	}
	for _, n := range report.Nodes {
		if !slices.Equal(append([]string{n.Encrypts}, n.Decrypts...), want) {
			return false
		}
	}
	return report.OK
}

// TestKeysAreRotatedWithoutARestart replaces the key of a running cluster in
// three steps. Nothing moves, nobody notices, and no message between the nodes
// is ever unreadable, so no renewal is missed for it.
func TestKeysAreRotatedWithoutARestart(t *testing.T) {
	long(t)
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
	ids := map[string]string{}
	for i, step := range [][]string{{oldKey}, {oldKey, newKey}, {newKey, oldKey}, {newKey}} {
		began := lab.Now()
		for _, node := range l.System.Nodes() {
			writeKeys(t, l, node, step...)
			if err := l.Proc(node, "tandem").Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		until(t, 30*time.Second, fmt.Sprintf("step %d on all nodes", i), func() bool { return holdAll(t, l, ids, step) })
		t.Logf("step %d took %v", i, (lab.Now() - began).Round(ms))
	}
	if out, err := keys(wanted); err != nil {
		t.Errorf("all nodes hold the new key: %v\n%s", err, out)
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
		if got := strings.Count(log, `"msg":"keys changed"`); got < 3 {
			t.Errorf("the log of %s tells of %d changes of keys, want 3 or more", node, got)
		}
	}
}
