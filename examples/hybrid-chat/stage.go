package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"tandem/examples/lab"
	"tandem/sidecar/status"
)

// machines are those on which applications run, with their sites: beside the
// load balancers or, apart, on machines of their own.
var machines = map[string]string{"lb1": "a", "lb2": "b", "a": "a", "b": "b"}

// machineOf is the machine with the applications of a site.
func (s *stage) machineOf(site string) string {
	if s.apart {
		return site
	}
	return map[string]string{"a": "lb1", "b": "lb2"}[site]
}

func other(site string) string { return map[string]string{"a": "b", "b": "a"}[site] }

var (
	critical   = []string{"ccm", "comm", "mre", "chat"}
	components = append(slices.Clone(critical), "reporting")
)

// stage is the deployment, running in a lab.
type stage struct {
	*lab.Lab
	options
	override map[string]map[string]string // environment of a node, from its next start on
	platform *platform
	outside  []net.Listener // bot and SQL
	before   map[string]int // how long the log of each HAProxy was when all stood
}

// options of a stage.
type options struct {
	tandem       string            // path of the binary
	program      string            // path of this program
	env          map[string]string // on top of the environment files
	precheck     bool              // HAScripts/precheck.sh is asked first
	apart        bool              // the applications run on machines of their own, each with a sidecar (TANDEM_ROLE=site)
	noHold       bool              // requests are not held
	every        time.Duration     // between two requests of the client
	everyInstant bool              // faults come at each instant of a switch, not at one of them
	direct       bool              // the client asks each load balancer at its own address as well
}

// newStage builds everything and waits until site a is active and lb1 holds.
func newStage(ctx context.Context, o options) (s *stage, err error) {
	s = &stage{options: o, override: map[string]map[string]string{}}
	if o.every == 0 {
		o.every = 10 * time.Millisecond
	}
	scripts, err := scripts()
	if err != nil {
		return nil, err
	}
	system := lab.Tandem{Program: o.tandem, NodeEnv: func(_ *lab.Lab, n *lab.Node) map[string]string {
		env := environment(n, o, scripts)
		maps.Copy(env, s.override[n.Name])
		return env
	}}
	if o.apart {
		system.Apps = lab.Sites()
	}
	s.Lab, err = lab.New(ctx, lab.Config{
		System: system, HAProxy: func(l *lab.Lab, lb string) (string, error) { return configure(l, lb, o) },
		Interval: o.every, Timeout: 8 * time.Second, Driver: o.program,
		Paths: []string{"/ccm/", "/comm/", "/bot/", "/mre/", "/chat/"}, Loads: o.loads(),
	})
	if err != nil {
		return nil, err
	}
	if err = s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// loads ask each load balancer for three components, on connections that are
// kept. The path says through which one a request came.
func (o options) loads() []lab.Load {
	if !o.direct {
		return nil
	}
	var all []lab.Load
	for _, lb := range lab.LBs() {
		for _, name := range []string{"ccm", "comm", "chat"} {
			all = append(all, lab.Load{Kind: lb, Count: 1, Pace: 5 * time.Millisecond, Path: "/" + name + "/" + lb, To: lab.Address(lb).String() + ":80"})
		}
	}
	return all
}

// openOutside starts the services that no site runs.
func (s *stage) openOutside(ctx context.Context) error {
	for i, node := range outside(s.apart) {
		for _, port := range []string{":8086", ":5433"} {
			l, err := s.Listen(ctx, node, port)
			if err != nil {
				return err
			}
			s.outside = append(s.outside, l)
			if port == ":8086" {
				go answer(l, "bot-"+strconv.Itoa(i+1))
			} else {
				go greet(l)
			}
		}
	}
	return nil
}

// beginAtLB1 moves the address to lb1 if the other was up first: that is where
// the rows begin.
func (s *stage) beginAtLB1(ctx context.Context) error {
	return s.await(ctx, 30*time.Second, "the address at lb1", func() error {
		if s.Holder() == "lb2" {
			if _, err := s.Tandem(ctx, "lb2", "move", "--to", "lb1"); err != nil {
				return err
			}
		}
		return s.holds("lb1")
	})
}

func (s *stage) open(ctx context.Context) error {
	if err := s.openOutside(ctx); err != nil {
		return err
	}
	s.platform = &platform{stage: s}
	if err := s.platform.up(ctx); err != nil {
		return err
	}
	if err := s.boot(ctx, s.machineOf("a"), append([]string{"amq"}, components...)...); err != nil {
		return err
	}
	if store() != "" {
		// Real brokers fight for one lock. Were amq-b first, the rows would begin
		// with switches that are not theirs, and three are all that may follow each
		// other without an acknowledgement.
		if err := s.await(ctx, time.Minute, "amq-a", func() error { return s.isState(ctx, "amq/amq-a", "ready") }); err != nil {
			return err
		}
	}
	if err := s.boot(ctx, s.machineOf("b"), "ccm", "amq"); err != nil {
		return err
	}
	if err := s.await(ctx, 30*time.Second, "site a active", func() error { return s.activeAt(ctx, "a") }); err != nil {
		return err
	}
	if err := s.beginAtLB1(ctx); err != nil {
		return err
	}
	// An operator's work on the servers outside, which must outlive everything.
	for _, lb := range lab.LBs() {
		for _, c := range []string{"set server bot/bot-2 state drain", "set server sql/sql-2 state maint"} {
			if _, err := s.HAProxyCommand(ctx, lb, c); err != nil {
				return err
			}
		}
	}
	if err := s.await(ctx, 30*time.Second, "the servers outside", func() error { return s.untouched(ctx) }); err != nil {
		return err
	}
	// HAProxy started before those servers did, and may have called them down.
	s.before = map[string]int{}
	for _, lb := range lab.LBs() {
		s.before[lb] = len(s.Log(lb, "haproxy"))
	}
	return s.Settled(ctx, time.Minute)
}

// Close ends everything.
func (s *stage) Close() error {
	for _, l := range s.outside {
		_ = l.Close()
	}
	if s.platform != nil {
		s.platform.down()
	}
	return s.Lab.Close()
}

// await repeats f until it returns nil.
func (s *stage) await(ctx context.Context, limit time.Duration, what string, f func() error) error {
	var last error
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if last = f(); last == nil {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: not within %v: %w (%s)", what, limit, last, s.Describe())
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func (s *stage) status(ctx context.Context, node string) (status.Status, error) {
	out, err := s.Tandem(ctx, node, "status", "--json")
	var st status.Status
	if json.Unmarshal([]byte(out), &st) != nil {
		return st, fmt.Errorf("status of %s: %w", node, err) // an exit code other than 0 is no failure
	}
	return st, nil
}
