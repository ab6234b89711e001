package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

type clientArgs struct {
	Target   string        // host:port
	Interval time.Duration // between two new connections
	Timeout  time.Duration // of one request, all in all
	Keep     int           // kept connections
	Pace     time.Duration // between two requests on a kept connection
	Paths    []string      // asked for in turn on new connections; kept ones ask for the first
}

// driver is the client at work, in its own process.
type driver struct {
	clientArgs
	mu      sync.Mutex
	out     *bufio.Writer
	running map[time.Duration]int // starts of the requests under way
}

// drive opens a new connection every interval, whatever became of those
// before, and writes a line for each request.
func drive(args clientArgs) error {
	d := &driver{clientArgs: args, out: bufio.NewWriterSize(os.Stdout, 1<<16), running: map[time.Duration]int{}}
	for i := range args.Keep {
		go d.keep(time.Duration(i) * args.Pace / time.Duration(args.Keep))
	}
	flush := time.NewTicker(20 * time.Millisecond)
	tick := time.NewTicker(args.Interval)
	next := Now()
	for n := 0; ; {
		select {
		case <-tick.C:
			now := Now()
			if late := now - next; late > 4*args.Interval {
				d.note(Request{Kind: kindLag, Start: next, Took: late})
			}
			next = now + args.Interval
			d.begin(now)
			go d.fresh(now, args.Paths[n%len(args.Paths)])
			n++
		case <-flush.C:
			if err := d.flush(); err != nil {
				return nil //nolint:nilerr // the reader is gone, and with it the lab
			}
		}
	}
}

func (d *driver) begin(at time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running[at]++
}

func (d *driver) end(at time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running[at]--; d.running[at] == 0 {
		delete(d.running, at)
	}
}

func (d *driver) note(r Request) {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("write request: %v", err)) // it is plain data
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = d.out.Write(append(b, '\n'))
}

// flush writes out what was noted, and up to when nothing is missing.
func (d *driver) flush() error {
	oldest := Now()
	d.mu.Lock()
	for at := range d.running {
		oldest = min(oldest, at)
	}
	d.mu.Unlock()
	d.note(Request{Kind: kindDone, Start: oldest})
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Flush()
}

// fresh is one request on a connection of its own.
func (d *driver) fresh(start time.Duration, path string) {
	defer d.end(start)
	r := Request{Kind: KindNew, Start: start, Path: path}
	ctx, cancel := context.WithTimeout(context.Background(), d.Timeout)
	defer cancel()
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", d.Target)
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(d.Timeout - (Now() - start)))
		err = ask(conn, bufio.NewReader(conn), "close", &r)
		_ = conn.Close()
	}
	r.Took, r.Err = Now()-start, word(err)
	d.note(r)
}

// keep sends a request every pace on one connection as long as it lasts. A
// connection that the other side ends in order (Connection: close, or between
// two requests) is replaced without complaint.
func (d *driver) keep(offset time.Duration) {
	time.Sleep(offset)
	for {
		conn, err := (&net.Dialer{Timeout: d.Timeout, KeepAlive: -1}).DialContext(context.Background(), "tcp", d.Target)
		if err != nil {
			time.Sleep(d.Pace)
			continue
		}
		d.talk(conn)
		_ = conn.Close()
		time.Sleep(d.Pace)
	}
}

func (d *driver) talk(conn net.Conn) {
	in := bufio.NewReader(conn)
	for n := 0; ; n++ {
		start := Now()
		d.begin(start)
		r := Request{Kind: KindKeep, Start: start, Path: d.Paths[0]}
		_ = conn.SetDeadline(time.Now().Add(5 * d.Timeout))
		err := ask(conn, in, "keep-alive", &r)
		r.Took, r.Err = Now()-start, word(err)
		if n > 0 || err == nil { // an address without a holder is the other clients' business
			d.note(r)
		}
		d.end(start)
		if err != nil || !r.OK() || r.ended {
			return
		}
		time.Sleep(d.Pace)
	}
}

// ask sends a request and reads the answer to its end.
func ask(conn net.Conn, in *bufio.Reader, connection string, r *Request) error {
	_, err := io.WriteString(conn, "GET "+r.Path+" HTTP/1.1\r\nHost: lab\r\nConnection: "+connection+"\r\n\r\n")
	if err != nil {
		return err
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	r.Status, r.Server, r.LB = res.StatusCode, res.Header.Get("X-Server"), res.Header.Get("X-Lb")
	r.ended = res.Close
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

// word gives an error its name.
func word(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	default:
		return err.Error()
	}
}
