package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	interval = 5 * time.Millisecond  // between two new connections
	look     = 10 * time.Millisecond // between two looks at who answers for the address
	patience = time.Second           // of one request
	memory   = 10 * time.Minute      // what is older is forgotten
)

// now reads CLOCK_MONOTONIC, which all containers of a machine share.
func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("read CLOCK_MONOTONIC: " + err.Error()) // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// request is what came of one connection.
type request struct {
	start, took time.Duration
	failure     string // empty: answered
	lb, server  string
}

// sample is one look at the wire.
type sample struct {
	at      time.Duration
	answers int // machines that answered for the address
}

// Noticed sums up what the client noticed over a time. Milliseconds.
type Noticed struct {
	Requests  int            `json:"requests"`
	Failed    int            `json:"failed"`
	Failures  map[string]int `json:"failures,omitempty"`
	Outage    float64        `json:"outage_ms"`     // the longest time without an answer, less the distance between two
	Stall     float64        `json:"stall_ms"`      // the longest time that the client itself stood still
	TwoAnswer float64        `json:"two_answer_ms"` // two machines answered for the address
	Looks     int            `json:"looks"`         // how often that was looked at
	LBs       map[string]int `json:"lbs"`
	Servers   map[string]int `json:"servers"`
}

type client struct {
	target string
	mu     sync.Mutex
	done   []request
	looks  []sample
	stalls []sample // at, with the length in place of answers
}

func newClient(target string) *client { return &client{target: target} }

// run asks until ctx ends, and prints a line every second.
func (c *client) run(ctx context.Context) error {
	addr, err := netip.ParseAddrPort(c.target)
	if err != nil {
		return fmt.Errorf("the address to ask: %w", err)
	}
	wire, err := newWire(addr.Addr())
	if err != nil {
		return err
	}
	defer wire.close()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, desk, http.HandlerFunc(c.answer)) }()
	ask, watch, report := time.NewTicker(interval), time.NewTicker(look), time.NewTicker(time.Second)
	for last := now(); ; {
		select {
		case <-ctx.Done():
			return <-ended
		case err := <-ended:
			return err
		case <-ask.C:
			at := now()
			if at-last > 4*interval {
				c.note(func() { c.stalls = append(c.stalls, sample{last, int(at - last)}) })
			}
			last = at
			go c.ask(at)
		case <-watch.C:
			n := wire.look()
			c.note(func() { c.looks = append(c.looks, sample{now() - look, n}) })
		case <-report.C:
			c.report()
		}
	}
}

func (c *client) note(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *client) ask(start time.Duration) {
	r := request{start: start}
	err := c.get(&r)
	if r.took = now() - start; err != nil {
		r.failure = word(err)
	}
	c.note(func() { c.done = append(c.done, r) })
}

func (c *client) get(r *request) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", c.target)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience - (now() - r.start)))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: play\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	r.lb, r.server = res.Header.Get("X-Lb"), res.Header.Get("X-Server")
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// word is a short name of a failure.
func word(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET):
		return "reset"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return "unreachable"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	default:
		return err.Error()
	}
}

// report prints the last second, and forgets what is old.
func (c *client) report() {
	at := now()
	n := c.notice(at - time.Second)
	fmt.Fprintf(os.Stdout, "%s  %3d answered  %3d failed  longest silence %4.0f ms  by %v from %v\n",
		time.Now().Format(time.TimeOnly), n.Requests-n.Failed, n.Failed, n.Outage, keys(n.LBs), keys(n.Servers))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = slices.DeleteFunc(c.done, func(r request) bool { return r.start < at-memory })
	old := func(s sample) bool { return s.at < at-memory }
	c.looks, c.stalls = slices.DeleteFunc(c.looks, old), slices.DeleteFunc(c.stalls, old)
}

func keys(m map[string]int) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

func (c *client) answer(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		http.Error(w, "from is a reading of CLOCK_MONOTONIC in nanoseconds", http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(c.notice(time.Duration(from)))
}

// notice sums up what has happened since from.
func (c *client) notice(from time.Duration) Noticed {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := Noticed{Failures: map[string]int{}, LBs: map[string]int{}, Servers: map[string]int{}}
	answers := []time.Duration{from, now()}
	for _, r := range c.done {
		if r.start < from {
			continue
		}
		n.Requests++
		if r.failure != "" {
			n.Failed++
			n.Failures[r.failure]++
			continue
		}
		n.LBs[r.lb]++
		n.Servers[r.server]++
		answers = append(answers, r.start+r.took)
	}
	slices.Sort(answers)
	for i, at := range answers[1:] {
		n.Outage = max(n.Outage, milliseconds(at-answers[i]-interval))
	}
	for _, s := range c.stalls {
		if s.at >= from {
			n.Stall = max(n.Stall, milliseconds(time.Duration(s.answers)))
		}
	}
	for _, s := range c.looks {
		if s.at < from {
			continue
		}
		if n.Looks++; s.answers > 1 {
			n.TwoAnswer += milliseconds(look)
		}
	}
	return n
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
