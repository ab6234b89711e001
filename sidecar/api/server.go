// Package api is what people and machines outside the cluster talk to: the
// HTTP API with its status page and metrics, and the control socket of the
// command line. Both serve the same routes; whoever can open the socket may do
// everything, over TCP tokens decide.
//
// The package knows no cluster: it asks an [Agent] and passes on what it says.
package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"tandem/sidecar/status"
)

// Agent is what the API serves.
type Agent interface {
	// Status is a snapshot and never blocks.
	Status() status.Status
	// Outlook is Status with what the next failure would do, which takes some
	// milliseconds to find out when the picture has changed.
	Outlook(ctx context.Context) status.Status
	// Plan says what would happen if all of these faults befell the cluster. An
	// error for which IsQuestion is true is the asker's.
	Plan(ctx context.Context, faults []string) (status.Plan, error)
	// Do carries a command out, or hands it to the node that can. An error
	// means that the outcome is not known; a refusal is a [status.Result].
	Do(ctx context.Context, c status.Command) (status.Result, error)
	// Watch gives the transitions from now on until ctx ends. After the ID of an
	// event, those that came behind it are given first; of an ID that is not
	// known, because the sidecar was restarted meanwhile, all that are kept. A
	// slow reader loses events rather than delay the agent.
	Watch(ctx context.Context, after string) <-chan status.Event
}

// Config is what a server is told.
type Config struct {
	// Addr is ip:port for TCP; empty: only the control socket.
	Addr string
	// Socket is the path of the control socket; empty: only TCP.
	Socket string
	// Token operates and reads over TCP, ReadToken reads. Without Token nobody
	// operates over TCP. Without ReadToken reading needs no token on loopback,
	// and Token beyond it.
	Token, ReadToken string
	// CertFile and KeyFile are PEM files; empty: no TLS.
	CertFile, KeyFile string
	// Gatherer is served at /metrics; nil: 404.
	Gatherer prometheus.Gatherer
	// Registerer takes the API's own metrics; nil: none.
	Registerer prometheus.Registerer
	// History gives all transitions known, oldest first; nil: those of the
	// status.
	History func() []status.Transition
	// IsQuestion tells a plan that was asked wrongly from one that failed; nil:
	// none is.
	IsQuestion func(error) bool
	// Live says why the process should be restarted; nil: never.
	Live func() error
	Log  *zap.Logger
}

// Limits. A request of ours is small; what is larger or slower is a fault or
// an attack.
const (
	maxBody        = 64 << 10
	maxHeader      = 16 << 10
	maxConns       = 512
	maxStreams     = 64
	commandTimeout = 30 * time.Second
	writeTimeout   = 10 * time.Second
	stopTimeout    = time.Second
)

// Server serves one agent. Make it with [New].
type Server struct {
	cfg     Config
	agent   Agent
	log     *zap.Logger
	open    bool // reading over TCP needs no token
	mux     http.Handler
	metrics *metrics
	denied  *rate.Limiter // of log lines
	streams chan struct{}
	plans   chan struct{} // one at a time: a rehearsal keeps a processor busy

	tcp    net.Listener
	socket *controlSocket
}

// New makes a server. It opens nothing.
func New(cfg Config, agent Agent) *Server {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s := &Server{
		cfg:     cfg,
		agent:   agent,
		log:     cfg.Log,
		open:    cfg.ReadToken == "" && loopback(cfg.Addr),
		metrics: newMetrics(cfg.Registerer),
		denied:  rate.NewLimiter(1, 10),
		streams: make(chan struct{}, maxStreams),
		plans:   make(chan struct{}, 1),
	}
	s.mux = s.routes()
	return s
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// Listen opens what the configuration names. Call it before anything else is
// started, so that a port in use is found before an address is taken up; Run
// calls it when nobody did.
func (s *Server) Listen(ctx context.Context) error {
	if s.cfg.Addr != "" && s.tcp == nil {
		if err := s.listenTCP(ctx); err != nil {
			return err
		}
	}
	if s.cfg.Socket != "" && s.socket == nil {
		socket, err := listenSocket(ctx, s.cfg.Socket)
		if err != nil {
			return errors.Join(err, s.closeTCP())
		}
		s.socket = socket
	}
	return nil
}

func (s *Server) listenTCP(ctx context.Context) error {
	if !loopback(s.cfg.Addr) && s.cfg.Token == "" && s.cfg.ReadToken == "" {
		return fmt.Errorf("listen on %s: beyond loopback a token is required (TANDEM_API_TOKEN)", s.cfg.Addr)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.cfg.Addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: another process has this port; choose another (TANDEM_API) or stop it", s.cfg.Addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this machine has no such address (TANDEM_API)", s.cfg.Addr)
	case err != nil:
		return fmt.Errorf("listen on %s (TANDEM_API): %w", s.cfg.Addr, err)
	}
	if s.cfg.CertFile != "" {
		if listener, err = tlsListener(listener, s.cfg.CertFile, s.cfg.KeyFile, s.log); err != nil {
			return err
		}
	}
	s.tcp = listener
	return nil
}

