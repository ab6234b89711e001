package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"tandem/haproxy/cfgcheck"
	"tandem/sidecar/config"
)

// root is the directory of the repository, as tests of this package see it.
const root = ".."

// pages are what people read, by their path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "examples/*.md", "examples/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			name, _ := filepath.Rel(root, file)
			all[name] = readText(t, name)
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %d pages found", len(all))
	}
	return all
}

func readText(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// block is a fenced part of a page.
type block struct{ kind, text string }

func blocks(page string) []block {
	var all []block
	var open *block
	for line := range strings.Lines(page) {
		kind, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open != nil:
			all, open = append(all, *open), nil
		case fence:
			open = &block{kind: kind}
		case open != nil:
			open.text += line
		}
	}
	return all
}

var inline = regexp.MustCompile("`([^`\n]+)`")

// commandLines are the commands that a page tells its reader to type: those in
// its blocks and those within its sentences.
func commandLines(page string) []string {
	var found []string
	add := func(text string) {
		text, _, _ = strings.Cut(text, " #")
		for part := range strings.SplitSeq(text, "&&") {
			part = strings.TrimPrefix(strings.TrimSpace(part), "sudo ")
			if i := strings.Index(part, "/usr/local/bin/tandem "); i >= 0 {
				part = strings.TrimPrefix(part[i:], "/usr/local/bin/")
			}
			part = strings.TrimPrefix(part, "bin/pair do ")
			if word, _, _ := strings.Cut(part, " "); word == "tandem" || word == "make" {
				found = append(found, part)
			}
		}
	}
	for _, b := range blocks(page) {
		for line := range strings.Lines(b.text) {
			add(strings.TrimSpace(line))
		}
	}
	for _, code := range inline.FindAllStringSubmatch(page, -1) {
		add(strings.ReplaceAll(code[1], `\|`, "|"))
	}
	return found
}

// placeholder is what a reader replaces: NODE, [SITE], on|off, ….
var placeholder = regexp.MustCompile(`^\[?[A-Z.]+\]?$|\||…|^\.\.\.$`)

func TestEveryCommandInTheDocsExists(t *testing.T) {
	makefile := readText(t, "Makefile")
	for name, page := range pages(t) {
		for _, line := range commandLines(page) {
			words := strings.Fields(line)
			if words[0] == "make" {
				for _, target := range words[1:] {
					if !strings.Contains(target, "=") && !strings.HasPrefix(target, "\"") && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(target)+`:`).MatchString(makefile) {
						t.Errorf("%s: there is no `make %s`", name, target)
					}
					if strings.Contains(target, "=") {
						break // BENCH="--rows a,b"
					}
				}
				continue
			}
			if problem := wrongCommand(words[1:]); problem != "" {
				t.Errorf("%s: `%s`: %s", name, line, problem)
			}
		}
	}
}

// wrongCommand says what is wrong with the arguments of a command line, which
// may have placeholders and end in a redirection.
func wrongCommand(args []string) string {
	if i := slices.IndexFunc(args, func(a string) bool { return a == ">" || a == "|" || a == ";" }); i >= 0 {
		args = args[:i]
	}
	if len(args) == 0 || args[0] == "…" {
		return ""
	}
	tree := newRoot(&program{})
	tree.InitDefaultCompletionCmd()
	tree.InitDefaultHelpFlag()
	if args[0] == "--help" {
		return ""
	}
	cmd, rest, err := tree.Find(args)
	if err != nil {
		return err.Error()
	}
	if cmd.Name() == "completion" && len(rest) == 1 && placeholder.MatchString(rest[0]) {
		return ""
	}
	return wrongArguments(cmd, rest)
}

func wrongArguments(cmd *cobra.Command, rest []string) string {
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	optional := 0
	for i, word := range rest {
		if strings.HasPrefix(word, "[") {
			optional++
		}
		if placeholder.MatchString(word) && strings.Contains(word, "-") {
			rest[i] = "x"
		}
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err.Error()
	}
	if cmd.Args == nil || optional > 0 {
		return ""
	}
	if len(cmd.Flags().Args()) == 0 && strings.Contains(cmd.Use, " ") {
		return "" // named in a sentence, without its arguments
	}
	if err := cmd.Args(cmd, cmd.Flags().Args()); err != nil {
		return err.Error()
	}
	return ""
}

// given are the variables that hooks and tests get; they are no settings.
var given = []string{
	"TANDEM_EVENT", "TANDEM_FROM", "TANDEM_TO", "TANDEM_EPOCH", "TANDEM_PLANNED", "TANDEM_REASON",
	"TANDEM_GROUP", "TANDEM_ADDRESSES", "TANDEM_ACTOR", "TANDEM_ATTEMPT", "TANDEM_LB",
}

func TestEveryVariableInTheDocsExists(t *testing.T) {
	known := slices.Clone(given)
	for _, v := range config.Table() {
		known = append(known, v.Name)
		if v.Secret {
			known = append(known, v.Name+config.FileSuffix)
		}
	}
	variable := regexp.MustCompile(`TANDEM_[A-Z_]*[A-Z]`)
	for name, page := range pages(t) {
		for _, v := range variable.FindAllString(page, -1) {
			if !slices.Contains(known, v) {
				t.Errorf("%s: there is no variable %s", name, v)
			}
		}
	}
}

func TestReadmeHasTheConfigurationTable(t *testing.T) {
	readme := readText(t, "README.md")
	_, rest, begins := strings.Cut(readme, config.MarkdownBegin+"\n")
	table, _, ends := strings.Cut(rest, config.MarkdownEnd)
	if !begins || !ends {
		t.Fatal("README.md has no place for the table of `tandem config --markdown`")
	}
	if table != config.Markdown() {
		t.Error("the table in README.md is not what `tandem config --markdown` prints now; put that in its place")
	}
}

