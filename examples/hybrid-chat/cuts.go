package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tandem/examples/lab"
)

// cuts are rows about what may happen to a load balancer, the one that decides
// or the other, in the middle of a switch in exclusive order. The client asks
// both at their own addresses as well, and each application writes down every
// request: that is how it is known that no two sites are sent to at once.
func cuts() chapter {
	var rows []row
	for i, f := range faults() {
		for j, deciding := range []bool{true, false} {
			who := map[bool]string{true: "who decides", false: "the other load balancer"}[deciding]
			rows = append(rows, row{"S5", who + " " + f.what, func(ctx context.Context, s *stage, r *report) error {
				return s.faultsInSwitch(ctx, r, f, deciding, 2*i+j)
			}})
		}
	}
	return chapter{"cuts", cutsOptions(), rows}
}

func cutsOptions() options {
	return options{apart: true, direct: true, noHold: true, env: map[string]string{"TANDEM_MOVE_GRACE": "1s"}}
}

// overlapping is the same with the order in which both sites may be sent to: if
// the judge sees nothing there, it sees nothing at all.
func overlapping() chapter {
	o := cutsOptions()
	o.env["TANDEM_SWITCH"] = "overlap"
	return chapter{"overlap", o, []row{
		{"S5", "counter-check with TANDEM_SWITCH=overlap: who decides is cut off, and both sites are sent to", overlapIsSeen},
	}}
}

// fault is what happens to a load balancer.
type fault struct {
	what string
	do   func(ctx context.Context, s *stage, lb string) error
	// fenced: only the virtual address is safe, since nobody tells HAProxy
	// anything any more.
	fenced bool
	// mute: it must come to route nowhere by itself.
	mute bool
}

func faults() []fault {
	return []fault{
		{"is cut off both ways", func(ctx context.Context, s *stage, lb string) error { return s.Cut(ctx, lb) }, false, true},
		{"is cut off from all other sidecars, clients and servers reach it", func(ctx context.Context, s *stage, lb string) error {
			return s.CutGossip(ctx, lb)
		}, false, true},
		{"is cut off from the voters, and hears the machines of the applications", func(ctx context.Context, s *stage, lb string) error {
			return errors.Join(s.CutBetween(ctx, lb, lab.Other(lb)), s.CutBetween(ctx, lb, "witness"))
		}, false, true},
		{"loses its sidecar, killed", func(_ context.Context, s *stage, lb string) error { return s.Kill(lb, "tandem") }, true, false},
		{"is frozen, and wakes in the middle of what follows", func(_ context.Context, s *stage, lb string) error {
			return s.Freeze(lb, "tandem")
		}, true, false},
		{"loses power", func(ctx context.Context, s *stage, lb string) error { return s.PowerOff(ctx, lb) }, true, false},
	}
}

// instant is a point in a switch from a to b.
type instant struct {
	name string
	now  func(ctx context.Context, s *stage, from moment) bool
}

func instants() []instant {
	script := func(machine, line string) func(context.Context, *stage, moment) bool {
		return func(_ context.Context, s *stage, from moment) bool {
			for _, e := range s.journal(machine, "ha.log", from) {
				if strings.HasPrefix(e.text, line) {
					return true
				}
			}
			return false
		}
	}
	return []instant{
		{"takeover.sh runs", script("b", "takeover.sh begin")},
		{"site a is drained", func(ctx context.Context, s *stage, _ moment) bool {
			for _, lb := range lab.LBs() {
				if states, err := s.ServerStates(ctx, lb); err == nil && states["ccm/ccm-a"] == "drain" {
					return true
				}
			}
			return false
		}},
		{"the scripts have ended", script("b", "takeover_reporting.sh end")},
		{"it is asked for", func(context.Context, *stage, moment) bool { return true }},
		{"renounce.sh runs", script("a", "renounce.sh begin")},
	}
}

