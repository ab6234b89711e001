package status_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tandem/sidecar/api/apitest"
	"tandem/sidecar/status"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// trouble is a cluster in which everything is wrong that can be at once.
func trouble() status.Status {
	st := apitest.Pair(noon)
	st.Health = status.NotServing
	st.Problems = []string{"nobody holds vip/default", "lb2 cannot take over: no answer at /run/haproxy/admin.sock", "witness is silent (no answer for 4.2 s; is its machine up, and does the firewall let UDP and TCP 7946 through?)"}
	st.NextFail = nil
	st.Leases[1] = status.Lease{Resource: "vip/default", Fence: "none", Addresses: []string{"10.0.0.100/32", "2001:db8::100/128"}}
	st.Site.Phase, st.Site.Target, st.Site.Waiting = "takeover", "b", "waiting-for-hook"
	st.Site.Reason, st.Site.Actor, st.Site.Active = "active-unusable", "", ""
	st.Groups[0] = st.Site
	st.Groups[1].AckNeeded = true
	st.Nodes[1].Eligible, st.Nodes[1].Reason = false, "hung"
	st.Nodes[1].Detail = "no answer at /run/haproxy/admin.sock"
	st.Nodes[1].HAProxy = &status.HAProxy{Reason: "hung", Detail: "no answer at /run/haproxy/admin.sock"}
	st.Nodes[0].HAProxy.SessionsLeft, st.Nodes[0].HAProxy.SessionsClosed = 2, 17
	st.Nodes[0].HAProxy.Map, st.Nodes[0].Warnings = status.MapNotCurrent, []string{"map-not-current: write map file: permission denied"}
	st.Nodes[1].Warnings = []string{"settings-differ: compare `tandem config` of both nodes"}
	st.Nodes[2].Alive, st.Nodes[2].AgeMS, st.Nodes[2].Reason = false, 4200, "unreachable"
	st.Nodes = append(st.Nodes, status.Node{Name: "lb3", Role: "lb", Maintenance: true, Alive: true, AgeMS: 90, HAProxy: &status.HAProxy{Alive: true, Version: "2.8.5", PID: 9, Reason: "not-admin"}})
	st.Views[0].Usable, st.Views[0].Reason = false, "critical-down"
	st.Views[0].Backends[1].Up = 0
	st.Views[2].AgeMS = 7000
	st.Held = []status.Held{{Node: "lb1", Server: "app/a-2", Kind: "maintenance", Detail: "set by somebody at the socket"}}
	until := noon.Add(10 * time.Minute)
	st.PausedUntil = &until
	st.QuarantineMS = 1200
	st.Unsafe, st.Observe = true, true
	return st
}

