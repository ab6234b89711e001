// Package cloud tests the scripts beside it against stubs of the providers'
// command lines, which keep the state that the real ones would.
package cloud

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stub is a provider's command line: it notes how it was called, answers a
// question with what the file named `at` says, and fails while there is a file
// named `broken`.
const stub = `#!/bin/sh
echo "$(basename "$0") $*" >> "$STUB/calls"
[ ! -e "$STUB/broken" ] || exit 1
case "$*" in
*"instances describe other"*) cat "$STUB/at-peer" 2>/dev/null ;;
*describe*|*show*) cat "$STUB/at" ;;
esac
exit 0
`

// provider is one script with its settings, and what it has to find and to do.
type provider struct {
	name, cli    string
	env          []string
	here, there  string   // what the provider says when it is here, or at the peer
	peer         string   // what it says of the peer, where the script asks
	moves        []string // parts of the calls that move it, in order
	askedOnlyFor int      // calls when nothing is to be done
}

var providers = []provider{
	{
		name: "aws", cli: "aws", env: []string{"INTERFACE_ID=eni-1", "ALLOCATION_ID=eipalloc-1"}, here: "eni-1", there: "eni-2",
		moves: []string{"associate-address --allocation-id eipalloc-1 --network-interface-id eni-1 --allow-reassociation"}, askedOnlyFor: 1,
	},
	{
		name: "aws", cli: "aws", env: []string{"INTERFACE_ID=eni-1", "ROUTE_TABLES=rtb-1 rtb-2", "DESTINATION=10.9.9.9/32"}, here: "eni-1", there: "eni-2",
		moves: []string{"replace-route --route-table-id rtb-1 --destination-cidr-block 10.9.9.9/32 --network-interface-id eni-1", "replace-route --route-table-id rtb-2"}, askedOnlyFor: 2,
	},
	{
		name: "gcp", cli: "gcloud", env: []string{"ALIAS=10.0.0.100/32", "INSTANCE=me", "ZONE=z1", "PEER=other", "PEER_ZONE=z2"},
		here: "10.0.0.100/32", there: "", peer: "10.0.0.100/32",
		moves: []string{"update other --zone z2 --network-interface nic0 --aliases", "update me --zone z1 --network-interface nic0 --aliases 10.0.0.100/32"}, askedOnlyFor: 1,
	},
	{
		name: "azure", cli: "az", env: []string{"RESOURCE_GROUP=g", "ROUTE_TABLE=t", "ROUTE=r", "NEXT_HOP=10.0.0.11"}, here: "10.0.0.11", there: "10.0.0.12",
		moves: []string{"route update -g g --route-table-name t -n r --next-hop-type VirtualAppliance --next-hop-ip-address 10.0.0.11"}, askedOnlyFor: 1,
	},
	{
		name: "azure", cli: "az", env: []string{"RESOURCE_GROUP=g", "PUBLIC_IP=p", "NIC=n1", "NIC_PEER=n2"},
		here: "/x/networkInterfaces/n1/ipConfigurations/ipconfig1", there: "/x/networkInterfaces/n2/ipConfigurations/ipconfig1",
		moves: []string{"--nic-name n2 -n ipconfig1 --remove publicIPAddress", "--nic-name n1 -n ipconfig1 --public-ip-address p"}, askedOnlyFor: 1,
	},
}

// scene is a directory with the stub in it.
type scene struct {
	*testing.T
	dir string
	p   provider
}

func newScene(t *testing.T, p provider, at, peer string) scene {
	t.Helper()
	s := scene{t, t.TempDir(), p}
	s.write(p.cli, stub)
	s.write("at", at+"\n")
	s.write("at-peer", peer+"\n")
	return s
}

func (s scene) write(name, text string) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755); err != nil {
		s.Fatal(err)
	}
}

// run runs a script and returns what it printed and whether it succeeded.
func (s scene) run(env []string, command ...string) (string, bool) {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), command[0], command[1:]...)
	cmd.Env = append(append([]string{"PATH=" + s.dir + ":" + os.Getenv("PATH"), "STUB=" + s.dir}, s.p.env...), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func (s scene) script() string { return "./" + s.p.name + "/move" }

// calls are what the stub was asked, and those of them that change something.
func (s scene) calls() (all, changes []string) {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "calls"))
	if err != nil {
		return nil, nil
	}
	for line := range strings.Lines(string(text)) {
		all = append(all, line)
		if !strings.Contains(line, "describe") && !strings.Contains(line, " show ") {
			changes = append(changes, line)
		}
	}
	return all, changes
}

func TestMoveBringsItHereInOrder(t *testing.T) {
	for _, p := range providers {
		s := newScene(t, p, p.there, p.peer)
		if out, ok := s.run(nil, s.script()); !ok {
			t.Fatalf("%s: %s", p.name, out)
		}
		_, changes := s.calls()
		if len(changes) != len(p.moves) {
			t.Fatalf("%s: %q", p.name, changes)
		}
		for i, move := range p.moves {
			if !strings.Contains(changes[i], move) {
				t.Errorf("%s: %q, want %q", p.name, changes[i], move)
			}
		}
	}
}

