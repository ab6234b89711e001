package main

import (
	"errors"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"tandem/lib/lease"
	"tandem/lib/vip"
	"tandem/sidecar/agent"
	"tandem/sidecar/config"
)

// origin says what a sidecar begins with: nothing, or what the former program of
// this process knew.
type origin struct {
	incarnation lease.Incarnation
	succession  *agent.Succession // nil: it begins anew
	broadcasts  uint64
	afresh      string // why it begins anew although it should go on; empty: it should not
}

func newOrigin() origin { return origin{incarnation: newIncarnation()} }

// count is how often the program of this process was replaced.
func (o origin) count() int {
	if o.succession == nil {
		return 0
	}
	return o.succession.Count
}

// origin finds out what this program begins with. What cannot be used costs no
// more than a restart of the process: it begins under a new incarnation, in
// quarantine, and says why.
func (p *program) origin(cfg config.Config, log *zap.Logger) origin {
	in, err := takeInheritance(p)
	if err == nil && in != nil {
		err = errors.Join(in.fits(cfg, in.Keys), agent.CheckSuccession(agentConfig(cfg, build(), lease.Incarnation{1}, nil), in.Agent.State, bootTime()))
	}
	o := newOrigin()
	switch {
	case err != nil:
		log.Error("the state of the former program is of no use: this one begins afresh, and what the node held moves", zap.Error(err))
		o.afresh = err.Error()
	case in != nil:
		log.Info("goes on where the former program stopped", zap.String("former", in.Agent.Version), zap.Duration("ago", bootTime()-in.Agent.Taken))
		o.incarnation, o.succession, o.broadcasts = in.Agent.State.Lease.Incarnation, &in.Agent, in.Broadcasts
	}
	return o
}

// raise makes effective what this program is only permitted.
func raise() error { return vip.RaiseCapabilities() }

// monotonic is the clock that systemd goes by.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
