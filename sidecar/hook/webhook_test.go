package hook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// receiver is a webhook's other end.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(n int) int // status for the n-th request
	header http.Header
	n      int
	got    []map[string]any // accepted
	bodies []string
	signed []string
}

func receive(t *testing.T, answer func(n int) int) *receiver {
	t.Helper()
	rec := &receiver{answer: answer, header: http.Header{}}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		rec.mu.Lock()
		defer rec.mu.Unlock()
		rec.n++
		status := rec.answer(rec.n)
		for k := range rec.header {
			w.Header().Set(k, rec.header.Get(k))
		}
		w.WriteHeader(status)
		if status >= 300 {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil || !strings.HasPrefix(req.Header.Get("Content-Type"), "application/cloudevents+json") || req.Method != http.MethodPost {
			t.Errorf("request %v %q: %v", req.Header, body, err)
		}
		rec.got, rec.bodies, rec.signed = append(rec.got, m), append(rec.bodies, string(body)), append(rec.signed, req.Header.Get(SignatureHeader))
	}))
	t.Cleanup(rec.Close)
	return rec
}

func (rec *receiver) ids() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var out []string
	for _, m := range rec.got {
		out = append(out, fmt.Sprint(m["id"]))
	}
	return out
}

func (rec *receiver) set(answer func(int) int) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.answer = answer
}

func always(status int) func(int) int { return func(int) int { return status } }

func webhook(t *testing.T, rec *receiver, change func(*WebhookConfig)) *Webhook {
	t.Helper()
	cfg := WebhookConfig{
		URL: rec.URL + "/hook?token=x", Secret: []byte("s3cret"), Source: "/tandem/test/lb1", Backoff: 5 * time.Millisecond,
		MaxWait: 30 * time.Millisecond, Timeout: 5 * time.Second, Registerer: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&cfg)
	}
	w, err := NewWebhook(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return w
}

func send(t *testing.T, w *Webhook, id, resource string) {
	t.Helper()
	err := w.Send(Event{ID: id, Type: "io.tandem.switch", Resource: resource, Time: time.Unix(1_700_000_000, 0), Data: map[string]string{"to": "b"}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnEventIsASignedCloudEvent(t *testing.T) {
	rec := receive(t, always(204))
	w := webhook(t, rec, nil)
	send(t, w, "1", "site/default")
	eventually(t, "delivery", func() bool { return w.Status().Delivered == 1 })
	want := `{"specversion":"1.0","id":"1","source":"/tandem/test/lb1","type":"io.tandem.switch","subject":"site/default","time":"2023-11-14T22:13:20Z","datacontenttype":"application/json","data":{"to":"b"}}`
	if rec.bodies[0] != want {
		t.Fatalf("got  %s\nwant %s", rec.bodies[0], want)
	}
	if rec.signed[0] != Sign([]byte("s3cret"), []byte(want)) || Sign([]byte("other"), []byte(want)) == rec.signed[0] {
		t.Fatal(rec.signed)
	}
	// RFC 4231, test case 2.
	if got := Sign([]byte("Jefe"), []byte("what do ya want for nothing?")); got != "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" {
		t.Fatal(got)
	}
	if s := w.Status(); strings.Contains(s.URL, "token") || s.Pending != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestAnEventIsRepeatedUntilDelivered(t *testing.T) {
	rec := receive(t, func(n int) int { return []int{500, 404, 302, 429, 200}[min(n, 5)-1] })
	w := webhook(t, rec, nil)
	send(t, w, "1", "site/default")
	eventually(t, "delivery", func() bool { return w.Status().Delivered == 1 })
	if s := w.Status(); s.Failures != 4 || s.LastError != "" || !slices.Equal(rec.ids(), []string{"1"}) {
		t.Fatalf("%+v", s)
	}
}

func TestEventsArriveInOrder(t *testing.T) {
	rec := receive(t, always(200))
	w := webhook(t, rec, nil)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		send(t, w, want[i], "site/default")
	}
	eventually(t, "delivery", func() bool { return w.Status().Delivered == 20 })
	if got := rec.ids(); !slices.Equal(got, want) {
		t.Fatal(got)
	}
}

func TestALaterEventOfAResourceSupersedesOneThatFails(t *testing.T) {
	rec := receive(t, always(503))
	w := webhook(t, rec, nil)
	send(t, w, "1", "site/default")
	send(t, w, "other", "vip/web")
	eventually(t, "failure", func() bool { return w.Status().Failures > 2 })
	send(t, w, "2", "site/default")
	send(t, w, "3", "site/default")
	eventually(t, "superseded", func() bool { return w.Status().Superseded == 2 })
	if s := w.Status(); s.LastError != "post event: status 503 Service Unavailable" || s.NextTry.IsZero() || s.Pending != 2 {
		t.Fatalf("%+v", s)
	}
	rec.set(always(200))
	eventually(t, "delivery", func() bool { return w.Status().Delivered == 2 })
	got := rec.ids()
	slices.Sort(got)
	if !slices.Equal(got, []string{"3", "other"}) {
		t.Fatal(got)
	}
}

func TestRetryAfterIsRespectedUpToTheLongestWait(t *testing.T) {
	rec := receive(t, always(503))
	rec.header.Set("Retry-After", "3600")
	w := webhook(t, rec, func(c *WebhookConfig) { c.MaxWait = time.Minute })
	send(t, w, "1", "site/default")
	eventually(t, "failure", func() bool { return w.Status().Failures == 1 })
	if d := time.Until(w.Status().NextTry); d < 50*time.Second || d > time.Minute {
		t.Fatal(d)
	}
}

// A receiver that hangs holds up neither the caller nor the end.
func TestAHangingReceiver(t *testing.T) {
	free := make(chan struct{})
	rec := receive(t, always(200))
	rec.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-free:
		case <-req.Context().Done():
		}
	})
	defer close(free)
	w := webhook(t, rec, func(c *WebhookConfig) { c.Timeout, c.Queue = 50*time.Millisecond, 4 })
	for i := range 100 {
		send(t, w, fmt.Sprint(i), "site/default")
	}
	eventually(t, "a failure", func() bool { return w.Status().Failures > 0 })
	if s := w.Status(); s.Dropped == 0 || s.Pending > 4 {
		t.Fatalf("%+v", s)
	}
}

func TestAnErrorDoesNotTellTheAddress(t *testing.T) {
	rec := receive(t, always(200))
	rec.Close()
	w := webhook(t, rec, nil)
	send(t, w, "1", "site/default")
	eventually(t, "failure", func() bool { return w.Status().Failures > 0 })
	if s := w.Status(); strings.Contains(s.LastError, "token") || !strings.Contains(s.LastError, "refused") {
		t.Fatalf("%+v", s)
	}
	for _, bad := range []string{"", "ftp://x/", "example.org", "http://", "https://u:p@[x"} {
		if _, err := NewWebhook(WebhookConfig{URL: bad}); err == nil || bad != "" && strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
