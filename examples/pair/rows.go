package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tandem/examples/lab"
)

// row is one kind of failure.
type row struct {
	name  string
	title string
	// only: "tandem" is a row that tandem is measured in as it comes, and no
	// other system; "sites" is the same of a row about sites; "gossip" is one
	// that every tandem is measured in; empty is all.
	only string
	// once: a row that takes so long that it is measured once.
	once bool
	// fault breaks something on the lab, whose address is held by holder.
	fault func(ctx context.Context, l *lab.Lab, holder string) error
	// watch is how long the client is watched at least after fault has
	// returned; it is watched until it has been served for a second, and at
	// most patience.
	watch time.Duration
	// extra looks at what else matters, before anything is repaired.
	extra func(ctx context.Context, l *lab.Lab, m *measurement) error
}

const patience = 10 * time.Second

func (r row) applies(s lab.System) bool {
	t, tandem := s.(lab.Tandem)
	return r.only == "" || tandem && (t.Label == "" || r.only == "gossip")
}

func rows() []row {
	return append(addressRows(), siteRows()...)
}

func daemon(l *lab.Lab) string { return l.System.Daemon() }

func addressRows() []row {
	return slices.Concat(haproxyRows(), linkRows(), daemonRows(), longRows())
}

func haproxyRows() []row {
	return []row{
		{
			name: "haproxy-killed", title: "HAProxy of the holder killed", watch: time.Second,
			fault: func(_ context.Context, l *lab.Lab, holder string) error { return l.Kill(holder, "haproxy") },
		},
		{
			name: "haproxy-hung", title: "HAProxy of the holder hangs", watch: time.Second,
			fault: func(_ context.Context, l *lab.Lab, holder string) error { return l.Freeze(holder, "haproxy") },
		},
		{
			name: "power", title: "the holder loses power", watch: time.Second,
			fault: func(ctx context.Context, l *lab.Lab, holder string) error { return l.PowerOff(ctx, holder) },
		},
	}
}

func linkRows() []row {
	return []row{
		{
			name: "cut", title: "the holder is cut off, both ways", watch: time.Second,
			fault: func(ctx context.Context, l *lab.Lab, holder string) error { return l.Cut(ctx, holder) },
		},
		{
			name: "gossip-cut", title: "the other nodes and the holder lose sight of each other; clients reach both", watch: 2 * time.Second,
			fault: cutFromPeers,
		},
		{
			name: "deaf", title: "the holder hears nothing", watch: time.Second,
			fault: func(ctx context.Context, l *lab.Lab, holder string) error { return l.Deafen(ctx, holder) },
		},
		{
			name: "mute", title: "the holder is not heard", watch: time.Second,
			fault: func(ctx context.Context, l *lab.Lab, holder string) error { return l.Mute(ctx, holder) },
		},
	}
}

func daemonRows() []row {
	return []row{
		{
			name: "daemon-killed", title: "the daemon of the holder is killed", watch: 4 * time.Second,
			fault: func(_ context.Context, l *lab.Lab, holder string) error { return l.Kill(holder, daemon(l)) },
		},
		{
			name: "daemon-restarted", title: "the daemon of the holder is killed and started again at once", watch: 4 * time.Second, only: "tandem",
			fault: func(_ context.Context, l *lab.Lab, holder string) error {
				if err := l.Kill(holder, daemon(l)); err != nil {
					return err
				}
				return l.Restart(holder, daemon(l))
			},
		},
		{
			name: "daemon-frozen", title: "the daemon of the holder freezes for 3 s", watch: 2 * time.Second,
			fault: func(ctx context.Context, l *lab.Lab, holder string) error {
				if err := l.Freeze(holder, daemon(l)); err != nil {
					return err
				}
				if err := pause(ctx, 3*time.Second); err != nil {
					return err
				}
				return l.Thaw(holder, daemon(l))
			},
		},
		{
			name: "witness", title: "the witness loses power", watch: 2 * time.Second, only: "tandem",
			fault: func(ctx context.Context, l *lab.Lab, _ string) error { return l.PowerOff(ctx, "witness") },
		},
		{
			name: "move", title: "planned move of the address", watch: time.Second, fault: plannedMove,
		},
		{
			name: "move-old-dies", title: "the old holder loses power in the grace of a planned move", watch: 4 * time.Second, only: "tandem",
			fault: func(ctx context.Context, l *lab.Lab, holder string) error { return moveAndDie(ctx, l, holder, holder) },
		},
		{
			name: "move-new-dies", title: "the successor loses power in the grace of a planned move", watch: 4 * time.Second, only: "tandem",
			fault: func(ctx context.Context, l *lab.Lab, holder string) error {
				return moveAndDie(ctx, l, holder, lab.Other(holder))
			},
		},
		{
			name: "stop", title: "the daemon of the holder is stopped in order", watch: 2 * time.Second, once: true, only: "tandem",
			fault: func(_ context.Context, l *lab.Lab, holder string) error {
				return l.Proc(holder, daemon(l)).Signal(syscall.SIGTERM)
			},
			extra: untilEnded,
		},
		{
			name: "reload", title: "HAProxy of the holder is reloaded", watch: time.Second, only: "tandem",
			fault: func(ctx context.Context, l *lab.Lab, holder string) error { return l.ReloadHAProxy(ctx, holder) },
		},
	}
}

