package cfgcheck

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

const good = `
global
  stats socket /run/haproxy/tandem.sock mode 600 level admin
  stats maxconn 20
  server-state-file /var/lib/haproxy/state
defaults base
  mode http
  option redispatch 1
  retries 3
  load-server-state-from-file global
  default-server check inter 200ms fall 2 observe layer4 error-limit 1 on-error mark-down
resolvers hold
  nameserver h 127.0.0.1:5999
frontend web
  bind 127.0.0.1:8080
  http-request do-resolve(txn.hold,hold,ipv4) str(go.hold) if { nbsrv(app) eq 0 }
  use_backend %[str(default),map(/etc/haproxy/site.map,app)]
backend app from base
  server a-1 10.0.1.1:80
  server b-1 10.0.2.1:80
backend slots from base
  server-template a- 2 10.0.1.9:80
  server-template b- 3-4 10.0.2.9:80
`

var expect = Expect{
	Socket: "/run/haproxy/tandem.sock", StateFile: "/var/lib/haproxy/state", MapFile: "/etc/haproxy/site.map",
	Hold: "127.0.0.1:5999", Patterns: []string{"*/a-*", "*/b-*", "slots/b-4"},
}

func TestGoodConfigurationHasNoFinding(t *testing.T) {
	findings, err := Read(strings.NewReader(good), expect)
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
}

func TestEachFaultIsFound(t *testing.T) {
	cases := []struct {
		name, old, with string
		severity        Severity
		what            string
	}{
		{"no socket", "stats socket /run/haproxy/tandem.sock mode 600 level admin", "", Error, "there is no stats socket /run/haproxy/tandem.sock"},
		{"level", "level admin", "level operator", Error, "is of level operator"},
		{"no level", " level admin", "", Error, "is of level operator"},
		{"no mode", "mode 600 ", "", Advice, "has no mode"},
		{"few clients", "  stats maxconn 20\n", "", Advice, "at most 10 clients"},
		{"state file not loaded", "server-state-file /var/lib/haproxy/state", "", Error, "HAProxy does not load /var/lib/haproxy/state"},
		{"another state file", "server-state-file /var/lib/haproxy/state", "server-state-file /other", Error, "HAProxy loads /other"},
		{"backend does not load", "  load-server-state-from-file global\n", "", Error, "backend app does not load the server-state file"},
		{"glob of another backend only", "server b-1", "server c-1", "", ""},
		{"glob of nothing", "3-4", "5-6", Error, "no server matches slots/b-4"},
		{"agent", "server a-1 10.0.1.1:80", "server a-1 10.0.1.1:80 agent-check agent-port 1", Error, "app/a-1 has an agent-check"},
		{"disabled", "server a-1 10.0.1.1:80", "server a-1 10.0.1.1:80 disabled", Warning, "app/a-1 is disabled"},
		{"disabled backend", "backend app from base", "backend app from base\n  disabled", Warning, "backend app is disabled"},
		{"disabled by default, and enabled", "backend app from base", "backend app from base\n  disabled\n  enabled", "", ""},
		{"backup", "server b-1 10.0.2.1:80", "server b-1 10.0.2.1:80 backup", Warning, "app/b-1 is a backup"},
		{"redispatch", "option redispatch 1", "option redispatch", Warning, "does not try another server at once"},
		{"retries", "retries 3", "retries 1", Warning, "again 1 times only"},
		{"no check", "default-server check", "default-server", Error, "no health check on a-1, b-1"},
		{"slow", "inter 200ms fall 2", "inter 2s", Warning, "more than a second"},
		{"fast in transition only", "inter 200ms fall 2", "inter 2s fastinter 100ms fall 3", Warning, "more than a second"},
		{"slow but for the transition", "inter 200ms fall 2", "inter 800ms fastinter 50ms fall 4", "", ""},
		{"slow in transition", "inter 200ms fall 2", "inter 200ms fastinter 1s fall 2", Warning, "more than a second"},
		{"defaults are slow", "inter 200ms fall 2", "", Warning, "more than a second"},
		{"not observed", "observe layer4 error-limit 1 on-error mark-down", "", Advice, "judged by checks alone"},
		{"map not used", "map(/etc/haproxy/site.map,app)", "map(/etc/haproxy/x.map,app)", Error, "no rule uses the map"},
		{"map in a comment", "use_backend %[", "#use_backend %[", Error, "no rule uses the map"},
		{"nobody asks", "nameserver h 127.0.0.1:5999", "nameserver h 127.0.0.1:53", Error, "no resolvers section asks"},
		{"nobody waits", "http-request do-resolve", "#http-request do-resolve", Error, "no rule lets a request wait"},
		{"cookie", "backend app from base", "backend app from base\n  cookie SRV insert", Advice, "cookie persistence"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(good, c.old) {
				t.Fatalf("case does not apply: %q", c.old)
			}
			findings, err := Read(strings.NewReader(strings.Replace(good, c.old, c.with, 1)), expect)
			if err != nil {
				t.Fatal(err)
			}
			if c.what == "" && len(findings) > 0 {
				t.Fatalf("no fault, and found: %+v", findings)
			}
			if c.what == "" {
				return
			}
			for _, f := range findings {
				if f.Mend == "" || strings.Contains(f.What+f.Mend, "\n") {
					t.Errorf("not a line each: %+v", f)
				}
			}
			for _, f := range findings {
				if strings.Contains(f.What, c.what) {
					if f.Severity != c.severity {
						t.Fatalf("%+v", f)
					}
					return
				}
			}
			t.Fatalf("not found: %s\n%+v", c.what, findings)
		})
	}
}

