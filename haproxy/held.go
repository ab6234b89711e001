package haproxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// held is a conversation kept open and idle. HAProxy never speaks unasked, so
// anything that arrives, first of all its end, is news. Questions are put over it
// without the cost of a new connection, and still when the socket takes none.
//
// It keeps the process that it belongs to alive, so it must be closed as soon as
// another process has taken over.
type held struct {
	process Process
	since   time.Time
	ended   chan struct{} // closed when the other side has ended it

	free chan struct{} // has one element while nobody uses the conversation
	c    *conversation
	idle chan struct{} // closed when the reader has gone

	mu      sync.Mutex
	closed  bool
	retired bool // to be closed when its user gives it back
}

// keepOpen holds a conversation, whose user the caller is until it gives it back.
func keepOpen(c *conversation) *held {
	return &held{process: c.info.Process, since: time.Now(), ended: make(chan struct{}), free: make(chan struct{}, 1), c: c}
}

// The caller of rest is the user. It starts the reader, and is the user no more.
func (h *held) rest() {
	idle := make(chan struct{})
	h.idle = idle
	_ = h.c.conn.SetReadDeadline(time.Time{})
	go h.read(idle) // ends in rouse
	h.free <- struct{}{}
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

// The caller of rouse is the user. It ends the reader, and says whether the
// conversation is still alive.
func (h *held) rouse() bool {
	_ = h.c.conn.SetReadDeadline(time.Unix(1, 0))
	<-h.idle
	return !h.over()
}

// over says whether the other side has ended it.
func (h *held) over() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// take hands the conversation out to one user, who must give it back. It returns
// nil if it is not free, or has ended. With patience it waits for another user.
func (h *held) take(patience, whole time.Duration) *conversation {
	select {
	case <-h.free:
	default:
		if patience <= 0 {
			return nil
		}
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-h.free:
		case <-timer.C:
			return nil
		}
	}
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed || !h.rouse() {
		return nil // and it is never free again
	}
	h.c.until = time.Now().Add(whole)
	return h.c
}

// giveBack ends what take began. An error ends the conversation: what has not
// been answered may still come.
func (h *held) giveBack(err error) {
	if err == nil {
		err = h.c.skip()
	}
	h.mu.Lock()
	h.closed = h.closed || err != nil || h.retired
	closed := h.closed
	h.mu.Unlock()
	if !closed {
		h.rest()
		if h.isRetired() {
			h.close()
		}
		return
	}
	h.c.close()
	if err != nil && classify("", err).Reason == ReasonDied {
		close(h.ended) // nobody reads, so nobody else tells
	}
}

// isClosed says whether it has been ended on this side.
func (h *held) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

func (h *held) isRetired() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.retired
}

// use puts questions over the conversation, when it is free. An error ends it.
func (h *held) use(patience, whole time.Duration, f func(*conversation) error) error {
	c := h.take(patience, whole)
	if c == nil {
		return net.ErrClosed
	}
	err := f(c)
	h.giveBack(err)
	return err
}

// close ends the conversation, now or when its user gives it back. It may be
// called again, and by anybody.
func (h *held) close() {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.retired = true
	h.mu.Unlock()
	select {
	case <-h.free:
		h.mu.Lock()
		h.closed = true
		h.mu.Unlock()
		h.rouse()
		h.c.close()
	default:
	}
}
