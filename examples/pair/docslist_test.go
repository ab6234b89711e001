package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const repository = "../.."

// typed is a command of the docs that runs in a lab, as it stands there, and
// what it must answer.
type typed struct {
	line  string
	code  int
	says  []string // expressions, each of which its output must match
	until string   // it goes on for ever: it is ended when its output matches this
	end   syscall.Signal
	then  func(d *docs) // what the page takes for granted afterwards
	last  bool          // it ends the lab
}

// typedCommands are all that can be run here. A line that stands in the docs and
// neither here nor among those that run elsewhere fails the test.
func typedCommands() []typed {
	healthy := []string{`(?m)^cluster tandem · quorum of 3 · by lb1, seen .* HEALTHY$`, `(?m)^  vip/default +lb[12] .* gate +10\.77\.0\.100$`, `if lb1 fails, `}
	return []typed{
		// README.md and examples/README.md
		{line: "bin/pair do kill haproxy lb1", says: []string{`^done\n$`}, then: func(d *docs) { d.eventually("lb1 is unfit", "degraded") }},
		{line: "bin/pair do noticed 5", says: []string{`client: .*by load balancer`, `referee: \d+ moves, two answered for 0 ms`}},
		{line: "bin/pair do tandem status", code: anyCode, says: []string{`(?m)^cluster tandem .*(DEGRADED|HEALTHY)$`}},
		{line: "bin/pair do loss 30 lb1 lb2 witness", says: []string{`^done\n$`}},
		{line: "bin/pair do repair", says: []string{`^done\n$`}, then: (*docs).settled},
		{line: "tandem check", says: []string{`ok +configuration +lb1, role lb, cluster tandem, 3 voters, mode quorum`, `ok +capabilities`, `ok +haproxy +version `, `ok +gate`}},
		{line: "tandem run", until: `"msg":"node heard"`, end: syscall.SIGTERM, then: (*docs).restart},
		{
			line: `curl -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"site":"b"}' http://127.0.0.1:8405/v1/takeover`,
			says: []string{`"ok":true`}, then: func(d *docs) { d.tandem("takeover", "a", "--wait") },
		},
		// docs/migrate-from-keepalived.md
		{line: "tandem import /etc/keepalived/keepalived.conf > tandem.env", then: (*docs).imported},
		// docs/operations.md
		{line: "tandem status", says: healthy},
		{line: "tandem status --watch", says: healthy, until: `(?s)HEALTHY.*HEALTHY`, end: syscall.SIGINT},
		{line: "tandem why", says: []string{`All is well`, `lb[12] holds vip/default`, `Site a is active for default`}},
		{line: "tandem history -n 100", says: []string{`(?m)^when +what +change +epoch +reason +who$`, `vip/default take-up`}, then: (*docs).onLB1},
		{line: "tandem plan --if lb1=down", code: 1, says: []string{`if\s+lb1\s+fails,\s+lb2\s+takes\s+.*but\s+then\s+no\s+further\s+failure\s+is\s+survived`, `(?m)^  vip/default +lb1 +lb2 `, `then: DEGRADED`}},
		{line: "tandem plan --if lb1.haproxy=down,site.a=down", code: 1, says: []string{`site\s+b\s+takes\s+over\s+from\s+a`, `(?m)^  vip/default +lb1 +lb2 `, `then: DEGRADED`}},
		{line: "tandem maintenance on lb1", says: []string{`lb1 is in maintenance`}, then: func(d *docs) { d.eventually("lb1 is in maintenance", "degraded") }},
		{line: "tandem maintenance off lb1", says: []string{`lb1 is out of maintenance`}, then: (*docs).onLB1},
		{line: "tandem move --to lb2", says: []string{`default moved from lb1 to lb2`}},
		{line: "tandem takeover b --wait", says: []string{`site b is active for default \(epoch \d+\)`}},
		{line: "tandem renounce --wait", says: []string{`site a is active for default \(epoch \d+\)`}},
		{line: "sudo tandem restart", says: []string{`(?m)^lb1 runs `}, then: (*docs).settled},
		{line: "tandem pause 30m", says: []string{`no automatic decision for 30m`}},
		{line: "tandem resume", says: []string{`automatic decisions go on`}},
		{line: `curl -fsS -H "Authorization: Bearer $TOKEN" https://lb1.example.com:8405/v1/status`, says: []string{`"node":"lb1"`, `"health":"healthy"`}, then: (*docs).onLB1},
		{
			line: `curl -fsS -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"to":"lb2"}' https://lb1.example.com:8405/v1/move`,
			says: []string{`"ok":true.*moved from lb1 to lb2`},
		},
		{line: "make lab-down", last: true},
		// examples/systemd/README.md
		{line: "sudo tandem status", says: healthy},
	}
}