func longRows() []row {
	return []row{lossRow(time.Minute), busyRow(time.Minute), restRow(10 * time.Second), floodRow(20 * time.Second)}
}

// restRow breaks nothing.
func restRow(d time.Duration) row {
	return row{
		name: "rest", title: fmt.Sprintf("nothing: the daemon of the holder at rest for %v", d), watch: time.Second, once: true, only: "tandem",
		fault: func(ctx context.Context, _ *lab.Lab, _ string) error { return pause(ctx, d) },
		extra: func(ctx context.Context, l *lab.Lab, m *measurement) error { return footprint(ctx, l, m, d/2) },
	}
}

func lossRow(d time.Duration) row {
	return row{
		name: "loss", title: fmt.Sprintf("30 %% loss between the daemons for %v", d), watch: time.Second, once: true,
		fault: func(ctx context.Context, l *lab.Lab, _ string) error {
			if err := l.LossBetween(ctx, 30, l.System.Nodes()...); err != nil {
				return err
			}
			if err := pause(ctx, d); err != nil {
				return err
			}
			return l.Heal(ctx)
		},
	}
}

func busyRow(d time.Duration) row {
	return row{
		name: "busy", title: fmt.Sprintf("four busy loops for %v", d), watch: time.Second, once: true,
		fault: func(ctx context.Context, l *lab.Lab, _ string) error {
			quench, err := l.Burn(4)
			if err != nil {
				return err
			}
			defer quench()
			return pause(ctx, d)
		},
	}
}

// floodRow lets a stranger flood the sidecar of the holder.
func floodRow(d time.Duration) row {
	return row{
		name: "flood", title: fmt.Sprintf("a stranger floods the daemon of the holder for %v", d), watch: time.Second, once: true, only: "gossip",
		fault: func(ctx context.Context, l *lab.Lab, holder string) error {
			stop, err := l.Flood(holder)
			if err != nil {
				return err
			}
			defer stop()
			return pause(ctx, d)
		},
		extra: func(ctx context.Context, l *lab.Lab, m *measurement) error {
			u, err := l.Usage(m.Holder, daemon(l))
			if err != nil {
				return err
			}
			m.Resident = u.Resident
			if m.Dropped, err = guardDropped(ctx, l, m.Holder); err != nil {
				return err
			}
			m.Extra = fmt.Sprintf("%d dropped at the door, %.0f MB", m.Dropped, float64(u.Resident)/1e6)
			return nil
		},
	}
}

// guardDropped is what a sidecar's guard says, in its metrics, that it has
// dropped.
func guardDropped(ctx context.Context, l *lab.Lab, node string) (int, error) {
	client := socketClient(l, node)
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read metrics of %s: %w", node, err)
	}
	defer func() { _ = resp.Body.Close() }()
	sum := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil && strings.HasPrefix(name, "tandem_gossip_guard_dropped_total{") {
			sum += int(n)
		}
	}
	return sum, nil
}

