package hook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// SignatureHeader carries `sha256=` and the hexadecimal HMAC-SHA256 of the
// body under the shared secret.
const SignatureHeader = "X-Tandem-Signature"

// WebhookConfig of a Webhook. Zero values get the default named beside them.
type WebhookConfig struct {
	URL     string
	Secret  []byte        // empty: not signed
	Source  string        // CloudEvents `source`, for example /tandem/CLUSTER/NODE
	Timeout time.Duration // of one request; 10 s
	Backoff time.Duration // before the second attempt; 500 ms, then growing
	MaxWait time.Duration // between attempts; 1 min
	Queue   int           // events waiting for one resource; 64
	Client  *http.Client  // a client of its own; redirects are never followed

	Log        *zap.Logger
	Registerer prometheus.Registerer
}

// Event is what a webhook tells.
type Event struct {
	ID       string // unique for the source
	Type     string // for example io.tandem.switch
	Resource string // CloudEvents `subject`: the later event of a resource supersedes an earlier one that cannot be delivered
	Time     time.Time
	Data     any // becomes JSON
}

// cloudEvent is the structured JSON form of CloudEvents 1.0.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            any       `json:"data,omitempty"`
}

// WebhookStatus says how delivery stands.
type WebhookStatus struct {
	URL           string // without user, password and query
	Pending       int
	Delivered     int
	Superseded    int
	Dropped       int // the queue was full
	Failures      int // attempts
	LastError     string
	LastDelivered time.Time
	NextTry       time.Time // of the failed event that is due next
}

// message is an event on its way.
type message struct {
	event    Event
	body     []byte
	attempts int
	due      time.Time
	wait     *backoff.ExponentialBackOff
}

// Webhook delivers events. Make one with NewWebhook, then Run it.
type Webhook struct {
	cfg   WebhookConfig
	total *prometheus.CounterVec
	wake  chan struct{}

	mu     sync.Mutex
	order  []string // resources, in the order in which they are served
	queues map[string][]*message
	status WebhookStatus
}

// NewWebhook checks the URL. Nothing is sent before Run.
func NewWebhook(cfg WebhookConfig) (*Webhook, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("read webhook address: want an http or https URL, for example https://example.org/tandem")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.Timeout, 10*time.Second)
	def(&cfg.Backoff, 500*time.Millisecond)
	def(&cfg.MaxWait, time.Minute)
	if cfg.Queue <= 0 {
		cfg.Queue = 64
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	client := http.Client{}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	client.Timeout = cfg.Timeout
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.Client = &client
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	w := &Webhook{
		cfg: cfg, wake: make(chan struct{}, 1), queues: map[string][]*message{}, status: WebhookStatus{URL: u.String()},
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_webhook_events_total", Help: "Webhook events, by what became of them; failed counts attempts.",
		}, []string{"result"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(w.total)
	}
	return w, nil
}

// Send queues an event and returns at once. An error means that its data is
// not JSON.
func (w *Webhook) Send(e Event) error {
	body, err := json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: e.ID, Source: w.cfg.Source, Type: e.Type, Subject: e.Resource,
		Time: e.Time.UTC(), DataContentType: "application/json", Data: e.Data,
	})
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = w.cfg.Backoff, w.cfg.MaxWait
	b.Reset()
	w.mu.Lock()
	defer w.mu.Unlock()
	q, known := w.queues[e.Resource]
	if !known {
		w.order = append(w.order, e.Resource)
	}
	if len(q) >= w.cfg.Queue {
		q = q[1:]
		w.status.Dropped++
		w.total.WithLabelValues("dropped").Inc()
	}
	w.queues[e.Resource] = append(q, &message{event: e, body: body, wait: b})
	poke(w.wake)
	return nil
}

// Status says how delivery stands.
func (w *Webhook) Status() WebhookStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	for _, q := range w.queues {
		s.Pending += len(q)
		if len(q) > 0 && q[0].attempts > 0 && (s.NextTry.IsZero() || q[0].due.Before(s.NextTry)) {
			s.NextTry = q[0].due
		}
	}
	return s
}

// Run delivers events until ctx ends.
func (w *Webhook) Run(ctx context.Context) error {
	defer w.cfg.Client.CloseIdleConnections()
	for ctx.Err() == nil {
		m, pause := w.next(time.Now())
		if m != nil {
			w.settle(ctx, m, w.post(ctx, m))
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-w.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// next is the event to send now, or how long there is none. An event that has
// failed gives way to the latest one of its resource. Resources take turns, so
// that one does not hold up another.
func (w *Webhook) next(now time.Time) (*message, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pause := time.Hour
	for i, name := range w.order {
		q := w.queues[name]
		if n := len(q) - 1; n > 0 && q[0].attempts > 0 {
			w.cfg.Log.Warn("webhook events superseded", zap.Int("events", n), zap.String("first", q[0].event.ID), zap.String("by", q[n].event.ID))
			q[n].wait, q[n].due = q[0].wait, q[0].due // what does not answer is not asked more often
			q = q[n:]
			w.queues[name] = q
			w.status.Superseded += n
			w.total.WithLabelValues("superseded").Add(float64(n))
		}
		if len(q) == 0 {
			continue
		}
		if d := q[0].due.Sub(now); d > 0 {
			pause = min(pause, d)
			continue
		}
		w.order = append(append(w.order[:i:i], w.order[i+1:]...), name)
		return q[0], 0
	}
	return nil, pause
}

// settle notes the outcome of an attempt.
func (w *Webhook) settle(ctx context.Context, m *message, err error) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m.attempts++
	log := w.cfg.Log.With(zap.String("id", m.event.ID), zap.String("type", m.event.Type), zap.Int("attempt", m.attempts))
	if err == nil {
		q := w.queues[m.event.Resource]
		if len(q) > 0 && q[0] == m {
			q = q[1:]
		}
		w.queues[m.event.Resource] = q
		if len(q) == 0 {
			w.forget(m.event.Resource)
		}
		w.status.Delivered++
		w.status.LastDelivered, w.status.LastError = time.Now(), ""
		w.total.WithLabelValues("delivered").Inc()
		log.Info("webhook event delivered")
		return
	}
	pause := m.wait.NextBackOff()
	if later, ok := errors.AsType[*backoff.RetryAfterError](err); ok {
		pause = min(max(pause, later.Duration), w.cfg.MaxWait)
	}
	m.due = time.Now().Add(pause)
	w.status.Failures++
	w.status.LastError = err.Error()
	w.total.WithLabelValues("failed").Inc()
	log.Warn("webhook event not delivered, will be sent again", zap.Error(err), zap.Duration("in", pause))
}

func (w *Webhook) forget(resource string) {
	delete(w.queues, resource)
	for i, name := range w.order {
		if name == resource {
			w.order = append(w.order[:i:i], w.order[i+1:]...)
			return
		}
	}
}

// post sends an event once.
func (w *Webhook) post(ctx context.Context, m *message) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(m.body))
	if err != nil {
		return fmt.Errorf("post event: %w", err)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "tandem")
	if len(w.cfg.Secret) > 0 {
		req.Header.Set(SignatureHeader, Sign(w.cfg.Secret, m.body))
	}
	resp, err := w.cfg.Client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok { // it would repeat the address, with whatever secret is in it
			err = u.Err
		}
		return fmt.Errorf("post event: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	err = fmt.Errorf("post event: status %s", resp.Status)
	if s, convErr := strconv.Atoi(resp.Header.Get("Retry-After")); convErr == nil && s > 0 {
		return errors.Join(err, backoff.RetryAfter(s))
	}
	return err
}

// Sign is the value of SignatureHeader for a body.
func Sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
