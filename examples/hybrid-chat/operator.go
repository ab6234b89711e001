package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// operator are rows about what a person types, at the machine where it is typed.
func operator() chapter {
	return chapter{"operator", options{precheck: true, env: map[string]string{"TANDEM_HOOK_TIMEOUT": "20s"}}, []row{
		{"precheck", "takeover b --wait, and the precheck at B says no: nothing is touched, and who asked is told why", vetoed},
		{"--wait", "takeover b --wait prints a line for each phase", followed},
		{"renounce", "renounce --wait at B gives the site to A, a line for each phase", renounced},
		{"refused", "what cannot be done is refused, with why and what to do; --force does it", refused},
		{"cancel", "takeover a while takeover.sh runs at B: B's scripts are ended, and A is taken back", cancelled},
		{"pause", "paused, A dies and nothing switches until resume; a pause with an end ends by itself", paused},
	}}
}

// typed runs a command as its user would, and tells whether what it says has
// all the words, and its exit code is 0 or not.
func (s *stage) typed(ctx context.Context, ok bool, node string, args []string, words ...string) (lines []string, err error) {
	out, err := s.Tandem(ctx, node, args...)
	said := out
	if err != nil {
		said = err.Error()
	}
	if (err == nil) != ok {
		return nil, fmt.Errorf("tandem %s at %s: success %v, want %v; it said: %s", strings.Join(args, " "), node, err == nil, ok, said)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			return nil, fmt.Errorf("tandem %s at %s said %q, want %q in it", strings.Join(args, " "), node, said, w)
		}
	}
	return strings.Split(strings.TrimSpace(out), "\n"), nil
}

func vetoed(ctx context.Context, s *stage, r *report) error {
	before, _, err := s.paths(ctx)
	if err != nil {
		return err
	}
	note := filepath.Join(s.Node("lb2").Dir, "not-now")
	if err := os.WriteFile(note, []byte("a backup is running"), 0o600); err != nil {
		return fmt.Errorf("leave a note: %w", err)
	}
	from := now()
	_, err = s.typed(ctx, false, "lb1", []string{"takeover", "b", "--wait"}, "precheck → b", "not now: a backup is running", "not done: a stays active for default: the precheck hook objected")
	r.hold(err)
	_, err = s.typed(ctx, true, "lb1", []string{"history", "--json"}, "precheck-veto", "a backup is running")
	r.hold(err)
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	r.hold(s.ran(from, "lb2 precheck.sh begin"))
	r.hold(s.quiet(ctx, from, "a"))
	r.hold(s.allAt(from, "a"))
	after, _, err := s.paths(ctx)
	r.hold(err)
	for server, state := range before {
		r.want(after[server] == state, "%s was %s and is %s", server, state, after[server])
	}
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d of %d requests failed: %v %v", n.Failed, n.Requests, n.Errors, err)
	r.say("refused with the script's own words; no server changed, %d requests, %d failed", n.Requests, n.Failed)
	return os.Remove(note)
}

// phases checks that lines name the phases of exclusive order, each once and in
// order, and at the end the site.
func phases(lines []string, to string) error {
	var got []string
	for _, l := range lines {
		if phase, target, ok := strings.Cut(l, " → "); ok && target == to {
			got = append(got, phase)
		}
	}
	if want := []string{"precheck", "renounce", "takeover", "enable"}; !slices.Equal(got, want) {
		return fmt.Errorf("phases %v, want %v; it said:\n%s", got, want, strings.Join(lines, "\n"))
	}
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "site "+to+" is active for default") {
		return fmt.Errorf("the last line is %q", last)
	}
	return nil
}

func followed(ctx context.Context, s *stage, r *report) error {
	return s.follow(ctx, r, "lb1", "takeover", "b")
}

func renounced(ctx context.Context, s *stage, r *report) error {
	return s.follow(ctx, r, "lb2", "renounce")
}

