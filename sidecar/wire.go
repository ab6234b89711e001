package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tandem/lib/vip"
	"tandem/sidecar/agent"
	"tandem/sidecar/config"
	"tandem/sidecar/hook"
)

// runSidecar is the whole sidecar. Data goes one way round:
//
//	memberlist ─► gossip ─┐                    ┌─► gossip
//	HAProxy    ─► haproxy ┼─► agent: decides,  ┼─► haproxy
//	kernel     ─► vip     │   one goroutine    ├─► vip
//	operator   ─► api     ┘                    └─► hooks, history, metrics, status
//
// It returns when ctx has ended and everything that this node held is handed
// over: the agent ends first, and only then what it needs for that.
func runSidecar(ctx context.Context, cfg config.Config, log *zap.Logger, build Build, from origin) error {
	p, err := newParts(ctx, cfg, log, build, from)
	if err != nil {
		return err
	}
	// What the agent stands on outlives ctx by the time that the hand-over takes.
	base, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	group, base := errgroup.WithContext(base)
	for _, part := range p.running {
		group.Go(func() error { return part.Run(base) })
	}
	group.Go(func() error {
		defer end(errHandedOver)
		stop, cancel := eitherDone(ctx, base)
		defer cancel(nil)
		return p.agent.Run(stop)
	})
	if err := group.Wait(); err != nil && !errors.Is(err, errHandedOver) {
		return fmt.Errorf("run sidecar: %w", err)
	}
	return nil
}

// runner is a part that works until its context ends.
type runner interface {
	Run(ctx context.Context) error
}

// parts are what a sidecar is made of. None of them has started.
type parts struct {
	agent       *agent.Agent
	running     []runner   // everything but the agent
	undelivered func() int // events that the webhook has not been told yet
}

// tell adds a webhook.
func (p *parts) tell(w *webhook) {
	p.running = append(p.running, w.post, w)
	p.undelivered = func() int { return w.post.Status().Pending }
}

func newParts(ctx context.Context, cfg config.Config, log *zap.Logger, build Build, from origin) (*parts, error) {
	p := &parts{undelivered: func() int { return 0 }}
	registry := newRegistry()
	deps := agent.Deps{Now: bootTime, Log: log.Named("agent"), Registerer: registry}
	network, err := newNetwork(cfg, from.incarnation, from.broadcasts, log, registry)
	if err != nil {
		return nil, err
	}
	deps.Network = network
	p.running = append(p.running, network)
	var addresses *vip.Manager
	if cfg.Role == config.RoleLB {
		if addresses, err = newAddresses(cfg, log, registry); err != nil {
			return nil, err
		}
		lb := newLoadBalancer(cfg, log, registry)
		deps.Addresses, deps.LB = addresses, lb
		p.running = append(p.running, addresses, lb)
	}
	if cfg.Hold.IsValid() && cfg.Role == config.RoleLB {
		h, err := newHold(cfg, log, registry)
		if err != nil {
			return nil, err
		}
		deps.Hold = h
		p.running = append(p.running, h)
	}
	if cfg.StateDir != "" {
		if deps.Store, err = agent.OpenDirectory(cfg.StateDir); err != nil {
			return nil, err
		}
	}
	if os.Getpid() == 1 {
		p.running = append(p.running, hook.Reaper{Log: log.Named("hook")})
	}
	if len(hookKinds(cfg)) > 0 {
		h := newHooks(cfg, log, registry)
		h.join(&deps)
		p.running = append(p.running, h.runner, h)
	}
	probe := newProber(cfg)
	if probe != nil {
		p.running = append(p.running, probe)
	}
	if p.agent, err = newAgent(cfg, build, from, deps, probe); err != nil {
		return nil, err
	}
	if cfg.Webhook != "" {
		w, err := newWebhook(cfg, p.agent, log, registry)
		if err != nil {
			return nil, err
		}
		p.tell(w)
	}
	keys := newKeyring(cfg, network, p.agent, log)
	restarts := newRestarter(cfg, p, network, build, from.count(), keys.listen, log)
	server := newServer(cfg, operated{p.agent, restarts.restart}, log, registry)
	p.running = append(p.running, keys, newNotifier(ctx.Done(), p.agent, log), restarts, server)
	// Whoever has the control socket is this node: only then is what a
	// predecessor left behind removed, lest a second process take the addresses
	// of one that lives. What this process held under its former program stays.
	if err := server.Listen(ctx); err != nil {
		return nil, err
	}
	if addresses != nil {
		if err := addresses.Clean(p.agent.Keep()...); err != nil {
			log.Warn("what a predecessor left behind was not removed", zap.Error(err))
		}
	}
	return p, nil
}
