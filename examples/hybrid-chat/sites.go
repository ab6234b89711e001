package main

import (
	"context"
	"errors"
	"os"
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
		{"C1", "the notify hook tells the messaging platform the new site's address", platformToldAtSwitch},
		{"B6", "the applications of A have died: the brokers stay as they are", brokersStayed},
		{"S2", "A recovers: B stays active", recovers},
		{"S3", "takeover a by command: B's renounce scripts, then A's takeover scripts, then traffic; nothing fails", commanded},
		{"S5", "at no instant of S1 to S3 was a request sent to both sites", neverBoth},
		{"S6", "one critical component of A dies: the whole of A is left", criticalDies},
		{"S8", "takeover.sh at B fails and hangs: tried again, given up, said; A is used again", takeoverFails},
		{"C2", "the platform cannot be reached during a switch: nothing waits for it; it is told later", platformAway},
		{"X1", "servers outside the sites were never touched", outside},
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
	r.say("%d requests, %d failed; status degraded", n.Requests, n.Failed)
	return errors.Join(s.boot(ctx, "lb2", "ccm"), s.Steady(ctx, 10*time.Second))
}

func uncriticalDies(ctx context.Context, s *stage, r *report) error {
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
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d requests failed: %v %v", n.Failed, n.Errors, err)
	r.say("%d requests to the others, %d failed", n.Requests, n.Failed)
	return s.boot(ctx, "lb1", "reporting")
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
	if err := s.kill("lb1", components...); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "site b active on both load balancers", func() error { return s.activeAt(ctx, "b") }); err != nil {
		return err
	}
	if err := s.Steady(ctx, 10*time.Second); err != nil {
		return err
	}
	r.hold(s.firstRequestAfterScripts(from, "lb2", "takeover.sh", "takeover_reporting.sh"))
	r.want(len(keep(s.scriptsRun("lb1", from), "takeover")) == 0, "takeover scripts ran at A: %v", s.scriptsRun("lb1", from))
	n, err := s.noticed(ctx, from)
	r.hold(err)
	j := s.Referee.Judge(from.lab, lab.Now())
	r.want(len(j.Moves) == 0, "the address moved: %v", j.Moves)
	r.say("B answered %s after the kill; %d of %d requests failed %v, the longest that succeeded took %s",
		ms(s.firstFrom("b", from)), n.Failed, n.Requests, words(n.Errors), ms(n.Slowest))
	// What was in flight when A died is lost, and what was sent to a dead server
	// before HAProxy knew. Nothing else.
	r.want(n.Failed <= n.Requests/4, "%d of %d requests failed: %v", n.Failed, n.Requests, n.Errors)
	return nil
}

// firstRequestAfterScripts tells whether the takeover scripts ran exactly once
// on a machine, in order, before its site had its first request.
func (s *stage) firstRequestAfterScripts(from moment, machine string, names ...string) error {
	ran := keep(s.scriptsRun(machine, from), "takeover")
	if !equal(ran, names...) {
		return errors.New("ran on " + machine + ": " + strings.Join(ran, " ") + "; want " + strings.Join(names, " "))
	}
	var ended int64
	for _, e := range s.journal(machine, "ha.log", from) {
		if strings.HasPrefix(e.text, names[len(names)-1]+" end") {
			ended = e.at
		}
	}
	for _, e := range s.served(from, critical...) {
		if e.site == machines[machine] && e.at < ended {
			return errors.New("a request reached " + e.text + " at " + machine + " before the scripts had ended")
		}
	}
	return nil
}

func keep(names []string, prefix string) []string {
	var out []string
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			out = append(out, n)
		}
	}
	return out
}

func words(m map[string]int) string {
	var out []string
	for w := range m {
		out = append(out, w)
	}
	return "(" + strings.Join(out, ", ") + ")"
}

func platformToldAtSwitch(ctx context.Context, s *stage, r *report) error {
	r.hold(s.registered(ctx, r, r.story.failure, "b"))
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
		if want := "http://" + s.Node(machineOf(site)).IP.String() + ":8081/messages"; last.Site != site || last.URL != want {
			return errors.New("the platform was told " + last.URL + ", want " + want)
		}
		return nil
	})
	if err == nil {
		r.say("the platform knew %s after %s", last.URL, ms(time.Duration(last.at-from.wall)))
	}
	return err
}

