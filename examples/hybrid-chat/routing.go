package main

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"time"

	"tandem/examples/lab"
)

// routes tells whether a load balancer sends every component to one site only.
func (s *stage) routes(ctx context.Context, lb, site string, backends ...string) error {
	states, err := s.ServerStates(ctx, lb)
	if err != nil {
		return err
	}
	for _, b := range backends {
		if at := states[b+"/"+b+"-"+site]; at != "ready" {
			return fmt.Errorf("%s: %s at %s is %s", lb, b, site, at)
		}
		if at := states[b+"/"+b+"-"+other(site)]; at == "ready" {
			return fmt.Errorf("%s: %s is ready at %s too", lb, b, other(site))
		}
	}
	return nil
}

// activeAt tells whether both load balancers that run route to the site, and
// no switch is under way.
func (s *stage) activeAt(ctx context.Context, site string) error {
	for _, lb := range lab.LBs() {
		if err := s.routes(ctx, lb, site, critical...); err != nil {
			return err
		}
	}
	return s.decidedFor(ctx, "default", site)
}

// decidedFor asks the sidecars which site is active for a group.
func (s *stage) decidedFor(ctx context.Context, group, site string) error {
	for _, lb := range lab.LBs() {
		st, err := s.status(ctx, lb)
		if err != nil {
			return err
		}
		for _, g := range st.Groups {
			if g.Group == group && (g.Active != site || g.Switching()) {
				return fmt.Errorf("%s: %s active %q phase %q reason %s", lb, group, g.Active, g.Phase, g.Reason)
			}
		}
		if len(st.Groups) == 0 {
			return fmt.Errorf("%s: nothing decided", lb)
		}
	}
	return nil
}

// broker says which broker answers at an address, asked from the client.
func (s *stage) broker(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := s.Dial(ctx, "client", "tcp", address+":61613")
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err = io.WriteString(c, "CONNECT\naccept-version:1.2\nhost:hybrid-chat\n\n\x00"); err != nil {
		return "", err
	}
	frame, err := bufio.NewReader(c).ReadString(0)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(frame) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "server:"); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("no broker: %q", frame)
}

// brokerIs tells whether a broker is reached through both load balancers.
func (s *stage) brokerIs(ctx context.Context, name string) error {
	for _, lb := range lab.LBs() {
		got, err := s.broker(ctx, s.Node(lb).IP.String())
		if err != nil || got != name {
			return fmt.Errorf("through %s: broker %q %w", lb, got, err)
		}
	}
	return nil
}

// untouched tells whether the servers outside are as their operator left them.
func (s *stage) untouched(ctx context.Context) error {
	for _, lb := range lab.LBs() {
		states, err := s.ServerStates(ctx, lb)
		if err != nil {
			return err
		}
		for server, want := range map[string]string{"bot/bot-1": "ready", "bot/bot-2": "drain", "sql/sql-1": "ready", "sql/sql-2": "maint"} {
			if states[server] != want {
				return fmt.Errorf("%s: %s is %s, its operator left it %s", lb, server, states[server], want)
			}
		}
	}
	return nil
}
