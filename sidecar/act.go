package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"tandem/sidecar/api"
	"tandem/sidecar/status"
)

// defaultGroup is the group of backends that has no name of its own.
const defaultGroup = "default"

// act sends a command and prints what came of it.
func (p *program) act(ctx context.Context, kind string, req api.Request) (status.Result, error) {
	result, err := p.client().command(ctx, kind, req)
	if err != nil {
		return result, err
	}
	if !result.OK {
		return result, exitError{exitFailed, "refused: " + cmp.Or(result.Message, result.Reason)}
	}
	_, err = fmt.Fprintln(p.stdout, cmp.Or(result.Message, "done"))
	return result, err
}

// waiting are the flags of commands that take their time.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) flags(c *cobra.Command) {
	c.Flags().BoolVar(&w.wait, "wait", false, "wait until it is done, and show the phases as they pass")
	c.Flags().DurationVar(&w.timeout, "timeout", 5*time.Minute, "how long to wait at most")
}

func (p *program) takeoverCommand() *cobra.Command {
	var req api.Request
	var w waiting
	c := &cobra.Command{
		Use: "takeover [SITE]", GroupID: "act", Args: cobra.MaximumNArgs(1),
		Short: "Make a site active; without a name, the site of this node",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.Site = args[0]
			}
			return p.switchSite(cmd.Context(), "takeover", req, w)
		},
		ValidArgsFunction: p.complete(func(st status.Status) []string { return st.Sites }),
	}
	c.Flags().StringVar(&req.Group, "group", "", "the group of backends; without it the default one")
	c.Flags().BoolVar(&req.Force, "force", false, "also when the site is not usable")
	w.flags(c)
	return c
}

func (p *program) renounceCommand() *cobra.Command {
	var req api.Request
	var w waiting
	c := &cobra.Command{
		Use: "renounce [SITE]", GroupID: "act", Args: cobra.MaximumNArgs(1),
		Short: "Give a site up to the next usable one; without a name, the site of this node",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.Site = args[0]
			}
			return p.switchSite(cmd.Context(), "renounce", req, w)
		},
		ValidArgsFunction: p.complete(func(st status.Status) []string { return st.Sites }),
	}
	c.Flags().StringVar(&req.Group, "group", "", "the group of backends; without it the default one")
	w.flags(c)
	return c
}

// switchSite asks for a switch and, with --wait, follows it to its end.
func (p *program) switchSite(ctx context.Context, kind string, req api.Request, w waiting) error {
	if !w.wait {
		_, err := p.act(ctx, kind, req)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	req.Begin = true
	follow := follower{p: p, kind: kind, req: req, group: cmp.Or(req.Group, defaultGroup)}
	if kind == "takeover" {
		follow.want = req.Site
	}
	err := p.client().watch(ctx, func(st status.Status) (bool, error) { return follow.step(ctx, st) }, follow.passed)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return exitError{exitFailed, fmt.Sprintf("not done within %s; it goes on: look at `tandem status`", w.timeout)}
	}
	return err
}

func groupOf(st status.Status, name string) (status.Site, bool) {
	i := slices.IndexFunc(st.Groups, func(g status.Site) bool { return g.Group == name })
	if i < 0 {
		return status.Site{}, false
	}
	return st.Groups[i], true
}

// follower asks for one switch and watches it.
type follower struct {
	p      *program
	kind   string
	req    api.Request
	group  string
	want   string // the site that shall be active; empty: any other than before
	asked  bool
	epoch  uint64 // of the decision, if it is known
	before status.Site
	ended  bool      // all that happened on the way has been told
	overAt time.Time // since when it is over, by the status
	phase  string    // the last one that was printed, with its target
	since  time.Time // when that was
	said   string    // what it waits for
}

// ask is the first thing to do when the watch has begun, so that no phase passes
// unseen.
func (f *follower) ask(ctx context.Context, g status.Site) error {
	result, err := f.p.act(ctx, f.kind, f.req)
	f.asked, f.before, f.epoch = true, g, result.Epoch
	f.ended = result.Reason != "begun" // then nothing more is told
	return err
}

// passed prints the phases, also those that are over before the next status.
func (f *follower) passed(e status.Event) error {
	resource := "site"
	if f.group != defaultGroup {
		resource += "/" + f.group
	}
	switch {
	case !f.asked || e.Resource != resource || e.Epoch <= f.before.Epoch:
		return nil
	case e.Phase == "":
		f.ended = f.ended || e.Event == "done" || e.Event == "abort"
		return nil
	case e.Event == "hook" && e.Reason != "done":
		return f.quote(e.Detail)
	case slices.Contains(phaseEvents, e.Event):
		return f.enter(e.Phase + " → " + e.To)
	}
	return nil
}

// quote prints what a hook that failed said, without what could steer a terminal.
func (f *follower) quote(text string) error {
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return '·'
			}
			return r
		}, line)
		if _, err := fmt.Fprintln(f.p.stdout, "  "+line); err != nil {
			return err
		}
	}
	return nil
}

// phaseEvents are told when a phase is entered.
var phaseEvents = []string{"switch", "phase", "abort"}

func (f *follower) enter(phase string) error {
	if phase == f.phase {
		return nil
	}
	f.phase, f.said, f.since = phase, "", time.Now()
	_, err := fmt.Fprintln(f.p.stdout, phase)
	return err
}