// anyCode: what stands before it decides.
const anyCode = -1

// elsewhere are commands that cannot be run in the lab, by how they begin, and
// why not.
var elsewhere = map[string]string{
	"make demo":                         "the lab and the story of the demo: TestPair makes the same faults",
	"make test ":                        "it runs this test",
	"make test-activemq ":               "real ActiveMQ brokers, which need Java: run by hand, and by TestActiveMQ",
	"make scenarios":                    "the rows of the scenarios are a test of their own",
	"make build && sudo install ":       "would install on the machine; the build is what every test does",
	"sudo useradd ":                     "would change the machine's users",
	"sudo install ":                     "would change the machine's directories",
	"openssl rand ":                     "writes a key below /etc",
	"sudo examples/systemd/install.sh ": "would install on the machine; examples/systemd/try.sh does it in a root of its own",
	"sudoedit ":                         "an editor",
	"sudo systemctl ":                   "needs systemd as process 1",
	"sudo systemd-run ":                 "needs systemd as process 1",
	"docker ":                           "needs a Docker engine: make test-docker",
	"kubectl ":                          "needs a Kubernetes cluster; the manifests are decoded by make test-kubernetes",
	"ALLOCATION_ID=":                    "needs the provider's command line: TestDryRunSaysWhatItWouldDoAndChangesNothing runs it against a stub",
}

// setAll begins a line that gives an environment to those below it.
const setAll = "set -a; "

func find(all []typed, line string) int {
	return slices.IndexFunc(all, func(c typed) bool { return c.line == line })
}

// TestNoCommandInTheDocsIsForgotten: a line of a block of shell commands is typed
// in the lab, or it says why not.
func TestNoCommandInTheDocsIsForgotten(t *testing.T) {
	all, told, used := typedCommands(), map[string]bool{}, map[string]bool{}
	for _, page := range docPages(t) {
		for _, block := range shellBlocks(t, page) {
			for _, line := range block {
				told[line] = true
				reason := ""
				for begin := range elsewhere {
					if strings.HasPrefix(line+" ", begin) {
						reason, used[begin] = begin, true
					}
				}
				switch typedHere := find(all, line) >= 0 || strings.HasPrefix(line, setAll); {
				case typedHere && reason != "":
					t.Errorf("%s: `%s` is typed in the lab, and has a reason not to be: %s", page, line, elsewhere[reason])
				case !typedHere && reason == "":
					t.Errorf("%s: nobody has tried `%s`: give it a place among typedCommands, or a reason in elsewhere", page, line)
				}
			}
		}
	}
	for _, c := range all {
		if !told[c.line] {
			t.Errorf("no page says `%s` any more", c.line)
		}
	}
	for begin := range elsewhere {
		if !used[begin] {
			t.Errorf("no page has a line that begins with `%s` any more", begin)
		}
	}
}

func docPages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"README.md", "docs/*.md", "examples/README.md", "examples/*/README.md"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, files...)
	}
	return all
}

type fence struct{ kind, text string }

func fenced(page string) []fence {
	var all []fence
	var open *fence
	for line := range strings.Lines(page) {
		kind, is := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case is && open != nil:
			all, open = append(all, *open), nil
		case is:
			open = &fence{kind: kind}
		case open != nil:
			open.text += line
		}
	}
	return all
}

// shellBlocks are the blocks of a page that are to be typed, as lines without
// their comments. A command in a block that is not marked so fails the test.
func shellBlocks(t *testing.T, page string) [][]string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, f := range fenced(string(b)) {
		var lines []string
		for line := range strings.Lines(regexp.MustCompile(`\\\n\s*`).ReplaceAllString(f.text, "")) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			lines = append(lines, line)
			if word, _, _ := strings.Cut(line, " "); f.kind != "sh" && slices.Contains([]string{"tandem", "curl", "bin/pair"}, word) {
				t.Errorf("%s: the block with `%s` is not marked as sh", page, line)
			}
		}
		if f.kind == "sh" {
			all = append(all, lines)
		}
	}
	if len(all) == 0 && strings.Contains(page, "operations") {
		t.Fatalf("%s has no commands", page)
	}
	return all
}
