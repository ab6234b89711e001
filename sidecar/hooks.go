package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tandem/sidecar/agent"
	"tandem/sidecar/config"
	"tandem/sidecar/hook"
	"tandem/sidecar/site"
)

// takeoverAttempts bounds how often a command that must succeed is tried before
// the site is given up for now (docs/design.md, "Site decision").
const takeoverAttempts = 3

// hooks joins the agent's orders and the runner's jobs.
type hooks struct {
	runner   *hook.Runner
	commands map[site.HookKind]config.Commands
	done     chan agent.HookResult
	notified chan agent.NoticeResult
	sure     func() bool // whether a decider is heard, so that hooks may be started
}

func newHooks(cfg config.Config, log *zap.Logger, r prometheus.Registerer) *hooks {
	h := &hooks{
		commands: map[site.HookKind]config.Commands{
			site.HookPrecheck: cfg.HookPrecheck, site.HookTakeover: cfg.HookTakeover,
			site.HookRenounce: cfg.HookRenounce, site.HookNotify: cfg.HookNotify,
		},
		done: make(chan agent.HookResult, 1), notified: make(chan agent.NoticeResult, 1),
		sure: func() bool { return true },
	}
	h.runner = hook.New(hook.Config{
		Node: cfg.Node, Env: os.Environ(), Timeout: cfg.HookTimeout, Log: log.Named("hook"), Registerer: r,
		Sure: func() bool { return h.sure() },
	})
	return h
}

// join gives the agent what it has commands for.
func (h *hooks) join(deps *agent.Deps) {
	deps.Hooks = h
	if len(h.commands[site.HookNotify]) > 0 {
		deps.Notifier = h
	}
}

// Start implements agent.Hooks.
func (h *hooks) Start(run site.HookRun) {
	job := hook.Job{
		ID: run.ID, Lane: lane(run), Epoch: run.Epoch, Commands: h.commands[run.Kind], Attempts: 1,
		Event: string(run.Kind), Group: run.Group, Site: run.Site, From: run.From, To: run.To,
		Reason: string(run.Reason), Actor: run.Actor, Planned: run.Planned,
		Guarded: true,
	}
	switch run.Kind {
	case site.HookTakeover:
		job.Attempts = takeoverAttempts
	case site.HookNotify:
		job.Attempts = 0 // until it succeeds or a later switch supersedes it
	case site.HookPrecheck, site.HookRenounce:
	}
	h.runner.Submit(job)
}

// Fence implements agent.Hooks.
func (h *hooks) Fence(group string, epoch, notify uint64) {
	h.runner.Fence(lane(site.HookRun{Group: group}), epoch)
	h.runner.Fence(lane(site.HookRun{Group: group, Kind: site.HookNotify}), notify)
}

// Forget implements agent.Hooks.
func (h *hooks) Forget(group string) {
	h.runner.Forget(lane(site.HookRun{Group: group}))
	h.runner.Forget(lane(site.HookRun{Group: group, Kind: site.HookNotify}))
}

// lane keeps the hooks of one group in order. Notifying is a lane of its own:
// a platform that does not answer must not hold up the next switch.
func lane(run site.HookRun) string {
	if run.Kind == site.HookNotify {
		return "notify/" + run.Group
	}
	return "switch/" + run.Group
}

// vipLane precedes the group in the lane of what is told of virtual IPs.
const vipLane = "vip/"

// Notify implements agent.Notifier. What this node did last is what counts, so
// that it is told until that has succeeded; that it holds an address is told
// again by itself.
func (h *hooks) Notify(n agent.Notice) {
	job := hook.Job{
		ID: n.ID, Lane: vipLane + n.Group, Epoch: n.Epoch, Commands: h.commands[site.HookNotify], Newest: true,
		Event: n.Event, Group: n.Group, Addresses: n.Addresses, From: n.From, To: n.To, Reason: n.Reason, Planned: n.Planned,
	}
	if n.Event == agent.NoticeHold {
		job.Attempts, job.Quiet = 1, true
	}
	h.runner.Submit(job)
}

// Notified implements agent.Notifier.
func (h *hooks) Notified() <-chan agent.NoticeResult { return h.notified }

// Done implements agent.Hooks.
func (h *hooks) Done() <-chan agent.HookResult { return h.done }

// Run passes the ends of jobs on until ctx ends. The runner runs beside it.
func (h *hooks) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-h.runner.Results():
			h.pass(ctx, r)
		}
	}
}

func (h *hooks) pass(ctx context.Context, r hook.Result) {
	if strings.HasPrefix(r.Job.Lane, vipLane) {
		select {
		case h.notified <- agent.NoticeResult{ID: r.Job.ID, Group: r.Job.Group, OK: r.OK, Reason: string(r.Reason), Detail: account(r)}:
		case <-ctx.Done():
		}
		return
	}
	select {
	case h.done <- result(r):
	case <-ctx.Done():
	}
}

// result is the runner's account in the agent's words.
func result(r hook.Result) agent.HookResult {
	run := site.HookRun{
		ID: r.Job.ID, Kind: site.HookKind(r.Job.Event), Group: r.Job.Group, Site: r.Job.Site, From: r.Job.From, To: r.Job.To,
		Epoch: r.Job.Epoch, Reason: site.Reason(r.Job.Reason), Planned: r.Job.Planned, Actor: r.Job.Actor,
	}
	out := agent.HookResult{Run: run, OK: r.OK, Detail: account(r)}
	if !r.OK {
		out.Err = site.Reason(r.Reason)
	}
	return out
}

// account is what was run, and how it ended, for people.
func account(r hook.Result) string {
	var text strings.Builder
	text.WriteString(r.Detail)
	for _, c := range r.Commands {
		fmt.Fprintf(&text, "\n%s: exit %d after %s, attempt %d", c.Text, c.ExitCode, c.Duration.Round(time.Millisecond), c.Attempt)
		if c.ExitCode != 0 && c.Output != "" {
			text.WriteString(": " + lastLine(c.Output))
		}
	}
	return strings.TrimSpace(text.String())
}

// lastLine is usually where a command says why it failed.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// webhook gives every transition of this node to what posts them.
type webhook struct {
	post  *hook.Webhook
	agent *agent.Agent
	node  string
	log   *zap.Logger
}

func newWebhook(cfg config.Config, node *agent.Agent, log *zap.Logger, r prometheus.Registerer) (*webhook, error) {
	post, err := hook.NewWebhook(hook.WebhookConfig{
		URL: cfg.Webhook.Reveal(), Secret: []byte(cfg.WebhookSecret.Reveal()),
		Source: "/tandem/" + cfg.Cluster + "/" + cfg.Node, Log: log.Named("webhook"), Registerer: r,
	})
	if err != nil {
		return nil, fmt.Errorf("set up webhook: %w", err)
	}
	return &webhook{post: post, agent: node, node: cfg.Node, log: log}, nil
}

// Run listens until ctx ends. What posts runs beside it.
func (w *webhook) Run(ctx context.Context) error {
	n := 0
	for e := range w.agent.Watch(ctx, "") {
		if e.Node != w.node || e.Event == "progress" {
			continue // each node tells its own; what is under way is no event
		}
		n++
		err := w.post.Send(hook.Event{
			ID: fmt.Sprintf("%s-%d-%d", w.node, e.At.UnixNano(), n), Type: "io.tandem." + e.Event,
			Resource: e.Resource, Time: e.At, Data: e.Transition,
		})
		if err != nil {
			w.log.Warn("event not sent to the webhook", zap.Error(err))
		}
	}
	return nil
}
