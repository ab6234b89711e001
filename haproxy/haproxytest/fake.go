package haproxytest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fake speaks the protocol of the Runtime API on a unix socket: prompt mode or
// not, severities, several commands to a line. It keeps the state of its servers
// the way HAProxy 2.6 does, and a log of every command that changed something,
// as an operator would type it. A test runs the same script through it and
// through the real one.
type Fake struct {
	Socket string

	mu       sync.Mutex
	pid      int
	start    int64
	stopping bool
	level    string
	servers  []*FakeServer
	log      []string
	answers  map[string]string // of commands with this beginning, instead of the right one
	mute     bool
	perLine  bool // one prompt to a line, as since 3.2; else one to a command
	listener net.Listener
	conns    map[net.Conn]bool
	all      sync.WaitGroup
}

// FakeServer is one server of a Fake.
type FakeServer struct {
	Backend, Server string
	Admin           int // mask, as srv_admin_state
	Oper            int // 0 down, 1 starting, 2 up, 3 stopping
	Weight          int
	InitialWeight   int
	Agent           bool
}

// StartFake starts a Fake with the servers, named backend/server, all of them up.
// It ends with the test.
func StartFake(tb testing.TB, servers ...string) *Fake {
	tb.Helper()
	dir, err := os.MkdirTemp("", "fake") //nolint:usetesting // short: the path of a socket has 107 bytes
	if err != nil {
		tb.Fatal(err)
	}
	f := &Fake{
		Socket: filepath.Join(dir, "s"), pid: 1000, start: time.Now().Unix(), level: "admin",
		answers: make(map[string]string), conns: make(map[net.Conn]bool),
	}
	for _, name := range servers {
		backend, server, _ := strings.Cut(name, "/")
		f.servers = append(f.servers, &FakeServer{Backend: backend, Server: server, Oper: 2, Weight: 1, InitialWeight: 1})
	}
	if err := f.Listen(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		f.Die()
		_ = os.RemoveAll(dir)
	})
	return f
}

// Listen opens the socket, as another process if it was open before: with a new
// pid, and every server as in its configuration.
func (f *Fake) Listen() error {
	_ = os.Remove(f.Socket)
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", f.Socket)
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as a process that dies
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener = l
	f.pid++
	f.stopping, f.mute = false, false
	f.all.Go(func() { f.accept(l) })
	return nil
}

// Die ends the process: every connection ends, nobody listens any more. The
// servers forget what they were told.
func (f *Fake) Die() {
	f.mu.Lock()
	_ = f.listener.Close()
	for c := range f.conns {
		_ = c.Close()
	}
	for _, s := range f.servers {
		if s.Admin&4 != 0 {
			s.Admin = 5
		} else {
			s.Admin &^= 1 | 8
		}
	}
	f.mu.Unlock()
	f.all.Wait()
}

// Mute makes it read and not answer, as one that hangs; or answer again.
func (f *Fake) Mute(mute bool) { f.change(func() { f.mute = mute }) }

// Level sets the level of the socket: user, operator or admin.
func (f *Fake) Level(level string) { f.change(func() { f.level = level }) }

// Answer has commands with this beginning answered with a text instead.
func (f *Fake) Answer(beginning, text string) { f.change(func() { f.answers[beginning] = text }) }

// PromptPerLine makes it give one prompt to a line, as HAProxy does since 3.2, and
// not one to each command of the line.
func (f *Fake) PromptPerLine(yes bool) { f.change(func() { f.perLine = yes }) }

// Edit changes a server past the socket, as its checks or its configuration
// would.
func (f *Fake) Edit(name string, edit func(*FakeServer)) {
	f.change(func() {
		if s := f.find(name); s != nil {
			edit(s)
		}
	})
}

func (f *Fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// Log returns the commands that changed something, in order.
func (f *Fake) Log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

func (f *Fake) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns[conn] = true
		f.mu.Unlock()
		f.all.Go(func() { f.serve(conn) })
	}
}

// answer carries a command out; with severity the answer begins with its level.
func (f *Fake) answer(command string, severity bool) string {
	level, text := f.carryOut(command)
	if severity && level > 0 && text != "" {
		return fmt.Sprintf("[%d]: %s", level, text)
	}
	return text
}

