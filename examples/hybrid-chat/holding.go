package main

import (
	"context"
	"errors"
	"time"

	"tandem/examples/lab"
)

// leastRate is what a client that opens a connection every millisecond must
// reach for a row to count: less, and the machine was busy with other things.
const leastRate = 600

// A planned switch whose takeover hook takes 300 ms, at 1,000 requests a
// second: with requests held, and without.
func holding() chapter {
	return chapter{"holding", holdOptions(false), []row{
		{"hold", "planned exclusive switch, takeover hook of 300 ms, 1,000 requests/s, requests held: none fails", switchUnderLoad},
		{"hold", "site failure at 1,000 requests/s, requests held: only what was under way fails", failureUnderLoad},
	}}
}

// unheld shows what holding is for, and that the rows before it can fail.
func unheld() chapter {
	return chapter{"holding", holdOptions(true), []row{
		{"no hold", "the same planned switch without TANDEM_HOLD, for comparison: requests fail", switchUnderLoad},
		{"no hold", "the same failure without TANDEM_HOLD, for comparison: later requests fail too", failureUnderLoad},
	}}
}

func holdOptions(off bool) options {
	return options{noHold: off, every: time.Millisecond, env: map[string]string{
		"TANDEM_HOOK_TAKEOVER": "sleep 0.3", "TANDEM_HOOK_RENOUNCE": "", "TANDEM_HOOK_NOTIFY": "",
	}}
}

func switchUnderLoad(ctx context.Context, s *stage, r *report) error {
	if err := errors.Join(s.boot(ctx, "lb2", components...), s.await(ctx, 10*time.Second, "site b usable", func() error { return s.sees(ctx, "b") })); err != nil {
		return err
	}
	from := now()
	if err := s.takeover(ctx, "b"); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	n, err := s.offered(ctx, r, from)
	if err != nil {
		return err
	}
	r.want(inTurn(s.served(from, components...)) == 1, "both sites served at once")
	if s.noHold {
		r.want(n.Failed > 0, "nothing failed: then these rows show nothing")
	} else {
		r.want(n.Failed == 0, "%d of %d requests failed: %v", n.Failed, n.Requests, n.Errors)
	}
	return nil
}

func failureUnderLoad(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.kill("lb2", components...); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "site a active", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	n, err := s.offered(ctx, r, from)
	if err != nil {
		return err
	}
	lost := s.lostBeforeDetection(from, n, "b")
	if s.noHold {
		r.want(lost != nil, "no request failed but those under way: then these rows show nothing")
		return nil
	}
	r.hold(lost)
	cut, sent := s.underWay(from)
	r.say("%d more were under way when the site died, of which %d failed", sent, cut)
	return nil
}

// offered says what the client noticed, and at which rate it really asked.
func (s *stage) offered(ctx context.Context, r *report, from moment) (lab.Noticed, error) {
	n, err := s.noticed(ctx, from)
	if err != nil {
		return n, err
	}
	rate := float64(n.Requests) / (n.To - n.From).Seconds()
	r.want(rate >= leastRate, "the client asked %.0f times a second, want %d at least", rate, leastRate)
	r.say("%.0f requests/s; %d of %d failed, the longest that succeeded took %s", rate, n.Failed, n.Requests, ms(n.Slowest))
	return n, nil
}

// underWay counts the requests that had begun at a moment and not ended, and
// those of them that failed.
func (s *stage) underWay(at moment) (failed, all int) {
	for _, q := range s.Client.Requests(at.lab) {
		if q.Kind != lab.KindNew || q.Start >= at.lab || q.Start+q.Took < at.lab {
			continue
		}
		if all++; !q.OK() {
			failed++
		}
	}
	return failed, all
}
