package haproxytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a real HAProxy, started by a test in a directory of its own and
// ended with it.
type Process struct {
	Dir    string // of this process alone
	Socket string // stats socket of level admin, named in the configuration as {socket}
	Config string // path of the configuration file

	t    testing.TB
	mu   sync.Mutex
	cmds []*command
	log  lockedBuffer
}

type command struct {
	*exec.Cmd
	done chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Variable names the environment variable with the path of another haproxy
// program than the one installed: to run the same tests against other versions.
const Variable = "TANDEM_TEST_HAPROXY"

// Binary returns the path of the haproxy program, or skips the test loudly.
func Binary(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv(Variable); path != "" {
		return path
	}
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy", "/usr/local/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	tb.Skip("SKIPPED, NOT TESTED: there is no haproxy program on this machine; `make test` installs it (Debian: apt-get install haproxy)")
	return ""
}

// New prepares a HAProxy with the configuration, in which {socket} and {dir}
// stand for the paths of the process. It is not started.
func New(tb testing.TB, config string) *Process {
	tb.Helper()
	Binary(tb)
	dir, err := os.MkdirTemp("", "hap") //nolint:usetesting // short: the path of a socket has 107 bytes
	if err != nil {
		tb.Fatal(err)
	}
	p := &Process{Dir: dir, Socket: filepath.Join(dir, "s"), Config: filepath.Join(dir, "haproxy.cfg"), t: tb}
	p.Configure(config)
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("haproxy said:\n%s", p.Log())
		}
		_ = os.RemoveAll(dir)
	})
	return p
}

// Start prepares and starts a HAProxy and waits for its socket.
func Start(tb testing.TB, config string) *Process {
	tb.Helper()
	p := New(tb, config)
	p.Start()
	return p
}

// Configure replaces the configuration file.
func (p *Process) Configure(config string) {
	p.t.Helper()
	config = strings.NewReplacer("{socket}", p.Socket, "{dir}", p.Dir).Replace(config)
	if err := os.WriteFile(p.Config, []byte(config), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// Start runs HAProxy in the foreground and waits until it answers. Further
// arguments are passed on, for example "-sf" and a pid for a reload.
func (p *Process) Start(args ...string) int {
	p.t.Helper()
	return p.run(append([]string{"-db"}, args...)...)
}

// StartMaster runs HAProxy in master-worker mode and waits until the master
// answers too: before that it may miss a signal.
func (p *Process) StartMaster() int {
	p.t.Helper()
	pid := p.run("-W", "-S", p.Master())
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		// The master does not end the connection; what it said counts.
		if answer, _ := AskWithin(p.Master(), "show proc", 100*time.Millisecond); strings.Contains(answer, "# workers") {
			return pid
		}
	}
	p.t.Fatal("the master does not answer")
	return 0
}

// Master is the path of the master's socket, after StartMaster.
func (p *Process) Master() string { return filepath.Join(p.Dir, "m") }

func (p *Process) run(args ...string) int {
	p.t.Helper()
	cmd := exec.CommandContext(context.Background(), Binary(p.t), append([]string{"-f", p.Config}, args...)...)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	c := &command{cmd, make(chan struct{})}
	go func() { _ = cmd.Wait(); close(c.done) }()
	p.mu.Lock()
	p.cmds = append(p.cmds, c)
	p.mu.Unlock()
	p.wait(c)
	return cmd.Process.Pid
}

// wait returns when a new process answers at the socket.
func (p *Process) wait(c *command) {
	p.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		select {
		case <-c.done:
			p.t.Fatalf("haproxy ended at its start:\n%s", p.Log())
		default:
		}
		answer, err := p.Ask("show info")
		if err != nil {
			continue
		}
		pid := 0
		for line := range strings.Lines(answer) {
			if v, ok := strings.CutPrefix(line, "Pid: "); ok {
				pid, _ = strconv.Atoi(strings.TrimSpace(v))
			}
		}
		group, err := syscall.Getpgid(pid)
		if pid == c.Process.Pid || err == nil && group == c.Process.Pid {
			return
		}
	}
	p.t.Fatalf("haproxy does not answer at %s:\n%s", p.Socket, p.Log())
}

// Ask sends one line over a connection of its own, as `socat` would, and
// returns the answer.
func (p *Process) Ask(line string) (string, error) { return Ask(p.Socket, line) }

// Ask sends one line to a socket of the Runtime API and returns the answer.
func Ask(socket, line string) (string, error) { return AskWithin(socket, line, 5*time.Second) }

// AskWithin is Ask with another limit than five seconds.
func AskWithin(socket, line string, limit time.Duration) (string, error) {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(conn)
	return string(b), err
}

// Do asks and fails the test if that does not succeed.
func (p *Process) Do(line string) string {
	p.t.Helper()
	answer, err := p.Ask(line)
	if err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
	return answer
}

// AtLeast says whether this HAProxy is of that version or a later one.
func (p *Process) AtLeast(major, minor int) bool {
	p.t.Helper()
	for line := range strings.Lines(p.Do("show info")) {
		version, ok := strings.CutPrefix(line, "Version: ")
		if !ok {
			continue
		}
		var a, b int
		if _, err := fmt.Sscanf(version, "%d.%d", &a, &b); err != nil {
			p.t.Fatalf("version %q: %v", version, err)
		}
		return a > major || a == major && b >= minor
	}
	p.t.Fatal("no version")
	return false
}

// PID is that of the process started last.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cmds) == 0 {
		return 0
	}
	return p.cmds[len(p.cmds)-1].Process.Pid
}

// Signal sends a signal to the process started last.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(p.PID(), s); err != nil {
		p.t.Fatal(err)
	}
}

// Exited is closed when the process started last has ended.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmds[len(p.cmds)-1].done
}

// Reload starts another process that takes over from the one before (-sf).
func (p *Process) Reload() int {
	p.t.Helper()
	return p.Start("-sf", strconv.Itoa(p.PID()))
}

// Kill ends every process that was started, by its id.
func (p *Process) Kill() {
	p.mu.Lock()
	cmds := p.cmds
	p.mu.Unlock()
	for _, c := range cmds {
		if err := syscall.Kill(-c.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			p.t.Logf("kill %d: %v", c.Process.Pid, err)
		}
		<-c.done
	}
}

// Log is all that HAProxy printed.
func (p *Process) Log() string { return p.log.String() }

// Ports returns ports of 127.0.0.1, as text, that nobody listened at a moment
// ago. They are below those that the kernel gives to connections, so that nobody
// has one of them when HAProxy comes to bind it.
func Ports(tb testing.TB, n int) []string {
	tb.Helper()
	const low, high = 20000, 32000
	var ports []string
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		address := "127.0.0.1:" + strconv.Itoa(low+rand.IntN(high-low))
		l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", address)
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }() // at the end, so that they differ
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	tb.Fatal("no free port")
	return nil
}

// Global is the beginning of a configuration: the socket, short timeouts, and
// the server-state file {dir}/state.
const Global = `
global
  stats socket {socket} mode 600 level admin
  server-state-file {dir}/state
  nbthread 2
defaults
  mode http
  timeout connect 1s
  timeout client 10s
  timeout server 10s
  load-server-state-from-file global
`

// Backend is a backend with n servers of site a and n of site b, named a-1 and
// so on, without checks, at addresses where nobody listens.
func Backend(name string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "backend %s\n", name)
	for _, site := range []string{"a", "b"} {
		for i := range n {
			fmt.Fprintf(&b, "  server %s-%d 127.0.0.1:9\n", site, i+1)
		}
	}
	return b.String()
}
