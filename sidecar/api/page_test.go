package api

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"tandem/sidecar/api/apitest"
	"tandem/sidecar/api/browsertest"
	"tandem/sidecar/status"
)

var screenshots = flag.String("screenshots", "", "directory for pictures of the status page")

// One Chromium serves all tests of the page, with a tab for each.
func TestStatusPage(t *testing.T) {
	chromium := browsertest.Start(t)
	for name, test := range map[string]func(context.Context, *testing.T, func() []string){
		"follows a failover live":                        pageFollows,
		"a switch needs the token":                       pageSwitches,
		"shows nothing without a read token":             pageAsksForAToken,
		"nothing that a node says becomes markup":        pageTakesTextAsText,
		"greys out when the node is silent":              pageGreysOut,
		"fits every window, light and dark (screenshot)": pageFits,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, said := browsertest.Tab(chromium, t)
			test(ctx, t, said)
		})
	}
}

type action = browsertest.Action

func steps(ctx context.Context, t *testing.T, actions ...action) {
	t.Helper()
	browsertest.Steps(ctx, t, actions...)
}

func get[T any](ctx context.Context, t *testing.T, a chromedp.Action[T]) T {
	t.Helper()
	return browsertest.Get(ctx, t, a)
}

func text(selector string) chromedp.Action[string] { return browsertest.Text(selector) }
func enter(selector, value string) action          { return browsertest.Enter(selector, value) }
func see(selector string) action                   { return browsertest.See(selector) }
func press(selector string) action                 { return browsertest.Press(selector) }

// keepFresh lets the fake's picture be a moment old at most.
func keepFresh(st *status.Status) { st.At = time.Now() }

//nolint:thelper // a subtest: a failure belongs to its own line
func pageFollows(ctx context.Context, t *testing.T, said func() []string) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0", Token: operateToken})
	agent.Set(keepFresh)
	steps(ctx, t, chromedp.Navigate(s.url("/")), see(`article[data-node=lb1].live`), see(`article[data-site=a].live`), see("#health.good"))
	agent.Set(func(st *status.Status) {
		keepFresh(st)
		st.Health, st.Problems = status.Degraded, []string{"lb1 is silent"}
		st.Leases[1].Holder, st.Leases[1].Source = "lb2", "vote"
		st.Nodes[0].Alive, st.Nodes[0].Reason, st.Nodes[0].VIPs = false, "unreachable", nil
		st.Nodes[1].VIPs = []string{"10.0.0.100"}
	})
	agent.Tell(status.Event{Transition: status.Transition{At: time.Now(), Node: "lb2", Resource: "vip/default", Event: "take-up", From: "lb1", To: "lb2", Epoch: 13, Reason: "lease-expired"}})
	steps(ctx, t, see(`article[data-node=lb2].live`), see("#health.warn"), see(`article[data-node=lb1].off`))
	timeline, notices := get(ctx, t, text("#timeline li")), get(ctx, t, text("#notices"))
	if !strings.Contains(timeline, "lease-expired") || !strings.Contains(timeline, "lb1 → lb2") {
		t.Errorf("timeline: %s", timeline)
	}
	if !strings.Contains(notices, "lb1 is silent") {
		t.Errorf("notices: %s", notices)
	}
	if all := said(); len(all) > 0 {
		t.Errorf("the console says: %q", all)
	}
}

//nolint:thelper // a subtest: a failure belongs to its own line
func pageSwitches(ctx context.Context, t *testing.T, _ func() []string) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0", Token: operateToken})
	takeover := `article[data-site=b] button[data-do=takeover]`
	steps(
		ctx, t, chromedp.Navigate(s.url("/")),
		press(takeover), press("#confirm-ok"),
		see("#token"), enter("#token", "not-the-right-token"), press("#ask-token button[value=ok]"), see("#progress p"),
	)
	get(ctx, t, chromedp.Poll[bool](`document.getElementById('progress').textContent.includes('refused')`))
	refused := get(ctx, t, text("#progress"))
	if !strings.Contains(refused, "this token is not known") || len(agent.Commands()) != 0 {
		t.Errorf("with a wrong token: %s, %v", refused, agent.Commands())
	}
	steps(
		ctx, t, press(takeover), press("#confirm-ok"),
		see("#token"), enter("#token", operateToken), press("#ask-token button[value=ok]"),
		see(`article[data-site=b].live`),
	)
	if c := agent.Commands(); len(c) != 1 || c[0].Site != "b" || c[0].Force {
		t.Errorf("commands: %+v", c)
	}
	steps(ctx, t, press(`article[data-node=lb2] button[data-do=move]`), press("#confirm-ok"), see(`article[data-node=lb2].live`))
	steps(ctx, t, press("#pause"), press("#confirm-ok"), see(`#pause[data-do=resume]`))
}

