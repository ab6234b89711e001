package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tandem/examples/lab"
	"tandem/sidecar/status"
)

//go:embed haproxy.cfg
var haproxyConfig string

//go:embed machine-a.env
var machineA string

//go:embed machine-b.env
var machineB string

//go:embed machine-arbiter.env
var machineArbiter string

// The machines: two of a site each, and the arbiter's.
var machines = map[string]string{"lb1": "a", "lb2": "b"}

// machineOf is the machine of a site.
func machineOf(site string) string { return map[string]string{"a": "lb1", "b": "lb2"}[site] }

func other(site string) string { return map[string]string{"a": "b", "b": "a"}[site] }

var (
	critical   = []string{"ccm", "comm", "mre", "chat"}
	components = append(slices.Clone(critical), "reporting")
)

// stage is the deployment, running in a lab.
type stage struct {
	*lab.Lab
	program  string                       // this program
	override map[string]map[string]string // environment of a node, from its next start on
	noHold   bool                         // requests are not held
	platform *platform
	outside  []net.Listener // bot and SQL
}

// options of a stage.
type options struct {
	tandem  string            // path of the binary
	program string            // path of this program
	env     map[string]string // on top of the environment files
	noHold  bool              // requests are not held
	every   time.Duration     // between two requests of the client
}

