package site

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"tandem/haproxy"
)

// servers reads `web/a-1=up web/a-2=down amq/b-1=up,held`.
func servers(text string) []ServerState {
	var out []ServerState
	for f := range strings.FieldsSeq(text) {
		id, state, _ := strings.Cut(f, "=")
		b, s, _ := strings.Cut(id, "/")
		out = append(out, ServerState{Backend: b, Server: s, Up: strings.Contains(state, "up"), Held: strings.Contains(state, "held"), Drained: strings.Contains(state, "drained")})
	}
	return out
}

func TestASiteIsUsableOnlyWithAllItsCriticalBackends(t *testing.T) {
	two := MinUp{Count: 2}
	for name, tc := range map[string]struct {
		cfg     Config
		servers string
		want    string // of site a in the default group
	}{
		"all up":                            {Config{}, "web/a-1=up chat/a-1=up web/b-1=up", "usable"},
		"one of two servers is enough":      {Config{}, "web/a-1=down web/a-2=up", "usable"},
		"a backend without any":             {Config{}, "web/a-1=up chat/a-1=down", "critical-down chat"},
		"a backend that is not critical":    {Config{Critical: []string{"web"}}, "web/a-1=up bot/a-1=down", "usable"},
		"critical by glob":                  {Config{Critical: []string{"w*"}}, "web/a-1=down bot/a-1=up", "critical-down web"},
		"a critical backend that is not":    {Config{Critical: []string{"web", "chat"}}, "web/a-1=up", "critical-missing chat"},
		"no servers":                        {Config{}, "web/b-1=up sql/x=up", "no-servers"},
		"a held server is not up":           {Config{}, "web/a-1=up,held", "critical-down web"},
		"a drained server is up":            {Config{}, "web/a-1=up,drained", "usable"},
		"two needed, one up":                {Config{MinUp: two}, "web/a-1=up web/a-2=down web/a-3=down", "critical-down web"},
		"two needed, two up":                {Config{MinUp: two}, "web/a-1=up web/a-2=up web/a-3=down", "usable"},
		"two needed, there is only one":     {Config{MinUp: two}, "web/a-1=up", "critical-down web"},
		"half of three is two":              {Config{MinUp: MinUp{Percent: 50}}, "web/a-1=up web/a-2=down web/a-3=down", "critical-down web"},
		"half of two is one":                {Config{MinUp: MinUp{Percent: 50}}, "web/a-1=up web/a-2=down", "usable"},
		"a percentage needs at least one":   {Config{MinUp: MinUp{Percent: 1}}, "web/a-1=down", "critical-down web"},
		"an independent one does not count": {Config{Independent: []string{"amq"}}, "web/a-1=up amq/a-1=down", "usable"},
		"nor if it is listed as critical":   {Config{Independent: []string{"amq"}, Critical: []string{"web", "amq"}}, "web/a-1=up amq/a-1=down", "usable"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.cfg.Sites = sites("a", "b")
			v := NewView(tc.cfg, "lb1", servers(tc.servers))
			s := v.Of(DefaultGroup, "a")
			got := "usable"
			if !s.Usable {
				got = strings.TrimSpace(string(s.Reason) + " " + s.Detail)
			}
			if got != tc.want {
				t.Fatalf("got %q, want %q: %+v", got, tc.want, v)
			}
		})
	}
}

func TestTheOrderOfServersDoesNotMatter(t *testing.T) {
	cfg := Config{Sites: sites("a", "b"), Independent: []string{"amq"}}
	list := servers("web/a-1=up web/a-2=down web/b-1=up chat/a-1=up,drained chat/b-1=down amq/a-1=up amq/b-1=up,held bot/x=up sql/s1=down")
	want := NewView(cfg, "lb1", list)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if got := NewView(cfg, "lb1", list); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
	text, err := json.Marshal(want)
	if err != nil || strings.Contains(string(text), "sql") || strings.Contains(string(text), "bot") {
		t.Fatalf("%s: %v", text, err)
	}
	var back View
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, want) {
		t.Fatalf("%+v: %v", back, err)
	}
	if back.Of("amq", "a") == nil || !back.Of("amq", "a").Usable || back.Of("amq", "b").Usable {
		t.Fatalf("%s", text)
	}
}

func TestRulesRestrictAGroupToItsBackends(t *testing.T) {
	cfg := Config{
		Sites:       []Site{{"a", []string{"*/a-*", "chat/s1"}}, {"b", []string{"*/b-*", "amq/spare", "web/*"}}},
		Independent: []string{"amq", "chat"}, DrainTimeout: time.Second,
	}
	d := Decision{Groups: []Group{
		{Active: "a", Reason: ReasonCommanded},
		{Name: "amq", Active: "b", From: "a", Phase: PhaseSettle, Close: true, Reason: ReasonCommanded},
	}}
	want := `amq/a-*: drain, close
amq/b-*: ready
amq/spare: ready
*/a-*: ready
chat/s1: ready
*/b-*: drain
amq/spare: drain
web/*: drain`
	if got := ruleText(Rules(cfg, d, true)); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	for _, r := range Rules(cfg, d, true) {
		if err := haproxy.ValidPattern(r.Pattern); err != nil {
			t.Error(err)
		}
	}
}

