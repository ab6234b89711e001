package haproxytest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Relay stands between a client and a socket and shows a test each piece that
// the client sends before it passes it on.
type Relay struct {
	Socket string

	target string
	mu     sync.Mutex
	before func(piece string)
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
		r.copy(server, client, true)
		r.drop(client, server)
	})
	both.Go(func() {
		r.copy(client, server, false)
		r.drop(client, server)
	})
	both.Wait()
}

func (r *Relay) copy(to, from net.Conn, show bool) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			r.mu.Lock()
			before := r.before
			r.mu.Unlock()
			if show && before != nil {
				before(string(b[:n]))
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
