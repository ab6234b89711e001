package vip

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lab is a network of namespaces on a bridge that has one of its own. Node i has
// 10.77.0.i and fd77::i on eth0.
type lab struct {
	t      testing.TB
	prefix string
	nodes  []string
	as     []string // a command that runs helpers as somebody else
}

// labs counts those made, so that tests in parallel have namespaces of their own.
var labs atomic.Int32

const (
	vip4 = "10.77.0.100"
	vip6 = "fd77::100"
)

// needRoot skips, and says why, where namespaces cannot be made.
func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("NOT TESTED: network namespaces need root; run the tests as root")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			tb.Skipf("NOT TESTED: %s is not installed", tool)
		}
	}
}

func newLab(tb testing.TB, nodes ...string) *lab {
	tb.Helper()
	needRoot(tb)
	if testing.Short() {
		tb.Skip("NOT TESTED: real kernel, skipped by -short")
	}
	l := &lab{t: tb, prefix: fmt.Sprintf("tdvip%d-%d", os.Getpid(), labs.Add(1)), nodes: nodes}
	tb.Cleanup(func() {
		for _, n := range append([]string{"br"}, nodes...) {
			_ = exec.Command("ip", "netns", "del", l.ns(n)).Run()
		}
	})
	l.must("ip", "netns", "add", l.ns("br"))
	l.in("br", "ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	l.in("br", "ip", "link", "set", "br0", "up")
	for i, n := range nodes {
		l.must("ip", "netns", "add", l.ns(n))
		l.in("br", "ip", "link", "add", "p"+n, "type", "veth", "peer", "name", "eth0", "netns", l.ns(n))
		l.in("br", "ip", "link", "set", "p"+n, "master", "br0", "up")
		l.in(n, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0", "net.ipv6.conf.eth0.accept_ra=0")
		l.in(n, "ip", "link", "set", "lo", "up")
		l.in(n, "ip", "link", "set", "eth0", "up")
		l.in(n, "ip", "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+1), "dev", "eth0")
		l.in(n, "ip", "addr", "add", fmt.Sprintf("fd77::%d/64", i+1), "dev", "eth0", "nodad")
	}
	return l
}

func (l *lab) ns(node string) string { return l.prefix + node }

func (l *lab) must(name string, args ...string) string {
	l.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l *lab) in(node string, args ...string) string {
	l.t.Helper()
	return l.must("ip", append([]string{"netns", "exec", l.ns(node)}, args...)...)
}

// has says whether a node has an address.
func (l *lab) has(node, ip string) bool {
	return strings.Contains(l.in(node, "ip", "-o", "addr", "show", "dev", "eth0"), " "+ip+"/")
}

// proc is a helper process in a namespace.
type proc struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (l *lab) start(node, helper string, env []string, args ...string) *proc {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	if len(l.as) > 0 {
		self = l.readable(self)
	}
	// ip netns exec becomes the helper by exec, so that signals reach it.
	cmd := exec.Command("ip", append(append([]string{"netns", "exec", l.ns(node)}, l.as...), append([]string{self}, args...)...)...)
	cmd.Env = append(append(os.Environ(), helperEnv+"="+helper, "NODE="+node), env...)
	cmd.Stderr = os.Stderr
	p := &proc{t: l.t, cmd: cmd}
	if p.in, err = cmd.StdinPipe(); err != nil {
		l.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(p.kill)
	if line := p.line(); !strings.HasPrefix(line, "ready") {
		l.t.Fatalf("%s on %s: %s", helper, node, line)
	}
	return p
}

func (l *lab) sidecar(node, vips string, env ...string) *proc {
	l.t.Helper()
	return l.start(node, "sidecar", append(env, "VIPS="+vips))
}

// server answers in the node's name; see runServer.
func (l *lab) server(node string, datagrams ...string) *proc {
	l.t.Helper()
	return l.start(node, "server", nil, append([]string{node}, datagrams...)...)
}

func (l *lab) client(node string, args ...string) *proc {
	l.t.Helper()
	return l.start(node, "client", nil, args...)
}

func (p *proc) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("read from helper: %v (%q)", err, s)
	}
	return strings.TrimSpace(s)
}

func (p *proc) try(format string, args ...any) string {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
	return p.line()
}

func (p *proc) ask(format string, args ...any) string {
	p.t.Helper()
	s := p.try(format, args...)
	if strings.HasPrefix(s, "err") {
		p.t.Fatalf(format+": %s", append(args, s)...)
	}
	return s
}

func (p *proc) status() Status {
	p.t.Helper()
	var s Status
	if err := json.Unmarshal([]byte(p.ask("status")), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// finish ends a client and reads its report.
func (p *proc) finish() report {
	p.t.Helper()
	_, _ = fmt.Fprintln(p.in, "end") // it may have ended by itself
	var r report
	if err := json.Unmarshal([]byte(p.line()), &r); err != nil {
		p.t.Fatal(err)
	}
	return r
}

// signal returns when the process has it, and the time of that. To be stopped is
// begun by one thread of it, which on a busy machine waits for its turn while others
// go on.
func (p *proc) signal(s unix.Signal) time.Duration {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	for began := time.Now(); s == unix.SIGSTOP && !p.stopped(); time.Sleep(200 * time.Microsecond) {
		if time.Since(began) > 5*time.Second {
			p.t.Fatal("it does not stop")
		}
	}
	return bootTime()
}

// stopped says whether a process is, with all its threads.
func (p *proc) stopped() bool {
	p.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		p.t.Fatalf("no threads: %v", err)
	}
	return !slices.ContainsFunc(threads, func(file string) bool {
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) { // that one has ended
			return false
		}
		if err != nil {
			p.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		return !strings.HasPrefix(rest, "T")
	})
}

func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// eventually waits until f is true, at most d.
func (l *lab) eventually(d time.Duration, what string, f func() bool) time.Duration {
	l.t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > d {
			l.t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(began)
}

// readable copies a program to where any user may run it.
func (l *lab) readable(program string) string {
	l.t.Helper()
	dir, err := os.MkdirTemp("", "tdvip")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l.must("chmod", "755", dir)
	l.must("install", "-m", "755", program, dir+"/helper")
	return dir + "/helper"
}
