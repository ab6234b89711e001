package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"tandem/examples/lab"
)

// failback are the rows in which what was restored takes over again by itself.
func failback() chapter {
	return chapter{"failback", options{env: map[string]string{
		"TANDEM_SITE_FAILBACK": "5s", "TANDEM_VIP_FAILBACK": "2s", "TANDEM_PREFER": "lb1", "TANDEM_MOVE_GRACE": "1s",
	}}, []row{
		{"S4", "with failback after 5 s: A usable for 5 s is active again, without an operator", failsBack},
		{"R7", "lb1 was cut off and is back: with failback it takes the address back after the delay", addressFailsBack},
	}}
}

func failsBack(ctx context.Context, s *stage, r *report) error {
	r.story.began = now()
	if err := pause(ctx, 300*time.Millisecond); err != nil { // A serves some requests
		return err
	}
	if err := s.kill("lb1", components...); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "site b active", func() error { return s.activeAt(ctx, "b") }); err != nil {
		return err
	}
	if err := s.Steady(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := s.boot(ctx, "lb1", components...); err != nil {
		return err
	}
	from := now()
	if err := s.await(ctx, 30*time.Second, "site a active", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	served := s.firstFrom("a", from)
	r.want(served >= 5*time.Second && served < 15*time.Second, "A served %v after it was up, want 5 s and the switch", served)
	r.want(equal(s.scriptsRun("lb2", from), "renounce.sh", "renounce_reporting.sh"), "ran at B: %v", s.scriptsRun("lb2", from))
	r.hold(s.firstRequestAfterScripts(from, "lb1", "takeover.sh", "takeover_reporting.sh"))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d of %d requests failed: %v %v", n.Failed, n.Requests, n.Errors, err)
	changes := inTurn(s.served(r.story.began, components...))
	r.want(changes == 2, "the requests changed sites %d times in 2 switches", changes)
	r.say("A served %s after it was up; %d requests, %d failed, the longest waited %s", ms(served), n.Requests, n.Failed, ms(n.Slowest))
	return s.Settled(ctx, 30*time.Second)
}

// addressFailsBack is played again when the address went back for another reason:
// lb2 may find site a later than lb1 does, which has it at home, and hands the
// address over to whoever has a path to the active site.
func addressFailsBack(ctx context.Context, s *stage, r *report) error {
	for range 3 {
		before := s.handedOverForPath()
		took, err := s.cutAndBack(ctx, r)
		if err != nil {
			return err
		}
		if s.handedOverForPath() > before {
			r.say("handed over for the path to the site after %s; again", ms(took))
			if err := s.Settled(ctx, 30*time.Second); err != nil {
				return err
			}
			continue
		}
		r.want(took > 1900*time.Millisecond, "lb1 held %v after it was back, before the delay was over", took)
		r.say("lb1 held again %s after it was back (delay 2 s)", ms(took))
		return nil
	}
	r.want(false, "each time the address went back for the path to the site, and never for the delay")
	return nil
}

// handedOverForPath is how often lb2 has let go for the path to the active site.
func (s *stage) handedOverForPath() int {
	return strings.Count(s.Log("lb2", "tandem"), `"path-lost"`)
}

// cutAndBack cuts lb1 off, and says how long after the heal it holds again.
func (s *stage) cutAndBack(ctx context.Context, r *report) (time.Duration, error) {
	if err := s.Cut(ctx, "lb1"); err != nil {
		return 0, err
	}
	if err := s.await(ctx, 10*time.Second, "lb2 holds", func() error { return s.holds("lb2") }); err != nil {
		return 0, err
	}
	if err := s.Heal(ctx); err != nil {
		return 0, err
	}
	from := now()
	if err := s.await(ctx, 30*time.Second, "lb1 holds", func() error { return s.holds("lb1") }); err != nil {
		return 0, err
	}
	took := lab.Now() - from.lab
	j := s.Referee.Judge(from.lab, lab.Now())
	r.want(j.TwoAnswer == 0, "two answered for %v", j.TwoAnswer)
	return took, nil
}

// A planned switch whose takeover hook takes 300 ms, at 1,000 requests a
// second: with requests held, and without.
func holding() chapter {
	return chapter{"holding", holdOptions(false), []row{
		{"hold", "planned exclusive switch, takeover hook of 300 ms, 1,000 requests/s, requests held: none fails", switchUnderLoad},
		{"hold", "site failure at 1,000 requests/s, requests held: only what was under way fails", failureUnderLoad},
	}}
}

func unheld() chapter {
	return chapter{"holding", holdOptions(true), []row{
		{"no hold", "the same planned switch without TANDEM_HOLD, for comparison", switchUnderLoad},
		{"no hold", "the same failure without TANDEM_HOLD, for comparison", failureUnderLoad},
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
	return s.loss(ctx, r, from, 0)
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
	return s.loss(ctx, r, from, 700*time.Millisecond)
}

// loss says what failed. Requests may fail that began within grace of a
// failure: before HAProxy found the servers dead.
func (s *stage) loss(ctx context.Context, r *report, from moment, grace time.Duration) error {
	n, err := s.noticed(ctx, from)
	if err != nil {
		return err
	}
	late := 0
	for _, q := range s.Client.Requests(from.lab) {
		if q.Kind == lab.KindNew && !q.OK() && q.Start >= from.lab+grace && q.Start < n.To {
			late++
		}
	}
	rate := float64(n.Requests) / (n.To - n.From).Seconds()
	r.say("%.0f requests/s; %d of %d failed, the longest that succeeded took %s", rate, n.Failed, n.Requests, ms(n.Slowest))
	if !s.noHold {
		r.want(late == 0, "%d requests failed that began %v or more after it", late, grace)
	}
	return nil
}
