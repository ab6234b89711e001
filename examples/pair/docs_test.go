package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/examples/lab"
)

const docsToken = "operate-0123456789abcdef"

// TestEveryCommandInTheDocsRuns types what the docs tell their readers to type,
// page by page, into a lab whose nodes have the settings of the README.
func TestEveryCommandInTheDocsRuns(t *testing.T) {
	long(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("SKIPPED: THE COMMANDS OF THE DOCS ARE NOT TYPED: there is no curl (apt-get install curl)")
	}
	d := newDocs(t)
	for _, page := range d.pages {
		for _, block := range shellBlocks(t, page) {
			before := ""
			for _, line := range block {
				switch i := find(d.typed, line); {
				case strings.HasPrefix(line, setAll):
					before = line + "; " // for what follows in the same block
					d.stop()
				case i >= 0 && !d.typed[i].last:
					d.run(page, before, d.typed[i])
				}
			}
		}
	}
	d.run("README.md", "", d.typed[find(d.typed, "make lab-down")])
	select {
	case <-d.ended:
	case <-time.After(20 * time.Second):
		t.Error("the lab does not end")
	}
}

// docs is a lab for readers.
type docs struct {
	*testing.T

	lab   *lab.Lab
	pages []string
	typed []typed
	dir   string // where the reader stands
	ended chan struct{}
}

func newDocs(t *testing.T) *docs {
	t.Helper()
	d := &docs{T: t, dir: t.TempDir(), pages: docPages(t), typed: typedCommands(), ended: make(chan struct{})}
	d.lab = start(t, lab.Config{System: lab.Tandem{Program: tandem(t), NodeEnv: d.settings}})
	if err := d.lab.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	d.prepare()
	return d
}

// settings are those that the README tells its reader to write, with what the
// lab has in place of what stands there.
func (d *docs) settings(l *lab.Lab, n *lab.Node) map[string]string {
	page, err := os.ReadFile(filepath.Join(repository, "README.md"))
	if err != nil {
		d.Fatal(err)
	}
	key := filepath.Join(n.Dir, "key")
	if err := os.WriteFile(key, []byte("dGFuZGVtIGxhYm9yYXRvcnkga2V5LCBub3Qgc2VjcmU=\n"), 0o600); err != nil {
		d.Fatal(err)
	}
	local := []string{"10.0.0.", "10.77.0.", "/etc/tandem/key", key}
	want := "TANDEM_NODE=witness\n"
	if slices.Contains(lab.LBs(), n.Name) {
		want = "TANDEM_NODE=lb1\n"
		local = append(local, "/run/haproxy/tandem.sock", l.Socket(n.Name), "/var/lib/tandem/haproxy.state", l.StateFile(n.Name), "/etc/haproxy/haproxy.cfg", filepath.Join(n.Dir, "haproxy.cfg"))
	}
	local = append(local, "/var/lib/tandem", filepath.Join(n.Dir, "state"))
	env := map[string]string{"TANDEM_KEY": "", "TANDEM_SITE": "", "TANDEM_SITES": ""} // the lab's, of which the README says nothing
	for _, block := range fenced(string(page)) {
		sites := strings.HasPrefix(block.text, "TANDEM_SITES=") && want == "TANDEM_NODE=lb1\n"
		if block.kind != "env" || !strings.HasPrefix(block.text, want) && !sites {
			continue
		}
		for line := range strings.Lines(strings.NewReplacer(local...).Replace(block.text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			env[name] = strings.Trim(value, "'")
		}
	}
	env["TANDEM_NODE"] = n.Name // "on lb2 the first line differs"
	if len(env) < 6 {
		d.Fatalf("the README has no settings for %s: %v", n.Name, env)
	}
	env["TANDEM_API_TOKEN"] = docsToken
	env["TANDEM_MOVE_GRACE"] = "1s" // the lab's client never gives a connection up, so each planned move takes all of it
	return env
}

// prepare puts the programs that the docs name where a reader has them.
func (d *docs) prepare() {
	wrapper, err := d.lab.Wrapper("lb1")
	if err != nil {
		d.Fatal(err)
	}
	pair := filepath.Join(d.dir, "pair")
	if out, err := exec.CommandContext(d.Context(), "go", "build", "-buildvcs=false", "-o", pair, ".").CombinedOutput(); err != nil {
		d.Fatalf("build pair: %v\n%s", err, out)
	}
	name := filepath.Base(d.lab.Dir)
	for file, text := range map[string]string{
		"bin/tandem": "exec " + wrapper + " tandem \"$@\"",
		"bin/curl":   "PATH=${PATH#*:} exec " + wrapper + " curl \"$@\"",
		"bin/sudo":   `exec "$@"`,
		"bin/pair":   `[ "$1" = do ] && shift && exec ` + pair + " do --lab " + name + ` "$@"; exit 2`, // other labs may be up
	} {
		file = filepath.Join(d.dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			d.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			d.Fatal(err)
		}
	}
	keepalived, err := os.ReadFile(filepath.Join(repository, "sidecar/keepalived/testdata/tutorial.conf"))
	if err == nil {
		err = os.WriteFile(filepath.Join(d.dir, "keepalived.conf"), keepalived, 0o600)
	}
	if err != nil {
		d.Fatal(err)
	}
	ctx, down := context.WithCancel(d.Context())
	c := &console{lab: d.lab, down: down}
	listener, err := listen(ctx, d.lab)
	if err != nil {
		d.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.serve(ctx, listener)
	}()
	context.AfterFunc(ctx, func() {
		_ = listener.Close()
		close(d.ended)
	})
	d.Cleanup(func() {
		down()
		<-served
	})
}

// run types a line and looks at what comes of it.
func (d *docs) run(page, before string, c typed) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 30*time.Second)
	defer cancel()
	n := d.lab.Node("lb1")
	if c.until != "" {
		before += "exec " // it is the command that gets the signal
	}
	line := strings.NewReplacer(
		"/etc/tandem/", n.Dir+"/", "/etc/keepalived/", d.dir+"/", "https://lb1.example.com:", "http://127.0.0.1:",
		"make lab-down", "make --no-print-directory -C "+d.abs(repository)+" BIN="+filepath.Join(d.dir, "bin")+" lab-down",
	).Replace(before + c.line)
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.WaitDelay = d.dir, 10*time.Second
	// What says how this test runs is not the reader's: tandem refuses a variable that it does not know.
	readers := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TANDEM_") })
	cmd.Env = append(readers, "PATH="+filepath.Join(d.dir, "bin")+":"+os.Getenv("PATH"), "TOKEN="+docsToken)
	out := &heardOutput{until: regexp.MustCompile(c.until), seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Start()
	if err == nil && c.until != "" {
		select {
		case <-out.seen:
		case <-ctx.Done():
			d.Errorf("%s: `%s` has not said anything like %s", page, c.line, c.until)
		}
		_ = cmd.Process.Signal(c.end)
	}
	if err == nil {
		err = cmd.Wait()
	}
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		d.Fatalf("%s: `%s`: %v", page, c.line, err)
	}
	text := out.text.String()
	d.Logf("%s: `%s`: exit code %d\n%s", page, c.line, code, text)
	if c.code != anyCode && code != c.code {
		d.Errorf("%s: `%s` ends with %d, want %d:\n%s", page, c.line, code, c.code, text)
	}
	for _, want := range c.says {
		if !regexp.MustCompile(want).MatchString(text) {
			d.Errorf("%s: `%s` says nothing like %s:\n%s", page, c.line, want, text)
		}
	}
	if c.then != nil {
		c.then(d)
	}
}

