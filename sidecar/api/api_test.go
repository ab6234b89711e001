package api

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tandem/sidecar/api/apitest"
	"tandem/sidecar/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	operateToken = "operate-0123456789"
	readToken    = "read-0123456789abc"
)

// start runs a server for the length of a test.
func start(t *testing.T, cfg Config) (*Server, *apitest.Agent) {
	t.Helper()
	agent := apitest.New(apitest.Pair(time.Now()))
	cfg.History = agent.History
	s := New(cfg, agent)
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return s, agent
}

func (s *Server) url(path string) string { return "http://" + s.Addr().String() + path }

type call struct {
	method, path, body, token, host, media, scheme string
}

func do(t *testing.T, s *Server, c call) (int, string, http.Header) {
	t.Helper()
	if c.method == "" {
		c.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), c.method, s.url(c.path), strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", cmp.Or(c.scheme, "Bearer")+" "+c.token)
	}
	if c.host != "" {
		req.Host = c.host
	}
	if c.media == "" && c.method == http.MethodPost {
		c.media = "application/json"
	}
	if c.media != "none" {
		req.Header.Set("Content-Type", c.media)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestTokensDecideWhoMayReadAndOperate(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  Config
		call call
		want int
	}{
		"loopback, no tokens: anybody reads":        {Config{}, call{path: "/v1/status"}, 200},
		"loopback, no tokens: nobody operates":      {Config{}, call{method: "POST", path: "/v1/resume"}, 403},
		"loopback, a foreign name does not read":    {Config{}, call{path: "/v1/status", host: "evil.example"}, 421},
		"loopback, localhost reads":                 {Config{}, call{path: "/v1/status", host: "localhost:8405"}, 200},
		"loopback, operate token: reading is open":  {Config{Token: operateToken}, call{path: "/v1/status"}, 200},
		"operate token operates":                    {Config{Token: operateToken}, call{method: "POST", path: "/v1/resume", token: operateToken}, 200},
		"operating without token":                   {Config{Token: operateToken}, call{method: "POST", path: "/v1/resume"}, 401},
		"operating with a wrong token":              {Config{Token: operateToken}, call{method: "POST", path: "/v1/resume", token: operateToken + "x"}, 401},
		"operating with an empty token":             {Config{Token: operateToken}, call{method: "POST", path: "/v1/resume", token: " "}, 401},
		"operating with the read token":             {Config{Token: operateToken, ReadToken: readToken}, call{method: "POST", path: "/v1/resume", token: readToken}, 403},
		"read token set: reading needs it":          {Config{ReadToken: readToken}, call{path: "/v1/status"}, 401},
		"read token reads":                          {Config{ReadToken: readToken}, call{path: "/metrics", token: readToken}, 200},
		"a wrong read token does not read":          {Config{}, call{path: "/v1/status", token: "x"}, 401},
		"schemes have no case":                      {Config{ReadToken: readToken}, call{path: "/v1/status", token: readToken, scheme: "bearer"}, 200},
		"another scheme":                            {Config{ReadToken: readToken}, call{path: "/v1/status", token: readToken, scheme: "Basic"}, 401},
		"operate token reads":                       {Config{Token: operateToken, ReadToken: readToken}, call{path: "/v1/history", token: operateToken}, 200},
		"beyond loopback reading needs a token":     {Config{Addr: "0.0.0.0:0", Token: operateToken}, call{path: "/v1/status"}, 401},
		"beyond loopback the operate token reads":   {Config{Addr: "0.0.0.0:0", Token: operateToken}, call{path: "/v1/status", token: operateToken}, 200},
		"beyond loopback holder is open":            {Config{Addr: "0.0.0.0:0", Token: operateToken}, call{path: "/holder"}, 200},
		"beyond loopback the page is open":          {Config{Addr: "0.0.0.0:0", Token: operateToken}, call{path: "/"}, 200},
		"a read token alone: operating is off":      {Config{ReadToken: readToken}, call{method: "POST", path: "/v1/resume", token: readToken}, 403},
		"an unknown path":                           {Config{}, call{path: "/v2"}, 404},
		"a wrong method":                            {Config{Token: operateToken}, call{path: "/v1/takeover", token: operateToken}, 405},
		"the page's directory cannot be left":       {Config{}, call{path: "/page/..%2fserver.go"}, 404},
		"a key of the environment is nobody's file": {Config{}, call{path: "/page/../auth.go"}, 404},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.cfg.Addr == "" {
				tc.cfg.Addr = "127.0.0.1:0"
			}
			tc.cfg.Gatherer = prometheus.NewRegistry()
			s, agent := start(t, tc.cfg)
			code, body, _ := do(t, s, tc.call)
			if code != tc.want {
				t.Errorf("got %d %s, want %d", code, body, tc.want)
			}
			if n := len(agent.Commands()); (n > 0) != (tc.call.method == "POST" && tc.want == 200) {
				t.Errorf("%d commands reached the agent", n)
			}
		})
	}
}

