package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is how a process of the lab is started.
type Spec struct {
	Name string   // unique on its node
	Args []string // argv
	Env  []string // in addition to the caller's
	// Line is called for each line that the process writes, with the time at
	// which it was read. Nil: the lines go to the log file only.
	Line func(at time.Duration, line string)
	// Raw: standard output is a stream of data and not logged.
	Raw bool
}

// Proc is a running process.
type Proc struct {
	Spec Spec
	PID  int
	done chan struct{}
	mu   sync.Mutex
	how  string // it ended
}

// Done is closed when the process has ended and its output is read.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Alive tells whether the process has not ended.
func (p *Proc) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// How says how the process ended; empty while it runs.
func (p *Proc) How() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.how
}

// Signal sends a signal, by pid and only while the process runs.
func (p *Proc) Signal(sig syscall.Signal) error {
	if !p.Alive() {
		return nil
	}
	if err := unix.Kill(p.PID, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s (%d): %w", p.Spec.Name, p.PID, err)
	}
	return nil
}

// kill ends the process and waits for its end.
func (p *Proc) kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
}

// spawner starts processes on one thread that lives as long as the lab, so
// that they die with it however it dies: the kernel's parent-death signal is
// bound to the thread that forked.
type spawner struct {
	jobs chan func()
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the spawner
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	result := make(chan error)
	s.jobs <- func() { result <- cmd.Start() }
	return <-result
}

func (s *spawner) close() {
	close(s.jobs)
	<-s.done
}

// start runs a process in a node's namespace. Its lines go to <name>.log in
// the node's directory.
func (l *Lab) start(n *Node, spec Spec) (*Proc, error) {
	args := append([]string{"ip", "netns", "exec", n.NS}, spec.Args...)
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it outlives any context; Close ends it
	cmd.Env = append(environ(), spec.Env...)
	cmd.Dir = n.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	logFile, err := os.OpenFile(filepath.Join(n.Dir, spec.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), r.Close(), w.Close())
	}
	if spec.Raw {
		cmd.Stderr = logFile
	}
	err = l.spawner.start(cmd)
	_ = w.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s on %s: %w", spec.Name, n.Name, err), r.Close(), logFile.Close())
	}
	p := &Proc{Spec: spec, PID: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		read(r, logFile, spec)
		_, _ = r.Close(), logFile.Close()
		p.ended(cmd.Wait())
	}()
	return p, nil
}

func (p *Proc) ended(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.how = "exit 0"
	if err != nil {
		p.how = err.Error()
	}
}

func read(r io.Reader, logFile io.Writer, spec Spec) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 1<<16), 1<<22)
	for lines.Scan() {
		if spec.Line != nil {
			spec.Line(Now(), lines.Text())
		}
		if !spec.Raw {
			_, _ = fmt.Fprintln(logFile, lines.Text())
		}
	}
}

// Start runs a process on a node under a name, and keeps how to do it again
// after the node was powered off. A process of that name that still runs is an
// error.
func (l *Lab) Start(node string, spec Spec) error {
	n := l.nodes[node]
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := n.procs[spec.Name]; old != nil && old.Alive() {
		return fmt.Errorf("start %s on %s: it runs already", spec.Name, node)
	}
	p, err := l.start(n, spec)
	if err != nil {
		return err
	}
	if n.procs[spec.Name] == nil {
		n.order = append(n.order, spec.Name)
	}
	n.procs[spec.Name] = p
	return nil
}

// Restart starts a process of a node again as it was started before.
func (l *Lab) Restart(node, name string) error {
	p := l.Proc(node, name)
	if p == nil {
		return fmt.Errorf("restart %s on %s: there was none", name, node)
	}
	return l.Start(node, p.Spec)
}

// Proc is a process of a node; nil when there was none of that name.
func (l *Lab) Proc(node, name string) *Proc {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[node].procs[name]
}

// Procs lists the names of a node's processes, in the order of their start.
func (l *Lab) Procs(node string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.nodes[node].order)
}

// Stop ends a process with the signal and waits at most limit for its end;
// then it is killed, and that is an error.
func (l *Lab) Stop(ctx context.Context, node, name string, sig syscall.Signal, limit time.Duration) error {
	p := l.Proc(node, name)
	if p == nil || !p.Alive() {
		return nil
	}
	if err := p.Signal(sig); err != nil {
		return err
	}
	err := waitFor(ctx, limit, "end of "+name+" on "+node, func() bool { return !p.Alive() })
	if err != nil {
		p.kill()
	}
	return err
}

// killAll ends everything on a node at once and waits for the end of what the
// lab itself started there.
func (l *Lab) killAll(n *Node) {
	l.mu.Lock()
	procs := slices.Collect(maps.Values(n.procs))
	l.mu.Unlock()
	for _, p := range procs {
		_ = p.Signal(syscall.SIGKILL)
	}
	for _, pid := range pidsIn(n.NS) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for _, p := range procs {
		<-p.done
	}
}

// Log returns what a process has written so far.
func (l *Lab) Log(node, name string) string {
	b, err := os.ReadFile(filepath.Join(l.nodes[node].Dir, name+".log"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// environ is this process's environment without what tandem would read: a node
// of the lab is configured by the lab alone.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TANDEM_") })
}
