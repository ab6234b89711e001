package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kill ends a process at once, as the kernel's out-of-memory killer would.
func (l *Lab) Kill(node, name string) error {
	p := l.Proc(node, name)
	if p == nil {
		return fmt.Errorf("kill %s on %s: there is none", name, node)
	}
	// What it started goes with it: keepalived is two processes.
	_ = unix.Kill(-p.PID, unix.SIGKILL)
	err := p.Signal(syscall.SIGKILL)
	<-p.done
	return err
}

// Freeze stops a process without ending it; Thaw lets it go on.
func (l *Lab) Freeze(node, name string) error { return l.signalGroup(node, name, unix.SIGSTOP) }

// Thaw lets a frozen process go on.
func (l *Lab) Thaw(node, name string) error { return l.signalGroup(node, name, unix.SIGCONT) }

func (l *Lab) signalGroup(node, name string, sig syscall.Signal) error {
	p := l.Proc(node, name)
	if p == nil || !p.Alive() {
		return fmt.Errorf("signal %s on %s: it does not run", name, node)
	}
	if err := unix.Kill(-p.PID, sig); err != nil {
		return fmt.Errorf("signal %s on %s: %w", name, node, err)
	}
	return nil
}

// KillSite ends all servers of a site at once.
func (l *Lab) KillSite(site string) error {
	var errs []error
	for _, name := range l.Procs(site) {
		if p := l.Proc(site, name); p.Alive() {
			errs = append(errs, p.Signal(syscall.SIGKILL))
		}
	}
	return errors.Join(errs...)
}

// StartSite starts those servers of a site that do not run.
func (l *Lab) StartSite(site string) error { return l.startSite(site) }

// PowerOff takes a node's link down and kills everything on it in the same
// instant; its kernel, with addresses and connections, is gone. Its disk stays.
func (l *Lab) PowerOff(ctx context.Context, node string) error {
	n := l.Node(node)
	link, err := l.link.LinkByName(node)
	if err != nil {
		return fmt.Errorf("power off %s: %w", node, err)
	}
	if err = l.link.LinkSetDown(link); err != nil {
		return fmt.Errorf("power off %s: %w", node, err)
	}
	l.Referee.forget(node)
	l.killAll(n)
	l.mu.Lock()
	n.off = true
	l.mu.Unlock()
	return l.disconnect(ctx, n)
}

// PowerOn boots a node that was powered off: a new kernel, and the processes
// that ran on it before.
func (l *Lab) PowerOn(ctx context.Context, node string) error {
	n := l.Node(node)
	if l.running(node) {
		return nil
	}
	if err := l.connect(ctx, n); err != nil {
		return fmt.Errorf("power on %s: %w", node, err)
	}
	l.mu.Lock()
	n.off = false
	l.mu.Unlock()
	if slices.Contains(LBs(), node) {
		if err := l.Referee.open(n); err != nil {
			return err
		}
	}
	for _, name := range l.Procs(node) {
		restart := l.Restart
		if name == "haproxy" {
			restart = func(node, _ string) error { return l.RestartHAProxy(node) }
		}
		if err := restart(node, name); err != nil {
			return err
		}
	}
	return nil
}

// Filter drops packets on the bridge. An empty From or To is every node.
type Filter struct {
	From, To string
	Percent  int  // 100 cuts the link
	Gossip   bool // nothing but what the sidecars say to each other
}

func (f Filter) rule() string {
	var parts []string
	if f.From != "" {
		parts = append(parts, fmt.Sprintf("iifname %q", f.From))
	}
	if f.To != "" {
		parts = append(parts, fmt.Sprintf("oifname %q", f.To))
	}
	if f.Gossip {
		parts = append(parts, toGossip)
	}
	if f.Percent < 100 {
		parts = append(parts, fmt.Sprintf("numgen random mod 100 < %d", f.Percent))
	}
	return strings.Join(append(parts, "counter drop"), " ")
}