func TestBeyondLoopbackWithoutATokenIsRefused(t *testing.T) {
	s := New(Config{Addr: "0.0.0.0:0"}, apitest.New(status.Status{}))
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "token is required") {
		t.Errorf("got %v", err)
	}
}

func TestAPortInUseIsAClearError(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := New(Config{Addr: taken.Addr().String(), Socket: filepath.Join(t.TempDir(), "s")}, apitest.New(status.Status{}))
	err = s.Run(t.Context())
	want := "listen on " + taken.Addr().String() + ": another process has this port; choose another (TANDEM_API)"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}

func TestCommandsAreCheckedBeforeTheyReachTheAgent(t *testing.T) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0", Token: operateToken})
	for _, tc := range []struct {
		path, body, media string
		code              int
		want              string
	}{
		{"takeover", `{"site":"b"}`, "", 200, `"ok":true`},
		{"takeover", `{"site":"b"}`, "", 409, `"reason":"already-active"`},
		{"takeover", `{"site":"x"}`, "", 409, `the sites are a, b`},
		{"takeover", `{"sight":"b"}`, "", 400, "takeover takes no sight"},
		{"takeover", `{"to":"lb2"}`, "", 400, "takeover takes no to"},
		{"takeover", `{"site":7}`, "", 400, "wrong type"},
		{"takeover", `[]`, "", 400, "not a JSON object"},
		{"takeover", `{"site":"b"}`, "text/plain", 415, "application/json"},
		{"takeover", `{"site":"b"}`, "none", 415, "must be declared"},
		{"resume", ``, "none", 200, "ok"},
		{"takeover", `{"site":"` + strings.Repeat("x", maxBody) + `"}`, "", 413, "too large"},
		{"move", `{}`, "", 400, "say to which node"},
		{"move", `{"to":"lb2"}`, "", 200, "moves to lb2"},
		{"pause", `{"duration":"10"}`, "", 400, "for example 10m"},
		{"pause", `{"duration":"-1m"}`, "", 400, "for example 10m"},
		{"pause", `{"duration":"10m"}`, "", 200, "ok"},
		{"resume", ``, "", 200, "ok"},
		{"maintenance", `{"node":"lb2"}`, "", 400, "say on: true or false"},
		{"maintenance", `{"node":"lb2","on":true}`, "", 200, "ok"},
		{"renounce", `{}`, "", 200, "ok"},
		{"ack", `{"group":"broker"}`, "", 200, "ok"},
	} {
		code, body, _ := do(t, s, call{method: "POST", path: "/v1/" + tc.path, body: tc.body, token: operateToken, media: tc.media})
		if code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s %.60s: got %d %s, want %d %s", tc.path, tc.body, code, body, tc.code, tc.want)
		}
	}
	for _, c := range agent.Commands() {
		if c.Actor != "api from 127.0.0.1" || len(c.ID) != 16 {
			t.Errorf("actor %q, id %q", c.Actor, c.ID)
		}
	}
	agent.Fail(errors.New("no quorum"))
	if code, body, _ := do(t, s, call{method: "POST", path: "/v1/resume", token: operateToken}); code != 503 || !strings.Contains(body, "no quorum") {
		t.Errorf("failing agent: %d %s", code, body)
	}
}