func golden(t *testing.T, got string) {
	t.Helper()
	path := filepath.Join("testdata", t.Name()+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func render(t *testing.T, st status.Status, sc status.Screen) string {
	t.Helper()
	var b bytes.Buffer
	if err := status.Render(&b, st, sc); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestHealthyPairFitsOneScreen(t *testing.T) {
	got := render(t, apitest.Pair(noon), status.Screen{Now: noon.Add(12 * time.Millisecond)})
	golden(t, got)
	if n := strings.Count(got, "\n"); n > 35 {
		t.Errorf("%d lines", n)
	}
}

func TestTroubleIsNamedFirst(t *testing.T) {
	golden(t, render(t, trouble(), status.Screen{Now: noon.Add(50 * time.Millisecond)}))
}

// A picture that is not refreshed says nothing of how things are: neither its
// health nor its leases are shown as if they were so, nor painted green.
func TestOldPictureIsShownAsOld(t *testing.T) {
	golden(t, render(t, apitest.Pair(noon), status.Screen{Now: noon.Add(5 * time.Second), Color: true}))
}

// TestEverySceneAtEightyColumns: what an operator may be woken for, as one screen
// and as its explanation.
func TestEverySceneAtEightyColumns(t *testing.T) {
	for _, scene := range apitest.Scenes(noon) {
		t.Run(scene.Name, func(t *testing.T) {
			b := bytes.NewBufferString(render(t, scene.Status, status.Screen{Now: noon.Add(20 * time.Millisecond)}))
			fmt.Fprintln(b, "----")
			if err := status.RenderWhy(b, scene.Status, scene.Status.Recent, status.Screen{Now: noon}); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
					t.Errorf("%d characters: %s", n, line)
				}
			}
			golden(t, b.String())
		})
	}
}

// A site of which nobody says anything is not left out.
func TestSitesThatNobodySeesAreUnknown(t *testing.T) {
	st := apitest.Pair(noon)
	st.Views = nil
	got := render(t, st, status.Screen{Now: noon})
	for _, site := range st.Sites {
		if !regexp.MustCompile(`(?m)^  site ` + site + ` +unknown +- +- +no load balancer says what it sees$`).MatchString(got) {
			t.Errorf("site %s: %s", site, got)
		}
	}
}

// A moment that is not known is null, never the year 1.
func TestUnknownMomentIsNull(t *testing.T) {
	raw, err := json.Marshal(status.Status{})
	if err != nil || !strings.Contains(string(raw), `"since":null`) || !strings.Contains(string(raw), `"paused_until":null`) {
		t.Errorf("%s %v", raw, err)
	}
}

func TestNothingKnownIsShownAsUnknown(t *testing.T) {
	golden(t, render(t, status.Status{Node: "lb1", Cluster: "shop", Mode: "quorum", Version: "0.1.0"}, status.Screen{Now: noon}))
}

func TestColour(t *testing.T) {
	golden(t, render(t, trouble(), status.Screen{Now: noon, Color: true}))
}

var ansi = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestEveryLineFitsEveryWidth(t *testing.T) {
	for _, st := range []status.Status{apitest.Pair(noon), trouble(), {}} {
		for _, width := range []int{60, 80, 132} {
			for _, color := range []bool{false, true} {
				for line := range strings.Lines(render(t, st, status.Screen{Width: width, Now: noon, Color: color})) {
					if n := utf8.RuneCountInString(strings.TrimSuffix(ansi.ReplaceAllString(line, ""), "\n")); n > width {
						t.Errorf("%d characters at width %d: %s", n, width, line)
					}
				}
			}
		}
	}
}

func TestPausedWithoutEnd(t *testing.T) {
	st := apitest.Pair(noon)
	never := time.UnixMilli(0)
	st.PausedUntil = &never
	if got := render(t, st, status.Screen{Now: noon}); !strings.Contains(got, "paused: no automatic site decision until `tandem resume`") {
		t.Errorf("got %s", got)
	}
}

// What another node, a hook or HAProxy says must not move the cursor.
func TestHostileTextCannotReachTheTerminal(t *testing.T) {
	st := trouble()
	evil := "x\x1b[2J\r\n\u202e\x9b31mfake"
	st.Problems, st.NextFail = []string{evil}, []string{evil}
	st.Nodes[0].Name, st.Nodes[1].Detail, st.Nodes[1].Reason = evil, evil, evil
	st.Views[0].Backends[0].Name, st.Held[0].Detail, st.Recent[0].Reason = evil, evil, evil
	var why, history bytes.Buffer
	if err := status.RenderWhy(&why, st, st.Recent, status.Screen{Now: noon}); err != nil {
		t.Fatal(err)
	}
	if err := status.RenderHistory(&history, st.Recent, status.Screen{Now: noon}); err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{render(t, st, status.Screen{Now: noon}), why.String(), history.String()} {
		if i := strings.IndexAny(got, "\x1b\r\u009b\u202e"); i >= 0 {
			t.Errorf("control character at %d: %q", i, got[max(0, i-20):i+5])
		}
	}
}

func TestWhyNamesCauses(t *testing.T) {
	var b bytes.Buffer
	st := trouble()
	if err := status.RenderWhy(&b, st, st.Recent, status.Screen{Now: noon}); err != nil {
		t.Fatal(err)
	}
	golden(t, b.String())
}

func TestWhyOfAHealthyPair(t *testing.T) {
	var b bytes.Buffer
	st := apitest.Pair(noon)
	if err := status.RenderWhy(&b, st, st.Recent, status.Screen{Now: noon}); err != nil {
		t.Fatal(err)
	}
	golden(t, b.String())
}

func TestHistory(t *testing.T) {
	var b bytes.Buffer
	all := apitest.Pair(noon).Recent
	all = append(all, status.Transition{At: noon.Add(-time.Minute), Node: "lb2", Resource: "site", Event: "phase", Phase: "takeover", From: "a", To: "b", Epoch: 10, Reason: "active-unusable"},
		status.Transition{At: noon.Add(-50 * time.Second), Node: "lb1", Resource: "site", Event: "command", To: "a", Reason: "takeover", Actor: "root (alice)"},
		status.Transition{At: noon.Add(-30 * time.Second), Node: "lb1", Resource: "site", Event: "takeover-refused", To: "x", Reason: "unknown-site", Actor: "root (alice)", Detail: "there is no site x"})
	if err := status.RenderHistory(&b, all, status.Screen{Now: noon}); err != nil {
		t.Fatal(err)
	}
	golden(t, b.String())
}

// A holder that is unfit and stays is no reason why it took the lease up.
func TestWhyTellsTheLastResortFromTheTakeUp(t *testing.T) {
	st := apitest.Pair(noon)
	history := append(st.Recent, status.Transition{At: noon, Node: "lb1", Resource: "vip/default", Event: "last-resort", To: "lb1", Epoch: 12, Reason: "hung"})
	why := func() string {
		var b bytes.Buffer
		if err := status.RenderWhy(&b, st, history, status.Screen{Now: noon, Width: 160}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	const stays = "It stays there as a last resort, since 12:00:00.000: nobody else can take it, although hung: "
	if got := why(); strings.Contains(got, "last resort") {
		t.Errorf("lb1 is eligible: %s", got)
	}
	st.Nodes[0].Eligible, st.Nodes[0].Reason = false, "hung"
	if got := why(); !strings.Contains(got, stays) || !strings.Contains(got, "handed-over: the former holder released it. Asked by bob.") {
		t.Error(got)
	}
}

// What somebody asked for in vain is no cause of how things are.
func TestWhyIsNotMisledByARefusedCommand(t *testing.T) {
	st := apitest.Pair(noon)
	st.Leases[1].Holder = ""
	var before, after bytes.Buffer
	history := st.Recent
	if err := status.RenderWhy(&before, st, history, status.Screen{Now: noon}); err != nil {
		t.Fatal(err)
	}
	history = append(history, status.Transition{At: noon, Node: "lb2", Resource: "vip/default", Event: "move-refused", To: "lb2", Reason: "not-eligible", Actor: "alice"})
	if err := status.RenderWhy(&after, st, history, status.Screen{Now: noon}); err != nil {
		t.Fatal(err)
	}
	if before.String() != after.String() {
		t.Errorf("got\n%s\nwant\n%s", after.String(), before.String())
	}
}

// The JSON of a status is a promise to those who read it by machine: a field
// may be added, none may be renamed or taken away.
func TestStatusJSONSchema(t *testing.T) {
	raw, err := json.MarshalIndent(trouble(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, string(raw)+"\n")
}

// Every reason that a package can say is explained, so that `why` never has
// to leave a word unexplained.
func TestEveryReasonIsExplained(t *testing.T) {
	for _, dir := range []string{"../site", "../agent", "../../haproxy"} {
		for _, word := range reasons(t, dir) {
			if status.Explain(word) == "" {
				t.Errorf("%s: the reason %q is not explained", dir, word)
			}
		}
	}
}

// reasons are the values of the constants of type Reason in a directory.
func reasons(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !isReason(spec.Type) {
				return true
			}
			for _, value := range spec.Values {
				if literal, ok := value.(*ast.BasicLit); ok {
					word, err := strconv.Unquote(literal.Value)
					if err == nil && word != "" {
						words = append(words, word)
					}
				}
			}
			return true
		})
	}
	return words
}

func isReason(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "Reason"
	case *ast.SelectorExpr:
		return e.Sel.Name == "Reason"
	default:
		return false
	}
}

// TestWhyNamesTheCauseOfAHandOver: that somebody released a lease is no cause.
func TestWhyNamesTheCauseOfAHandOver(t *testing.T) {
	st := apitest.Pair(noon)
	history := []status.Transition{
		{At: noon.Add(-time.Second), Node: "lb2", Resource: "vip/default", Event: "let-go", From: "lb2", To: "lb1", Reason: "died"},
		{At: noon, Node: "lb1", Resource: "vip/default", Event: "take-up", From: "lb2", To: "lb1", Epoch: 12, Reason: "handed-over"},
		{At: noon.Add(time.Second), Node: "lb1", Resource: "vip/default", Event: "hook-notify", From: "lb2", To: "lb1", Epoch: 12, Reason: "succeeded"},
	}
	var b bytes.Buffer
	if err := status.RenderWhy(&b, st, history, status.Screen{Now: noon, Width: 120}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "lb2 released it for this reason: died: the process of HAProxy ended.") {
		t.Error(b.String())
	}
}