func (s *Server) closeTCP() error {
	if s.tcp == nil {
		return nil
	}
	err := s.tcp.Close()
	s.tcp = nil
	return err
}

// Addr is where TCP listens, after Listen; nil without.
func (s *Server) Addr() net.Addr {
	if s.tcp == nil {
		return nil
	}
	return s.tcp.Addr()
}

// Run serves until ctx ends. Requests under way get a second to finish.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	if s.tcp != nil {
		listener := &limitListener{Listener: s.tcp, slots: make(chan struct{}, maxConns)}
		s.serve(ctx, group, listener)
		s.log.Info("api listens", zap.Stringer("address", s.tcp.Addr()), zap.Bool("tls", s.cfg.CertFile != ""))
	}
	if s.socket != nil {
		s.serve(ctx, group, s.socket)
		s.log.Info("control socket listens", zap.String("path", s.cfg.Socket))
	}
	return group.Wait()
}

// serve runs one HTTP server on one listener within the group.
func (s *Server) serve(ctx context.Context, group *errgroup.Group, listener net.Listener) {
	server := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       connContext,
		ErrorLog:          zap.NewStdLog(zap.NewNop()), // handshakes of scanners are not worth a line
	}
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", listener.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(stop) != nil {
			_ = server.Close() // whoever has not finished within the second is cut off
		}
		return nil
	})
}

// routes is the whole API. Each route states the level that it needs.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.table() {
		mux.Handle(r.pattern, s.guard(r.pattern, r.need, r.handler))
	}
	return s.harden(refused(mux))
}

// refused has what no route takes refused in the form of every other refusal.
func refused(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		plain := &codeOnly{header: http.Header{}, code: http.StatusOK}
		handler.ServeHTTP(plain, r)
		if allow := plain.header.Get("Allow"); plain.code == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", allow)
			fail(w, plain.code, "method-not-allowed", fmt.Sprintf("%s takes %s, not %s", r.URL.Path, allow, r.Method))
			return
		}
		fail(w, http.StatusNotFound, "no-such-path", "nothing is served at this path; /v1/openapi.json lists what is")
	})
}

// codeOnly takes an answer and keeps its code and header.
type codeOnly struct {
	header http.Header
	code   int
}

func (c *codeOnly) Header() http.Header         { return c.header }
func (c *codeOnly) WriteHeader(code int)        { c.code = code }
func (c *codeOnly) Write(b []byte) (int, error) { return len(b), nil }

type route struct {
	pattern string
	need    level
	handler http.HandlerFunc
}

func (s *Server) table() []route {
	table := []route{
		{"GET /{$}", levelOpen, s.page},
		{"GET /page/{file}", levelOpen, s.page},
		{"GET /livez", levelOpen, s.livez},
		{"GET /readyz", levelOpen, s.readyz},
		{"GET /holder", levelOpen, s.holder},
		{"GET /metrics", levelRead, s.serveMetrics},
		{"GET /v1/openapi.json", levelOpen, s.openapi},
		{"GET /v1/access", levelOpen, s.access},
		{"GET /v1/status", levelRead, s.status},
		{"GET /v1/history", levelRead, s.history},
		{"GET /v1/plan", levelRead, s.plan},
		{"GET /v1/events", levelRead, s.events},
	}
	for kind := range commands {
		table = append(table, route{"POST /v1/" + kind, levelOperate, s.command(kind)})
	}
	return table
}

// harden adds what every answer needs.
func (s *Server) harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		defer s.fault(r)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(commandTimeout + writeTimeout))
		next.ServeHTTP(w, r)
	})
}

// fault logs a panic of a handler, which is a bug of ours, and ends the request
// without an answer.
func (s *Server) fault(r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause != http.ErrAbortHandler { //nolint:errorlint // a panic's value, not an error chain
		s.log.Error("api fault", zap.Any("panic", cause), zap.String("path", r.URL.Path), zap.Stack("stack"))
	}
	panic(http.ErrAbortHandler)
}

// limitListener bounds the number of connections at a time.
type limitListener struct {
	net.Listener
	slots chan struct{}
}

// Accept waits for a slot before it waits for a connection. When the listener
// is closed meanwhile, a slot comes free as connections are closed too.
func (l *limitListener) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: conn, slots: l.slots, once: make(chan struct{}, 1)}, nil
}

type limitConn struct {
	net.Conn
	slots chan struct{}
	once  chan struct{}
}

func (c *limitConn) Close() error {
	select {
	case c.once <- struct{}{}:
		<-c.slots
	default: // closed before
	}
	return c.Conn.Close()
}