func TestEveryCommandIsAuditedAndNoTokenIsLogged(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	reg := prometheus.NewRegistry()
	s, _ := start(t, Config{Addr: "127.0.0.1:0", Token: operateToken, Log: zap.New(core), Registerer: reg})
	do(t, s, call{method: "POST", path: "/v1/takeover", body: `{"site":"b","force":true}`, token: operateToken})
	do(t, s, call{method: "POST", path: "/v1/takeover", body: `{"site":"b"}`, token: operateToken})
	do(t, s, call{method: "POST", path: "/v1/takeover", body: `{"site":"b"}`, token: "wrong-token-0123"})
	do(t, s, call{method: "POST", path: "/v1/move", body: `{}`, token: operateToken})
	lines := logs.FilterMessage("audit").All()
	if len(lines) != 3 {
		t.Fatalf("%d audit lines", len(lines))
	}
	first := lines[0].ContextMap()
	if first["actor"] != "api from 127.0.0.1" || first["site"] != "b" || first["force"] != true || first["result"] != "done" {
		t.Errorf("first: %v", first)
	}
	if second := lines[1].ContextMap(); second["result"] != "refused" || second["reason"] != "already-active" {
		t.Errorf("second: %v", second)
	}
	if third := lines[2].ContextMap(); third["command"] != "move" || third["result"] != "refused" || third["reason"] != "bad-request" {
		t.Errorf("third: %v", third)
	}
	if n := logs.FilterMessage("api request denied").Len(); n != 1 {
		t.Errorf("%d denials logged", n)
	}
	for _, l := range logs.All() {
		if text := fmt.Sprint(l.Message, l.ContextMap()); strings.Contains(text, operateToken) || strings.Contains(text, "wrong-token") {
			t.Errorf("a token is in the log: %s", text)
		}
	}
	want := "# HELP tandem_commands_total Commands of operators, by kind and result: done, refused or failed.\n# TYPE tandem_commands_total counter\n" +
		"tandem_commands_total{command=\"move\",result=\"refused\"} 1\n" +
		"tandem_commands_total{command=\"takeover\",result=\"done\"} 1\ntandem_commands_total{command=\"takeover\",result=\"refused\"} 1\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "tandem_commands_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

func TestHolderAnswers200OnTheHolderOnly(t *testing.T) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0"})
	check := func(path string, want int) {
		t.Helper()
		if code, body, _ := do(t, s, call{path: path}); code != want {
			t.Errorf("%s: got %d %s, want %d", path, code, body, want)
		}
	}
	fresh := func() { agent.Set(func(st *status.Status) { st.At, st.Leases[1].ExpiresInMS = time.Now(), 60_000 }) }
	fresh()
	check("/holder", 200)
	check("/holder?group=default", 200)
	check("/holder?group=web", 404)
	agent.Set(func(st *status.Status) { st.Leases[1].ExpiresInMS = 0 })
	check("/holder", 503)
	fresh()
	agent.Set(func(st *status.Status) { st.At = time.Now().Add(-2 * time.Minute) }) // an agent that stands still
	check("/holder", 503)
	fresh()
	agent.Set(func(st *status.Status) { st.Leases[1].Source = "hint" })
	check("/holder", 503)
	agent.Set(func(st *status.Status) { st.Leases[1].Resource = "vip/web" })
	check("/holder", 503)
	agent.Set(func(st *status.Status) { st.Leases[1].Source = "own" })
	check("/holder", 200) // the only group needs no name
	agent.Set(func(st *status.Status) { st.Leases = append(st.Leases, status.Lease{Resource: "vip/api"}) })
	check("/holder", 400)
	check("/holder?group=api", 503)
	agent.Set(func(st *status.Status) { st.Leases = nil })
	check("/holder", 503)
}