func (d *docs) abs(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		d.Fatal(err)
	}
	return abs
}

func (d *docs) tandem(args ...string) string {
	d.Helper()
	out, err := d.lab.Tandem(d.Context(), "lb1", args...)
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		d.Fatal(err)
	}
	return out
}

func (d *docs) settled() {
	d.Helper()
	if err := d.lab.Settled(d.Context(), 30*time.Second); err != nil {
		d.Fatal(err)
	}
	d.eventually("all is well", "healthy")
}

func (d *docs) eventually(what, health string) {
	d.Helper()
	until(d.T, 20*time.Second, what, func() bool { return strings.Contains(d.tandem("status", "--json"), `"health": "`+health+`"`) })
}

// stop ends lb1's sidecar: the page starts it.
func (d *docs) stop() {
	d.Helper()
	if err := d.lab.Stop(d.Context(), "lb1", "tandem", syscall.SIGTERM, 40*time.Second); err != nil {
		d.Fatal(err)
	}
}

func (d *docs) restart() {
	d.Helper()
	if err := d.lab.Restart("lb1", "tandem"); err != nil {
		d.Fatal(err)
	}
	d.settled()
}

// onLB1 has lb1 hold the address, as the page's examples have it.
func (d *docs) onLB1() {
	d.Helper()
	d.settled()
	if said := d.tandem("move", "--to", "lb1"); d.lab.Holder() != "lb1" {
		until(d.T, 10*time.Second, "lb1 holds the address: "+said, func() bool { return d.lab.Holder() == "lb1" })
	}
	d.settled()
}

// imported: what was written is an environment that tandem accepts.
func (d *docs) imported() {
	d.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, "tandem.env"))
	if err != nil || !bytes.Contains(b, []byte("TANDEM_VIPS=")) {
		d.Errorf("imported: %v\n%s", err, b)
	}
}

// heardOutput collects what a command prints, and says when that matches. The
// buffer is not embedded: its ReadFrom would be preferred to Write.
type heardOutput struct {
	text  bytes.Buffer
	until *regexp.Regexp
	seen  chan struct{}
	done  bool
}

// Write implements io.Writer; one goroutine copies both of a command's outputs,
// since they are one writer.
func (o *heardOutput) Write(p []byte) (int, error) {
	n, err := o.text.Write(p)
	if !o.done && o.until.Match(o.text.Bytes()) {
		o.done = true
		close(o.seen)
	}
	return n, err
}
