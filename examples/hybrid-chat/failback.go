package main

import (
	"context"
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
	r.hold(s.moved(from, "a"))
	r.hold(s.servedAt(ctx, "a", components...))
	st, err := s.status(ctx, "lb1")
	r.hold(err)
	r.want(st.Site.Reason == "failback", "the reason is %s", st.Site.Reason)
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
