package hook

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// settleTime is how long the last words of a command are waited for, if
// something that it left running keeps its output open.
const settleTime = 100 * time.Millisecond

// output keeps the beginning and the end of what a command says.
type output struct {
	done chan struct{} // closed when nobody can say anything more

	mu     sync.Mutex
	half   int
	closed bool // the command has ended: what comes now is thrown away
	head   []byte
	tail   []byte // a ring once it is full
	at     int    // where the ring goes on
	lost   int64  // bytes that the ring overwrote
}

func newOutput(limit int) *output { return &output{half: limit / 2, done: make(chan struct{})} }

func (o *output) add(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	n := min(len(b), o.half-len(o.head))
	o.head = append(o.head, b[:n]...)
	b = b[n:]
	if len(b) > o.half { // only the end of it can stay
		o.lost += int64(len(b) - o.half)
		b = b[len(b)-o.half:]
	}
	for len(b) > 0 && len(o.tail) < o.half {
		n := min(len(b), o.half-len(o.tail))
		o.tail = append(o.tail, b[:n]...)
		b = b[n:]
	}
	for len(b) > 0 {
		n := copy(o.tail[o.at:], b)
		o.at = (o.at + n) % o.half
		o.lost += int64(n)
		b = b[n:]
	}
}

// settle waits a moment for what is still in the pipe; later words are not kept.
func (o *output) settle() {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
	}
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	b.Write(o.head)
	if o.lost > 0 {
		fmt.Fprintf(&b, "\n… %d bytes left out …\n", o.lost)
	}
	b.Write(o.tail[o.at:])
	b.Write(o.tail[:o.at])
	return strings.ToValidUTF8(b.String(), "�")
}

// A command that says more than floodAfter bytes is read 32 KiB at a time, with a
// pause after each: what it says is thrown away, and must not cost the sidecar its
// processor. 16 MB/s are left.
const (
	floodAfter = 1 << 20
	floodPause = 2 * time.Millisecond
)

// readers read what commands say, and what they left running, until that ends
// or the Runner does.
type readers struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[*os.File]struct{}
}

// follow reads a pipe to its end, in a goroutine that stop waits for.
func (r *readers) follow(pipe *os.File, out *output) {
	r.mu.Lock()
	if r.open == nil {
		r.open = map[*os.File]struct{}{}
	}
	r.open[pipe] = struct{}{}
	r.mu.Unlock()
	r.wg.Go(func() {
		defer close(out.done)
		buf := make([]byte, 32<<10)
		for total := 0; ; {
			n, err := pipe.Read(buf)
			out.add(buf[:n])
			if err != nil {
				break
			}
			if total += n; total > floodAfter {
				time.Sleep(floodPause)
			}
		}
		r.mu.Lock()
		delete(r.open, pipe)
		r.mu.Unlock()
		_ = pipe.Close()
	})
}

// stop ends all reading.
func (r *readers) stop() {
	r.mu.Lock()
	for pipe := range r.open {
		_ = pipe.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}
