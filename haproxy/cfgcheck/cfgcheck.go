// Package cfgcheck reads haproxy.cfg, through client-native's parser, and finds
// what would keep tandem from doing its work: before it happens.
package cfgcheck

import (
	"fmt"
	"io"
	"os"
	"strings"

	"tandem/haproxy"
)

// Severity is how bad a finding is.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // something will not work
	Warning Severity = "warning" // it will work badly, or not in every case
	Advice  Severity = "advice"  // it could be better
)

// Finding is one fault and its mend, a line each.
type Finding struct {
	Severity Severity
	What     string
	Mend     string
}

// Expect is what tandem is configured with. Empty fields are not compared.
type Expect struct {
	Socket    string   // TANDEM_HAPROXY_SOCKET
	StateFile string   // TANDEM_STATE_FILE
	MapFile   string   // TANDEM_MAP
	Hold      string   // TANDEM_HOLD
	Patterns  []string // of all sites: backend/server globs
	// Saved are the servers in StateFile as it is now; File reads them.
	Saved []haproxy.Server
	// Some: there are other HAProxys, which may have the servers of a pattern.
	Some bool
}

// File reads the configuration at a path. An error means that it could not be
// read; what is wrong in it are findings.
func File(path string, expect Expect) ([]Finding, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read haproxy configuration: %w", err)
	}
	if saved, err := os.ReadFile(expect.StateFile); err == nil { // there may be none yet
		expect.Saved, _ = haproxy.ParseServers(string(saved), nil) // a spoilt one is written anew
	}
	return Read(strings.NewReader(string(b)), expect)
}

// Read reads a configuration, see File.
func Read(r io.Reader, expect Expect) ([]Finding, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read haproxy configuration: %w", err)
	}
	c, err := parse(string(text))
	if err != nil {
		return nil, err
	}
	k := checker{config: c, text: withoutComments(string(text)), expect: expect, saved: map[haproxy.ServerID]int{}}
	for _, s := range expect.Saved {
		k.saved[s.ServerID] = s.Port
	}
	k.socket()
	k.stateFile()
	k.patterns()
	for _, b := range c.backends {
		k.backend(b)
	}
	k.mapFile()
	k.hold()
	return k.findings, nil
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		b.WriteString(line + "\n")
	}
	return b.String()
}

type checker struct {
	config   config
	text     string
	expect   Expect
	saved    map[haproxy.ServerID]int // ports in the server-state file
	findings []Finding
}

func (k *checker) find(severity Severity, mend, what string, args ...any) {
	k.findings = append(k.findings, Finding{severity, fmt.Sprintf(what, args...), mend})
}

func (k *checker) socket() {
	if k.expect.Socket == "" {
		return
	}
	mend := fmt.Sprintf("in section global: stats socket %s mode 600 level admin", k.expect.Socket)
	for _, s := range k.config.sockets {
		if strings.TrimPrefix(s.path, "unix@") != k.expect.Socket {
			continue
		}
		if s.options["level"] != "admin" {
			k.find(Error, mend, "stats socket %s is of level %s: servers cannot be set", k.expect.Socket, orElse(s.options["level"], "operator"))
		}
		if _, ok := s.options["mode"]; !ok {
			k.find(Advice, mend, "stats socket %s has no mode: every user of the machine may be able to open it", k.expect.Socket)
		}
		if k.config.statsMaxconn < 20 {
			k.find(Advice, "in section global: stats maxconn 20",
				"at most %d clients may be connected to the stats sockets, of which tandem is up to 4", k.config.statsMaxconn)
		}
		return
	}
	k.find(Error, mend, "there is no stats socket %s", k.expect.Socket)
}

func (k *checker) stateFile() {
	want, have := k.expect.StateFile, k.config.stateFile
	if base := k.config.stateBase; base != "" && have != "" && !strings.HasPrefix(have, "/") {
		have = strings.TrimSuffix(base, "/") + "/" + have
	}
	switch {
	case want == "" && have == "":
		k.find(Warning, "set TANDEM_STATE_FILE, and in section global: server-state-file with the same path",
			"no server-state file is kept: after a reload every server is ready until tandem has drained the standby site again")
	case want == "":
		k.find(Warning, "TANDEM_STATE_FILE="+have, "HAProxy loads %s, and tandem does not keep it: a stale file brings old drains back", have)
	case have == "":
		k.find(Error, "in section global: server-state-file "+want, "HAProxy does not load %s", want)
	case have != want:
		k.find(Error, "TANDEM_STATE_FILE="+have, "HAProxy loads %s, and tandem keeps %s", have, want)
	}
}

func (k *checker) patterns() {
	for _, p := range k.expect.Patterns {
		if err := haproxy.ValidPattern(p); err != nil {
			k.find(Error, "example: */a-*", "%v", err)
			continue
		}
		if !k.expect.Some && !k.matches(p) {
			k.find(Error, "servers are named backend/server; there are: "+k.some(), "no server matches %s", p)
		}
	}
}

func (k *checker) matches(pattern string) bool {
	for _, b := range k.config.backends {
		for _, s := range b.servers {
			if haproxy.Match(pattern, haproxy.ServerID{Backend: b.name, Server: s.name}) {
				return true
			}
		}
	}
	return false
}

