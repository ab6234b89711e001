package haproxytest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Relay stands between a client and a socket and shows a test each piece that
// either sends before it passes it on, or half of it.
type Relay struct {
	Socket string

	target string
	mu     sync.Mutex
	before func(piece string)
	half   func(piece string)
	idle   time.Duration
	ended  int
	conns  map[net.Conn]bool
	closed bool
}

// StartRelay starts a relay to the socket. It ends with the test.
func StartRelay(tb testing.TB, target string) *Relay {
	tb.Helper()
	dir, err := os.MkdirTemp("", "relay") //nolint:usetesting // short: the path of a socket has 107 bytes
	if err != nil {
		tb.Fatal(err)
	}
	r := &Relay{Socket: filepath.Join(dir, "s"), target: target, conns: make(map[net.Conn]bool)}
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "unix", r.Socket)
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.serve(client) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		r.closed = true
		for c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		all.Wait()
		_ = os.RemoveAll(dir)
	})
	return r
}

// Before has a function called with each piece before it is passed on.
func (r *Relay) Before(do func(piece string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = do
}

// Half has a function called with each piece of an answer when half of it has
// been passed on. The rest follows when the function returns.
func (r *Relay) Half(do func(piece string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.half = do
}

// EndIdle has connections ended when the client has sent nothing for so long, as
// HAProxy's `stats timeout` does. 0: never.
func (r *Relay) EndIdle(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = after
}

// Ended is how many connections the server has ended before the client did, or
// EndIdle.
func (r *Relay) Ended() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// keep registers a connection, or closes it if the test is over.
func (r *Relay) keep(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = true
	if r.closed {
		_ = c.Close()
	}
}

func (r *Relay) drop(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.conns, c)
		_ = c.Close()
	}
}

func (r *Relay) serve(client net.Conn) {
	r.keep(client)
	server, err := (&net.Dialer{}).DialContext(context.Background(), "unix", r.target)
	if err != nil {
		r.drop(client)
		return
	}
	r.keep(server)
	var both sync.WaitGroup
	both.Go(func() {
		r.count(r.copy(server, client, r.pass), os.ErrDeadlineExceeded)
		r.drop(client, server)
	})
	both.Go(func() {
		r.count(r.copy(client, server, r.passBack), io.EOF)
		r.drop(client, server)
	})
	both.Wait()
}

// count counts an end that came for that reason.
func (r *Relay) count(err, reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(err, reason) {
		r.ended++
	}
}

// copy passes on what it reads, and returns why it ended.
func (r *Relay) copy(to, from net.Conn, pass func(to, from net.Conn, piece []byte) error) error {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if err := pass(to, from, b[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// pass passes on a piece from the client.
func (r *Relay) pass(to, from net.Conn, piece []byte) error {
	r.mu.Lock()
	before := r.before
	r.mu.Unlock()
	if before != nil {
		before(string(piece))
	}
	if _, err := to.Write(piece); err != nil {
		return err
	}
	return from.SetReadDeadline(r.patience())
}

// patience is how long a client may be idle from now on: no limit if zero.
func (r *Relay) patience() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idle == 0 {
		return time.Time{}
	}
	return time.Now().Add(r.idle)
}

// passBack passes on a piece from the server.
func (r *Relay) passBack(to, _ net.Conn, piece []byte) error {
	r.mu.Lock()
	half := r.half
	r.mu.Unlock()
	rest := piece
	if half != nil {
		if _, err := to.Write(piece[:len(piece)/2]); err != nil {
			return err
		}
		half(string(piece))
		rest = piece[len(piece)/2:]
	}
	_, err := to.Write(rest)
	return err
}