// cutFromPeers cuts a holder off from the daemons, and from nobody else: only
// its own clock tells it to be silent.
func cutFromPeers(ctx context.Context, l *lab.Lab, holder string) error {
	for _, node := range l.System.Nodes() {
		if node == holder {
			continue
		}
		if err := l.CutBetween(ctx, holder, node); err != nil {
			return err
		}
	}
	return nil
}

// untilEnded waits for a daemon that was told to stop. Tandem stays for as long
// as connections that it still carries may go on (TANDEM_MOVE_GRACE).
func untilEnded(ctx context.Context, l *lab.Lab, m *measurement) error {
	p := l.Proc(m.Holder, daemon(l))
	select {
	case <-p.Done():
		return nil
	case <-time.After(40 * time.Second):
		return fmt.Errorf("the daemon on %s was told to stop and has not ended", m.Holder)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// plannedMove is what an operator does: tandem move, or, since keepalived
// knows no such command, an orderly stop of the daemon.
func plannedMove(ctx context.Context, l *lab.Lab, holder string) error {
	if _, ok := l.System.(lab.Tandem); !ok {
		return l.Stop(ctx, holder, daemon(l), syscall.SIGTERM, 5*time.Second)
	}
	_, err := l.Tandem(ctx, lab.Other(holder), "move", "--to", lab.Other(holder))
	return err
}

// moveAndDie has one of two die soon after a planned move.
func moveAndDie(ctx context.Context, l *lab.Lab, holder, dies string) error {
	if err := plannedMove(ctx, l, holder); err != nil {
		return err
	}
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	return l.PowerOff(ctx, dies)
}

// footprint says what the daemon uses: the memory now, and the share of a core
// over the span.
func footprint(ctx context.Context, l *lab.Lab, m *measurement, span time.Duration) error {
	before, err := l.Usage(m.Holder, daemon(l))
	if err != nil {
		return err
	}
	if err = pause(ctx, span); err != nil {
		return err
	}
	after, err := l.Usage(m.Holder, daemon(l))
	if err != nil {
		return err
	}
	m.Extra = fmt.Sprintf("%.0f MB, %.1f %% of a core", float64(after.Resident)/1e6, 100*float64(after.CPU-before.CPU)/float64(span))
	return nil
}

func siteRows() []row {
	return []row{
		{
			name: "site-killed", title: "all servers of the active site die", watch: 3 * time.Second, only: "sites",
			fault: func(_ context.Context, l *lab.Lab, _ string) error { return l.KillSite(activeSite(l)) },
			extra: lateness,
		}, {
			name: "takeover", title: "planned switch of the site", watch: 2 * time.Second, only: "sites",
			fault: func(ctx context.Context, l *lab.Lab, holder string) error {
				_, err := l.Tandem(ctx, holder, "takeover", otherSite(activeSite(l)))
				return err
			},
		},
	}
}

// activeSite is the site that has served most of the last second.
func activeSite(l *lab.Lab) string {
	best, most := "a", 0
	recent := l.Client.Recent(time.Second)
	for site, n := range recent.Sites() {
		if n > most {
			best, most = site, n
		}
	}
	return best
}

func otherSite(site string) string {
	if site == "a" {
		return "b"
	}
	return "a"
}

// lateness compares the first answer of the other site with HAProxy's own
// detection of the last dead server.
func lateness(_ context.Context, l *lab.Lab, m *measurement) error {
	var dead string
	for _, site := range lab.Sites() {
		if l.Detected(site, m.From) > 0 {
			dead = site
		}
	}
	if dead == "" {
		return fmt.Errorf("HAProxy did not find the site dead")
	}
	found := l.Detected(dead, m.From)
	for _, r := range l.Client.Requests(found - 2*time.Second) {
		if r.OK() && r.Start >= m.From && r.Kind == lab.KindNew && r.Server[:1] == otherSite(dead) {
			m.Late = r.Start + r.Took - found
			m.Extra = fmt.Sprintf("%s after HAProxy's detection (%s after the fault)", millis(m.Late), millis(found-m.From))
			return nil
		}
	}
	return fmt.Errorf("site %s never served", otherSite(dead))
}
