package haproxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// held is a conversation kept open and idle. HAProxy never speaks unasked, so
// anything that arrives, first of all its end, is news; and a question can still
// be put over it when the socket takes no new connection.
//
// It keeps the process that it belongs to alive, so it must be closed as soon as
// another process has taken over.
type held struct {
	process Process
	since   time.Time
	ended   chan struct{} // closed when the other side has ended it

	mu     sync.Mutex // one user at a time
	c      *conversation
	idle   chan struct{} // closed when the reader has gone; nil once given up
	closed bool
}

func keepOpen(c *conversation) *held {
	h := &held{process: c.info.Process, since: time.Now(), ended: make(chan struct{}), c: c}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rest()
	return h
}

// The caller of rest holds the lock. It starts the reader.
func (h *held) rest() {
	idle := make(chan struct{})
	h.idle = idle
	_ = h.c.conn.SetReadDeadline(time.Time{})
	go h.read(idle) // ends in rouse
}

func (h *held) read(idle chan<- struct{}) {
	defer close(idle)
	var b [1]byte
	_, err := h.c.conn.Read(b[:])
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return // roused by its owner
	}
	close(h.ended)
}

// The caller of rouse holds the lock. It ends the reader, and says whether the
// conversation is still alive.
func (h *held) rouse() bool {
	_ = h.c.conn.SetReadDeadline(time.Unix(1, 0))
	<-h.idle
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

// use puts questions over the conversation. An error ends it.
func (h *held) use(whole time.Duration, f func(*conversation) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || !h.rouse() {
		return net.ErrClosed
	}
	h.c.until = time.Now().Add(whole)
	if err := f(h.c); err != nil {
		h.closed = true
		h.c.close()
		return err
	}
	h.rest()
	return nil
}

// close ends the conversation and waits for its reader. It may be called again.
func (h *held) close() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		h.rouse()
		h.c.close()
	}
}
