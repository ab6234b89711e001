package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"
)

// Client is the client of the lab as its parent sees it.
type Client struct {
	interval time.Duration
	mu       sync.Mutex
	requests []Request // in the order in which they ended
	complete time.Duration
}

func newClient(l *Lab) (*Client, error) {
	c := &Client{interval: l.Interval}
	cmd, env, err := childCommand("client", clientArgs{
		Target: l.Target, Interval: l.Interval, Timeout: l.Timeout, Paths: l.Paths,
		Loads: append([]Load{{Kind: KindKeep, Count: max(l.Keep, 0), Pace: l.Pace, Path: l.Paths[0]}}, l.Loads...),
	})
	if err != nil {
		return nil, err
	}
	if l.Driver != "" {
		cmd = []string{l.Driver}
	}
	return c, l.Start("client", Spec{Name: "client", Args: cmd, Env: env, Raw: true, Line: c.line})
}

func (c *Client) line(_ time.Duration, line string) {
	var r Request
	if json.Unmarshal([]byte(line), &r) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Kind == kindDone {
		c.complete = r.Start
		return
	}
	c.requests = append(c.requests, r)
}

// between returns what ended after from. It relies on the requests being in
// the order in which they ended.
func (c *Client) between(from time.Duration) []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := sort.Search(len(c.requests), func(i int) bool {
		return c.requests[i].Start+c.requests[i].Took >= from-100*time.Millisecond
	})
	return append([]Request(nil), c.requests[i:]...)
}

// Noticed sums up what the client noticed of [from, to). It waits until
// everything that began before to has ended.
func (c *Client) Noticed(ctx context.Context, from, to time.Duration) (Noticed, error) {
	err := waitFor(ctx, 10*time.Second, "end of the client's requests", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.complete >= to
	})
	if err != nil {
		return Noticed{}, fmt.Errorf("wait for client: %w", err)
	}
	return notice(c.between(from), from, to, c.interval), nil
}

// Recent sums up the requests that have ended and that began in the last d,
// without waiting for those under way.
func (c *Client) Recent(d time.Duration) Noticed {
	now := Now() - 30*time.Millisecond // the client writes every 20 ms
	return notice(c.between(now-d), now-d, now, c.interval)
}

// Requests returns everything that ended after from, oldest first.
func (c *Client) Requests(from time.Duration) []Request { return c.between(from) }

// Forget drops what ended before the given time.
func (c *Client) Forget(before time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = slices.DeleteFunc(c.requests, func(r Request) bool { return r.Start+r.Took < before })
}