// patience is how long a phase lasts before it is worth a word what it waits for.
const patience = 900 * time.Millisecond

// caughtUp says whether all has been told of a switch that is over: a status is
// of the moment at which it is sent, and may be ahead of what is told.
func (f *follower) caughtUp() bool {
	if f.overAt.IsZero() {
		f.overAt = time.Now()
	}
	return f.ended || time.Since(f.overAt) >= patience
}

func (f *follower) switching(g status.Site) error {
	f.overAt = time.Time{}
	phase := g.Phase + " → " + g.Target
	if g.Target == "" {
		phase = g.Phase + " → " + g.Active
	}
	if phase != f.phase {
		return f.enter(phase)
	}
	if g.Waiting == "" || g.Waiting == f.said || time.Since(f.since) < patience {
		return nil
	}
	f.said = g.Waiting
	_, err := fmt.Fprintf(f.p.stdout, "%s (%s)\n", phase, g.Waiting)
	return err
}

// step goes by a status, and ends when the switch is over.
func (f *follower) step(ctx context.Context, st status.Status) (bool, error) {
	g, ok := groupOf(st, f.group)
	if !ok {
		return true, fmt.Errorf("there is no group %s; `tandem status` shows them", f.group)
	}
	if !f.asked {
		return false, f.ask(ctx, g)
	}
	if g.Switching() {
		return false, f.switching(g)
	}
	if !f.caughtUp() {
		return false, nil
	}
	reached := f.want != "" && g.Active == f.want || f.want == "" && g.Active != "" && g.Active != f.before.Active
	switch {
	case reached:
		_, err := fmt.Fprintf(f.p.stdout, "site %s is active for %s (epoch %d)\n", g.Active, g.Group, g.Epoch)
		return true, err
	case g.Epoch > f.before.Epoch && g.Epoch >= f.epoch && (f.epoch > 0 || f.phase != ""):
		return true, exitError{exitFailed, fmt.Sprintf("not done: %s stays active for %s: %s", cmp.Or(g.Active, "no site"), g.Group, cmp.Or(status.Explain(g.Reason), g.Reason))}
	default:
		return false, nil // this node has not heard of the decision yet
	}
}

func (p *program) moveCommand() *cobra.Command {
	var req api.Request
	c := &cobra.Command{
		Use: "move [GROUP] --to NODE", GroupID: "act", Args: cobra.MaximumNArgs(1),
		Short: "Move a virtual IP to another node, as planned",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.Group = args[0]
			}
			_, err := p.act(cmd.Context(), "move", req)
			return err
		},
	}
	c.Flags().StringVar(&req.To, "to", "", "the node that shall carry it")
	c.Flags().BoolVar(&req.Force, "force", false, "also when the node is not eligible, or a stranger answers for the address")
	_ = c.MarkFlagRequired("to") // fails only for a flag that does not exist
	_ = c.RegisterFlagCompletionFunc("to", p.complete(loadBalancers))
	return c
}

func loadBalancers(st status.Status) []string {
	var names []string
	for _, n := range st.Nodes {
		if n.Role == "lb" {
			names = append(names, n.Name)
		}
	}
	return names
}

func (p *program) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pause [DURATION]", GroupID: "act", Args: cobra.MaximumNArgs(1),
		Short: "Make no automatic site decision for a time (10m), or until resume; leases are still kept",
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.Request
			if len(args) == 1 {
				if d, err := time.ParseDuration(args[0]); err != nil || d <= 0 {
					return exitError{exitUsage, fmt.Sprintf("%q is not a duration, for example 10m", args[0])}
				}
				req.Duration = args[0]
			}
			_, err := p.act(cmd.Context(), "pause", req)
			return err
		},
	}
}

func (p *program) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume", GroupID: "act", Args: cobra.NoArgs,
		Short: "Make automatic site decisions again",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := p.act(cmd.Context(), "resume", api.Request{})
			return err
		},
	}
}

func (p *program) ackCommand() *cobra.Command {
	var req api.Request
	c := &cobra.Command{
		Use: "ack", GroupID: "act", Args: cobra.NoArgs,
		Short: "Allow automatic switches again, after too many in a short time had stopped them",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := p.act(cmd.Context(), "ack", req)
			return err
		},
	}
	c.Flags().StringVar(&req.Group, "group", "", "the group of backends; without it the default one")
	return c
}

func (p *program) maintenanceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "maintenance on|off [NODE]", GroupID: "act", Args: cobra.RangeArgs(1, 2),
		Short: "Let a node hold nothing, or let it hold again; without a name, this node",
		RunE: func(cmd *cobra.Command, args []string) error {
			on := args[0] == "on"
			if !on && args[0] != "off" {
				return exitError{exitUsage, fmt.Sprintf("%q is neither on nor off", args[0])}
			}
			req := api.Request{On: &on}
			if len(args) == 2 {
				req.Node = args[1]
			}
			_, err := p.act(cmd.Context(), "maintenance", req)
			return err
		},
		ValidArgsFunction: p.complete(func(st status.Status) []string { return append([]string{"on", "off"}, loadBalancers(st)...) }),
	}
}

// completeTimeout bounds what a press of the tabulator key may take.
const completeTimeout = time.Second

// complete offers names of the running cluster to a shell.
func (p *program) complete(names func(status.Status) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		var st status.Status
		if p.client().get(ctx, "/v1/status", &st) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(st), cobra.ShellCompDirectiveNoFileComp
	}
}