// TestEverySettingsFileIsAccepted loads what readers are told to put into an
// environment file.
func TestEverySettingsFileIsAccepted(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(checkKey), 0o600); err != nil {
		t.Fatal(err)
	}
	texts := map[string][]string{}
	for name, page := range pages(t) {
		for _, b := range blocks(page) {
			if b.kind == "env" {
				texts[name] = append(texts[name], b.text)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(root, "examples/*/*.env"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no settings files among the examples: %v", err)
	}
	for _, file := range files {
		name, _ := filepath.Rel(root, file)
		texts[name] = append(texts[name], readText(t, name))
	}
	for name, all := range texts {
		for _, text := range all {
			env := environment(text)
			if i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, "TANDEM_KEY_FILE=") }); i >= 0 {
				env[i] = "TANDEM_KEY_FILE=" + key
			}
			env = append([]string{"TANDEM_NODE=lb1"}, env...) // the host's name, where none is given
			if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "TANDEM_PEERS=") }) {
				env = append(env, "TANDEM_PEERS=lb1=10.0.0.11,lb2=10.0.0.12", "TANDEM_KEY_FILE="+key)
			}
			cfg, err := config.Load(env)
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, text)
				continue
			}
			if len(cfg.Sites) > 0 {
				s := siteConfig(cfg)
				if err := s.Validate(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

// environment reads lines as systemd and a shell do, as far as our examples go.
func environment(text string) []string {
	var env []string
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		env = append(env, name+"="+strings.Trim(value, "'"))
	}
	return env
}

// TestReadmeConfigurationOfHAProxyHasNoFault: what the README recommends is
// what `tandem check` is content with.
func TestReadmeConfigurationOfHAProxyHasNoFault(t *testing.T) {
	seen := false
	for _, b := range blocks(readText(t, "README.md")) {
		if b.kind != "haproxy" {
			continue
		}
		seen = true
		found, err := cfgcheck.Read(strings.NewReader(b.text), cfgcheck.Expect{
			Socket: "/run/haproxy/tandem.sock", StateFile: "/var/lib/tandem/haproxy.state", Patterns: []string{"*/a-*", "*/b-*"},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Severity != cfgcheck.Advice {
				t.Errorf("%s: %s", f.Severity, f.What)
			}
		}
	}
	if !seen {
		t.Error("README.md shows no haproxy.cfg")
	}
}

// TestEveryTestNamedInTheDocsExists: what a page says is shown, is.
func TestEveryTestNamedInTheDocsExists(t *testing.T) {
	exist := map[string]bool{}
	stories := map[string]bool{}
	claims := readText(t, "examples/pair/system_test.go")
	declared := regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return fs.SkipDir
		case strings.Contains(path, "/stories/"):
			stories[d.Name()] = true
		case strings.HasSuffix(path, "_test.go"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range declared.FindAllStringSubmatch(string(b), -1) {
				exist[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bTest[A-Z][A-Za-z0-9]+`)
	claim := regexp.MustCompile(`TestPair:? ((?:\*[^*]+\*(?:, )?)+)`)
	story := regexp.MustCompile("story `([^`]+)`")
	for name, page := range pages(t) {
		for _, test := range named.FindAllString(page, -1) {
			if !exist[test] {
				t.Errorf("%s: there is no test %s", name, test)
			}
		}
		for _, m := range claim.FindAllStringSubmatch(page, -1) {
			for part := range strings.SplitSeq(strings.Trim(m[1], "*, "), "*, *") {
				if !strings.Contains(claims, `{"`+part+`"`) {
					t.Errorf("%s: TestPair does not claim that %s", name, part)
				}
			}
		}
		for _, m := range story.FindAllStringSubmatch(page, -1) {
			if !stories[m[1]] {
				t.Errorf("%s: there is no story %s", name, m[1])
			}
		}
	}
}

// TestReasonsInTroubleshootingExist: the words of its tables are said by the
// code.
func TestReasonsInTroubleshootingExist(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{"lib/*/*.go", "haproxy/*.go", "sidecar/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if name, _ := filepath.Rel(root, file); !strings.HasSuffix(name, "_test.go") {
				source.WriteString(readText(t, name))
			}
		}
	}
	code := source.String()
	word := regexp.MustCompile("^`([a-z]+(?:-[a-z]+)*)`$")
	for line := range strings.Lines(readText(t, "docs/troubleshooting.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for cell := range strings.SplitSeq(cells[1], ",") {
			m := word.FindStringSubmatch(strings.TrimSpace(cell))
			if m != nil && !strings.Contains(code, `"`+m[1]) {
				t.Errorf("no part of the program says %s", m[1])
			}
		}
	}
}

func TestLinksInTheDocsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	all := pages(t)
	for name, page := range all {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := name
			if target != "" {
				file = filepath.Join(filepath.Dir(name), target)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: %s leads nowhere", name, m[1])
				continue
			}
			if text, ok := all[file]; anchor != "" && ok && !slices.Contains(anchors(text), anchor) {
				t.Errorf("%s: %s has no heading %s", name, file, anchor)
			}
		}
	}
}

// anchors are the names that headings get on the usual code hosts.
func anchors(page string) []string {
	var names []string
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		var b strings.Builder
		for _, r := range strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#"))) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
				b.WriteRune(r)
			}
		}
		names = append(names, b.String())
	}
	return names
}