// serve answers one connection: one line, or any number after `prompt`.
func (f *Fake) serve(conn net.Conn) {
	defer func() {
		f.mu.Lock()
		delete(f.conns, conn)
		f.mu.Unlock()
		_ = conn.Close()
	}()
	in := bufio.NewReader(conn)
	interactive, severity, quit := false, false, false
	for !quit {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		var out strings.Builder
		f.mu.Lock()
		perLine := f.perLine
		f.mu.Unlock()
		commands := strings.Split(strings.TrimRight(line, "\n"), ";")
		for n, command := range commands {
			if quit {
				break
			}
			switch command = strings.TrimSpace(command); command {
			case "prompt":
				interactive = !interactive
			case "set severity-output number":
				severity = true
			case "set severity-output none":
				severity = false
			case "quit":
				quit = true
				continue
			default:
				out.WriteString(f.answer(command, severity))
			}
			out.WriteString("\n")
			if interactive && (!perLine || n == len(commands)-1) {
				out.WriteString("> ")
			}
		}
		f.mu.Lock()
		mute := f.mute
		f.mu.Unlock()
		if mute {
			continue
		}
		if _, err := conn.Write([]byte(out.String())); err != nil || !interactive {
			return
		}
	}
}

// carryOut returns the severity of an answer (0: none) and its text.
func (f *Fake) carryOut(command string) (int, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for beginning, text := range f.answers {
		if strings.HasPrefix(command, beginning) {
			return 0, text
		}
	}
	words := strings.Fields(command)
	switch {
	case command == "show info":
		return 0, f.info()
	case command == "show cli level":
		return 6, f.level + "\n"
	case command == "show servers state":
		return 0, f.state()
	case command == "show stat -1 2 -1":
		return 0, f.summary()
	case len(words) >= 3 && words[0] == "show" && words[1] == "stat":
		return 0, f.stat(words[2])
	case len(words) >= 5 && words[0] == "set" && words[1] == "server" && words[3] == "state",
		len(words) >= 5 && words[0] == "set" && words[1] == "server" && words[3] == "weight",
		len(words) >= 3 && (words[0] == "disable" || words[0] == "enable") && words[1] == "server",
		len(words) >= 4 && words[0] == "shutdown" && words[1] == "sessions":
		return f.set(command, words)
	}
	return 6, "Unknown command: '" + command + "', but maybe one of the following ones is a better match:\n"
}

func (f *Fake) find(name string) *FakeServer {
	for _, s := range f.servers {
		if s.Backend+"/"+s.Server == name {
			return s
		}
	}
	return nil
}

// set carries out a command that changes a server.
func (f *Fake) set(command string, words []string) (int, string) {
	if f.level != "admin" {
		return 3, "Permission denied\n"
	}
	name, verb := words[2], words[0]
	if verb == "shutdown" {
		name = words[3]
	}
	backend, _, ok := strings.Cut(name, "/")
	if !ok {
		return 3, "Require 'backend/server'.\n"
	}
	if !slices.ContainsFunc(f.servers, func(s *FakeServer) bool { return s.Backend == backend }) {
		return 3, "No such backend.\n"
	}
	s := f.find(name)
	if s == nil {
		return 3, "No such server.\n"
	}
	state := verb
	if verb == "set" {
		state = words[3] + " " + words[4]
	}
	switch state {
	case "enable", "state ready":
		s.Admin &^= 1 | 8
	case "disable", "state maint":
		s.Admin = s.Admin&^8 | 1
	case "state drain":
		s.Admin = s.Admin&^1 | 8
	case "shutdown":
	default:
		if words[3] == "state" {
			return 3, "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n"
		}
		weight, complaint := weigh(words[4], s.InitialWeight)
		if complaint != "" {
			return 3, complaint
		}
		s.Weight = weight
	}
	f.log = append(f.log, command)
	return 0, ""
}

// weigh reads a weight, which may be relative to the one of the configuration.
func weigh(word string, initial int) (weight int, complaint string) {
	digits := strings.TrimRightFunc(word, func(r rune) bool { return r < '0' || r > '9' })
	n, err := strconv.Atoi(digits)
	switch rest := word[len(digits):]; {
	case err != nil:
		return 0, "Empty weight string empty or preceded by garbage"
	case rest == "%" && n < 0:
		return 0, "Relative weight must be positive.\n"
	case rest == "%":
		return min(initial*n/100, 256), ""
	case n < 0 || n > 256:
		return 0, "Absolute weight can only be between 0 and 256 inclusive.\n"
	case rest != "":
		return 0, "Trailing garbage in weight string"
	}
	return n, ""
}