func brokersStayed(ctx context.Context, s *stage, r *report) error {
	r.hold(s.decidedFor(ctx, "amq", "a"))
	r.hold(s.brokerIs(ctx, "amq-a"))
	r.say("broker amq-a through both load balancers, applications at b")
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
	if err := s.takeover(ctx, "a"); err != nil {
		return err
	}
	done := now()
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	r.want(equal(s.scriptsRun("lb2", from), "renounce.sh", "renounce_reporting.sh"), "ran at B: %v", s.scriptsRun("lb2", from))
	r.hold(s.firstRequestAfterScripts(from, "lb1", "takeover.sh", "takeover_reporting.sh"))
	n, err := s.noticed(ctx, from)
	r.hold(err)
	r.want(n.Failed == 0, "%d of %d requests failed: %v", n.Failed, n.Requests, n.Errors)
	r.say("%d requests, %d failed, the longest waited %s; switched in %s",
		n.Requests, n.Failed, ms(n.Slowest), ms(done.lab-from.lab))
	r.hold(s.registered(ctx, r, from, "a"))
	return nil
}

func neverBoth(_ context.Context, s *stage, r *report) error {
	all := s.served(r.story.began, components...)
	changes := inTurn(all)
	r.want(changes == r.story.switches, "the requests changed sites %d times in %d switches: both served at once", changes, r.story.switches)
	r.say("%d requests, in the order of their arrival at the applications: %d changes of site in %d switches", len(all), changes, r.story.switches)
	return nil
}

func criticalDies(ctx context.Context, s *stage, r *report) error {
	var worst time.Duration
	for _, name := range critical {
		from := now()
		if err := s.kill("lb1", name); err != nil {
			return err
		}
		if err := s.await(ctx, 30*time.Second, "site b active after "+name, func() error { return s.activeAt(ctx, "b") }); err != nil {
			return err
		}
		worst = max(worst, s.firstFrom("b", from))
		drained := now()
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
		for _, e := range s.served(drained, components...) {
			r.want(e.site == "b", "%s of A got a request after it was left", e.text)
		}
		r.want(inTurn(s.served(from, components...)) == 1, "%s: both sites served at once", name)
		if err := s.takeoverBack(ctx, name); err != nil {
			return err
		}
	}
	r.say("each of %s in turn: B answered at most %s after the kill; nothing more reached A", strings.Join(critical, ", "), ms(worst))
	return nil
}

// takeoverBack mends a component of A and makes A active again.
func (s *stage) takeoverBack(ctx context.Context, name string) error {
	if name == "ccm" { // the others are started by takeover.sh
		if err := s.boot(ctx, "lb1", name); err != nil {
			return err
		}
	}
	return errors.Join(s.takeover(ctx, "a"), s.Steady(ctx, 10*time.Second))
}

func takeoverFails(ctx context.Context, s *stage, r *report) error {
	trouble := service{s.Node("lb2").Dir, "b", "comm"}.path(".trouble")
	if err := os.WriteFile(trouble, []byte("fail hang fail"), 0o600); err != nil {
		return err
	}
	from := now()
	out, err := s.Tandem(ctx, "lb1", "takeover", "b", "--wait")
	r.want(err != nil, "takeover b succeeded: %s", out)
	if err := s.await(ctx, 30*time.Second, "site a active again", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	took := now().lab - from.lab
	tries := 0
	for _, e := range s.journal("lb2", "ha.log", from) {
		if strings.HasPrefix(e.text, "takeover.sh begin") {
			tries++
		}
	}
	r.want(tries == 3, "takeover.sh was tried %d times, want 3", tries)
	st, err := s.status(ctx, "lb1")
	r.hold(err)
	r.want(st.Site.Active == "a" && st.Site.Reason == "takeover-failed", "status: active %s, reason %s", st.Site.Active, st.Site.Reason)
	history, err := s.Tandem(ctx, "lb1", "history", "--json")
	r.hold(err)
	r.want(strings.Contains(history, "no licence server"), "history does not say why:\n%s", history)
	r.want(strings.Contains(s.Log("lb1", "tandem")+s.Log("lb2", "tandem"), "no licence server"), "the log does not say why")
	r.say("tried %d times (failed, hung, failed), given up; A serves again %s after the command; reason in status, history and log", tries, ms(took))
	return s.Steady(ctx, 10*time.Second)
}

func platformAway(ctx context.Context, s *stage, r *report) error {
	s.platform.down()
	from := now()
	if err := s.takeover(ctx, "b"); err != nil {
		return err
	}
	took := now().lab - from.lab
	r.hold(s.problem(ctx, "notify hook"))
	r.want(len(s.platform.since(from)) == 0, "the platform was told although it is away")
	if err := s.platform.up(ctx); err != nil {
		return err
	}
	r.say("switched in %s; status said that the platform was not told", ms(took))
	r.hold(s.registered(ctx, r, from, "b"))
	return nil
}

func outside(ctx context.Context, s *stage, r *report) error {
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