// follow types a command that switches, with --wait.
func (s *stage) follow(ctx context.Context, r *report, node string, args ...string) error {
	to := "a"
	if len(args) > 1 {
		to = args[1]
	}
	from := now()
	lines, err := s.typed(ctx, true, node, append(args, "--wait"))
	if err != nil {
		return err
	}
	r.hold(phases(lines, to))
	// Who is told that it is done need not wait any more.
	r.hold(s.decidedFor(ctx, "default", to))
	if err := s.await(ctx, 10*time.Second, "site "+to+" on both load balancers", func() error { return s.activeAt(ctx, to) }); err != nil {
		return err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	r.hold(s.moved(from, to))
	n, err := s.noticed(ctx, from)
	r.want(err == nil && n.Failed == 0, "%d of %d requests failed: %v %v", n.Failed, n.Requests, n.Errors, err)
	r.say("it printed: %s; %d requests, %d failed", strings.Join(lines, ", "), n.Requests, n.Failed)
	return nil
}

func refused(ctx context.Context, s *stage, r *report) error {
	if err := s.kill("lb2", "amq"); err != nil {
		return err
	}
	if err := s.await(ctx, 10*time.Second, "amq-b down", func() error { return s.isState(ctx, "amq/amq-b", "down") }); err != nil {
		return err
	}
	from := now()
	for _, c := range []struct {
		node  string
		args  []string
		words []string
	}{
		{"lb1", []string{"takeover", "c"}, []string{`there is no site "c": use one of a, b`}},
		{"lb2", []string{"renounce"}, []string{"b is not active, a is: there is nothing to give up"}},
		{"lb1", []string{"takeover", "b", "--group", "sql"}, []string{`there is no group "sql": use one of default, amq`}},
		{"lb1", []string{"takeover", "b", "--group", "amq"}, []string{"no load balancer sees b usable", "critical-down", "mend it, or use --force"}},
		{"lb1", []string{"renounce", "--group", "amq"}, []string{"no other site is usable: start one, or use takeover SITE --force"}},
		{"witness", []string{"takeover"}, []string{"name the site: one of a, b"}},
	} {
		_, err := s.typed(ctx, false, c.node, c.args, append(c.words, "refused: ")...)
		r.hold(err)
	}
	_, err := s.typed(ctx, true, "lb1", []string{"takeover", "a"}, "a is active already")
	r.hold(err)
	r.hold(s.ran(from))
	r.hold(s.quiet(ctx, from, "a"))
	r.hold(s.brokerIs(ctx, "amq-a"))
	if _, err := s.typed(ctx, true, "lb1", []string{"takeover", "b", "--group", "amq", "--force"}); err != nil {
		return err
	}
	r.hold(s.await(ctx, 10*time.Second, "amq at b by force", func() error { return s.decidedFor(ctx, "amq", "b") }))
	if err := s.boot(ctx, "lb2", "amq"); err != nil {
		return err
	}
	r.hold(s.await(ctx, 10*time.Second, "amq-b", func() error { return s.brokerIs(ctx, "amq-b") }))
	r.hold(s.quiet(ctx, from, "a"))
	r.say("6 commands refused, each with a reason and what to do; by force amq went to b, which was down, and was served there once it was up")
	return s.home(ctx)
}

func cancelled(ctx context.Context, s *stage, r *report) error {
	if err := os.WriteFile(service{s.Node("lb2").Dir, "b", "comm"}.path(".trouble"), []byte("hang"), 0o600); err != nil {
		return fmt.Errorf("make trouble: %w", err)
	}
	from := now()
	if _, err := s.typed(ctx, true, "lb1", []string{"takeover", "b"}, "the switch to b has begun"); err != nil {
		return err
	}
	if err := s.await(ctx, 10*time.Second, "takeover.sh at b", func() error {
		if s.begun(from, "lb2", "takeover.sh") == 0 {
			return errors.New("it has not begun")
		}
		return nil
	}); err != nil {
		return err
	}
	_, err := s.typed(ctx, false, "lb2", []string{"renounce"}, "refused: a switch to b is in phase takeover: wait until it is over")
	r.hold(err)
	back := now()
	_, err = s.typed(ctx, true, "lb1", []string{"takeover", "a", "--wait"}, "site a is active for default")
	r.hold(err)
	if err := s.await(ctx, 10*time.Second, "site a on both load balancers", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	took := now().lab - back.lab
	r.want(!s.runs("lb2", "takeover.sh"), "takeover.sh goes on at b")
	r.hold(s.ran(from, slices.Concat(whole("lb2", "precheck"), whole("lb1", "renounce", "renounce_reporting"), []string{"lb2 takeover.sh begin"},
		whole("lb2", "renounce", "renounce_reporting"), whole("lb1", "takeover", "takeover_reporting"))...))
	r.hold(s.allAt(from, "a"))
	r.say("A was back %s after the second command", ms(took))
	return s.Steady(ctx, 20*time.Second)
}

func paused(ctx context.Context, s *stage, r *report) error {
	from := now()
	if _, err := s.typed(ctx, true, "lb2", []string{"pause", "10m"}, "no automatic decision for 10m0s"); err != nil {
		return err
	}
	if err := s.dies(ctx, "lb1", "a"); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	r.hold(s.decidedFor(ctx, "default", "a"))
	r.hold(s.ran(from))
	st, err := s.status(ctx, "lb1")
	r.hold(err)
	r.want(st.PausedUntil != nil, "status does not say that it is paused")
	resumed := now()
	if _, err := s.typed(ctx, true, "lb2", []string{"resume"}, "automatic decisions go on"); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "site b active", func() error { return s.activeAt(ctx, "b") }); err != nil {
		return err
	}
	r.say("nothing switched in 2 s without a site; B was active %s after resume", ms(now().lab-resumed.lab))
	// The same with a pause that ends by itself.
	if err := errors.Join(s.boot(ctx, "lb1", components...), s.await(ctx, 10*time.Second, "site a usable", func() error { return s.sees(ctx, "a") })); err != nil {
		return err
	}
	short := now()
	if _, err := s.typed(ctx, true, "lb1", []string{"pause", "4s"}); err != nil {
		return err
	}
	if err := s.dies(ctx, "lb2", "b"); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "site a active", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	took := s.firstFrom("a", short)
	r.want(took > 4*time.Second, "A served %v after the pause began, before it was over", took)
	r.say("paused for 4 s, A served %s after that began", ms(took))
	_, err = s.oneAtATime(from, "")
	r.hold(err)
	return nil
}

// dies kills every component of a site and waits until that is seen.
func (s *stage) dies(ctx context.Context, machine, site string) error {
	if err := s.kill(machine, components...); err != nil {
		return err
	}
	return s.await(ctx, 10*time.Second, "ccm of "+site+" seen down", func() error { return s.isState(ctx, "ccm/ccm-"+site, "down") })
}