func TestReadyAndLive(t *testing.T) {
	var dead error
	s, agent := start(t, Config{Addr: "127.0.0.1:0", Live: func() error { return dead }})
	check := func(path string, want int) {
		t.Helper()
		if code, body, _ := do(t, s, call{path: path}); code != want {
			t.Errorf("%s: got %d %s, want %d", path, code, body, want)
		}
	}
	check("/livez", 200)
	check("/readyz", 200)
	agent.Set(func(st *status.Status) { st.QuarantineMS = 100 })
	check("/readyz", 503)
	agent.Set(func(st *status.Status) { st.QuarantineMS, st.Health = 0, status.Unknown })
	check("/readyz", 503)
	dead = errors.New("the agent stands still")
	check("/livez", 503)
}

func TestEventsStreamStatusAndTransitions(t *testing.T) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("/v1/events"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func(event string) string {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == "event: "+event && lines.Scan() {
				return strings.TrimPrefix(lines.Text(), "data: ")
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return ""
	}
	var st status.Status
	if err := json.Unmarshal([]byte(next("status")), &st); err != nil || st.Node != "lb1" {
		t.Errorf("status: %v, node %q", err, st.Node)
	}
	agent.Tell(status.Event{CommandID: "c1", Transition: status.Transition{Resource: "site", Reason: "active-unusable", Detail: "two\nlines"}})
	var e status.Event
	if err := json.Unmarshal([]byte(next("transition")), &e); err != nil || e.CommandID != "c1" || e.Detail != "two\nlines" {
		t.Errorf("event: %v %+v", err, e)
	}
	next("status")
}

// A client that comes back, as browsers do by themselves, gets what it missed.
func TestAStreamGoesOnWhereItBroke(t *testing.T) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0"})
	read := func(last string, want int) (ids, details []string) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("/v1/events?only=transition"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Last-Event-ID", last)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		agent.Tell(status.Event{Transition: status.Transition{Detail: "now"}})
		lines := bufio.NewScanner(resp.Body)
		for len(ids) < want && lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var e status.Event
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					t.Fatal(err)
				}
				details = append(details, e.Detail)
			}
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				ids = append(ids, id)
			}
		}
		return ids, details
	}
	ids, _ := read("", 1)
	if len(ids) != 1 {
		t.Fatalf("%q", ids)
	}
	for _, missed := range []string{"first", "second"} {
		agent.Tell(status.Event{Transition: status.Transition{Detail: missed}})
	}
	if _, details := read(ids[0], 3); !slices.Equal(details, []string{"first", "second", "now"}) {
		t.Errorf("came: %q", details)
	}
}

func TestWhatNoRouteTakesIsRefusedInOneForm(t *testing.T) {
	s, _ := start(t, Config{Addr: "127.0.0.1:0"})
	for _, tc := range []struct {
		method, path string
		code         int
		allow, want  string
	}{
		{"GET", "/nope", 404, "", `{"ok":false,"reason":"no-such-path",`},
		{"POST", "/v1/nope", 404, "", `"reason":"no-such-path"`},
		{"GET", "/page/nope", 404, "", `"reason":"no-such-path"`},
		{"POST", "/v1/status", 405, "GET, HEAD", `"reason":"method-not-allowed","message":"/v1/status takes GET, HEAD, not POST"`},
		{"GET", "/v1/takeover", 405, "POST", `"reason":"method-not-allowed"`},
	} {
		code, body, header := do(t, s, call{method: tc.method, path: tc.path})
		if code != tc.code || !strings.Contains(body, tc.want) || header.Get("Allow") != tc.allow || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s %v", tc.method, tc.path, code, body, header)
		}
	}
}

func TestStreamsEndWithTheServerAndAreBounded(t *testing.T) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0"})
	for range maxStreams {
		s.streams <- struct{}{}
	}
	if code, body, _ := do(t, s, call{path: "/v1/events"}); code != 503 || !strings.Contains(body, "too-many-streams") {
		t.Errorf("got %d %s", code, body)
	}
	for range maxStreams {
		<-s.streams
	}
	resp, err := http.Get(s.url("/v1/events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the server has stopped, which it must in spite of the stream
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if n := agent.Watchers(); n != 0 {
			t.Errorf("%d still watch", n)
		}
	})
}

