package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tandem/examples/lab"
)

func demoCommand(program *string) *cobra.Command {
	var plain bool
	var name string
	cmd := &cobra.Command{
		Use: "demo", Short: "Play a story of failures and say what a client noticed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			terminal := term.IsTerminal(int(os.Stdout.Fd())) && !plain
			chosen, err := chooseSystems(*program, []string{name})
			if err != nil {
				return err
			}
			return demo(cmd.Context(), newStage(os.Stdout, terminal), chosen[0].system)
		},
	}
	cmd.Flags().BoolVar(&plain, "plain", false, "plain lines also on a terminal")
	systemFlag(cmd, &name)
	return cmd
}

// systemFlag lets a command run with something else than tandem, to compare.
func systemFlag(cmd *cobra.Command, name *string) {
	var names []string
	for _, c := range systems("") {
		names = append(names, c.name)
	}
	cmd.Flags().StringVar(name, "system", names[0], "what fails the pair over: "+strings.Join(names, ", "))
}

var errPromise = errors.New("a promise was not kept")

// demo builds a lab, plays the acts and takes the lab down.
func demo(ctx context.Context, s *stage, system lab.System) (err error) {
	s.say("building the lab: two load balancers with HAProxy, a witness, two sites, a client; %s", system.Name())
	l, err := lab.New(ctx, lab.Config{System: system})
	if err != nil {
		return err
	}
	showing, stop := context.WithCancel(ctx)
	shown := make(chan struct{})
	defer func() {
		stop()
		<-shown
		s.set(nil)
		err = errors.Join(err, l.Close())
	}()
	go func() {
		defer close(shown)
		s.show(showing)
	}()
	s.set(l)
	if err = l.Settled(ctx, 30*time.Second); err != nil {
		return err
	}
	s.say("%s holds %s, site %s serves; the client opens a new connection every 5 ms", l.Holder(), lab.VIP(), activeSite(l))
	var scores []score
	for _, a := range acts() {
		if _, ok := system.(lab.Tandem); !ok && a.sites {
			continue
		}
		sc, err := play(ctx, s, l, a)
		if err != nil {
			return fmt.Errorf("%s: %w", a.title, err)
		}
		scores = append(scores, sc)
	}
	s.set(nil)
	return summary(s.out, s.palette, scores)
}

// score is what came of an act.
type score struct {
	title   string
	noticed lab.Noticed
	judged  lab.Judgement
	after   string
	broken  []string // promises
}

// play lets one act happen: what breaks, what the client noticed, how it is mended.
func play(ctx context.Context, s *stage, l *lab.Lab, a act) (sc score, err error) {
	holder := l.Holder()
	sc.title = a.name(l, holder)
	s.say("%s── %s%s", s.palette.bold, sc.title, s.palette.reset)
	from := lab.Now()
	if err = a.fault(ctx, l, holder); err != nil {
		return sc, err
	}
	if err = pause(ctx, 3*time.Second); err != nil {
		return sc, err
	}
	to := lab.Now()
	if sc.noticed, err = l.Client.Noticed(ctx, from, to); err != nil {
		return sc, err
	}
	sc.judged = l.Referee.Judge(from, to)
	sc.after = fmt.Sprintf("%s, site %s", or(l.Holder(), "nobody"), activeSite(l))
	sc.broken = a.promise(ctx, l, holder, sc)
	s.say("   the client noticed: %s", noticed(sc.noticed, s.palette))
	for _, broken := range sc.broken {
		s.say("   %sNOT AS PROMISED: %s%s", s.palette.bad, broken, s.palette.reset)
	}
	if a.mend == nil {
		return sc, nil
	}
	from = lab.Now()
	s.say("   %s", a.mending(holder))
	if err = a.mend(ctx, l, holder); err != nil {
		return sc, err
	}
	if err = l.Settled(ctx, 30*time.Second); err != nil {
		return sc, err
	}
	back, err := l.Client.Noticed(ctx, from, lab.Now())
	if err != nil {
		return sc, err
	}
	s.say("   the client noticed: %s", noticed(back, s.palette))
	if back.Failed > 0 {
		sc.broken = append(sc.broken, fmt.Sprintf("%d requests failed while it came back", back.Failed))
	}
	return sc, nil
}

func noticed(n lab.Noticed, p palette) string {
	if n.Failed == 0 && n.Outage < 50*time.Millisecond {
		return fmt.Sprintf("%snothing%s (%d requests, none failed, longest gap %s)", p.good, p.reset, n.Requests, millis(n.Outage))
	}
	var why strings.Builder
	for _, reason := range slices.Sorted(maps.Keys(n.Errors)) {
		why.WriteString(" (" + reason + ")")
	}
	return fmt.Sprintf("%s without an answer, %d of %d requests failed%s", millis(n.Outage), n.Failed, n.Requests, &why)
}

// summary prints the table and says whether all promises were kept.
func summary(out io.Writer, p palette, scores []score) error {
	kept := true
	fmt.Fprintf(out, "\n  %-44s %12s %8s  %s\n", "what happened", "no answer", "failed", "afterwards")
	for _, sc := range scores {
		verdict := p.good + "as promised" + p.reset
		if len(sc.broken) > 0 {
			verdict, kept = p.bad+"NOT as promised"+p.reset, false
		}
		fmt.Fprintf(out, "  %-44s %12s %8d  %-14s %s\n", sc.title, millis(sc.noticed.Outage), sc.noticed.Failed, sc.after, verdict)
	}
	var two time.Duration
	for _, sc := range scores {
		two += sc.judged.TwoAnswer
	}
	fmt.Fprintf(out, "\n  two load balancers answered for the address for %s in all\n", millis(two))
	if !kept {
		return errPromise
	}
	fmt.Fprintln(out, "  try it yourself: make lab")
	return nil
}
