package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"tandem/examples/lab"
	"tandem/sidecar/status"
)

// arbitration are the rows about who holds the address.
func arbitration() chapter {
	return chapter{"arbitration", options{env: map[string]string{"TANDEM_MOVE_GRACE": "1s"}}, []row{
		{"R2", "the witness is down: lb1 keeps holding, status is degraded", witnessDown},
		{"R3", "lb2 is down, then back: lb1 keeps holding, lb2 catches up before it is eligible", standbyDown},
		{"R5", "lb2 is cut off, then back: lb1 keeps holding, lb2 holds and routes nothing, and follows again", standbyCut},
		{"R6", "lb1 is cut off: lb2 holds, lb1 let go before", holderCut},
		{"R1", "lb1 is down: lb2 holds within 1 s", holderDown},
		{"R4", "lb1 and the witness are down: lb2 does not take over; the operator can force it", majorityDown},
	}}
}

// answeredByB waits until the client is served by site b and says how long after
// a moment that was.
func (s *stage) answeredByB(ctx context.Context, r *report, from moment) string {
	const site = "b"
	r.hold(s.await(ctx, 20*time.Second, "an answer of "+site, func() error {
		if s.firstFrom(site, from) < 0 {
			return errors.New("none")
		}
		return nil
	}))
	return ms(s.firstFrom(site, from))
}

// holds tells whether a load balancer answers for the address.
func (s *stage) holds(lb string) error {
	if h := s.Holder(); h != lb {
		return fmt.Errorf("%q answers for the address, want %s", h, lb)
	}
	return nil
}

// decides tells whether a load balancer makes the site decision.
func (s *stage) decides(ctx context.Context, lb string) error {
	who, err := s.decider(ctx)
	if err == nil && who != lb {
		err = fmt.Errorf("%s decides, want %s", who, lb)
	}
	return err
}

// home brings the address to lb1, and the decision with it, and the applications
// to site a.
func (s *stage) home(ctx context.Context) error {
	if err := s.Settled(ctx, 40*time.Second); err != nil {
		return err
	}
	if s.Holder() != "lb1" {
		if _, err := s.Tandem(ctx, "lb2", "move", "--to", "lb1"); err != nil {
			return err
		}
	}
	if err := s.await(ctx, 20*time.Second, "the address at lb1", func() error { return s.holds("lb1") }); err != nil {
		return err
	}
	if s.activeAt(ctx, "a") != nil {
		if err := s.takeover(ctx, "a"); err != nil {
			return err
		}
	}
	if s.decidedFor(ctx, "amq", "a") != nil {
		if _, err := s.Tandem(ctx, "lb1", "takeover", "a", "--group", "amq"); err != nil {
			return err
		}
	}
	if err := s.await(ctx, 20*time.Second, "the decision at lb1", func() error { return s.decides(ctx, "lb1") }); err != nil {
		return err
	}
	return s.Steady(ctx, 20*time.Second)
}

func witnessDown(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.PowerOff(ctx, "witness"); err != nil {
		return err
	}
	r.hold(s.problem(ctx, "witness is silent"))
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	r.hold(s.quiet(ctx, from, "a"))
	r.hold(s.allAt(from, "a"))
	r.hold(s.ran(from))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.say("%d requests, %d failed; status degraded", n.Requests, n.Failed)
	return errors.Join(s.PowerOn(ctx, "witness"), s.Settled(ctx, 30*time.Second))
}

func standbyDown(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.PowerOff(ctx, "lb2"); err != nil {
		return err
	}
	r.hold(s.problem(ctx, "lb2 is silent"))
	// The decision goes on without it.
	for _, c := range []string{"pause", "resume"} {
		if _, err := s.Tandem(ctx, "lb1", c); err != nil {
			return err
		}
	}
	if err := errors.Join(s.PowerOn(ctx, "lb2"), s.boot(ctx, "lb2", "ccm", "amq")); err != nil {
		return err
	}
	var back time.Duration
	err := s.await(ctx, 20*time.Second, "lb2 eligible", func() error {
		st, err := s.status(ctx, "lb1")
		if err != nil {
			return err
		}
		i := slices.IndexFunc(st.Nodes, func(n status.Node) bool { return n.Name == "lb2" })
		n := st.Nodes[i]
		if !n.Eligible {
			return fmt.Errorf("not eligible: %s", n.Reason)
		}
		back = lab.Now() - from.lab
		r.want(n.AppliedEpoch >= st.Site.Epoch, "eligible at epoch %d, the decision is %d", n.AppliedEpoch, st.Site.Epoch)
		r.say("eligible %s after the power failure, at the epoch decided meanwhile (%d)", ms(back), st.Site.Epoch)
		return nil
	})
	r.hold(err)
	r.hold(s.quiet(ctx, from, "a"))
	r.hold(s.routes(ctx, "lb2", "a", components...))
	r.hold(s.allAt(from, "a"))
	r.hold(s.ran(from))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.say("%d requests, %d failed", n.Requests, n.Failed)
	return s.Settled(ctx, 30*time.Second)
}

