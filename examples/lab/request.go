package lab

import (
	"slices"
	"strconv"
	"time"
)

// Request is what came of one request of the client.
type Request struct {
	Kind   string        `json:"k"`           // new: a connection of its own; keep: one of many on a connection
	Start  time.Duration `json:"t"`           // see Now
	Took   time.Duration `json:"d"`           // until the answer was complete or given up
	Path   string        `json:"p,omitempty"` // what was asked for
	Status int           `json:"s,omitempty"` // HTTP
	Server string        `json:"v,omitempty"` // a-1, from HAProxy
	LB     string        `json:"l,omitempty"` // lb1, from HAProxy; without an answer who gave the last one on the connection
	First  bool          `json:"f,omitempty"` // of a kept connection
	Err    string        `json:"e,omitempty"` // timeout, refused, reset, closed, unreachable …

	ended bool // the other side said that the connection ends with this answer
}

// OK tells whether the client got what it asked for.
func (r Request) OK() bool { return r.Err == "" && r.Status == 200 }

// Kinds of requests and of other notes of the client.
const (
	KindNew  = "new"
	KindKeep = "keep" // others: see Load
	kindLag  = "lag"  // the client itself was late by Took
	kindDone = "done" // everything that started before Start is complete
)

// Noticed is what a client noticed of the cluster over a time.
type Noticed struct {
	From, To time.Duration
	Requests int // on new connections
	Failed   int
	Errors   map[string]int // reason → count, of the failed ones
	LBs      map[string]int // load balancer → answers
	Servers  map[string]int // server → answers
	// Outage is the longest time without an answer, less the usual distance
	// between two; OutageFrom is when it began. Open: it had not ended.
	Outage     time.Duration
	OutageFrom time.Duration
	Open       bool
	Slowest    time.Duration // of those that succeeded
	Kept       int           // requests on kept connections
	Broken     int           // kept connections that broke
	Lag        time.Duration // the longest stall of the client itself: the machine's fault
}

// notice sums up the requests that started in [from, to). Interval is the
// distance between two new connections.
func notice(requests []Request, from, to, interval time.Duration) Noticed {
	n := &Noticed{From: from, To: to, Errors: map[string]int{}, LBs: map[string]int{}, Servers: map[string]int{}}
	answers := []time.Duration{from}
	for _, r := range requests {
		if r.Start < from || r.Start >= to {
			continue
		}
		switch r.Kind {
		case kindLag:
			n.Lag = max(n.Lag, r.Took)
		case KindKeep:
			n.Kept++
			if r.Err != "" && !r.First { // an answer of 503 breaks no connection
				n.Broken++
			}
		case KindNew:
			n.count(r)
			if r.OK() {
				answers = append(answers, r.Start+r.Took)
			}
		}
	}
	slices.Sort(answers)
	n.longestGap(answers, interval)
	return *n
}

func (n *Noticed) count(r Request) {
	n.Requests++
	if !r.OK() {
		n.Failed++
		n.Errors[reason(r)]++
		return
	}
	n.LBs[r.LB]++
	n.Servers[r.Server]++
	n.Slowest = max(n.Slowest, r.Took)
}

func reason(r Request) string {
	if r.Err != "" {
		return r.Err
	}
	return "status " + strconv.Itoa(r.Status)
}

// longestGap looks between answers, and from the last one to the end. A gap of
// a few intervals is the ordinary course of things and counts as none.
func (n *Noticed) longestGap(answers []time.Duration, interval time.Duration) {
	for i := 1; i < len(answers); i++ {
		n.gap(answers[i-1], answers[i]-answers[i-1]-interval, false)
	}
	last := answers[len(answers)-1]
	n.gap(last, n.To-last-interval, true)
}

func (n *Noticed) gap(from, d time.Duration, open bool) {
	if d <= n.Outage {
		return
	}
	n.Outage, n.OutageFrom = d, from
	n.Open = open && d > 50*time.Millisecond
}

// Sites sums the answers up by site, the part of a server's name before "-".
func (n *Noticed) Sites() map[string]int {
	sites := map[string]int{}
	for server, count := range n.Servers {
		sites[site(server)] += count
	}
	return sites
}

func site(server string) string {
	for i := range server {
		if server[i] == '-' {
			return server[:i]
		}
	}
	return server
}
