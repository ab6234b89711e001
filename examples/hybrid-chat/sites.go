package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tandem/examples/lab"
)

// sites are the rows about the two sites, in exclusive order with requests
// held.
func sites() chapter {
	return chapter{"sites", options{env: map[string]string{"TANDEM_HOOK_TIMEOUT": "2s"}}, []row{
		{"B7", "the applications of the standby die: nothing moves, status is degraded", standbyDies},
		{"S7", "a component that is not critical dies: nothing moves but that component", uncriticalDies},
		{"S1", "every component of A dies: B takes over, its scripts run once, in order, before the first request", activeDies},
		{"C1", "the notify hook tells the messaging platform the new site's address, with back-off until it succeeds", platformToldAtSwitch},
		{"B6", "the applications of A have died: the brokers stay as they are", brokersStayed},
		{"S2", "A recovers: B stays active", recovers},
		{"S3", "takeover a by command: B's renounce scripts, then A's takeover scripts, then traffic; nothing fails", commanded},
		{"C1", "and again after the next switch", platformToldAgain},
		{"S5", "at no instant of S1 to S3 was a request sent to both sites", neverBoth},
		{"S6", "one critical component of A dies: the whole of A is left", criticalDies},
		{"S8", "takeover.sh at B fails and hangs: tried again, given up, said; A is used again", takeoverFails},
		{"C2", "the platform cannot be reached during a switch: nothing waits for it; it is told later", platformAway},
		{"X1", "servers outside the sites were never touched", leftAlone},
	}}
}

func standbyDies(ctx context.Context, s *stage, r *report) error {
	from := now()
	r.story.began = from
	if err := s.kill("lb2", "ccm"); err != nil {
		return err
	}
	r.hold(s.problem(ctx, "site b"))
	r.hold(s.quiet(ctx, from, "a"))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.hold(s.allAt(from, "a"))
	r.hold(s.ran(from))
	r.say("%d requests, all of them to A, %d failed; status degraded", n.Requests, n.Failed)
	return errors.Join(s.boot(ctx, "lb2", "ccm"), s.Steady(ctx, 10*time.Second))
}

// allAt tells whether every request since from reached one site.
func (s *stage) allAt(from moment, site string) error {
	all := s.served(from, components...)
	for _, e := range all {
		if e.site != site {
			return fmt.Errorf("a request reached %s at %s", e.text, e.machine)
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("no request reached site %s", site)
	}
	return nil
}

func uncriticalDies(ctx context.Context, s *stage, r *report) error {
	if err := s.await(ctx, 10*time.Second, "ccm of B up again", func() error { return s.up(ctx, "ccm/ccm-b") }); err != nil {
		return err
	}
	before, epoch, err := s.paths(ctx)
	if err != nil {
		return err
	}
	from := now()
	if err := s.kill("lb1", "reporting"); err != nil {
		return err
	}
	r.hold(s.await(ctx, 5*time.Second, "reporting found dead", func() error {
		return s.isState(ctx, "reporting/reporting-a", "down")
	}))
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	r.hold(s.quiet(ctx, from, "a"))
	r.hold(s.servedAt(ctx, "a", critical...))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.hold(s.allAt(from, "a"))
	r.hold(s.ran(from))
	after, still, err := s.paths(ctx)
	r.hold(err)
	for server, state := range before {
		own := strings.HasSuffix(server, "reporting/reporting-a")
		r.want(own || after[server] == state, "%s was %s and is %s", server, state, after[server])
	}
	r.want(still == epoch, "something was decided: epoch %d, before %d", still, epoch)
	r.say("%d servers of the others as they were, nothing decided; %d requests, %d failed", len(before)-2, n.Requests, n.Failed)
	return s.boot(ctx, "lb1", "reporting")
}

// paths are the states of every server on both load balancers, and the epoch of
// the decision.
func (s *stage) paths(ctx context.Context) (map[string]string, uint64, error) {
	all := map[string]string{}
	for _, lb := range lab.LBs() {
		states, err := s.ServerStates(ctx, lb)
		if err != nil {
			return nil, 0, err
		}
		for server, state := range states {
			all[lb+" "+server] = state
		}
	}
	st, err := s.status(ctx, "lb1")
	return all, st.Site.Epoch, err
}

// isState tells whether both load balancers see a server in a state.
func (s *stage) isState(ctx context.Context, server, want string) error {
	for _, lb := range lab.LBs() {
		states, err := s.ServerStates(ctx, lb)
		if err != nil {
			return err
		}
		if states[server] != want {
			return errors.New(lb + ": " + server + " is " + states[server])
		}
	}
	return nil
}

func activeDies(ctx context.Context, s *stage, r *report) error {
	if err := s.await(ctx, 10*time.Second, "reporting up", func() error { return s.isState(ctx, "reporting/reporting-a", "ready") }); err != nil {
		return err
	}
	from := now()
	r.story.failure = from
	r.story.switches++
	s.platform.refuse(refusals) // row C1 tells of it
	if err := s.kill("lb1", components...); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "site b active on both load balancers", func() error { return s.activeAt(ctx, "b") }); err != nil {
		return err
	}
	if err := s.Steady(ctx, 10*time.Second); err != nil {
		return err
	}
	r.hold(s.servedAt(ctx, "b", components...))
	r.hold(s.moved(from, "b"))
	n, err := s.noticed(ctx, from)
	r.hold(err)
	j := s.Referee.Judge(from.lab, lab.Now())
	r.want(len(j.Moves) == 0, "the address moved: %v", j.Moves)
	r.say("B answered %s after the kill; %d of %d requests failed %v, the longest that succeeded took %s",
		ms(s.firstFrom("b", from)), n.Failed, n.Requests, words(n.Errors), ms(n.Slowest))
	// What was in flight when A died is lost, and what was sent to a dead server
	// before HAProxy knew. Nothing else.
	r.hold(s.lostBeforeDetection(from, n, "a"))
	return nil
}