func TestMoveDoesNothingWhereNothingIsToBeDone(t *testing.T) {
	for _, p := range providers {
		s := newScene(t, p, p.here, "")
		if out, ok := s.run(nil, s.script()); !ok {
			t.Fatalf("%s: %s", p.name, out)
		}
		if all, changes := s.calls(); len(changes) > 0 || len(all) != p.askedOnlyFor {
			t.Errorf("%s: %q", p.name, all)
		}
	}
}

func TestDryRunSaysWhatItWouldDoAndChangesNothing(t *testing.T) {
	for _, p := range providers {
		s := newScene(t, p, p.there, p.peer)
		out, ok := s.run(nil, s.script(), "--dry-run")
		if _, changes := s.calls(); !ok || len(changes) > 0 || strings.Count(out, "would run: "+p.cli) != len(p.moves) {
			t.Errorf("%s: %v %q %s", p.name, ok, changes, out)
		}
	}
}

// A notify hook that fails is run again by the sidecar.
func TestMoveFailsWhenTheProviderDoes(t *testing.T) {
	for _, p := range providers {
		s := newScene(t, p, p.there, p.peer)
		s.write("broken", "")
		if out, ok := s.run(nil, s.script()); ok {
			t.Errorf("%s: succeeded: %s", p.name, out)
		}
	}
}

// As a notify hook: on take-up and every time that the group is still held, and
// for no other event, no other group, and no site.
func TestAsAHookItFollowsTheLease(t *testing.T) {
	for _, p := range providers {
		for env, acts := range map[string]bool{
			"TANDEM_EVENT=take-up TANDEM_GROUP=web":           true,
			"TANDEM_EVENT=hold TANDEM_GROUP=web":              true,
			"TANDEM_EVENT=hold TANDEM_GROUP=web GROUP=web":    true,
			"TANDEM_EVENT=take-up TANDEM_GROUP=web GROUP=api": false,
			"TANDEM_EVENT=take-up TANDEM_GROUP=web SITE=a":    false,
			"TANDEM_EVENT=let-go TANDEM_GROUP=web":            false,
			"TANDEM_EVENT=notify TANDEM_SITE=a":               false,
		} {
			s := newScene(t, p, p.there, p.peer)
			if out, ok := s.run(strings.Fields(env), s.script()); !ok {
				t.Fatalf("%s: %s: %s", p.name, env, out)
			}
			all, changes := s.calls()
			if acts && len(changes) != len(p.moves) || !acts && len(all) > 0 {
				t.Errorf("%s: %s: %q", p.name, env, all)
			}
		}
	}
}

func TestAsAHookItActsForItsOwnSite(t *testing.T) {
	for _, p := range providers {
		s := newScene(t, p, p.there, p.peer)
		if out, ok := s.run([]string{"TANDEM_EVENT=notify", "TANDEM_SITE=b", "SITE=a"}, s.script()); !ok {
			t.Fatalf("%s: %s", p.name, out)
		}
		if all, _ := s.calls(); len(all) > 0 {
			t.Errorf("%s: acted for another site: %q", p.name, all)
		}
		if _, ok := s.run([]string{"TANDEM_EVENT=notify", "TANDEM_SITE=a", "SITE=a"}, s.script()); !ok {
			t.Errorf("%s: failed", p.name)
		}
		if _, changes := s.calls(); len(changes) == 0 {
			t.Errorf("%s: did not act for its own site", p.name)
		}
	}
}

// TestFollowRunsOnTheHolderOnly: not elsewhere, once when it becomes the holder,
// again after a failure, and again when it has been elsewhere meanwhile.
func TestFollowRunsOnTheHolderOnly(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("NOT TESTED: curl is not installed")
	}
	for answers, want := range map[string]int{"....": 0, "HHHHH": 1, ".H.H.": 2, "HH.HH": 2} {
		looks := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/holder" || answers[looks] != 'H' {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			looks++
		}))
		s := newScene(t, provider{cli: "act"}, "", "")
		env := []string{"HOLDER_URL=" + server.URL + "/holder", "FOLLOW_EVERY=0", "FOLLOW_LOOKS=" + string(rune('0'+len(answers)))}
		out, ok := s.run(env, "./follow", "act", "now")
		server.Close()
		if all, _ := s.calls(); !ok || len(all) != want {
			t.Errorf("%s: ran %d times, want %d: %s", answers, len(all), want, out)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	s := newScene(t, provider{cli: "act"}, "", "")
	s.write("broken", "")
	if _, ok := s.run([]string{"HOLDER_URL=" + server.URL, "FOLLOW_EVERY=0", "FOLLOW_LOOKS=3"}, "./follow", "act"); !ok {
		t.Error("follow ended for a failure")
	}
	if all, _ := s.calls(); len(all) != 3 {
		t.Errorf("tried %d times, want 3", len(all))
	}
}
