// Package browsertest drives a real Chromium for tests of the status page.
package browsertest

import (
	"context"
	"os/exec"
	"sync"
	"testing"
	"time"

	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Start starts a real Chromium, and skips the test where there is none. It ends with the test.
func Start(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("SKIPPED: the status page is tested in a real browser, and there is no chromium (apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("stop chromium: %v", err)
		}
		cancel()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// Tab opens a tab with a session of its own and collects what its console
// says.
func Tab(chromium context.Context, t *testing.T) (context.Context, func() []string) {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // opens it, so that nothing it says is missed
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said []string
	err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *cdplog.EventEntryAdded: //nolint:forbidigo // what the browser's console says, not a log of ours
			said = append(said, e.Entry.Text+" "+e.Entry.URL) //nolint:forbidigo // as above
		case *cdpruntime.EventExceptionThrown:
			said = append(said, e.ExceptionDetails.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), said...)
	}
}

// Action is a step of which nothing is wanted but that it succeeds.
type Action = chromedp.Action[chromedp.Void]

// patience is long enough for a busy machine.
const patience = 20 * time.Second

// Steps does one after the other, and ends the test with what the page says when
// one of them fails.
func Steps(ctx context.Context, t *testing.T, actions ...Action) {
	t.Helper()
	for i, a := range actions {
		if _, err := within(ctx, a); err != nil {
			text, _ := within(ctx, chromedp.Text(chromedp.CSS("body")))
			t.Fatalf("step %d: %v; the page says:\n%s", i, err, text)
		}
	}
}

// Get waits for what an action yields.
func Get[T any](ctx context.Context, t *testing.T, a chromedp.Action[T]) T {
	t.Helper()
	value, err := within(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func within[T any](ctx context.Context, a chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, a)
}

// Text is what an element says.
func Text(selector string) chromedp.Action[string] { return chromedp.Text(chromedp.CSS(selector)) }

// Enter types into an element.
func Enter(selector, value string) Action {
	return chromedp.SendKeys(chromedp.CSS(selector), value)
}

// See waits until an element is visible.
func See(selector string) Action { return chromedp.WaitVisible(chromedp.CSS(selector)) }

// Press clicks an element once it is visible.
func Press(selector string) Action {
	return chromedp.Steps(See(selector), chromedp.Click(chromedp.CSS(selector)))
}
