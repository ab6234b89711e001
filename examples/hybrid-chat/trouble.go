package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"
)

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
		r.hold(s.servedAt(ctx, "b", components...))
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
		r.hold(s.moved(from, "b"))
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
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	// What the takeover had started at B is stopped before A is taken back.
	r.hold(s.ran(from, slices.Concat(whole("lb1", "renounce", "renounce_reporting"),
		[]string{"lb2 takeover.sh begin", "lb2 takeover.sh begin", "lb2 takeover.sh begin"},
		s.switched("a"))...))
	tries := s.begun(from, "lb2", "takeover.sh")
	r.hold(s.allAt(from, "a"))
	r.hold(s.servedAt(ctx, "a", components...))
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
