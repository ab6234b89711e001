package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
)

// haproxyConfig has what is recommended to run beside tandem, and says why.
const haproxyConfig = `# HAProxy of {{.Node.Name}}
global
	maxconn 4000
	nbthread 1
	# A socket of the sidecar's own, at level admin; maxconn because the default
	# of 10 is shared by all sockets.
	stats socket {{.Socket}} mode 600 level admin
	stats maxconn 64
	stats timeout 1h
	# What was drained stays drained over a reload or a restart: the sidecar
	# keeps this file current.
	server-state-file {{.State}}

defaults
	mode http
	load-server-state-from-file global
	# A request whose server has died goes to another one at once.
	option redispatch 1
	retries 3
	timeout connect 500ms
	timeout client 30s
	timeout server 30s
	timeout http-keep-alive 30s
	timeout check 300ms
	option httpchk GET /health
	default-server inter 200ms fall 2 rise 2

frontend in
	bind :::80 v4v6
	monitor-uri /alive
	http-after-response set-header X-Lb {{.Node.Name}}
{{- range .Others}}
	use_backend {{.}} if { path_beg /{{.}}/ }
{{- end}}
	default_backend {{.Default}}
{{range .Backends}}
backend {{.Name}}
	http-response set-header X-Server %s
{{- range .Servers}}
	server {{.Name}} {{.Address}} check{{.Options}}
{{- end}}
{{end}}`

type haproxyBackend struct {
	Name    string
	Servers []haproxyServer
}

type haproxyServer struct{ Name, Address, Options string }

// Socket is the path of the Runtime API of a load balancer's HAProxy.
func (l *Lab) Socket(lb string) string { return filepath.Join(l.nodes[lb].Dir, "haproxy.sock") }

// StateFile is HAProxy's server-state file on a load balancer.
func (l *Lab) StateFile(lb string) string { return filepath.Join(l.nodes[lb].Dir, "haproxy.state") }

// PIDFile has the process number of a load balancer's HAProxy.
func (l *Lab) PIDFile(lb string) string { return filepath.Join(l.nodes[lb].Dir, "haproxy.pid") }

func (l *Lab) writeHAProxyConfig(lb string) (path string, err error) {
	n := l.nodes[lb]
	path = filepath.Join(n.Dir, "haproxy.cfg")
	if l.HAProxy != nil {
		own, err := l.HAProxy(l, lb)
		if err == nil {
			err = os.WriteFile(path, []byte(own), 0o644)
		}
		if err != nil {
			return "", fmt.Errorf("write haproxy.cfg: %w", err)
		}
		return path, nil
	}
	var text bytes.Buffer
	err = template.Must(template.New("haproxy").Parse(haproxyConfig)).Execute(&text, map[string]any{
		"Node": n, "Socket": l.Socket(lb), "State": l.StateFile(lb),
		"Default": l.Backends[0], "Others": l.Backends[1:], "Backends": l.backends(),
	})
	if err != nil {
		return "", fmt.Errorf("write haproxy.cfg: %w", err)
	}
	if err = os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write haproxy.cfg: %w", err)
	}
	return path, nil
}

func (l *Lab) backends() []haproxyBackend {
	var all []haproxyBackend
	for _, name := range l.Backends {
		be := haproxyBackend{Name: name}
		for _, s := range l.servers() {
			if s.backend != name {
				continue
			}
			options := ""
			if s.site != Sites()[0] && l.System.Standby() {
				options = " backup"
			}
			be.Servers = append(be.Servers, haproxyServer{s.name, l.nodes[s.site].IP.String() + ":" + s.port, options})
		}
		all = append(all, be)
	}
	return all
}

// startHAProxy starts a load balancer's HAProxy for the first time. It runs
// under a name of its own (haproxy-lb1), because the machines of the lab share
// one list of processes and keepalived goes by names.
func (l *Lab) startHAProxy(ctx context.Context, lb string) error {
	cfg, err := l.writeHAProxyConfig(lb)
	if err != nil {
		return err
	}
	program, err := lookPath("haproxy")
	if err != nil {
		return err
	}
	link := filepath.Join(l.nodes[lb].Dir, "haproxy-"+lb)
	if err = os.Symlink(program, link); err != nil {
		return fmt.Errorf("link HAProxy: %w", err)
	}
	err = l.runHAProxy(lb, Spec{
		Name: "haproxy", Args: []string{link, "-db", "-f", cfg},
		Line: func(at time.Duration, line string) { l.health.line(at, lb, line) },
	})
	if err != nil {
		return err
	}
	err = waitFor(ctx, 5*time.Second, "HAProxy on "+lb, func() bool {
		_, err := l.HAProxyCommand(ctx, lb, "show version")
		return err == nil || !l.Proc(lb, "haproxy").Alive()
	})
	if err == nil && !l.Proc(lb, "haproxy").Alive() {
		err = errors.New("it has ended")
	}
	if err != nil {
		return fmt.Errorf("start HAProxy on %s: %w; it said: %s", lb, err, l.Log(lb, "haproxy"))
	}
	return nil
}

