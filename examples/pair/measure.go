package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tandem/examples/lab"
	"tandem/sidecar/status"
)

// measure repairs the lab, waits until all is well, and lets one failure happen.
func measure(ctx context.Context, l *lab.Lab, r row) (m measurement, err error) {
	if err = l.Repair(ctx); err != nil {
		return m, err
	}
	if err = l.Settled(ctx, time.Minute); err != nil {
		return m, err
	}
	m.Holder = l.Holder()
	m.Lease = leaseLength(ctx, l, m.Holder)
	from := lab.Now()
	if err = r.fault(ctx, l, m.Holder); err != nil {
		return m, fmt.Errorf("%w; %s", err, l.Describe())
	}
	if err = pause(ctx, r.watch); err != nil {
		return m, err
	}
	for end := lab.Now() + patience; lab.Now() < end; {
		n := l.Client.Recent(time.Second)
		if n.Failed == 0 && n.Requests > 150 && n.Outage < 300*time.Millisecond {
			break
		}
		if err = pause(ctx, 50*time.Millisecond); err != nil {
			return m, err
		}
	}
	to := lab.Now()
	if m.Noticed, err = l.Client.Noticed(ctx, from, to); err != nil {
		return m, err
	}
	for _, q := range l.Client.Requests(from) {
		if q.Kind == lab.KindKeep {
			m.kept = append(m.kept, q)
		}
	}
	m.Judgement = l.Referee.Judge(from, to)
	m.After = l.Holder()
	if r.extra != nil {
		err = r.extra(ctx, l, &m)
	}
	l.Client.Forget(to)
	l.Referee.Forget(from)
	return m, err
}

// leaseLength asks tandem how long its lease of the address is: it tunes that
// itself, and an outage that ends with the lease is to be compared with it.
// Zero when it is not known.
func leaseLength(ctx context.Context, l *lab.Lab, holder string) time.Duration {
	if _, ok := l.System.(lab.Tandem); !ok {
		return 0
	}
	out, _ := l.Tandem(ctx, holder, "status", "--json") // its exit code is about health
	var s status.Status
	if json.Unmarshal([]byte(out), &s) != nil {
		return 0
	}
	return vipLength(s)
}

// vipLength is the length of the lease of the address in a holder's status.
func vipLength(s status.Status) time.Duration {
	for _, lease := range s.Leases {
		if strings.HasPrefix(lease.Resource, "vip/") {
			return time.Duration(lease.LengthMS) * time.Millisecond
		}
	}
	return 0
}

func pause(ctx context.Context, d time.Duration) error { return lab.Sleep(ctx, d) }
