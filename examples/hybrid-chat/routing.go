package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
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

// servedAt asks for components through each load balancer that runs, as a client
// does, and tells whether all are answered by one site.
func (s *stage) servedAt(ctx context.Context, site string, names ...string) error {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.Dial(ctx, "client", network, address)
	}
	client := http.Client{Timeout: 8 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	for _, lb := range lab.LBs() {
		for _, name := range names {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Node(lb).IP.String()+"/"+name+"/", nil)
			if err != nil {
				return fmt.Errorf("ask for %s: %w", name, err)
			}
			res, err := client.Do(req)
			if err != nil {
				return fmt.Errorf("ask for %s through %s: %w", name, lb, err)
			}
			_ = res.Body.Close()
			if got := res.Header.Get("X-Server"); res.StatusCode != http.StatusOK || got != name+"-"+site {
				return fmt.Errorf("%s through %s: %s by %q, want %s-%s", name, lb, res.Status, got, name, site)
			}
		}
	}
	return nil
}

// lostBeforeDetection tells whether each request that failed had begun before
// the load balancer knew that the site's server for it was dead: it was under
// way then, or had been sent there. From then on requests wait. What the machine
// stood still is allowed for.
func (s *stage) lostBeforeDetection(from moment, n lab.Noticed, site string) error {
	stalled := max(n.Lag, s.Referee.Judge(from.lab, n.To).Blind)
	found := map[string]time.Duration{}
	for _, v := range s.Verdicts(from.lab) {
		if v.Up {
			continue
		}
		if _, ok := found[v.LB+" "+v.Server]; !ok {
			found[v.LB+" "+v.Server] = v.At
		}
		found[" "+v.Server] = v.At // for answers that do not say through which they came
	}
	for _, q := range s.Client.Requests(from.lab) {
		if q.Kind != lab.KindNew || q.OK() || q.Start < from.lab || q.Start >= n.To {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(q.Path, "/"), "/")
		at, ok := found[q.LB+" "+name+"/"+name+"-"+site]
		if !ok || q.Start > at+stalled {
			return fmt.Errorf("a request for %s failed (status %d %s) that began %s after the failure; its load balancer %q knew after %s, and the machine stalled for %s",
				q.Path, q.Status, q.Err, ms(q.Start-from.lab), q.LB, ms(at-from.lab), ms(stalled))
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
