package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"tandem/examples/lab"
	"tandem/sidecar/api/browsertest"
)

// pageOf lets a browser outside of the lab see the API of a node of it.
func pageOf(t *testing.T, l *lab.Lab, node string) string {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: "127.0.0.1:8405"}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // as if there were nobody between
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return l.Dial(ctx, node, network, address)
		}},
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL + "/"
}

// TestThePageThroughAFailover watches a real pair in a real browser: the holder
// loses power, and the page of the other says so; then the site is switched with
// the keyboard, which takes the token.
func TestThePageThroughAFailover(t *testing.T) {
	long(t)
	const token = "operate-0123456789abcdef"
	chromium := browsertest.Start(t)
	l := start(t, lab.Config{System: lab.Tandem{Program: tandem(t), Env: map[string]string{"TANDEM_API_TOKEN": token}}})
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	holder := l.Holder()
	other := lab.Other(holder)
	ctx, said := browsertest.Tab(chromium, t)
	live := func(node string) browsertest.Action { return browsertest.See(`article[data-node=` + node + `].live`) }
	browsertest.Steps(ctx, t, chromedp.Navigate(pageOf(t, l, other)), live(holder), browsertest.See(`article[data-site=a].live`), browsertest.See("#health.good"))

	if err := l.PowerOff(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	browsertest.Steps(ctx, t, live(other), browsertest.See(`article[data-node=`+holder+`].off`))
	browsertest.Get(ctx, t, chromedp.Poll[bool](`document.getElementById('timeline').textContent.includes('take-up')`))

	// A button that has the focus is pressed with Enter.
	key := func(selector string) browsertest.Action { return browsertest.Enter(selector, "\r") }
	takeover := `article[data-site=b] button[data-do=takeover]`
	browsertest.Steps(ctx, t, browsertest.See(takeover), key(takeover), browsertest.See("#confirm-ok"), key("#confirm-ok"),
		browsertest.See("#token"), browsertest.Enter("#token", "not-the-right-token\r"), browsertest.See("#progress p"))
	browsertest.Get(ctx, t, chromedp.Poll[bool](`document.getElementById('progress').textContent.includes('refused')`))
	if site := activeSite(l); site != "a" {
		t.Errorf("site %s serves after a command that was refused", site)
	}
	browsertest.Steps(ctx, t, key(takeover), browsertest.See("#confirm-ok"), key("#confirm-ok"),
		browsertest.See("#token"), browsertest.Enter("#token", token+"\r"), browsertest.See(`article[data-site=b].live`))
	if err := pause(t.Context(), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if site := activeSite(l); site != "b" {
		t.Errorf("the page shows site b, the client is served by %s", site)
	}
	if all := said(); len(all) > 1 { // the refusal (401) is one
		t.Errorf("the console says: %q", all)
	}
}
