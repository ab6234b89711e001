package main

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"tandem/lib/gossip"
	"tandem/sidecar/config"
	"tandem/sidecar/status"
)

// ringNode is one node of a cluster without a network: its keys, and what it
// is told of the others.
type ringNode struct {
	*keyring
	t       *testing.T
	name    string
	voter   bool
	silent  bool
	keys    [][]byte
	team    *[]*ringNode
	remarks map[string]string
	told    []string
}

func (n *ringNode) Keys() []string {
	var ids []string
	for _, k := range n.keys {
		ids = append(ids, gossip.KeyID(k))
	}
	return ids
}

func (n *ringNode) SetKeys(keys [][]byte) error { n.keys = keys; return nil }

func (n *ringNode) Status() status.Status {
	st := status.Status{Node: n.name, Health: status.Healthy}
	for _, o := range *n.team {
		if !n.voter && !o.voter && o != n {
			continue // followers hear of voters only
		}
		st.Nodes = append(st.Nodes, status.Node{Name: o.name, Voter: o.voter, Alive: !o.silent, Keys: o.Keys()})
	}
	return st
}

func (n *ringNode) Remark(_ context.Context, kind, text string) error {
	n.remarks[kind] = text
	return nil
}

func (n *ringNode) Tell(_ context.Context, tr status.Transition) error {
	n.told = append(n.told, tr.To)
	return nil
}

func (n *ringNode) write(keys ...[]byte) {
	n.t.Helper()
	var texts []string
	for _, k := range keys {
		texts = append(texts, base64.StdEncoding.EncodeToString(k))
	}
	if err := os.WriteFile(n.file, []byte(strings.Join(texts, ",")+"\n"), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

var oldKey, newKey = []byte("the old key of 16"[:16]), []byte("the new key of 16"[:16])

// ringTeam is three voters and a follower that hold the old key.
func ringTeam(t *testing.T) []*ringNode {
	t.Helper()
	team := &[]*ringNode{}
	for _, name := range []string{"lb1", "lb2", "witness", "edge"} {
		n := &ringNode{t: t, name: name, voter: name != "edge", keys: [][]byte{oldKey}, team: team, remarks: map[string]string{}}
		file := filepath.Join(t.TempDir(), "key")
		n.keyring = newKeyring(config.Config{KeyFile: file, Keys: config.Keys{oldKey}}, n, n, zap.NewNop())
		n.write(oldKey)
		*team = append(*team, n)
	}
	return *team
}

// reads fails if any node cannot read what another one writes.
func reads(t *testing.T, team []*ringNode) {
	t.Helper()
	for _, from := range team {
		for _, to := range team {
			if !slices.Contains(to.Keys(), from.Keys()[0]) && !from.silent && !to.silent {
				t.Fatalf("%s encrypts with %s, which %s does not hold (%v)", from.name, from.Keys()[0], to.name, to.Keys())
			}
		}
	}
}

// rounds lets all nodes look at their files in turn, and checks after each
// look that all can read each other.
func rounds(t *testing.T, team []*ringNode, n int) {
	t.Helper()
	for range n {
		for _, node := range team {
			if !node.silent {
				node.look(t.Context())
				reads(t, team)
			}
		}
	}
}

func TestKeysAreRotatedInThreeSteps(t *testing.T) {
	team := ringTeam(t)
	for _, step := range [][][]byte{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
		for i := range team { // one after the other, with time in between
			team[i].write(step...)
			rounds(t, team, 3)
		}
		var want []string
		for _, k := range step {
			want = append(want, gossip.KeyID(k))
		}
		for _, n := range team {
			if !same(n.Keys(), want) || n.remarks[keysWait] != "" {
				t.Errorf("%s holds %v, want %v; %s", n.name, n.Keys(), want, n.remarks[keysWait])
			}
		}
	}
}

func TestAKeyReplacedInOneStepGoesTheThreeByItself(t *testing.T) {
	team := ringTeam(t)
	for i := range team {
		team[i].write(newKey)
		rounds(t, team, 2)
		if last := i == len(team)-1; !last && (!same(team[0].Keys(), []string{gossip.KeyID(oldKey), gossip.KeyID(newKey)}) || team[0].remarks[keysWait] == "") {
			t.Errorf("after %d files lb1 holds %v (%q); want that it waits for the others", i+1, team[0].Keys(), team[0].remarks[keysWait])
		}
	}
	rounds(t, team, 6)
	for _, n := range team {
		if !slices.Equal(n.Keys(), []string{gossip.KeyID(newKey)}) || n.remarks[keysWait] != "" {
			t.Errorf("%s holds %v, want the new key alone; %s", n.name, n.Keys(), n.remarks[keysWait])
		}
		if len(n.told) != 3 {
			t.Errorf("%s told of %d changes, want 3: %v", n.name, len(n.told), n.told)
		}
	}
}

func TestKeysWaitForAVoterThatIsSilent(t *testing.T) {
	team := ringTeam(t)
	team[2].silent = true
	for _, n := range team[:2] {
		n.write(newKey)
	}
	team[3].write(newKey)
	rounds(t, team, 6)
	if team[0].Keys()[0] != gossip.KeyID(oldKey) || !strings.Contains(team[0].remarks[keysWait], "witness is silent") {
		t.Errorf("lb1 holds %v, %q; want that it waits for the witness", team[0].Keys(), team[0].remarks[keysWait])
	}
	team[2].silent = false
	team[2].write(newKey)
	rounds(t, team, 6)
	if !slices.Equal(team[0].Keys(), []string{gossip.KeyID(newKey)}) {
		t.Errorf("lb1 holds %v, want the new key", team[0].Keys())
	}
}

func TestAKeyFileThatCannotBeReadChangesNothing(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "half": "aGFsZg==", "not base64": "***"} {
		team := ringTeam(t)
		if err := os.WriteFile(team[0].file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		team[0].look(t.Context())
		if team[0].Keys()[0] != gossip.KeyID(oldKey) || team[0].remarks[keysFile] == "" {
			t.Errorf("%s: holds %v, remark %q", name, team[0].Keys(), team[0].remarks[keysFile])
		}
		if text != "" && strings.Contains(team[0].remarks[keysFile], text) {
			t.Errorf("%s: the remark shows what is in the file: %s", name, team[0].remarks[keysFile])
		}
		team[0].write(oldKey)
		if team[0].look(t.Context()); team[0].remarks[keysFile] != "" {
			t.Errorf("%s: the remark stays: %s", name, team[0].remarks[keysFile])
		}
	}
}
