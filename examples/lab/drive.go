package lab

import (
	"bufio"
	"cmp"
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
	Paths    []string      // asked for in turn on new connections
	Loads    []Load
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
	for _, load := range args.Loads {
		for i := range load.Count {
			go d.keep(load, time.Duration(i)*load.Pace/time.Duration(load.Count))
		}
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
func (d *driver) keep(load Load, offset time.Duration) {
	time.Sleep(offset)
	to := cmp.Or(load.To, d.Target)
	for {
		conn, err := (&net.Dialer{Timeout: d.Timeout, KeepAlive: -1}).DialContext(context.Background(), "tcp", to)
		if err != nil { // an address without a holder is the other clients' business
			time.Sleep(load.Pace)
			continue
		}
		if load.Piece > 0 {
			d.download(conn, load)
		} else {
			d.talk(conn, load)
		}
		_ = conn.Close()
		time.Sleep(load.Pace)
	}
}

func (d *driver) talk(conn net.Conn, load Load) {
	in := bufio.NewReader(conn)
	r := Request{Kind: load.Kind, Path: load.Path, First: true}
	for d.step(conn, &r, func() error { return ask(conn, in, "keep-alive", &r) }) && r.OK() && !r.ended {
		r.First = false
		time.Sleep(load.Pace)
	}
}

// download reads an answer that does not end, piece by piece. Each piece counts
// as a request.
func (d *driver) download(conn net.Conn, load Load) {
	if tcp, ok := conn.(*net.TCPConn); ok { // what is not read is to wait at the other side
		_ = tcp.SetReadBuffer(2 * load.Piece)
	}
	in := bufio.NewReader(conn)
	r := Request{Kind: load.Kind, Path: load.Path, First: true}
	var body io.Reader
	begun := d.step(conn, &r, func() error {
		res, err := request(conn, in, "close", &r) //nolint:bodyclose // the connection is closed instead: the body has no end
		if err == nil {
			body = res.Body
		}
		return err
	})
	for begun && r.Status == http.StatusOK {
		r.First = false
		time.Sleep(load.Pace)
		begun = d.step(conn, &r, func() error {
			_, err := io.CopyN(io.Discard, body, int64(load.Piece))
			return err
		})
	}
}

// step is one request on a kept connection, or a piece of an answer. It tells
// whether the connection still lasts.
func (d *driver) step(conn net.Conn, r *Request, f func() error) bool {
	r.Start = Now()
	d.begin(r.Start)
	defer d.end(r.Start)
	_ = conn.SetDeadline(time.Now().Add(5 * d.Timeout))
	err := f()
	r.Took, r.Err = Now()-r.Start, word(err)
	d.note(*r)
	return err == nil
}

// ask sends a request and reads the answer to its end.
func ask(conn net.Conn, in *bufio.Reader, connection string, r *Request) error {
	res, err := request(conn, in, connection, r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

// request sends a request and reads the head of the answer.
func request(conn net.Conn, in *bufio.Reader, connection string, r *Request) (*http.Response, error) {
	_, err := io.WriteString(conn, "GET "+r.Path+" HTTP/1.1\r\nHost: lab\r\nConnection: "+connection+"\r\n\r\n")
	if err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, err
	}
	r.Status, r.Server, r.LB = res.StatusCode, res.Header.Get("X-Server"), res.Header.Get("X-Lb")
	r.ended = res.Close
	return res, nil
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
