package keepalived_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tandem/sidecar/config"
	"tandem/sidecar/keepalived"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// show prints a result for the golden files.
func show(r keepalived.Result) string {
	var b strings.Builder
	for _, s := range r.Settings {
		fmt.Fprintf(&b, "%s=%s  # %s\n", s.Variable, s.Value, s.Comment)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%d: %s -> %s\n", n.Line, n.What, n.Instead)
	}
	return b.String()
}

// The configurations in testdata are of the kinds that people publish: a
// tutorial's pair, unicast in a cloud, two instances that cross, a sync group
// with IPv6, and one with LVS.
func TestPublishedKindsOfConfiguration(t *testing.T) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			in, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			r, err := keepalived.Import(in)
			if err != nil {
				t.Fatal(err)
			}
			got := show(r)
			path := strings.TrimSuffix(file, ".conf") + ".golden"
			if *update {
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
			loads(t, r)
		})
	}
}

// loads checks that what comes out is what the sidecar takes in, once the
// blanks are filled in.
func loads(t *testing.T, r keepalived.Result) {
	t.Helper()
	fill := strings.NewReplacer("OTHER=ADDRESS", "OTHER=192.0.2.2", "=ADDRESS", "=192.0.2.1", "INTERFACE", "eth9")
	var env []string
	for _, s := range r.Settings {
		value := fill.Replace(s.Value)
		if s.Variable == "TANDEM_KEY" {
			value = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
		}
		env = append(env, s.Variable+"="+value)
	}
	if _, err := config.Load(env); err != nil {
		t.Errorf("the environment is not accepted: %v", err)
	}
}

func TestWhatCannotBeReadIsNamedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "there is no vrrp_instance",
		"vrrp_instance V {\n":               "line 1: the block vrrp_instance is not closed",
		"}\n":                               "line 1: a } that closes nothing",
		"\n{\n":                             "line 2: a block without a name",
		"a \"b\n":                           "line 1: a quotation mark is not closed",
		strings.Repeat("a {\n", 40):         "nested too deep",
		strings.Repeat("# comment\n", 5e5):  "larger than",
		"include /etc/keepalived/*.conf\n":  "an include is not followed",
		"vrrp_instance \"V } {\n":           "a quotation mark is not closed",
		"global_defs { router_id x } } \n ": "line 1: a } that closes nothing",
	} {
		if _, err := keepalived.Import(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
	}
}

func FuzzImportNeverPanics(f *testing.F) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(raw))
	}
	f.Add("vrrp_instance{virtual_ipaddress{{}}}")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := keepalived.Import(strings.NewReader(text))
		if err == nil && len(r.Settings) == 0 {
			t.Error("neither settings nor an error")
		}
	})
}