func socketClient(t *testing.T, path string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestTheControlSocketOperatesWithoutATokenAndNamesTheUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "tandem.sock")
	_, agent := start(t, Config{Socket: path})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory mode %v, error %v", info.Mode(), err)
	}
	client := socketClient(t, path)
	for _, person := range []string{"", "alice", "alice\x1b[31m"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://tandem/v1/resume", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if !strings.Contains(person, "\x1b") {
			req.Header.Set(actorHeader, person)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("code %d", resp.StatusCode)
		}
	}
	c := agent.Commands()
	if len(c) != 3 || c[0].Actor == "" || c[0].Actor == "unknown" || c[1].Actor != c[0].Actor+" (alice)" {
		t.Errorf("commands: %+v", c)
	}
}

func TestASecondSidecarOnOneSocketIsToldAndAStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tandem.sock")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	start(t, Config{Socket: path})
	second := New(Config{Socket: path}, apitest.New(status.Status{}))
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is in use: another tandem runs here") {
		t.Errorf("second: %v", err)
	}
	if resp, err := socketClient(t, path).Get("http://tandem/livez"); err != nil {
		t.Errorf("the first does not answer any more: %v", err)
	} else {
		resp.Body.Close()
	}
}

func TestASocketDoesNotReplaceAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := New(Config{Socket: path}, apitest.New(status.Status{})).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "something else than a socket") {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "data" {
		t.Errorf("the file is %q, %v", got, err)
	}
}

func TestTheSocketIsGoneAfterAStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tandem.sock")
	ctx, cancel := context.WithCancel(t.Context())
	s := New(Config{Socket: path}, apitest.New(status.Status{}))
	if err := s.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
}

func TestEveryRouteIsDescribedAndTheDocumentMatchesTheTypes(t *testing.T) {
	s, _ := start(t, Config{Addr: "127.0.0.1:0"})
	var routes, described []string
	for _, r := range s.table() {
		routes = append(routes, r.pattern)
	}
	for pattern, about := range descriptions {
		described = append(described, pattern)
		if about.summary == "" {
			t.Errorf("%s: no summary", pattern)
		}
	}
	slices.Sort(routes)
	slices.Sort(described)
	if !slices.Equal(routes, described) {
		t.Errorf("routes and descriptions differ:\n%q\n%q", routes, described)
	}
	_, body, _ := do(t, s, call{path: "/v1/openapi.json"})
	var doc struct {
		Paths      map[string]map[string]any
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
				Required   []string
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Paths) != len(routes) {
		t.Errorf("%d paths, %d routes", len(doc.Paths), len(routes))
	}
	_, body, _ = do(t, s, call{path: "/v1/status"})
	var answer map[string]any
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	schema := doc.Components.Schemas["Status"]
	for field := range answer {
		if schema.Properties[field] == nil {
			t.Errorf("%s is answered and not described", field)
		}
	}
	for _, field := range schema.Required {
		if _, ok := answer[field]; !ok {
			t.Errorf("%s is described as always there, and is not", field)
		}
	}
	if e := doc.Components.Schemas["Event"]; e.Properties["reason"] == nil || e.Properties["command_id"] == nil {
		t.Errorf("event: %v", e)
	}
	if strings.Contains(body, "null") && doc.Components.Schemas["Problem"].Properties == nil {
		t.Error("no schema of a refusal")
	}
}

func TestAPlanIsReadAndAWrongQuestionIsTheAskers(t *testing.T) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0", Token: operateToken, ReadToken: readToken, IsQuestion: func(err error) bool { return errors.Is(err, apitest.ErrQuestion) }})
	for _, c := range []struct {
		call
		code int
		says string
	}{
		{call{path: "/v1/plan?if=lb1%3Ddown"}, http.StatusUnauthorized, ""},
		{call{path: "/v1/plan?if=lb1%3Ddown", token: readToken}, http.StatusOK, `"sentence":"if lb1 fails`},
		{call{path: "/v1/plan?if=lb1%3Ddown%2Clb2%3Ddown", token: readToken}, http.StatusBadRequest, "there is no such node"},
		{call{path: "/v1/plan?if=" + strings.Repeat("lb1%3Ddown,", 65), token: readToken}, http.StatusBadRequest, "at most 64"},
	} {
		if code, body, _ := do(t, s, c.call); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s", c.path, code, body)
		}
	}
	agent.Fail(errors.New("it stands still"))
	if code, body, _ := do(t, s, call{path: "/v1/plan?if=lb1%3Ddown", token: readToken}); code != http.StatusServiceUnavailable || !strings.Contains(body, "stands still") {
		t.Errorf("a plan that failed: %d %s", code, body)
	}
}

