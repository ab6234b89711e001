package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
	"tandem/sidecar/status"
)

// TestDrainTimeoutCutsWhatIsLeftAndWhatComesBack runs a sidecar beside a real
// HAProxy: a request of 30 s on the site that is left is cut after the second of
// TANDEM_DRAIN_TIMEOUT, one that comes by its cookie after the switch is cut as
// well, and status tells both.
func TestDrainTimeoutCutsWhatIsLeftAndWhatComesBack(t *testing.T) {
	const long = 30 * time.Second
	begun := make(chan struct{}, 10)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		select {
		case <-time.After(long):
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(slow.Close)
	quick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "b") }))
	t.Cleanup(quick.Close)
	port := haproxytest.Ports(t, 1)[0]
	p := haproxytest.New(t, strings.Replace(haproxytest.Global, "timeout server 10s", "timeout server 1m", 1)+
		"frontend f\n  bind 127.0.0.1:"+port+"\n  http-request set-header X-Active %[str(default),map({dir}/site.map,none)]\n  default_backend be\n"+
		"backend be\n  cookie SRV insert indirect nocache\n"+
		"  server a-1 "+slow.Listener.Addr().String()+" cookie a-1\n  server b-1 "+quick.Listener.Addr().String()+" cookie b-1\n")
	siteMap := filepath.Join(p.Dir, "site.map")
	if err := os.WriteFile(siteMap, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	log := &output{}
	env := []string{
		"TANDEM_NODE=lb1", "TANDEM_PEERS=lb1=127.0.0.1:" + freePort(t), "TANDEM_KEY=" + checkKey, "TANDEM_API=127.0.0.1:" + freePort(t),
		"TANDEM_SOCKET=" + filepath.Join(p.Dir, "t"), "TANDEM_HAPROXY_SOCKET=" + p.Socket, "TANDEM_SITES=a=*/a-*;b=*/b-*",
		"TANDEM_DRAIN_TIMEOUT=1s", "TANDEM_MAP=" + siteMap,
	}
	env = append(env, "TANDEM_BIND="+strings.TrimPrefix(env[1], "TANDEM_PEERS=lb1="))
	running(t, log, map[string][]string{"lb1": env})
	tandem := func(args ...string) (string, int) {
		var out bytes.Buffer
		code := (&program{env: env, stdout: &out, stderr: &out}).run(args)
		return out.String(), code
	}
	until := func(what string, ok func(status.Status) bool) {
		t.Helper()
		var text string
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			var s status.Status
			text, _ = tandem("status", "--json")
			if json.Unmarshal([]byte(text), &s) == nil && len(s.Nodes) == 1 && s.Nodes[0].HAProxy != nil && ok(s) {
				return
			}
		}
		t.Fatalf("waited in vain for: %s\n%s\n%s", what, text, log.text())
	}
	until("site a active, the map current", func(s status.Status) bool {
		return s.Site.Active == "a" && s.Site.Phase == "" && s.Nodes[0].HAProxy.Map == status.MapCurrent && s.Nodes[0].AppliedEpoch > 0
	})
	ask := func() <-chan time.Time {
		ended := make(chan time.Time, 1)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(&http.Cookie{Name: "SRV", Value: "a-1"})
		go func() {
			if resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r); err == nil {
				_ = resp.Body.Close()
			}
			ended <- time.Now()
		}()
		select {
		case <-begun:
		case <-time.After(20 * time.Second):
			t.Fatal("the request does not come to a-1")
		}
		return ended
	}
	cut := func(ended <-chan time.Time) time.Time {
		t.Helper()
		select {
		case at := <-ended:
			return at
		case <-time.After(long / 2):
			t.Fatalf("not cut\n%s", log.text())
			return time.Time{}
		}
	}
	first, asked := ask(), time.Now()
	if out, code := tandem("takeover", "b"); code > 1 {
		t.Fatalf("takeover: %d %s", code, out)
	}
	if took := cut(first).Sub(asked); took < time.Second {
		t.Errorf("cut after %v: it was not given its second", took)
	}
	until("the first counted", func(s status.Status) bool {
		return s.Nodes[0].HAProxy.SessionsClosed == 1 && s.Site.Active == "b" && s.Site.Phase == ""
	})
	cut(ask())
	until("the second counted", func(s status.Status) bool {
		h := s.Nodes[0].HAProxy
		return h.SessionsClosed == 2 && h.SessionsLeft == 0
	})
	if text, _ := tandem("status"); !strings.Contains(text, "sessions closed on drained servers: 2; left at the last look: 0") || !strings.Contains(text, "active-site map: current") {
		t.Errorf("status:\n%s", text)
	}
	if text, _ := tandem("why"); !strings.Contains(strings.Join(strings.Fields(text), " "), "2 were closed since its sidecar started") {
		t.Errorf("why:\n%s", text)
	}
}