// newStage builds everything and waits until site a is active and lb1 holds.
func newStage(ctx context.Context, o options) (s *stage, err error) {
	s = &stage{program: o.program, override: map[string]map[string]string{}, noHold: o.noHold}
	if o.every == 0 {
		o.every = 10 * time.Millisecond
	}
	scripts, err := scripts()
	if err != nil {
		return nil, err
	}
	s.Lab, err = lab.New(ctx, lab.Config{
		System: lab.Tandem{Program: o.tandem, NodeEnv: func(_ *lab.Lab, n *lab.Node) map[string]string {
			env := environment(n, o, scripts)
			maps.Copy(env, s.override[n.Name])
			return env
		}},
		HAProxy:  func(l *lab.Lab, lb string) (string, error) { return configure(l, lb, o.noHold) },
		Interval: o.every, Timeout: 8 * time.Second,
		Paths: []string{"/ccm/", "/comm/", "/bot/", "/mre/", "/chat/"},
	})
	if err != nil {
		return nil, err
	}
	if err = s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// scripts is where HAScripts stands: beside this file, or below the directory
// that the program was started in.
func scripts() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	for _, dir := range []string{filepath.Dir(file), "examples/hybrid-chat", "."} {
		dir, err := filepath.Abs(filepath.Join(dir, "HAScripts"))
		if err != nil {
			return "", err
		}
		if _, err = os.Stat(filepath.Join(dir, "takeover.sh")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("find HAScripts: run this in the root of the repository")
}

// configure puts the lab's paths into haproxy.cfg.
func configure(l *lab.Lab, lb string, noHold bool) (string, error) {
	text := haproxyConfig
	for from, to := range map[string]string{
		"/run/haproxy/tandem.sock": l.Socket(lb), "/var/lib/haproxy/server-state": l.StateFile(lb), "%H": lb,
	} {
		if !strings.Contains(text, from) {
			return "", fmt.Errorf("haproxy.cfg does not mention %s", from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	if noHold {
		text = strings.ReplaceAll(text, "http-request do-resolve", "# http-request do-resolve")
	}
	return text, nil
}

// environment is a machine's file, with the lab's paths.
func environment(n *lab.Node, o options, scripts string) map[string]string {
	text := map[string]string{"lb1": machineA, "lb2": machineB, "witness": machineArbiter}[n.Name]
	env := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(line, "#") {
			env[name] = strings.ReplaceAll(value, "/opt/hybrid-chat/HAScripts", scripts)
		}
	}
	maps.Copy(env, o.env)
	if n.Name == "witness" {
		env["TANDEM_SITES"] = "" // the lab's default
	}
	for name, value := range map[string]string{
		"TANDEM_KEY_FILE": "", "TANDEM_STATE_DIR": filepath.Join(n.Dir, "state"), "TANDEM_HAPROXY_SOCKET": filepath.Join(n.Dir, "haproxy.sock"),
		"TANDEM_HAPROXY_CFG": filepath.Join(n.Dir, "haproxy.cfg"), "TANDEM_STATE_FILE": filepath.Join(n.Dir, "haproxy.state"),
		"HYBRIDCHAT_DIR": n.Dir,
	} {
		if _, ok := env[name]; ok {
			env[name] = value
		}
	}
	env["HYBRIDCHAT_SERVICE"], env["HYBRIDCHAT_REGISTER"] = o.program, o.program
	return env
}

func (s *stage) open(ctx context.Context) error {
	for i, node := range []string{"a", "b"} {
		for _, port := range []string{":8086", ":5433"} {
			l, err := s.Listen(ctx, node, port)
			if err != nil {
				return err
			}
			s.outside = append(s.outside, l)
			if port == ":8086" {
				go answer(l, "bot-"+strconv.Itoa(i+1))
			} else {
				go greet(l)
			}
		}
	}
	s.platform = &platform{stage: s}
	if err := s.platform.up(ctx); err != nil {
		return err
	}
	if err := errors.Join(s.boot(ctx, "lb1", "ccm", "comm", "mre", "chat", "reporting", "amq"), s.boot(ctx, "lb2", "ccm", "amq")); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "site a active", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	// An operator's work on the servers outside, which must outlive everything.
	for _, lb := range lab.LBs() {
		for _, c := range []string{"set server bot/bot-2 state drain", "set server sql/sql-2 state maint"} {
			if _, err := s.HAProxyCommand(ctx, lb, c); err != nil {
				return err
			}
		}
	}
	return s.Settled(ctx, 30*time.Second)
}

// Close ends everything.
func (s *stage) Close() error {
	for _, l := range s.outside {
		_ = l.Close()
	}
	if s.platform != nil {
		s.platform.down()
	}
	return s.Lab.Close()
}

func answer(l net.Listener, name string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name+"\n") })
	_ = (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
}

func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// boot starts services of a machine, as its init system would.
func (s *stage) boot(ctx context.Context, machine string, names ...string) error {
	var group sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		group.Go(func() {
			cmd := exec.CommandContext(ctx, "ip", "netns", "exec", s.Node(machine).NS, s.program, "start", name)
			cmd.Env = append(os.Environ(), "HYBRIDCHAT_DIR="+s.Node(machine).Dir, "HYBRIDCHAT_SITE="+machines[machine])
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("boot %s: %w: %s", name, err, out)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// kill ends services of a machine at once.
func (s *stage) kill(machine string, names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, service{s.Node(machine).Dir, machines[machine], name}.end(syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

// await repeats f until it returns nil.
func (s *stage) await(ctx context.Context, limit time.Duration, what string, f func() error) error {
	var last error
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if last = f(); last == nil {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: not within %v: %w (%s)", what, limit, last, s.Describe())
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// routes tells whether a load balancer sends every component to one site only.
func (s *stage) routes(ctx context.Context, lb, site string, backends ...string) error {
	states, err := s.ServerStates(ctx, lb)
	if err != nil {
		return err
	}
	for _, b := range backends {
		if at := states[b+"/"+b+"-"+site]; at != "ready" {
			return fmt.Errorf("%s: %s at %s is %s", lb, b, site, at)
		}
		if at := states[b+"/"+b+"-"+other(site)]; at == "ready" {
			return fmt.Errorf("%s: %s is ready at %s too", lb, b, other(site))
		}
	}
	return nil
}

// activeAt tells whether both load balancers that run route to the site, and
// no switch is under way.
func (s *stage) activeAt(ctx context.Context, site string) error {
	for _, lb := range lab.LBs() {
		if err := s.routes(ctx, lb, site, critical...); err != nil {
			return err
		}
	}
	return s.decidedFor(ctx, "default", site)
}

// decidedFor asks the sidecars which site is active for a group.
func (s *stage) decidedFor(ctx context.Context, group, site string) error {
	for _, lb := range lab.LBs() {
		st, err := s.status(ctx, lb)
		if err != nil {
			return err
		}
		for _, g := range st.Groups {
			if g.Group == group && (g.Active != site || g.Switching()) {
				return fmt.Errorf("%s: %s active %q phase %q reason %s", lb, group, g.Active, g.Phase, g.Reason)
			}
		}
		if len(st.Groups) == 0 {
			return fmt.Errorf("%s: nothing decided", lb)
		}
	}
	return nil
}

func (s *stage) status(ctx context.Context, node string) (status.Status, error) {
	out, err := s.Tandem(ctx, node, "status", "--json")
	var st status.Status
	if json.Unmarshal([]byte(out), &st) != nil {
		return st, fmt.Errorf("status of %s: %w", node, err) // an exit code other than 0 is no failure
	}
	return st, nil
}

// moment is a point in time, by both clocks in use.
type moment struct {
	lab  time.Duration // of the client and the referee
	wall int64         // of the journals, in nanoseconds
}

func now() moment { return moment{lab.Now(), time.Now().UnixNano()} }

// entry is a line of a journal.
type entry struct {
	at   int64
	site string
	text string
}

// journal reads a machine's journal after a moment: ha.log, or a service's.
func (s *stage) journal(machine, file string, from moment) []entry {
	f, err := os.Open(filepath.Join(s.Node(machine).Dir, file))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	var all []entry
	for lines := bufio.NewScanner(f); lines.Scan(); {
		at, text, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseInt(at, 10, 64); err == nil && n >= from.wall {
			all = append(all, entry{n, machines[machine], text})
		}
	}
	return all
}

// scriptsRun lists the scripts that ran to their end on a machine, in order.
func (s *stage) scriptsRun(machine string, from moment) []string {
	var names []string
	for _, e := range s.journal(machine, "ha.log", from) {
		f := strings.Fields(e.text)
		if len(f) > 1 && f[1] == "end" && f[0] != "register_webhooks.sh" {
			names = append(names, f[0])
		}
	}
	return names
}

// served lists every request that reached a component of a site, oldest first.
func (s *stage) served(from moment, names ...string) []entry {
	var all []entry
	for machine := range machines {
		for _, name := range names {
			all = append(all, s.journal(machine, name+".requests", from)...)
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return int(a.at - b.at) })
	return all
}

// platform is a messaging platform's API: it takes the address to call.
type platform struct {
	stage  *stage
	server *http.Server
	mu     sync.Mutex
	known  []registration
}

type registration struct {
	at   int64
	URL  string `json:"url"`
	Site string `json:"site"`
}

func (p *platform) up(ctx context.Context) error {
	l, err := p.stage.Listen(ctx, "client", ":9000")
	if err != nil {
		return err
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(l) }()
	return nil
}

func (p *platform) down() {
	if p.server != nil {
		_ = p.server.Close()
	}
}

// ServeHTTP takes a registration.
func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reg := registration{at: time.Now().UnixNano()}
	if err := json.NewDecoder(r.Body).Decode(&reg); err != nil || r.Method != http.MethodPut {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = append(p.known, reg)
}

func (p *platform) since(from moment) []registration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []registration
	for _, r := range p.known {
		if r.at >= from.wall {
			all = append(all, r)
		}
	}
	return all
}

// broker says which broker answers at an address, asked from the client.
func (s *stage) broker(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := s.Dial(ctx, "client", "tcp", address+":61613")
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err = io.WriteString(c, "CONNECT\naccept-version:1.2\nhost:hybrid-chat\n\n\x00"); err != nil {
		return "", err
	}
	frame, err := bufio.NewReader(c).ReadString(0)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(frame) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "server:"); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("no broker: %q", frame)
}

// brokerIs tells whether a broker is reached through both load balancers.
func (s *stage) brokerIs(ctx context.Context, name string) error {
	for _, lb := range lab.LBs() {
		got, err := s.broker(ctx, s.Node(lb).IP.String())
		if err != nil || got != name {
			return fmt.Errorf("through %s: broker %q %w", lb, got, err)
		}
	}
	return nil
}

// untouched tells whether the servers outside are as their operator left them.
func (s *stage) untouched(ctx context.Context) error {
	for _, lb := range lab.LBs() {
		states, err := s.ServerStates(ctx, lb)
		if err != nil {
			return err
		}
		for server, want := range map[string]string{"bot/bot-1": "ready", "bot/bot-2": "drain", "sql/sql-1": "ready", "sql/sql-2": "maint"} {
			if states[server] != want {
				return fmt.Errorf("%s: %s is %s, its operator left it %s", lb, server, states[server], want)
			}
		}
	}
	return nil
}