// alone tells whether a load balancer that is cut off routes nothing.
func (s *stage) alone(ctx context.Context, lb string) error {
	states, err := s.ServerStates(ctx, lb)
	if err != nil {
		return err
	}
	for _, name := range append([]string{"amq"}, components...) {
		for _, site := range lab.Sites() {
			if at := states[name+"/"+name+"-"+site]; at == "ready" {
				return fmt.Errorf("%s still sends to %s-%s", lb, name, site)
			}
		}
	}
	return nil
}

func standbyCut(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.Cut(ctx, "lb2"); err != nil {
		return err
	}
	err := s.await(ctx, 15*time.Second, "lb2 drained", func() error { return s.alone(ctx, "lb2") })
	r.hold(err)
	drained := lab.Now() - from.lab
	r.hold(s.quiet(ctx, from, "a"))
	if err := s.Heal(ctx); err != nil {
		return err
	}
	if err := s.await(ctx, 20*time.Second, "lb2 follows", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	if err := s.Settled(ctx, 30*time.Second); err != nil {
		return err
	}
	r.hold(s.quiet(ctx, from, "a"))
	j := s.Referee.Judge(from.lab, lab.Now())
	r.want(j.TwoHave == 0, "lb2 had the address for %v", j.TwoHave)
	r.hold(s.servedAt(ctx, "a", critical...))
	r.hold(s.allAt(from, "a"))
	r.hold(s.ran(from))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.say("lb2 sent nothing anywhere %s after the cut; %d requests, %d failed", ms(drained), n.Requests, n.Failed)
	return nil
}

func holderCut(ctx context.Context, s *stage, r *report) error {
	before := now()
	if err := s.await(ctx, 10*time.Second, "a request", func() error {
		if len(s.served(before, components...)) == 0 {
			return errors.New("none has come yet")
		}
		return nil
	}); err != nil {
		return err
	}
	from := now()
	if err := s.Cut(ctx, "lb1"); err != nil {
		return err
	}
	if err := s.await(ctx, 10*time.Second, "lb2 holds", func() error { return s.holds("lb2") }); err != nil {
		return err
	}
	j := s.Referee.Judge(from.lab, lab.Now())
	r.want(j.TwoAnswer == 0, "two answered for %v", j.TwoAnswer)
	letGo, err := s.event(ctx, "lb1", "let-go", from)
	r.hold(err)
	takeUp, err := s.event(ctx, "lb2", "take-up", from)
	r.hold(err)
	r.want(letGo < takeUp, "lb1 let go %v after lb2 had taken up", letGo-takeUp)
	r.say("lb1 let go %s after the cut, lb2 took up %s after that", ms(letGo), ms(takeUp-letGo))
	// Machine A is cut off with its applications: they go to B, when lb1 has had
	// the time to stop routing.
	err = s.await(ctx, 30*time.Second, "B serves", func() error {
		return errors.Join(s.routes(ctx, "lb2", "b", critical...), s.alone(ctx, "lb1"))
	})
	r.hold(err)
	r.say("B served %s after the cut", s.answeredByB(ctx, r, from))
	if err := errors.Join(s.Heal(ctx), s.Settled(ctx, 30*time.Second)); err != nil {
		return err
	}
	r.want(s.holds("lb2") == nil, "without failback lb2 must keep the address; %v", s.holds("lb2"))
	r.hold(s.decidedFor(ctx, "default", "b"))
	changes, err := s.oneAtATime(before, "")
	r.hold(err)
	r.want(changes == 1, "%d changes of site", changes)
	return s.home(ctx)
}

// event is when a node noted an event about the address, after a moment.
func (s *stage) event(ctx context.Context, node, event string, from moment) (time.Duration, error) {
	out, err := s.Tandem(ctx, node, "history", "--json")
	if err != nil {
		return 0, err
	}
	var history struct{ Transitions []status.Transition }
	if err = json.Unmarshal([]byte(out), &history); err != nil {
		return 0, fmt.Errorf("read history: %w", err)
	}
	for _, t := range history.Transitions {
		if at := t.At.UnixNano() - from.wall; at > 0 && t.Node == node && t.Event == event && t.Resource == "vip/default" {
			return time.Duration(at), nil
		}
	}
	return 0, fmt.Errorf("%s noted no %s", node, event)
}

// leaseLength is how long the lease of the address is. It follows the stalls of
// the last minute: on a machine that stood still for 400 ms it is 2 s.
func (s *stage) leaseLength(ctx context.Context) (time.Duration, error) {
	st, err := s.status(ctx, "lb1")
	if err != nil {
		return 0, err
	}
	for _, l := range st.Leases {
		if l.Resource == "vip/default" {
			return time.Duration(l.LengthMS) * time.Millisecond, nil
		}
	}
	return 0, fmt.Errorf("no lease of the address: %v", st.Leases)
}

func holderDown(ctx context.Context, s *stage, r *report) error {
	length, err := s.leaseLength(ctx)
	if err != nil {
		return err
	}
	from := now()
	if err := s.PowerOff(ctx, "lb1"); err != nil {
		return err
	}
	if err := s.await(ctx, 10*time.Second, "lb2 holds", func() error { return s.holds("lb2") }); err != nil {
		return err
	}
	j := s.Referee.Judge(from.lab, lab.Now())
	n, err := s.noticed(ctx, from)
	r.hold(err)
	r.want(len(j.Moves) == 1 && j.Moves[0].To == "lb2" && j.TwoAnswer == 0, "moves %v, two answered for %v", j.Moves, j.TwoAnswer)
	if len(j.Moves) > 0 {
		// While the referee or the client stood still, everything else on this
		// machine did, and a lease is as long as such a minute asks for.
		took, stalled := j.Moves[0].At-from.lab, max(j.Blind, n.Lag)
		within := max(time.Second, length+150*time.Millisecond) + stalled
		r.want(took < within, "lb2 held after %v, want within %v: the lease was %v, the machine stalled for %v", took, within, length, stalled)
		r.say("lb2 held %s after the power failure, with a lease of %s", ms(took), ms(length))
	}
	err = s.await(ctx, 30*time.Second, "B serves", func() error { return s.routes(ctx, "lb2", "b", critical...) })
	r.hold(err)
	r.say("B served %s after it: lb1 might have routed to A until then", s.answeredByB(ctx, r, from))
	if err := errors.Join(s.PowerOn(ctx, "lb1"), s.boot(ctx, "lb1", append([]string{"amq"}, components...)...)); err != nil {
		return err
	}
	return s.home(ctx)
}

func majorityDown(ctx context.Context, s *stage, r *report) error {
	if err := errors.Join(s.PowerOff(ctx, "witness"), s.PowerOff(ctx, "lb1")); err != nil {
		return err
	}
	from := now()
	if err := pause(ctx, 4*time.Second); err != nil {
		return err
	}
	j := s.Referee.Judge(from.lab, lab.Now())
	r.want(j.Nobody > 3900*time.Millisecond, "somebody answered: %+v", j)
	r.want(!slices.Contains(s.Referee.Last().Have, "lb2"), "lb2 has the address")
	r.hold(s.await(ctx, 10*time.Second, "lb2 drained", func() error { return s.alone(ctx, "lb2") }))
	r.hold(s.ran(from))
	out, err := s.Tandem(ctx, "lb2", "takeover", "b")
	r.want(err != nil && strings.Contains(err.Error(), "TANDEM_MODE=single"), "takeover b at lb2: %q %v, want refused, with the way to force it", out, err)
	st, err := s.status(ctx, "lb2")
	r.hold(err)
	r.want(st.Health == status.Unknown, "lb2 says %s", st.Health)
	r.say("lb2 answered for nothing in 4 s and said that it cannot tell")
	// By force: lb2 is told that it is the only voter.
	s.override["lb2"] = map[string]string{"TANDEM_PEERS": "lb2=" + s.Node("lb2").IP.String(), "TANDEM_MODE": "single"}
	forced := now()
	if err := errors.Join(s.Stop(ctx, "lb2", "tandem", syscall.SIGTERM, 10*time.Second), s.StartSystem("lb2")); err != nil {
		return err
	}
	if err := s.await(ctx, 20*time.Second, "lb2 holds", func() error { return s.holds("lb2") }); err != nil {
		return err
	}
	held := lab.Now() - forced.lab
	err = s.await(ctx, 40*time.Second, "B serves", func() error { return s.routes(ctx, "lb2", "b", critical...) })
	r.hold(err)
	r.say("told to be the only voter, it held after %s and B served after %s", ms(held), s.answeredByB(ctx, r, forced))
	// Back to three voters, lb2 first: two must never hold.
	delete(s.override, "lb2")
	if err := errors.Join(s.Stop(ctx, "lb2", "tandem", syscall.SIGTERM, 10*time.Second), s.StartSystem("lb2"),
		s.PowerOn(ctx, "witness"), s.PowerOn(ctx, "lb1"), s.boot(ctx, "lb1", append([]string{"amq"}, components...)...)); err != nil {
		return err
	}
	if err := s.Settled(ctx, 40*time.Second); err != nil {
		return err
	}
	j = s.Referee.Judge(from.lab, lab.Now())
	r.want(j.TwoAnswer == 0, "two answered for %v", j.TwoAnswer)
	return nil
}
