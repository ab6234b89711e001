package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// refusals are how often the platform refuses the registration of S1's switch.
const refusals = 3

// leastPause is the shortest pause after the nth failure of a notify hook: the
// pauses begin at 1 s and grow by half each time, and each is shortened or
// lengthened by up to a half at random.
func leastPause(n int) time.Duration {
	least := 500 * time.Millisecond
	for range n {
		least = least * 3 / 2
	}
	return least
}

// platformToldAtSwitch is about the switch of S1, at which the platform refused
// the first registrations.
func platformToldAtSwitch(ctx context.Context, s *stage, r *report) error {
	r.hold(s.registered(ctx, r, r.story.failure, "b"))
	tries := s.platform.attempts(r.story.failure)
	r.want(len(tries) == refusals+1, "%d registrations were tried, want %d refused and one taken", len(tries), refusals)
	for i := 1; i < len(tries); i++ {
		waited := time.Duration(tries[i] - tries[i-1])
		r.want(waited >= leastPause(i-1), "try %d came %v after the one before, want a pause of at least %v", i+1, waited, leastPause(i-1))
	}
	r.say("refused %d times, tried again each time after a longer pause", len(tries)-1)
	return nil
}

// platformToldAgain is about the switch of S3.
func platformToldAgain(ctx context.Context, s *stage, r *report) error {
	r.hold(s.registered(ctx, r, r.story.command, "a"))
	return nil
}

// registered waits until the platform knows a site's address.
func (s *stage) registered(ctx context.Context, r *report, from moment, site string) error {
	var last registration
	err := s.await(ctx, 40*time.Second, "registration", func() error {
		known := s.platform.since(from)
		if len(known) == 0 {
			return errors.New("none")
		}
		last = known[len(known)-1]
		if want := "http://" + s.Node(s.machineOf(site)).IP.String() + ":8081/messages"; last.Site != site || last.URL != want {
			return errors.New("the platform was told " + last.URL + ", want " + want)
		}
		return nil
	})
	if err == nil {
		r.say("the platform knew %s after %s", last.URL, ms(time.Duration(last.at-from.wall)))
	}
	return err
}

// platformAway cuts the way to the platform: what is sent there is lost.
func platformAway(ctx context.Context, s *stage, r *report) error {
	if err := s.platform.cut(ctx); err != nil {
		return err
	}
	from := now()
	if err := s.takeover(ctx, "b"); err != nil {
		return err
	}
	took := now().lab - from.lab
	r.hold(s.problem(ctx, "notify hook"))
	r.hold(s.await(ctx, 20*time.Second, "a second try", func() error {
		if n := s.begun(from, "lb2", "register_webhooks.sh"); n < 2 {
			return fmt.Errorf("%d tries", n)
		}
		return nil
	}))
	r.hold(s.servedAt(ctx, "b", components...))
	r.want(len(s.platform.attempts(from)) == 0, "the platform was told although it is away")
	if err := s.platform.heal(ctx); err != nil {
		return err
	}
	r.say("switched in %s; status said that the platform was not told; tried %d times meanwhile", ms(took), s.begun(from, "lb2", "register_webhooks.sh"))
	r.hold(s.registered(ctx, r, from, "b"))
	r.hold(s.await(ctx, 10*time.Second, "no problem any more", func() error {
		st, err := s.status(ctx, "lb1")
		if err == nil && st.Health != "healthy" {
			err = fmt.Errorf("%s: %q", st.Health, st.Problems)
		}
		return err
	}))
	return nil
}