// Of several HAProxys each has the servers of some patterns.
func TestPatternsOfOtherHAProxysAreNoFault(t *testing.T) {
	some := expect
	some.Patterns, some.Some = append([]string{"elsewhere/a-*"}, expect.Patterns...), true
	findings, err := Read(strings.NewReader(good), some)
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
}

// HAProxy takes the port out of the server-state file (measured in package
// haproxy: TestAPortChangedInTheConfiguration).
func TestAPortThatDiffersFromTheStateFileIsFound(t *testing.T) {
	dir := t.TempDir()
	with := expect
	with.StateFile = filepath.Join(dir, "state")
	path := filepath.Join(dir, "haproxy.cfg")
	const header = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord\n"
	line := func(server, port string) string {
		return "3 app 1 " + server + " 10.0.1.1 2 0 1 1 5 1 0 0 0 0 0 0 - " + port + " -\n"
	}
	text := strings.ReplaceAll(good, expect.StateFile, with.StateFile)
	for _, c := range []struct{ name, saved, text, what, mend string }{
		{"the same", header + line("a-1", "80") + line("b-1", "80"), text, "", ""},
		{"another", header + line("a-1", "80") + line("b-1", "8080"), text, "app/b-1 has port 80 here and 8080 in", "set server app/b-1 addr 10.0.2.1 port 80"},
		{"no port there", header + line("a-1", "0"), text, "", ""},
		{"no port here", header + line("a-1", "8080"), strings.Replace(text, "10.0.1.1:80", "10.0.1.1", 1), "", ""},
		{"a relative one here", header + line("a-1", "8080"), strings.Replace(text, "10.0.1.1:80", "10.0.1.1:+80", 1), "", ""},
		{"IPv6", header + line("a-1", "80"), strings.Replace(text, "10.0.1.1:80", "[2001:db8::1]:81", 1), "app/a-1 has port 81 here and 80 in", "set server app/a-1 addr 2001:db8::1 port 81"},
		{"no file", "", text, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(with.StateFile, []byte(c.saved), 0o600); err != nil {
				t.Fatal(err)
			}
			findings, err := File(path, with)
			if err != nil || c.what == "" && len(findings) > 0 {
				t.Fatal(err, findings)
			}
			if c.what != "" && (len(findings) != 1 || findings[0].Severity != Warning || !strings.Contains(findings[0].What, c.what) || !strings.Contains(findings[0].Mend, c.mend)) {
				t.Fatalf("%+v", findings)
			}
		})
	}
}

func TestAnonymousDefaultsAreInherited(t *testing.T) {
	text := strings.ReplaceAll(strings.Replace(good, "defaults base", "defaults", 1), " from base", "")
	findings, err := Read(strings.NewReader(text), expect)
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
}

func TestGoodConfigurationIsGoodForHAProxy(t *testing.T) {
	binary := haproxytest.Binary(t)
	dir := t.TempDir()
	siteMap := filepath.Join(dir, "site.map")
	if err := os.WriteFile(siteMap, []byte("default app\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "haproxy.cfg")
	text := strings.NewReplacer("/etc/haproxy/site.map", siteMap, "mode http", "mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s").Replace(good)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), binary, "-c", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestDetectionOfHAProxyItself lets a server die right after a check, the worst
// moment: HAProxy needs what is reckoned.
func TestDetectionOfHAProxyItself(t *testing.T) {
	const options = "check inter 1s fastinter 100ms fall 4"
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	died := make(chan time.Time, 1)
	go func() {
		for range 2 { // what comes at the start may come out of turn
			conn, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\n")
			_ = conn.Close()
		}
		_ = l.Close()
		died <- time.Now()
	}()
	t.Cleanup(func() { _ = l.Close() })
	config := haproxytest.Global + "backend be\n  option httpchk GET /\n  server a-1 " + l.Addr().String() + " " + options + "\n"
	p := haproxytest.Start(t, config)
	var at time.Time
	select {
	case at = <-died:
	case <-time.After(20 * time.Second):
		t.Fatalf("no second check: %s", p.Do("show servers state"))
	}
	for end := at.Add(20 * time.Second); !strings.Contains(p.Do("show stat be 4 -1"), ",DOWN,"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(p.Do("show stat be 4 -1"))
		}
	}
	took := time.Since(at)
	c, err := parse(config)
	if err != nil {
		t.Fatal(err)
	}
	reckoned := c.backends[0].servers[0].detection()
	t.Logf("took %v, reckoned %v", took, reckoned)
	if reckoned != 1300*time.Millisecond || took < reckoned*9/10 || took > reckoned+1200*time.Millisecond {
		t.Errorf("took %v, reckoned %v", took, reckoned)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(good)
	f.Add("global\n stats socket\nbackend x\n server\n")
	f.Add("defaults\n default-server\nlisten l\n server-template x 0-99999999 :80\n")
	f.Fuzz(func(t *testing.T, text string) {
		findings, err := Read(strings.NewReader(text), expect)
		if err != nil && len(findings) > 0 {
			t.Fatalf("%v, and %+v", err, findings)
		}
		for _, f := range findings {
			if f.Mend == "" || strings.Contains(f.What+f.Mend, "\n") || f.Severity != Error && f.Severity != Warning && f.Severity != Advice {
				t.Fatalf("%+v", f)
			}
		}
	})
}
