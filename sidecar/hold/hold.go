// Package hold lets requests wait for a moment instead of failing.
//
// While one site is left and the other is not enabled yet, a backend has no
// server, and HAProxy answers 503 at once. HAProxy can wait for one thing
// without Lua: an answer to a DNS question. So its configuration asks, when a
// backend has no server, for the name `<backend>.hold`, and a [Responder]
// answers it, on a loopback UDP port, as soon as that backend has one:
//
//	resolvers hold
//	    nameserver tandem 127.0.0.1:5999
//	    resolve_retries 10           # these two bound the wait: 3 s
//	    timeout retry 300ms
//	    timeout resolve 1s
//	    hold valid 0s                # and the same for nx, timeout, refused, other, obsolete
//
//	backend web
//	    http-request do-resolve(txn.hold,hold,ipv4) be_name,concat(.hold) if { nbsrv eq 0 }
//
// A name whose backend has no server is not answered; the question is kept, so
// that the answer comes the moment there is one and not with HAProxy's next
// try. A question about a backend that has one as far as is known here waits a
// moment too: HAProxy asks only when there is none, so it has just changed.
// A name of a backend that belongs to no site does not exist, and HAProxy
// goes on at once. The name `go.hold` stands for any backend, for
// configurations that have only one.
//
// It is harmless when dead: HAProxy then waits until its own bound and answers
// 503, as it would have before.
package hold

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	suffix = ".hold."
	anyOf  = "go" // go.hold: any backend

	// How long a question is kept. HAProxy repeats it after
	// `timeout retry` (300 ms in the example), so an older one has a successor.
	keepFor = 2 * time.Second
	// How long a question about a backend that seems to have a server is
	// kept: longer than it takes to learn from HAProxy that it has none, whose
	// servers are read every 100 ms. Measured without it: of 900 requests a
	// second, 4 were let go too early in a switch. With 50 ms, requests failed that
	// began up to 50 ms after HAProxy had found a site dead.
	confirm = 200 * time.Millisecond

	// At most so many questions are kept; beyond that HAProxy's repetition is
	// relied on.
	keepAtMost = 256

	listenAgain = time.Second // after the port could not be opened
	maxQuestion = 512         // bytes; plain DNS over UDP (RFC 1035, 4.2.1)
)

// Outcomes of a question, the label of the metric.
const (
	outcomeReleased  = "released"
	outcomeHeld      = "held"
	outcomeUnknown   = "unknown-name"
	outcomeMalformed = "malformed"
)

// Config of a Responder. Log is required.
type Config struct {
	Addr       netip.AddrPort // on loopback
	Log        *zap.Logger
	Registerer prometheus.Registerer
}

// Responder answers for the backends that have a server. Make one with New,
// then Run it.
type Responder struct {
	cfg       Config
	questions *prometheus.CounterVec

	lock sync.Mutex
	conn net.PacketConn  // nil while the port is not open
	open map[string]bool // by backend, in lower case; nil before the first Set
	kept []question
}

// question is one that waits for its answer.
type question struct {
	msg  *dns.Msg
	name string
	from net.Addr
	at   time.Time
}

// New returns a Responder. Nothing runs before Run.
func New(cfg Config) (*Responder, error) {
	r := &Responder{cfg: cfg, questions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_hold_questions_total", Help: "DNS questions of HAProxy about backends without a server, by what became of them.",
	}, []string{"outcome"})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(r.questions); err != nil {
			return nil, fmt.Errorf("register metrics of held requests: %w", err)
		}
	}
	return r, nil
}

// Set says which backends exist (the keys) and have a server ready (true).
// Questions that waited for one that has are answered now. It never blocks.
func (r *Responder) Set(open map[string]bool) {
	r.lock.Lock()
	defer r.lock.Unlock()
	before := r.open
	r.open = make(map[string]bool, len(open)+1)
	for name, ready := range open {
		r.open[strings.ToLower(name)] = ready
		r.open[anyOf] = r.open[anyOf] || ready
	}
	r.release(func(q question) bool { return r.open[q.name] && !before[q.name] })
}

