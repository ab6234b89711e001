package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
	"tandem/sidecar/status"
)

// desk is a sidecar beside a real HAProxy with two sites, in exclusive order
// and with real scripts, and a person at its command line.
type desk struct {
	*testing.T

	dir   string
	env   []string
	log   *output
	sites map[string]*httptest.Server
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	o := &desk{T: t, log: &output{}, sites: map[string]*httptest.Server{}}
	servers := ""
	for _, site := range []string{"a", "b"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, site) }))
		t.Cleanup(s.Close)
		o.sites[site] = s
		servers += fmt.Sprintf("  server %s-1 %s check inter 100ms fall 1 rise 1\n", site, s.Listener.Addr())
	}
	p := haproxytest.New(t, haproxytest.Global+"frontend f\n  bind 127.0.0.1:"+haproxytest.Ports(t, 1)[0]+"\n  default_backend be\nbackend be\n"+servers)
	p.Start()
	o.dir = p.Dir
	for name, text := range map[string]string{
		"precheck": "[ ! -e " + o.dir + "/not-now ] || { cat " + o.dir + "/not-now; exit 1; }",
		"takeover": "echo takeover $TANDEM_SITE begin >>" + o.dir + "/ran\nwhile [ -e " + o.dir + "/slow-$TANDEM_SITE ]; do sleep 0.05; done\necho takeover $TANDEM_SITE end >>" + o.dir + "/ran",
		"renounce": "echo renounce $TANDEM_SITE >>" + o.dir + "/ran",
	} {
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		o.env = append(o.env, "TANDEM_HOOK_"+strings.ToUpper(name)+"="+filepath.Join(o.dir, name))
	}
	peer := "127.0.0.1:" + freePort(t)
	o.env = append(o.env, "TANDEM_NODE=lb1", "TANDEM_PEERS=lb1="+peer, "TANDEM_BIND="+peer, "TANDEM_KEY="+checkKey,
		"TANDEM_API=127.0.0.1:"+freePort(t), "TANDEM_SOCKET="+filepath.Join(o.dir, "t"), "TANDEM_HAPROXY_SOCKET="+p.Socket,
		"TANDEM_SITES=a=*/a-*;b=*/b-*", "TANDEM_SWITCH=exclusive")
	running(t, o.log, map[string][]string{"lb1": o.env})
	return o
}

// types runs a command, wants an exit code, and all the words in what it says.
func (o *desk) types(code int, args []string, words ...string) (lines []string) {
	o.Helper()
	var out bytes.Buffer
	if got := (&program{env: o.env, stdout: &out, stderr: &out}).run(args); got != code {
		o.Errorf("tandem %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, out.String())
	}
	for _, w := range words {
		if !strings.Contains(out.String(), w) {
			o.Errorf("tandem %s said %q, want %q in it", strings.Join(args, " "), out.String(), w)
		}
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func (o *desk) until(what string, ok func(status.Status) bool) {
	o.Helper()
	var out bytes.Buffer
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		out.Reset()
		(&program{env: o.env, stdout: &out, stderr: &out}).run([]string{"status", "--json"})
		var s status.Status
		if json.Unmarshal(out.Bytes(), &s) == nil && ok(s) {
			return
		}
	}
	o.Fatalf("waited in vain for: %s\n%s\n%s", what, out.String(), o.log.text())
}

func (o *desk) active(site string) {
	o.Helper()
	o.until("site "+site+" active", func(s status.Status) bool { return s.Site.Active == site && s.Site.Phase == "" })
}

func (o *desk) file(name, text string) {
	o.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		o.Fatal(err)
	}
}

func (o *desk) remove(name string) {
	o.Helper()
	if err := os.Remove(filepath.Join(o.dir, name)); err != nil {
		o.Fatal(err)
	}
}

// ran is what the scripts wrote since it was last asked.
func (o *desk) ran() string {
	o.Helper()
	b, err := os.ReadFile(filepath.Join(o.dir, "ran"))
	if err != nil && !os.IsNotExist(err) {
		o.Fatal(err)
	}
	o.file("ran", "")
	return strings.Join(strings.Split(strings.TrimSpace(string(b)), "\n"), ", ")
}

func phasesIn(lines []string, to string) string {
	var names []string
	for _, l := range lines {
		if phase, target, ok := strings.Cut(l, " → "); ok && target == to && !slices.Contains(names, phase) {
			names = append(names, phase)
		}
	}
	return strings.Join(names, " ")
}

// TestAnOperatorSwitchesSites types what a person would: a takeover that the
// precheck objects to, one that is followed, a renounce, one that is cancelled in
// the middle, and a pause during which a site dies.
func TestAnOperatorSwitchesSites(t *testing.T) {
	o := newDesk(t)
	o.active("a")
	o.ran()

	o.file("not-now", "a backup is running\n")
	o.types(1, []string{"takeover", "b", "--wait"}, "precheck → b", "a backup is running", "not done: a stays active for default: the precheck hook objected")
	o.remove("not-now")
	if got := o.ran(); got != "" {
		t.Errorf("after a veto ran: %s", got)
	}

	const phases = "precheck renounce takeover enable"
	for _, step := range []struct {
		to   string
		args []string
		ran  string
	}{
		{"b", []string{"takeover", "b", "--wait"}, "renounce a, takeover b begin, takeover b end"},
		{"a", []string{"renounce", "--wait"}, "renounce b, takeover a begin, takeover a end"},
	} {
		lines := o.types(0, step.args, "has begun", "site "+step.to+" is active for default")
		if got := phasesIn(lines, step.to); got != phases {
			t.Errorf("%v: phases %s, want %s:\n%s", step.args, got, phases, strings.Join(lines, "\n"))
		}
		if got := o.ran(); got != step.ran {
			t.Errorf("%v: ran %s, want %s", step.args, got, step.ran)
		}
	}

	o.file("slow-b", "")
	o.types(0, []string{"takeover", "b"}, "the switch to b has begun", "takeover")
	o.types(1, []string{"renounce"}, "refused: a switch to b is in phase takeover: wait until it is over")
	o.types(0, []string{"takeover", "a", "--wait"}, "the switch to b is cancelled, a is taken back", "site a is active for default")
	if got, want := o.ran(), "renounce a, takeover b begin, renounce b, takeover a begin, takeover a end"; got != want {
		t.Errorf("cancelled: ran %s, want %s", got, want)
	}
	o.remove("slow-b")

	o.types(0, []string{"pause", "10m"}, "no automatic decision for 10m0s")
	o.sites["a"].Close()
	o.until("site a seen dead", func(s status.Status) bool {
		return slices.ContainsFunc(s.Views, func(v status.View) bool { return v.Site == "a" && !v.Usable })
	})
	time.Sleep(500 * time.Millisecond)
	o.until("paused, and a active", func(s status.Status) bool { return s.PausedUntil != nil && s.Site.Active == "a" })
	if got := o.ran(); got != "" {
		t.Errorf("paused: ran %s", got)
	}
	o.types(0, []string{"resume"}, "automatic decisions go on")
	o.active("b")
}