func words(m map[string]int) string {
	var out []string
	for w := range m {
		out = append(out, w)
	}
	return "(" + strings.Join(out, ", ") + ")"
}

func brokersStayed(ctx context.Context, s *stage, r *report) error {
	r.hold(s.decidedFor(ctx, "amq", "a"))
	r.hold(s.brokerIs(ctx, "amq-a"))
	st, err := s.status(ctx, "lb1")
	r.hold(err)
	for _, g := range st.Groups {
		r.want(g.Group != "amq" || g.Since.UnixNano() < r.story.failure.wall, "the brokers moved at %v", g.Since)
	}
	r.say("broker amq-a through both load balancers as before, applications at b")
	return nil
}

func recovers(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.boot(ctx, "lb1", components...); err != nil {
		return err
	}
	if err := s.await(ctx, 10*time.Second, "site a usable", func() error { return s.sees(ctx, "a") }); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	r.hold(s.quiet(ctx, from, "b"))
	r.hold(s.servedAt(ctx, "b", components...))
	r.hold(s.allAt(from, "b"))
	r.hold(s.ran(from))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.say("A usable again; 2 s later B is active, %d requests, %d failed", n.Requests, n.Failed)
	return nil
}

// sees tells whether both load balancers see a site usable.
func (s *stage) sees(ctx context.Context, site string) error {
	st, err := s.status(ctx, "lb1")
	if err != nil {
		return err
	}
	n := 0
	for _, v := range st.Views {
		if v.Site == site && v.Group == "default" && v.Usable {
			n++
		}
	}
	if n < len(lab.LBs()) {
		return errors.New("site " + site + " is not seen usable by both")
	}
	return nil
}

func commanded(ctx context.Context, s *stage, r *report) error {
	from := now()
	r.story.switches++
	r.story.command = from
	if err := s.takeover(ctx, "a"); err != nil {
		return err
	}
	done := now()
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	r.hold(s.moved(from, "a"))
	r.hold(s.servedAt(ctx, "a", components...))
	n, err := s.noticed(ctx, from)
	r.hold(err)
	r.want(n.Failed == 0, "%d of %d requests failed: %v", n.Failed, n.Requests, n.Errors)
	r.say("%d requests, %d failed, the longest waited %s; switched in %s",
		n.Requests, n.Failed, ms(n.Slowest), ms(done.lab-from.lab))
	return nil
}

func neverBoth(_ context.Context, s *stage, r *report) error {
	all := s.served(r.story.began, components...)
	changes, err := s.oneAtATime(r.story.began, "")
	r.hold(err)
	r.want(changes == r.story.switches, "the requests changed sites %d times in %d switches: both served at once", changes, r.story.switches)
	r.say("%d requests, in the order of their arrival at the applications: %d changes of site in %d switches", len(all), changes, r.story.switches)
	return nil
}

func leftAlone(ctx context.Context, s *stage, r *report) error {
	r.hold(s.untouched(ctx))
	for _, lb := range lab.LBs() {
		log := s.Log(lb, "haproxy")
		for line := range strings.Lines(log[min(s.before[lb], len(log)):]) {
			if strings.Contains(line, "Server bot/") && !strings.Contains(line, "bot-2") {
				r.want(false, "%s: %s", lb, strings.TrimSpace(line))
			}
		}
	}
	var bots, failed int
	for _, q := range s.Client.Requests(r.story.began.lab) {
		if q.Path != "/bot/" {
			continue
		}
		if bots++; !q.OK() {
			failed++
		}
	}
	r.want(failed == 0, "%d of %d requests to the bot failed", failed, bots)
	r.say("the operator's drain and maintenance are as they were; %d requests to the bot, %d failed", bots, failed)
	return nil
}