// some names a few servers.
func (k *checker) some() string {
	var names []string
	for _, b := range k.config.backends {
		for _, s := range b.servers {
			if len(names) == 5 {
				return strings.Join(append(names, "…"), ", ")
			}
			names = append(names, b.name+"/"+s.name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// ours are the servers of a backend that a pattern covers; all of them if there
// are no patterns.
func (k *checker) ours(b backend) []server {
	if len(k.expect.Patterns) == 0 {
		return b.servers
	}
	var out []server
	for _, s := range b.servers {
		for _, p := range k.expect.Patterns {
			if haproxy.Match(p, haproxy.ServerID{Backend: b.name, Server: s.name}) {
				out = append(out, s)
				break
			}
		}
	}
	return out
}

func (k *checker) backend(b backend) {
	servers := k.ours(b)
	if len(servers) == 0 {
		return
	}
	if b.disabled {
		k.find(Warning, "remove disabled", "backend %s is disabled: it takes no requests, and HAProxy refuses to set its servers", b.name)
		return
	}
	if (k.expect.StateFile != "" || k.config.stateFile != "") && b.loadState != "global" {
		k.find(Error, "in its section or its defaults: load-server-state-from-file global",
			"backend %s does not load the server-state file: after a reload all its servers are ready", b.name)
	}
	if b.redispatch != 1 {
		k.find(Warning, "option redispatch 1", "backend %s does not try another server at once when one fails to connect", b.name)
	}
	if b.retries < 3 {
		k.find(Warning, "retries 3", "backend %s tries a connection again %d times only", b.name, b.retries)
	}
	if b.cookie {
		k.find(Advice, "set TANDEM_DRAIN_TIMEOUT to close what is left, let rules that follow TANDEM_MAP drop the cookie (docs/haproxy-operators.md), or use a short maxlife in the cookie line",
			"backend %s has cookie persistence: clients with a cookie stay on a drained site while it is up", b.name)
	}
	var unchecked, slow, unobserved []string
	for _, s := range servers {
		k.server(b, s)
		switch {
		case s.has("track"):
		case !s.has("check"):
			unchecked = append(unchecked, s.name)
		default:
			if s.detection() > oneSecond {
				slow = append(slow, s.name)
			}
			if s.options["observe"] == "" {
				unobserved = append(unobserved, s.name)
			}
		}
	}
	if len(unchecked) > 0 {
		k.find(Error, "add: check inter 200ms fall 2", "backend %s: no health check on %s: always up, so a dead site is not noticed", b.name, few(unchecked))
	}
	if len(slow) > 0 {
		k.find(Warning, "add: inter 200ms fall 2", "backend %s: death of %s takes more than a second to notice", b.name, few(slow))
	}
	if len(unobserved) > 0 {
		k.find(Advice, "where a false alarm can be borne: observe layer4 error-limit 1 on-error mark-down",
			"backend %s: %s judged by checks alone, not by what clients meet", b.name, few(unobserved))
	}
}

func (k *checker) server(b backend, s server) {
	k.port(b, s)
	if s.has("agent-check") {
		k.find(Error, "remove agent-check, or take the server out of the sites",
			"server %s/%s has an agent-check, which could undo a drain: tandem leaves it alone", b.name, s.name)
	}
	if s.has("disabled") {
		k.find(Warning, "remove disabled, or enable the server when it is to serve",
			"server %s/%s is disabled in the configuration: tandem leaves it alone until a person enables it", b.name, s.name)
	}
	if s.has("backup") {
		k.find(Warning, "remove backup: tandem decides which site serves",
			"server %s/%s is a backup: it gets nothing while another of the backend is up and not drained", b.name, s.name)
	}
}

// port finds a port that was changed in the configuration: HAProxy takes the one
// in the server-state file.
func (k *checker) port(b backend, s server) {
	id := haproxy.ServerID{Backend: b.name, Server: s.name}
	here, saved := s.port(), k.saved[id]
	if here == 0 || saved == 0 || here == saved {
		return
	}
	host := strings.Trim(s.address[:strings.LastIndexByte(s.address, ':')], "[]")
	k.find(Warning, fmt.Sprintf("at HAProxy's socket: set server %s addr %s port %d", id, host, here),
		"server %s has port %d here and %d in the server-state file, by hand or from before: after a reload HAProxy uses %d", id, here, saved, saved)
}

func (k *checker) mapFile() {
	path := k.expect.MapFile
	if path != "" && !strings.Contains(k.text, "("+path) {
		k.find(Error, fmt.Sprintf("for example: use_backend be_%%[str(default),map(%s,a)]", path), "no rule uses the map %s by exactly this path", path)
	}
}

func (k *checker) hold() {
	address := k.expect.Hold
	if address == "" {
		return
	}
	served := false
	for _, n := range k.config.nameservers {
		served = served || strings.TrimPrefix(n, "udp@") == address
	}
	if !served {
		k.find(Error, "resolvers hold, with: nameserver h "+address, "no resolvers section asks %s: no request waits", address)
	}
	if !strings.Contains(k.text, "do-resolve(") {
		k.find(Error, "in the frontend: http-request do-resolve(txn.hold,hold,ipv4) str(go.hold) if { nbsrv(BACKEND) eq 0 }", "no rule lets a request wait")
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func few(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
}