// release answers the questions that may be answered now, drops those that are
// too old and keeps the rest.
func (r *Responder) release(now func(question) bool) {
	still := r.kept[:0]
	for _, q := range r.kept {
		_, known := r.open[q.name]
		switch {
		case time.Since(q.at) > keepFor:
		case r.open == nil:
			still = append(still, q)
		case !known, now(q):
			r.questions.WithLabelValues(outcomeReleased).Inc()
			r.answer(q, known)
		default:
			still = append(still, q)
		}
	}
	clear(r.kept[len(still):])
	r.kept = still
}

// confirmed answers the questions about backends that have had a server since
// they were asked, and says when to look again; zero: when something comes.
func (r *Responder) confirmed() (again time.Time) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.release(func(q question) bool { return r.open[q.name] && time.Since(q.at) >= confirm })
	for _, q := range r.kept {
		if at := q.at.Add(confirm); r.open[q.name] && (again.IsZero() || at.Before(again)) {
			again = at
		}
	}
	return again
}

// Run answers until ctx ends. A port that cannot be opened is tried again: a
// sidecar does not end because requests cannot be held.
func (r *Responder) Run(ctx context.Context) error {
	for said := ""; ctx.Err() == nil; {
		err := r.serve(ctx)
		if err == nil {
			return nil
		}
		if err.Error() != said {
			said = err.Error()
			r.cfg.Log.Error("requests are not held", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
	return nil
}

// serve returns nil only when ctx has ended.
func (r *Responder) serve(ctx context.Context) error {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", r.cfg.Addr.String())
	if err != nil {
		return fmt.Errorf("listen for questions of HAProxy (TANDEM_HOLD): %w", err)
	}
	r.use(conn)
	defer r.use(nil)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = conn.Close()
	}()
	r.cfg.Log.Info("requests are held while a backend has no server", zap.Stringer("addr", conn.LocalAddr()))
	b := make([]byte, maxQuestion)
	for {
		_ = conn.SetReadDeadline(r.confirmed())
		n, from, err := conn.ReadFrom(b)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			continue // time to look again, or an answer that nobody wanted (ICMP)
		}
		r.receive(b[:n], from)
	}
}

// use sets the connection in force. Questions of an earlier one are forgotten.
func (r *Responder) use(conn net.PacketConn) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.conn, r.kept = conn, nil
}

func (r *Responder) receive(b []byte, from net.Addr) {
	msg := new(dns.Msg)
	if err := msg.Unpack(b); err != nil || msg.Response || len(msg.Question) != 1 {
		r.questions.WithLabelValues(outcomeMalformed).Inc()
		return
	}
	name, ok := strings.CutSuffix(strings.ToLower(msg.Question[0].Name), suffix)
	q := question{msg: msg, name: name, from: from, at: time.Now()}
	r.lock.Lock()
	defer r.lock.Unlock()
	if _, known := r.open[name]; !ok || !known && r.open != nil {
		r.questions.WithLabelValues(outcomeUnknown).Inc()
		r.answer(q, false)
		return
	}
	r.questions.WithLabelValues(outcomeHeld).Inc()
	r.keep(q)
}

// keep remembers a question; the oldest makes room.
func (r *Responder) keep(q question) {
	if len(r.kept) >= keepAtMost {
		r.kept = append(r.kept[:0], r.kept[1:]...)
	}
	r.kept = append(r.kept, q)
}

// answer sends what releases a request: an address that nobody connects to, or
// that there is no such name.
func (r *Responder) answer(q question, known bool) {
	reply := new(dns.Msg)
	if !known {
		reply.SetRcode(q.msg, dns.RcodeNameError)
	} else if reply.SetReply(q.msg); q.msg.Question[0].Qtype == dns.TypeA {
		reply.Answer = append(reply.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: q.msg.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET},
			A:   net.IPv4(127, 0, 0, 1),
		})
	}
	reply.Authoritative = true
	b, err := reply.Pack()
	if err != nil || r.conn == nil {
		return
	}
	_, _ = r.conn.WriteTo(b, q.from) // a lost answer is asked for again
}