//nolint:thelper // a subtest: a failure belongs to its own line
func pageAsksForAToken(ctx context.Context, t *testing.T, _ func() []string) {
	s, _ := start(t, Config{Addr: "127.0.0.1:0", Token: operateToken, ReadToken: readToken})
	steps(ctx, t, chromedp.Navigate(s.url("/")), see("#token"))
	if nodes := get(ctx, t, chromedp.Evaluate[string](`document.getElementById('nodes').textContent`)); nodes != "" {
		t.Errorf("without a token: %s", nodes)
	}
	steps(ctx, t, enter("#token", readToken), press("#ask-token button[value=ok]"), see(`article[data-node=lb1]`))
}

//nolint:thelper // a subtest: a failure belongs to its own line
func pageTakesTextAsText(ctx context.Context, t *testing.T, said func() []string) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0"})
	const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"'>`
	agent.Set(func(st *status.Status) {
		st.Problems, st.NextFail = []string{evil}, []string{evil}
		st.Cluster, st.Site.Reason = evil, evil
		st.Nodes[1].Eligible, st.Nodes[1].Reason, st.Nodes[1].Detail, st.Nodes[1].Name, st.Nodes[1].Warnings = false, evil, evil, evil, []string{evil}
		st.Views[0].Site, st.Views[0].Backends[0].Name = evil, evil
		st.Held = []status.Held{{Node: evil, Server: evil, Kind: evil, Detail: evil}}
		st.Leases[1].Addresses = []string{evil}
	})
	agent.Tell(status.Event{Transition: status.Transition{At: time.Now(), Node: evil, Resource: evil, Event: evil, Reason: evil, Actor: evil, Detail: evil}})
	steps(ctx, t, chromedp.Navigate(s.url("/")), see(`article[data-node=lb1]`))
	foreign := get(ctx, t, chromedp.Evaluate[int](`document.querySelectorAll('img, script:not([src="/page/page.js"]), iframe, [onerror]').length`))
	title := get(ctx, t, chromedp.Title())
	if foreign != 0 || title == "owned" || !strings.Contains(title, "<img") {
		t.Errorf("%d foreign elements, title %q", foreign, title)
	}
	if all := said(); len(all) > 0 {
		t.Errorf("the console says: %q", all)
	}
}

//nolint:thelper // a subtest: a failure belongs to its own line
func pageGreysOut(ctx context.Context, t *testing.T, _ func() []string) {
	s, _ := start(t, Config{Addr: "127.0.0.1:0"})
	steps(ctx, t, chromedp.Navigate(s.url("/")), see(`article[data-node=lb1]`))
	// The stream stands still and a minute passes: what arrives is not heard.
	get(ctx, t, chromedp.Evaluate[any](`{ JSON.parse = () => { throw new Error('deaf'); }; const now = performance.now.bind(performance); performance.now = () => now() + 60000; }; 1`))
	steps(ctx, t, see("body.old"))
	if seen := get(ctx, t, text("#seen")); !strings.Contains(seen, "no news since") {
		t.Errorf("seen: %s", seen)
	}
	// Nothing says that all is well, and nothing can be asked for.
	health, title := get(ctx, t, text("#health.bad")), get(ctx, t, chromedp.Title())
	if !strings.Contains(health, "unknown, was healthy") || !strings.HasPrefix(title, "?") {
		t.Errorf("health %q, title %q", health, title)
	}
}

// Pictures for the documentation, and for the eye: light, dark and as wide as
// a telephone. The page must not be wider than its window.
//
//nolint:thelper // a subtest: a failure belongs to its own line
func pageFits(ctx context.Context, t *testing.T, _ func() []string) {
	s, agent := start(t, Config{Addr: "127.0.0.1:0", Token: operateToken})
	for _, scene := range apitest.Scenes(time.Now()) {
		for _, window := range []struct {
			name, scheme  string
			width, height int64
		}{
			{"light", "light", 1180, 1000},
			{"dark", "dark", 1180, 1000},
			{"phone", "light", 390, 844},
			{"phone-dark", "dark", 360, 740},
		} {
			name := scene.Name + "-" + window.name
			agent.Set(func(st *status.Status) { *st = scene.Status; keepFresh(st) })
			steps(ctx, t, chromedp.EmulateViewport(window.width, window.height), colours(window.scheme), chromedp.Navigate(s.url("/")), see("#nodes article[data-node]"))
			picture := get(ctx, t, chromedp.FullScreenshot(100))
			if get(ctx, t, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`)) {
				t.Errorf("%s: the page is wider than its window", name)
			}
			for _, shadow := range []string{"undefined", "null", "NaN", "[object"} {
				if text := get(ctx, t, text("body")); strings.Contains(text, shadow) {
					t.Errorf("%s: the page says %s: %s", name, shadow, text)
				}
			}
			if *screenshots != "" {
				if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), picture, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func colours(scheme string) action {
	return func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return chromedp.Void{}, err
	}
}
