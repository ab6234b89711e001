package main

import (
	"context"
	"errors"
	"time"

	"tandem/examples/lab"
)

// brokers are the rows about the broker pair, an independent backend.
func brokers() chapter {
	return chapter{"brokers", options{env: map[string]string{"TANDEM_MOVE_GRACE": "1s"}}, []row{
		{"B1", "amq-a dies: clients are sent to amq-b, site a stays active", brokerDies},
		{"B2", "amq-a and the whole of A die: everything is at B", siteAndBrokerDie},
		{"B3", "A recovers: B keeps serving, until it is told to renounce", siteAndBrokerRecover},
		{"B5", "A and amq-b are down, amq-a comes back: brokers at A, applications at B, and it stays so", brokerComesBackAlone},
		{"B4", "the link between A and B is cut, the witness sees both: exactly one side goes on", linkCut},
		{"B4", "the witness is cut off as well: nobody new takes over", allCut},
		{"X1", "servers outside the sites were never touched", leftAlone},
	}}
}

func brokerDies(ctx context.Context, s *stage, r *report) error {
	from := now()
	r.story.began = from
	if err := s.kill("lb1", "amq"); err != nil {
		return err
	}
	err := s.await(ctx, 10*time.Second, "amq-b", func() error {
		name, err := s.broker(ctx, lab.VIP().String())
		if err == nil && name != "amq-b" {
			err = errors.New("the broker is " + name)
		}
		return err
	})
	r.say("amq-b answered %s after the kill", ms(lab.Now()-from.lab))
	r.hold(err)
	r.hold(s.await(ctx, 5*time.Second, "amq at b", func() error {
		return errors.Join(s.brokerIs(ctx, "amq-b"), s.decidedFor(ctx, "amq", "b"))
	}))
	r.hold(s.quiet(ctx, from, "a"))
	r.hold(s.servedAt(ctx, "a", components...))
	r.hold(s.allAt(from, "a"))
	r.hold(s.ran(from))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.say("site a stayed active: %d requests, %d failed", n.Requests, n.Failed)
	return errors.Join(s.boot(ctx, "lb1", "amq"), s.await(ctx, 10*time.Second, "amq-a up", func() error { return s.isState(ctx, "amq/amq-a", "drain") }), s.home(ctx))
}

func siteAndBrokerDie(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.kill("lb1", append([]string{"amq"}, components...)...); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "everything at b", func() error {
		return errors.Join(s.activeAt(ctx, "b"), s.decidedFor(ctx, "amq", "b"), s.brokerIs(ctx, "amq-b"))
	}); err != nil {
		return err
	}
	r.hold(s.servedAt(ctx, "b", components...))
	r.hold(s.moved(from, "b"))
	r.say("the applications of B answered %s after the kill, and amq-b", ms(s.firstFrom("b", from)))
	return nil
}