// faultsInSwitch has a fault come at one instant of a switch, another one for
// each row, or at each of them.
func (s *stage) faultsInSwitch(ctx context.Context, r *report, f fault, deciding bool, nth int) error {
	all := instants()
	times := len(all)
	if !s.everyInstant {
		times = 1
	}
	for i := range times {
		if err := s.faultInSwitch(ctx, r, f, deciding, all[(nth+i)%len(all)], nth+i); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) faultInSwitch(ctx context.Context, r *report, f fault, deciding bool, at instant, nth int) error {
	lb, err := s.decider(ctx)
	if err != nil {
		return err
	}
	if !deciding {
		lb = lab.Other(lb)
	}
	from := now()
	if err := pause(ctx, 100*time.Millisecond); err != nil { // the site that is left serves
		return err
	}
	asked := s.ask(ctx, lab.Other(lb), "takeover", "b")
	err = s.await(ctx, 20*time.Second, at.name, func() error {
		if !at.now(ctx, s, from) {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, <-asked)
	}
	struck := now()
	if err := f.do(ctx, s, lb); err != nil {
		return errors.Join(err, <-asked)
	}
	if f.mute {
		r.hold(s.await(ctx, 15*time.Second, lb+" drained", func() error { return s.alone(ctx, lb) }))
		r.say("%s sent nothing anywhere %s after it was struck", lb, ms(lab.Now()-struck.lab))
	}
	// From awake at once to long replaced.
	if err := pause(ctx, []time.Duration{5 * time.Second, 300 * time.Millisecond, 1500 * time.Millisecond}[nth%3]); err != nil {
		return errors.Join(err, <-asked)
	}
	answer := "answered"
	if <-asked != nil {
		answer = "not answered" // by who was struck
	}
	if err := s.Repair(ctx); err != nil {
		return err
	}
	ended, err := s.agreed(ctx)
	if err != nil {
		return err
	}
	without := ""
	if f.fenced {
		without = lb
	}
	changes, err := s.oneAtATime(from, without)
	r.hold(err)
	r.hold(s.onceEach(from))
	j := s.Referee.Judge(from.lab, lab.Now())
	r.want(j.TwoAnswer == 0, "two answered for the address for %v", j.TwoAnswer)
	n := len(s.served(from, components...))
	r.want(n > 100, "only %d requests reached the applications: nothing was tried", n)
	r.say("%s, when %s: the command was %s, then %s is active; %d requests, %d change(s) of site", lb, at.name, answer, ended, n, changes)
	return s.homeApart(ctx)
}

// ask types a command without waiting for its end.
func (s *stage) ask(ctx context.Context, node string, args ...string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := s.Tandem(ctx, node, args...)
		done <- err
	}()
	return done
}

// decider is the node that makes the site decision.
func (s *stage) decider(ctx context.Context) (string, error) {
	st, err := s.status(ctx, "lb1")
	if err != nil {
		return "", err
	}
	for _, l := range st.Leases {
		if l.Resource == "site" && l.Holder != "" {
			return l.Holder, nil
		}
	}
	return "", fmt.Errorf("nobody decides: %v", st.Leases)
}

// agreed waits until no switch is under way and both load balancers route to
// the same site alone, and says to which.
func (s *stage) agreed(ctx context.Context) (active string, err error) {
	err = s.await(ctx, 60*time.Second, "one site on both load balancers", func() error {
		st, err := s.status(ctx, "lb1")
		if err != nil {
			return err
		}
		active = st.Site.Active
		if active == "" {
			return errors.New("no site is active")
		}
		return s.activeAt(ctx, active)
	})
	return active, err
}

func overlapIsSeen(ctx context.Context, s *stage, r *report) error {
	if err := errors.Join(s.boot(ctx, "b", components...), s.await(ctx, 10*time.Second, "site b usable", func() error { return s.sees(ctx, "b") })); err != nil {
		return err
	}
	lb, err := s.decider(ctx)
	if err != nil {
		return err
	}
	from := now()
	if err := pause(ctx, 100*time.Millisecond); err != nil { // the site that is left serves
		return err
	}
	if err := s.CutGossip(ctx, lb); err != nil {
		return err
	}
	if err := <-s.ask(ctx, lab.Other(lb), "takeover", "b"); err != nil {
		return err
	}
	if err := s.await(ctx, 20*time.Second, "b at "+lab.Other(lb), func() error { return s.routes(ctx, lab.Other(lb), "b", critical...) }); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	changes := inTurn(s.served(from, components...))
	r.want(changes > 1, "%d changes of site: both were never sent to at once", changes)
	_, err = s.oneAtATime(from, "")
	r.want(err != nil, "%d changes of site, and the judge saw nothing wrong", changes)
	r.say("%d changes of site; the judge says: %v", changes, err)
	return s.Heal(ctx)
}
