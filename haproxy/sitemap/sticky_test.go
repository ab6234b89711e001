package sitemap

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tandem/haproxy/haproxytest"
)

// shop is a HAProxy with the backend that the documentation gives, with two
// servers at each site that answer with their names.
type shop struct {
	t   *testing.T
	p   *haproxytest.Process
	url string
}

func openShop(t *testing.T, backend string) *shop {
	t.Helper()
	replace := []string{"/etc/haproxy/site.map", "{dir}/site.map"}
	for name, address := range map[string]string{"a-1": "10.0.1.1:80", "a-2": "10.0.1.2:80", "b-1": "10.0.2.1:80", "b-2": "10.0.2.2:80"} {
		if !strings.Contains(backend, address) {
			t.Fatalf("the example has no server at %s:\n%s", address, backend)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Got-Cookie", r.Header.Get("Cookie"))
			_, _ = io.WriteString(w, name)
		}))
		t.Cleanup(server.Close)
		replace = append(replace, address, server.Listener.Addr().String())
	}
	port := haproxytest.Ports(t, 1)[0]
	p := haproxytest.New(t, haproxytest.Global+"frontend f\n  bind 127.0.0.1:"+port+"\n  default_backend app\n"+strings.NewReplacer(replace...).Replace(backend))
	if err := os.WriteFile(filepath.Join(p.Dir, "site.map"), []byte("default a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	return &shop{t, p, "http://127.0.0.1:" + port}
}

// activate does what tandem does when a site becomes the active one.
func (s *shop) activate(site string) {
	s.t.Helper()
	other := map[string]string{"a": "b", "b": "a"}[site]
	for _, line := range []string{
		"set server app/" + site + "-1 state ready", "set server app/" + site + "-2 state ready",
		"set server app/" + other + "-1 state drain", "set server app/" + other + "-2 state drain",
		"set map " + filepath.Join(s.p.Dir, "site.map") + " default " + site,
	} {
		if answer := strings.TrimSpace(s.p.Do(line)); answer != "" {
			s.t.Fatalf("%s: %s", line, answer)
		}
	}
}

// ask says which server answered a client with a cookie, and which cookie it got.
func (s *shop) ask(cookie string) (server, got string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: "SRV", Value: cookie})
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		s.t.Fatal(err)
	}
	for _, c := range resp.Cookies() {
		if c.Name == "SRV" {
			got = c.Value
		}
	}
	return string(body), got
}

// sticks says whether a client with the cookie comes to that server each time.
func (s *shop) sticks(cookie string) bool {
	s.t.Helper()
	for range 8 {
		if server, _ := s.ask(cookie); server != cookie {
			return false
		}
	}
	return true
}

// TestACookieOfADrainedSiteIsNotHonoured: by the rules of the documentation a
// client moves to the active site, gets a cookie there, and sticks to it; those
// of the active site stick all the while. Without them it stays where it was.
func TestACookieOfADrainedSiteIsNotHonoured(t *testing.T) {
	backend := example(t, "## Clients that stay on a drained site")
	s := openShop(t, backend)
	for _, active := range []string{"a", "b", "a"} {
		s.activate(active)
		drained := map[string]string{"a": "b", "b": "a"}[active]
		for _, n := range []string{"-1", "-2"} {
			if !s.sticks(active + n) {
				t.Errorf("%s is active, and a client with its cookie does not stick to %s", active, active+n)
			}
			server, cookie := s.ask(drained + n)
			if !strings.HasPrefix(server, active+"-") || cookie != server {
				t.Errorf("%s is active, and a client with a cookie of %s came to %s and got the cookie %q", active, drained+n, server, cookie)
			}
		}
		if server, cookie := s.ask(""); !strings.HasPrefix(server, active+"-") || cookie != server {
			t.Errorf("%s is active, and a new client came to %s and got the cookie %q", active, server, cookie)
		}
	}
	var without strings.Builder
	for line := range strings.Lines(backend) {
		if !strings.Contains(line, "replace-header") {
			without.WriteString(line)
		}
	}
	s = openShop(t, without.String())
	s.activate("b")
	if !s.sticks("a-1") {
		t.Error("without the rules a client does not stay on the drained site: the rules are not what moved it")
	}
	s = openShop(t, strings.Replace(without.String(), "  server a-1", "  ignore-persist if { req.cook(SRV) -m beg a- } !a_active\n  server a-1", 1))
	s.activate("b")
	if server, cookie := s.ask("a-1"); !strings.HasPrefix(server, "b-") || cookie != "" || !s.sticks("b-1") {
		t.Errorf("with ignore-persist a client of a came to %s and got the cookie %q: the documentation says otherwise", server, cookie)
	}
}

// Other cookies of a client come through the rules as they were.
func TestTheRulesChangeNoOtherCookie(t *testing.T) {
	s := openShop(t, example(t, "## Clients that stay on a drained site"))
	s.activate("b")
	for sent, want := range map[string]string{
		"x=1; SRV=a-1; y=2":     "x=1; y=2",
		"SRV=a-2;y=2":           "y=2",
		"XSRV=a-1; SRV=a-1":     "XSRV=a-1",
		"x=1; SRV=b-1; y=SRV=a": "x=1; y=SRV=a",
		"MYSRV=a-1":             "MYSRV=a-1",
	} {
		if got := s.cookies(sent); got != want {
			t.Errorf("sent %q: the server got %q, want %q", sent, got, want)
		}
	}
}

// cookies says what a server gets of the cookies that a client sends.
func (s *shop) cookies(sent string) string {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Cookie", sent)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		s.t.Fatal(err)
	}
	return resp.Header.Get("X-Got-Cookie")
}