func siteAndBrokerRecover(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.boot(ctx, "lb1", append([]string{"amq"}, components...)...); err != nil {
		return err
	}
	if err := s.await(ctx, 10*time.Second, "site a usable", func() error { return s.sees(ctx, "a") }); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	r.hold(s.quiet(ctx, from, "b"))
	r.hold(s.brokerIs(ctx, "amq-b"))
	r.hold(s.decidedFor(ctx, "amq", "b"))
	r.hold(s.allAt(from, "b"))
	r.hold(s.ran(from))
	r.say("A usable again; 2 s later everything is at B")
	told := now()
	for _, args := range [][]string{{"renounce", "--group", "amq"}, {"renounce"}} {
		if _, err := s.Tandem(ctx, "lb2", args...); err != nil { // at B, without a name: its own site
			return err
		}
	}
	if err := s.await(ctx, 30*time.Second, "everything at a", func() error {
		return errors.Join(s.activeAt(ctx, "a"), s.decidedFor(ctx, "amq", "a"), s.brokerIs(ctx, "amq-a"))
	}); err != nil {
		return err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	r.hold(s.moved(told, "a"))
	n, err := s.noticed(ctx, told)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.say("told to renounce, B gave everything to A: %d requests, %d failed", n.Requests, n.Failed)
	return nil
}

func brokerComesBackAlone(ctx context.Context, s *stage, r *report) error {
	if err := errors.Join(s.kill("lb1", append([]string{"amq"}, components...)...), s.kill("lb2", "amq")); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "applications at b, no broker", func() error {
		return errors.Join(s.activeAt(ctx, "b"), s.isState(ctx, "amq/amq-a", "down"), s.isState(ctx, "amq/amq-b", "down"))
	}); err != nil {
		return err
	}
	from := now()
	if err := s.boot(ctx, "lb1", "amq"); err != nil {
		return err
	}
	err := s.await(ctx, 15*time.Second, "amq-a", func() error { return s.brokerIs(ctx, "amq-a") })
	r.hold(err)
	r.say("amq-a through both load balancers %s after its start", ms(lab.Now()-from.lab))
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	r.hold(s.brokerIs(ctx, "amq-a"))
	r.hold(s.decidedFor(ctx, "amq", "a"))
	r.hold(s.quiet(ctx, from, "b"))
	r.hold(s.servedAt(ctx, "b", components...))
	r.hold(s.allAt(from, "b"))
	r.hold(s.ran(from))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.say("applications at B: %d requests, %d failed", n.Requests, n.Failed)
	return errors.Join(s.boot(ctx, "lb1", components...), s.boot(ctx, "lb2", "amq"), s.home(ctx))
}

func linkCut(ctx context.Context, s *stage, r *report) error {
	from := now()
	r.story.failure = from
	if err := s.CutBetween(ctx, "lb1", "lb2"); err != nil {
		return err
	}
	err := s.await(ctx, 15*time.Second, "lb2 drained", func() error { return s.alone(ctx, "lb2") })
	r.hold(err)
	r.say("lb2 sent nothing anywhere after %s", ms(lab.Now()-from.lab))
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	r.hold(s.alone(ctx, "lb2"))
	r.hold(s.routes(ctx, "lb1", "a", components...))
	j := s.Referee.Judge(from.lab, lab.Now())
	r.want(len(j.Moves) == 0 && j.TwoAnswer == 0 && j.TwoHave == 0, "moves %v, two answered for %v, had it for %v", j.Moves, j.TwoAnswer, j.TwoHave)
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.hold(s.allAt(from, "a"))
	r.hold(s.ran(from))
	r.say("A went on: %d requests, %d failed", n.Requests, n.Failed)
	return nil
}

// allCut goes on where linkCut has ended.
func allCut(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.Cut(ctx, "witness"); err != nil {
		return err
	}
	r.hold(s.await(ctx, 15*time.Second, "both drained", func() error { return errors.Join(s.alone(ctx, "lb1"), s.alone(ctx, "lb2")) }))
	if err := pause(ctx, 4*time.Second); err != nil {
		return err
	}
	j := s.Referee.Judge(from.lab, lab.Now())
	for _, m := range j.Moves {
		r.want(m.To == "lb1", "%s took over", m.To)
	}
	r.want(j.TwoAnswer == 0 && j.TwoHave == 0, "two answered for %v, had it for %v", j.TwoAnswer, j.TwoHave)
	r.want(len(s.Referee.Last().Answer) == 0, "%v answers without a majority", s.Referee.Last().Answer)
	r.hold(s.ran(r.story.failure))
	for _, e := range s.served(r.story.failure, components...) {
		r.want(e.site == "a", "a request reached %s at B", e.text)
	}
	r.say("nobody took over in %s, nobody answered for %s of them", ms(lab.Now()-from.lab), ms(j.Nobody))
	return errors.Join(s.Heal(ctx), s.Settled(ctx, 40*time.Second))
}