// Filter adds filters to those in force.
func (l *Lab) Filter(ctx context.Context, filters ...Filter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.setFilters(ctx, append(slices.Clone(l.filters), filters...))
}

// Heal removes all filters.
func (l *Lab) Heal(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.setFilters(ctx, nil)
}

// setFilters replaces the table on the bridge in one transaction.
func (l *Lab) setFilters(ctx context.Context, filters []Filter) error {
	lines := []string{
		"table bridge lab", "delete table bridge lab",
		"table bridge lab {", " chain forward {", "  type filter hook forward priority 0; policy accept;",
	}
	for _, f := range filters {
		lines = append(lines, "  "+f.rule())
	}
	lines = append(lines, " }", "}", "")
	_, err := run(ctx, strings.Join(lines, "\n"), "ip", "netns", "exec", l.bridge, "nft", "-f", "-")
	if err != nil {
		return fmt.Errorf("filter on the bridge: %w", err)
	}
	l.filters = filters
	return nil
}

// Cut cuts a node off, both ways.
func (l *Lab) Cut(ctx context.Context, node string) error {
	return l.Filter(ctx, Filter{From: node, Percent: 100}, Filter{To: node, Percent: 100})
}

// CutGossip keeps the sidecars of nodes from all others; everything else passes.
func (l *Lab) CutGossip(ctx context.Context, nodes ...string) error {
	var filters []Filter
	for _, node := range nodes {
		filters = append(filters, Filter{From: node, Percent: 100, Gossip: true}, Filter{To: node, Percent: 100, Gossip: true})
	}
	return l.Filter(ctx, filters...)
}

// Deafen cuts what goes to a node: it is heard and hears nothing.
func (l *Lab) Deafen(ctx context.Context, node string) error {
	return l.Filter(ctx, Filter{To: node, Percent: 100})
}

// Mute cuts what comes from a node: it hears and is not heard.
func (l *Lab) Mute(ctx context.Context, node string) error {
	return l.Filter(ctx, Filter{From: node, Percent: 100})
}

// CutBetween cuts the way between two nodes, both ways.
func (l *Lab) CutBetween(ctx context.Context, a, b string) error {
	return l.LossBetween(ctx, 100, a, b)
}

// LossBetween loses packets between each two of the nodes, each way.
func (l *Lab) LossBetween(ctx context.Context, percent int, nodes ...string) error {
	var filters []Filter
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				filters = append(filters, Filter{From: a, To: b, Percent: percent})
			}
		}
	}
	return l.Filter(ctx, filters...)
}

// Burn keeps that many cores busy until the returned function is called.
func (l *Lab) Burn(loops int) (quench func(), err error) {
	var started []*Proc
	quench = func() {
		for _, p := range started {
			p.kill()
		}
	}
	for i := range loops {
		cmd, env, err := childCommand("burn", nil)
		if err != nil {
			quench()
			return nil, err
		}
		p, err := l.start(l.Node("referee"), Spec{Name: fmt.Sprintf("burn-%d", i), Args: cmd, Env: env})
		if err != nil {
			quench()
			return nil, err
		}
		started = append(started, p)
	}
	return quench, nil
}

// Repair undoes every fault: filters, powered-off nodes, dead and frozen
// processes. Site servers, HAProxys and the daemons run again afterwards.
func (l *Lab) Repair(ctx context.Context) error {
	errs := []error{l.Heal(ctx)}
	for _, node := range l.Names() {
		if !l.running(node) {
			errs = append(errs, l.PowerOn(ctx, node))
			continue
		}
		for _, name := range l.Procs(node) {
			errs = append(errs, l.repairProc(node, name))
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) repairProc(node, name string) error {
	p := l.Proc(node, name)
	switch {
	case p.Alive():
		return l.Thaw(node, name)
	case name == "haproxy":
		return l.RestartHAProxy(node)
	default:
		return l.Restart(node, name)
	}
}