func TestHeadersKeepThePageSafe(t *testing.T) {
	s, _ := start(t, Config{Addr: "127.0.0.1:0"})
	_, _, h := do(t, s, call{path: "/"})
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(h.Get("Content-Security-Policy"), want) {
			t.Errorf("no %s in %q", want, h.Get("Content-Security-Policy"))
		}
	}
	if strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
		t.Error("the policy allows something unsafe")
	}
	if !strings.HasPrefix(h.Get("Content-Type"), "text/html") || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers: %v", h)
	}
}

// selfSigned writes a certificate for 127.0.0.1 with that name.
func selfSigned(t *testing.T, dir, name string) (string, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: rawKey}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, keyFile
}

func TestARenewedCertificateIsServedWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, dir, "first")
	c := &certificate{certFile: cert, keyFile: key, log: zap.NewNop()}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	name := func() string {
		t.Helper()
		c.checked = time.Time{} // as if the recheck were due
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Errorf("got %s", got)
	}
	if err := os.WriteFile(cert, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "first" {
		t.Errorf("while the file is broken: %s", got)
	}
	selfSigned(t, dir, "second")
	if got := name(); got != "second" {
		t.Errorf("after renewal: %s", got)
	}
}

func TestTLSIsServedAndABrokenCertificateIsAClearError(t *testing.T) {
	cert, key := selfSigned(t, t.TempDir(), "tandem")
	s, _ := start(t, Config{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key})
	pool := x509.NewCertPool()
	raw, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(raw) {
		t.Fatal("no certificate", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + s.Addr().String() + "/livez")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	bad := New(Config{Addr: "127.0.0.1:0", CertFile: key, KeyFile: cert}, apitest.New(status.Status{}))
	if err := bad.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "TANDEM_API_CERT") {
		t.Errorf("got %v", err)
	}
}

func TestABugInAHandlerIsLogged(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	s, _ := start(t, Config{Addr: "127.0.0.1:0", Log: zap.New(core), Live: func() error { panic("a bug") }})
	if resp, err := http.Get(s.url("/livez")); err == nil {
		resp.Body.Close()
		t.Errorf("answered %s", resp.Status)
	}
	if n := logs.FilterMessage("api fault").Len(); n != 1 {
		t.Errorf("%d lines", n)
	}
	if code, _, _ := do(t, s, call{path: "/readyz"}); code != 200 {
		t.Errorf("afterwards: %d", code)
	}
}

func TestMetricsAreServed(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, _ := start(t, Config{Addr: "127.0.0.1:0", Gatherer: reg, Registerer: reg})
	do(t, s, call{path: "/livez"})
	_, body, _ := do(t, s, call{path: "/metrics"})
	if want := `tandem_api_requests_total{code="200",route="GET /livez"} 1`; !strings.Contains(body, want) {
		t.Errorf("no %s in\n%s", want, body)
	}
}

func FuzzACommandBodyNeverPanics(f *testing.F) {
	f.Add("takeover", []byte(`{"site":"b","group":"g","force":true}`))
	f.Add("pause", []byte(`{"duration":"1h"}`))
	f.Add("maintenance", []byte(`{"on":null}`))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
		if err != nil {
			t.Skip()
		}
		r.Header.Set("Content-Type", "application/json")
		c, code, problem := decode(kind, r)
		if (problem == "") != (code == 0) || c.Duration < 0 {
			t.Errorf("%q: code %d, problem %q, command %+v", body, code, problem, c)
		}
	})
}