func ruleText(rules []Rule) string {
	var lines []string
	for _, r := range rules {
		line := r.Pattern + ": " + string(r.Want)
		if r.Close {
			line += ", close"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestWithoutAQuorumExclusiveDrainsEverything(t *testing.T) {
	cfg := Config{Sites: sites("a", "b"), Independent: []string{"amq"}, Order: Exclusive}
	d := Decision{Groups: []Group{{Active: "a", Reason: ReasonCommanded}, {Name: "amq", Active: "b", Reason: ReasonCommanded}}}
	all := "amq/a-*: drain\namq/b-*: drain\n*/a-*: drain\n*/b-*: drain"
	for _, d := range []Decision{d, {}} {
		if got := ruleText(Rules(cfg, d, false)); got != all {
			t.Fatal(got)
		}
	}
	if got := Rules(cfg, Decision{}, true); len(got) != 0 {
		t.Fatalf("rules without a decision: %v", got)
	}
	cfg.Order = Overlap
	if got := ruleText(Rules(cfg, d, false)); got != "amq/a-*: drain\namq/b-*: ready\n*/a-*: ready\n*/b-*: drain" {
		t.Fatal(got)
	}
}

// Both packages read the same patterns: a server that one counts, the other
// drains.
func TestPatternsMeanTheSameToHAProxy(t *testing.T) {
	parts := []string{"*", "a-*", "*-a", "a?", "a", "*a*", "web", "w*b", "a.b", "?", "**", "a*b*c"}
	names := []string{"a", "a-1", "x-a", "ab", "web", "wb", "a.b", "axb", "abc", "aXbYc", "b"}
	for _, pb := range parts {
		for _, ps := range parts {
			p := pb + "/" + ps
			if (haproxy.ValidPattern(p) == nil) != (validPattern(p) == nil) {
				t.Errorf("%s is valid for one and not for the other", p)
				continue
			}
			for _, b := range names {
				for _, s := range names {
					if got, want := matches(p, b, s), haproxy.Match(p, haproxy.ServerID{Backend: b, Server: s}); got != want {
						t.Errorf("%s matches %s/%s: %v here, %v in haproxy", p, b, s, got, want)
					}
				}
			}
		}
	}
	for _, p := range []string{"", "a", "/", "a/", "/a", "a/b/c", "a b/c", "a;b/c", "a/b#", "[a]/b"} {
		if validPattern(p) == nil || haproxy.ValidPattern(p) == nil {
			t.Errorf("%q: %v, %v", p, validPattern(p), haproxy.ValidPattern(p))
		}
	}
}

func TestSettingsAreReadAndRefused(t *testing.T) {
	var m MinUp
	for _, s := range []string{"1", "2", "50%", "100%"} {
		if err := m.UnmarshalText([]byte(s)); err != nil || m.String() != s {
			t.Errorf("%s: %v, %v", s, m, err)
		}
	}
	var a Auto
	for _, s := range []string{"on", "off", "to=b"} {
		if err := a.UnmarshalText([]byte(s)); err != nil || a.String() != s {
			t.Errorf("%s: %v, %v", s, a, err)
		}
	}
	var o Order
	for _, s := range []string{"overlap", "exclusive"} {
		if err := o.UnmarshalText([]byte(s)); err != nil || string(o) != s {
			t.Errorf("%s: %v, %v", s, o, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "101%", "x", "50 %", "to=", "to=a b"} {
		if m.UnmarshalText([]byte(s)) == nil || a.UnmarshalText([]byte(s)) == nil || o.UnmarshalText([]byte(s)) == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestABadConfigurationIsRefused(t *testing.T) {
	good := Config{Sites: sites("a", "b"), Independent: []string{"amq"}, Auto: Auto{To: "b"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{
		Sites: []Site{{"a", []string{"a"}}, {"a", nil}}, Independent: []string{"amq*", "default", "x", "x"},
		Critical: []string{"a b"}, Auto: Auto{To: "c"},
	}
	err := bad.Validate()
	for _, want := range []string{`site "a"`, `pattern "a"`, "at least one pattern", `"amq*"`, `"default"`, `"x"`, `critical backend "a b"`, "to=c"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	for i := range 40 {
		good.Independent = append(good.Independent, fmt.Sprintf("backend-%d", i))
	}
	if err := good.Validate(); err == nil || !strings.Contains(err.Error(), "list fewer") {
		t.Fatal(err)
	}
}

// A configuration that is accepted never makes a decision that is too long.
func TestEveryDecisionFits(t *testing.T) {
	cfg := Config{Sites: sites("site-a", "site-b")}
	for i := 0; ; i++ {
		next := append(append([]string(nil), cfg.Independent...), fmt.Sprintf("broker-%d", i))
		if (Config{Sites: cfg.Sites, Independent: next}).Validate() != nil {
			break
		}
		cfg.Independent = next
	}
	if len(cfg.Independent) < 4 {
		t.Fatalf("only %d independent backends are possible", len(cfg.Independent))
	}
	d := cfg.worst()
	for i := range d.Groups {
		d.Groups[i].Actor, d.Groups[i].SinceUnixMS = strings.Repeat("x", maxActor), 1_700_000_000_000
	}
	b, err := Encode(d)
	if err != nil || len(b) > MaxSize {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
	t.Logf("%d groups, %d bytes in the worst case", len(d.Groups), len(b))
	back, err := Decode(b)
	if err != nil || len(back.Groups) != len(d.Groups) || back.Groups[1].Target != "site-a" || back.Groups[1].Actor != "" {
		t.Fatalf("%+v: %v", back, err)
	}
	if _, err := Decode([]byte("{")); err == nil {
		t.Fatal("garbage was decoded")
	}
	if d, err := Decode(nil); err != nil || len(d.Groups) > 0 {
		t.Fatalf("%+v: %v", d, err)
	}
}