func (l *Lab) runHAProxy(lb string, spec Spec) error {
	if err := l.Start(lb, spec); err != nil {
		return err
	}
	pid := strconv.Itoa(l.Proc(lb, "haproxy").PID)
	if err := os.WriteFile(l.PIDFile(lb), []byte(pid+"\n"), 0o644); err != nil {
		return fmt.Errorf("write HAProxy's process number: %w", err)
	}
	return nil
}

// RestartHAProxy starts a load balancer's HAProxy again after it has died.
func (l *Lab) RestartHAProxy(lb string) error {
	return l.runHAProxy(lb, l.Proc(lb, "haproxy").Spec)
}

// ReloadHAProxy starts a new HAProxy that takes over from the running one, as
// a reload does, and waits until the old one has ended.
func (l *Lab) ReloadHAProxy(ctx context.Context, lb string) error {
	old := l.Proc(lb, "haproxy")
	spec := old.Spec
	l.mu.Lock()
	l.nodes[lb].procs["haproxy-old"] = old
	delete(l.nodes[lb].procs, "haproxy")
	l.mu.Unlock()
	with := spec
	with.Args = append(slices.Clone(spec.Args), "-sf", strconv.Itoa(old.PID))
	if err := l.runHAProxy(lb, with); err != nil {
		return err
	}
	l.Proc(lb, "haproxy").Spec = spec
	err := waitFor(ctx, 5*time.Second, "end of the old HAProxy on "+lb, func() bool { return !old.Alive() })
	if err != nil {
		_ = old.Signal(syscall.SIGTERM)
	}
	return err
}

// HAProxyCommand sends one command to a load balancer's Runtime API and
// returns the answer.
func (l *Lab) HAProxyCommand(ctx context.Context, lb, command string) (string, error) {
	return askSocket(ctx, l.Socket(lb), command)
}

// ServerStates reads a load balancer's server states: "web/a-1" → ready, drain,
// maint or down.
func (l *Lab) ServerStates(ctx context.Context, lb string) (map[string]string, error) {
	text, err := l.HAProxyCommand(ctx, lb, "show servers state")
	if err != nil {
		return nil, err
	}
	states := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 7 || f[0] == "#" || f[0] == "1" && len(f) == 1 {
			continue
		}
		admin, ok := atoi(f[6])
		if !ok {
			continue
		}
		states[f[1]+"/"+f[3]] = serverState(admin, f[5])
	}
	return states, nil
}

func serverState(admin int, operational string) string {
	switch {
	case admin&(1|2|32) != 0:
		return "maint"
	case operational == "0":
		return "down"
	case admin&(8|16) != 0:
		return "drain"
	default:
		return "ready"
	}
}

// Verdict is a load balancer's own finding about a server.
type Verdict struct {
	At     time.Duration
	LB     string
	Server string // backend/server
	Up     bool
}

// healthLog keeps what the HAProxys say of their servers, with the time at
// which they said it: HAProxy's own detection is what tandem is compared with.
type healthLog struct {
	mu  sync.Mutex
	all []Verdict
	re  *regexp.Regexp
}

func newHealthLog() *healthLog {
	return &healthLog{re: regexp.MustCompile(`Server (\S+) is (UP|DOWN)`)}
}

func (h *healthLog) line(at time.Duration, lb, line string) {
	m := h.re.FindStringSubmatch(line)
	if m == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, Verdict{at, lb, m[1], m[2] == "UP"})
}

// Verdicts is what the load balancers found since the given time, oldest first.
// Each is dated when it was read, which is a little after it was found.
func (l *Lab) Verdicts(after time.Duration) []Verdict {
	l.health.mu.Lock()
	defer l.health.mu.Unlock()
	i := slices.IndexFunc(l.health.all, func(v Verdict) bool { return v.At >= after })
	if i < 0 {
		return nil
	}
	return slices.Clone(l.health.all[i:])
}

// Detected is when the last of the site's servers was found dead by the last
// of the load balancers, after the given time; zero when not all were.
func (l *Lab) Detected(site string, after time.Duration) time.Duration {
	l.health.mu.Lock()
	defer l.health.mu.Unlock()
	var last time.Duration
	found := map[string]bool{}
	for _, v := range l.health.all {
		_, server, _ := strings.Cut(v.Server, "/")
		if v.At < after || v.Up || !strings.HasPrefix(server, site+"-") {
			continue
		}
		found[v.LB+v.Server] = true
		last = max(last, v.At)
	}
	if len(found) < len(l.Balancers())*2*len(l.Backends) {
		return 0
	}
	return last
}
