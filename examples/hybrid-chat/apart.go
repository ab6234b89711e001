package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tandem/examples/lab"
)

// apart are rows about applications on machines of their own, a and b, each with
// a sidecar that runs the site's hooks (TANDEM_ROLE=site). The load balancers
// have no hooks.
func apart() chapter {
	return chapter{"apart", options{apart: true, env: map[string]string{"TANDEM_HOOK_TIMEOUT": "20s", "TANDEM_MOVE_GRACE": "1s"}}, []row{
		{"S3", "machines of their own, takeover b: the scripts run there, once each, in order, before the first request", commandedApart},
		{"S1", "machine a loses power: B takes over, its scripts run once, at machine b", powerOffApart},
		{"S8", "machine b loses power in the middle of takeover.sh: A is used again", powerOffInHook},
		{"S8", "machine b is cut off in the middle of takeover.sh: it ends the script itself before A is used again", cutInHook},
		{"S8", "the sidecar of machine b is frozen in the middle of takeover.sh, and wakes: A is used again", frozenInHook},
		{"S8", "the sidecar of machine b is killed in the middle of takeover.sh and started again: the script is run again", killedInHook},
	}}
}

func commandedApart(ctx context.Context, s *stage, r *report) error {
	for _, to := range []string{"b", "a"} {
		from := now()
		if err := s.takeover(ctx, to); err != nil {
			return err
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
		r.hold(s.moved(from, to))
		r.hold(s.servedAt(ctx, to, components...))
		n, err := s.noticed(ctx, from)
		r.want(err == nil && n.Failed == 0, "%d of %d requests failed: %v %v", n.Failed, n.Requests, n.Errors, err)
		r.say("takeover %s: %d requests, %d failed, the longest waited %s", to, n.Requests, n.Failed, ms(n.Slowest))
		r.hold(s.registered(ctx, r, from, to))
	}
	return nil
}

func powerOffApart(ctx context.Context, s *stage, r *report) error {
	from := now()
	if err := s.PowerOff(ctx, "a"); err != nil {
		return err
	}
	if err := s.await(ctx, 40*time.Second, "site b active", func() error { return s.activeAt(ctx, "b") }); err != nil {
		return err
	}
	r.say("B answered %s after machine a was gone", s.answeredByB(ctx, r, from))
	r.hold(s.servedAt(ctx, "b", components...))
	r.hold(s.problem(ctx, "site a"))
	back := now()
	if err := s.bootMachine(ctx, "a"); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	// Nobody was there who could have renounced; what is back waits.
	r.hold(s.ran(from, whole("b", "takeover", "takeover_reporting")...))
	r.hold(s.allAt(back, "b"))
	_, err := s.oneAtATime(from, "")
	r.hold(err)
	return s.homeApart(ctx)
}

// bootMachine gives a machine with applications its power back. What runs on one
// site only is not started at boot.
func (s *stage) bootMachine(ctx context.Context, machine string) error {
	return errors.Join(s.PowerOn(ctx, machine), s.boot(ctx, machine, "ccm", "amq"))
}

// homeApart makes site a active again, and the brokers with it.
func (s *stage) homeApart(ctx context.Context) error {
	if err := s.await(ctx, 20*time.Second, "brokers and ccm of both sites", func() error {
		return s.up(ctx, "amq/amq-a", "amq/amq-b", "ccm/ccm-a", "ccm/ccm-b")
	}); err != nil {
		return err
	}
	if err := s.await(ctx, 20*time.Second, "machines a and b heard", func() error { return s.heard(ctx, "app-a", "app-b") }); err != nil {
		return err
	}
	return s.home(ctx)
}

// up tells whether both load balancers see servers up, drained or not.
func (s *stage) up(ctx context.Context, servers ...string) error {
	for _, lb := range lab.LBs() {
		states, err := s.ServerStates(ctx, lb)
		if err != nil {
			return err
		}
		for _, name := range servers {
			if states[name] == "down" {
				return fmt.Errorf("%s: %s is down", lb, name)
			}
		}
	}
	return nil
}

// heard tells whether lb1 hears nodes.
func (s *stage) heard(ctx context.Context, nodes ...string) error {
	st, err := s.status(ctx, "lb1")
	if err != nil {
		return err
	}
	for _, n := range st.Nodes {
		if n.Alive {
			nodes = slices.DeleteFunc(nodes, func(name string) bool { return name == n.Name })
		}
	}
	if len(nodes) > 0 {
		return fmt.Errorf("%v are not heard", nodes)
	}
	return nil
}

// inHook asks for site b, and returns when takeover.sh runs at machine b and
// takes its time.
func (s *stage) inHook(ctx context.Context, trouble string) (moment, error) {
	file := service{s.Node("b").Dir, "b", "comm"}.path(".trouble")
	if err := os.WriteFile(file, []byte(trouble), 0o600); err != nil {
		return moment{}, err
	}
	from := now()
	s.ask(ctx, "lb1", "takeover", "b")
	return from, s.await(ctx, 20*time.Second, "takeover.sh at b", func() error {
		if s.begun(from, "b", "takeover.sh") == 0 {
			return errors.New("it has not begun")
		}
		return nil
	})
}

// takenBack waits until site a is active again, and tells whether nothing went
// wrong on the way: no request reached b, and no script ran twice.
func (s *stage) takenBack(ctx context.Context, r *report, from moment) error {
	if err := s.await(ctx, 60*time.Second, "site a active again", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	took := lab.Now() - from.lab
	st, err := s.status(ctx, "lb1")
	r.hold(err)
	r.want(st.Site.Reason == "takeover-failed", "the reason is %s", st.Site.Reason)
	r.hold(s.servedAt(ctx, "a", components...))
	r.hold(s.allAt(from, "a"))
	r.hold(s.onceEach(from))
	r.want(s.begun(from, "b", "takeover.sh") == 1, "takeover.sh began %d times at b", s.begun(from, "b", "takeover.sh"))
	r.say("A served again %s after the command", ms(took))
	return nil
}

// nothingMore tells whether nothing runs at machine b any more once it is back.
func (s *stage) nothingMore(ctx context.Context, r *report, from moment) error {
	before := len(s.scripts(from))
	if err := s.await(ctx, 20*time.Second, "machine b heard", func() error { return s.heard(ctx, "app-b") }); err != nil {
		return err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	r.want(len(s.scripts(from)) == before, "scripts ran when b was back: %v", s.scripts(from)[before:])
	r.hold(s.decidedFor(ctx, "default", "a"))
	r.hold(s.allAt(from, "a"))
	return s.homeApart(ctx)
}

func powerOffInHook(ctx context.Context, s *stage, r *report) error {
	from, err := s.inHook(ctx, "hang")
	if err != nil {
		return err
	}
	if err := s.PowerOff(ctx, "b"); err != nil {
		return err
	}
	if err := s.takenBack(ctx, r, from); err != nil {
		return err
	}
	r.hold(s.ran(from, slices.Concat(whole("a", "renounce", "renounce_reporting"), []string{"b takeover.sh begin"}, whole("a", "takeover", "takeover_reporting"))...))
	if err := s.bootMachine(ctx, "b"); err != nil {
		return err
	}
	return s.nothingMore(ctx, r, from)
}

func cutInHook(ctx context.Context, s *stage, r *report) error {
	from, err := s.inHook(ctx, "hang")
	if err != nil {
		return err
	}
	r.want(s.runs("b", "takeover.sh"), "takeover.sh does not run at b")
	if err := s.Cut(ctx, "b"); err != nil {
		return err
	}
	r.hold(s.await(ctx, 20*time.Second, "end of takeover.sh at b", func() error {
		if s.runs("b", "takeover.sh") {
			return errors.New("it runs")
		}
		return nil
	}))
	r.want(s.begun(from, "a", "takeover.sh") == 0, "site a is being started while takeover.sh runs at b")
	r.say("machine b ended its script before A was taken back")
	if err := s.takenBack(ctx, r, from); err != nil {
		return err
	}
	if err := s.Heal(ctx); err != nil {
		return err
	}
	return s.nothingMore(ctx, r, from)
}

// runs tells whether a script of a machine is running.
func (s *stage) runs(machine, script string) bool {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		command, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		environment, _ := os.ReadFile(filepath.Join(p, "environ"))
		if bytes.Contains(command, []byte("/HAScripts/"+script)) && strings.Contains(string(environment), "HYBRIDCHAT_DIR="+s.Node(machine).Dir+"\x00") {
			return true
		}
	}
	return false
}

func frozenInHook(ctx context.Context, s *stage, r *report) error {
	from, err := s.inHook(ctx, "slow")
	if err != nil {
		return err
	}
	if err := s.Freeze("b", "tandem"); err != nil {
		return err
	}
	if err := s.takenBack(ctx, r, from); err != nil {
		return err
	}
	if err := s.Thaw("b", "tandem"); err != nil {
		return err
	}
	return s.nothingMore(ctx, r, from)
}

func killedInHook(ctx context.Context, s *stage, r *report) error {
	from, err := s.inHook(ctx, "slow")
	if err != nil {
		return err
	}
	if err := s.Kill("b", "tandem"); err != nil {
		return err
	}
	if err := s.Restart("b", "tandem"); err != nil {
		return err
	}
	if err := s.await(ctx, 60*time.Second, "site b active", func() error { return s.activeAt(ctx, "b") }); err != nil {
		return err
	}
	r.hold(s.servedAt(ctx, "b", components...))
	r.want(s.begun(from, "b", "takeover.sh") == 2, "takeover.sh began %d times at b, want once more", s.begun(from, "b", "takeover.sh"))
	r.want(s.begun(from, "a", "takeover.sh") == 0, "takeover.sh ran at a")
	changes, err := s.oneAtATime(from, "")
	r.hold(err)
	r.want(changes == 1, "%d changes of site", changes)
	r.say("B active %s after the command", ms(lab.Now()-from.lab))
	return s.homeApart(ctx)
}
