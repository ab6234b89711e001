package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tandem/examples/lab"
)

// act is one failure of the story. The promises leave room for a slow machine;
// what it can do is for `pair bench` to say.
type act struct {
	title   string // with %s for the holder
	fault   func(ctx context.Context, l *lab.Lab, holder string) error
	promise func(ctx context.Context, l *lab.Lab, holder string, sc score) []string
	mend    func(ctx context.Context, l *lab.Lab, holder string) error
	sites   bool   // only what knows sites can play it
	mended  string // with %s for the holder before
}

func (a act) name(l *lab.Lab, holder string) string {
	return strings.NewReplacer("{holder}", holder, "{site}", activeSite(l), "{other}", otherSite(activeSite(l))).Replace(a.title)
}

func (a act) mending(holder string) string { return strings.ReplaceAll(a.mended, "{holder}", holder) }

func acts() []act {
	return []act{
		{
			title: "HAProxy on {holder}, the holder, is killed",
			fault: func(_ context.Context, l *lab.Lab, holder string) error { return l.Kill(holder, "haproxy") },
			promise: func(_ context.Context, l *lab.Lab, holder string, sc score) []string {
				return append(movedTo(l, lab.Other(holder)), within(sc, 300*time.Millisecond)...)
			},
			mend:   func(_ context.Context, l *lab.Lab, holder string) error { return l.RestartHAProxy(holder) },
			mended: "HAProxy on {holder} starts again; the address stays where it is",
		}, {
			title: "{holder}, the holder, loses power",
			fault: func(ctx context.Context, l *lab.Lab, holder string) error { return l.PowerOff(ctx, holder) },
			promise: func(_ context.Context, l *lab.Lab, holder string, sc score) []string {
				return append(movedTo(l, lab.Other(holder)), within(sc, time.Second)...)
			},
			mend:   func(ctx context.Context, l *lab.Lab, holder string) error { return l.PowerOn(ctx, holder) },
			mended: "power is back at {holder}; the address stays where it is",
		}, {
			sites: true,
			title: "every server of site {site}, the active one, dies",
			fault: func(_ context.Context, l *lab.Lab, _ string) error { return l.KillSite("a") },
			promise: func(ctx context.Context, l *lab.Lab, _ string, sc score) []string {
				return append(routed(ctx, l, "b"), within(sc, 1500*time.Millisecond)...)
			},
			mend:   func(_ context.Context, l *lab.Lab, _ string) error { return l.StartSite("a") },
			mended: "site a is back; site b goes on serving until somebody says otherwise",
		}, {
			sites: true,
			title: "an operator says: tandem takeover a",
			fault: func(ctx context.Context, l *lab.Lab, holder string) error {
				_, err := l.Tandem(ctx, holder, "takeover", "a")
				return err
			},
			promise: func(ctx context.Context, l *lab.Lab, _ string, sc score) []string {
				return append(routed(ctx, l, "a"), unnoticed(sc)...)
			},
		},
	}
}

func movedTo(l *lab.Lab, lb string) []string {
	if holder := l.Holder(); holder != lb {
		return []string{fmt.Sprintf("%s should hold the address, and %s does", lb, or(holder, "nobody"))}
	}
	return nil
}

func within(sc score, limit time.Duration) []string {
	if sc.noticed.Outage > limit {
		return []string{fmt.Sprintf("there was no answer for %s, the promise is %s", millis(sc.noticed.Outage), millis(limit))}
	}
	return nil
}

func unnoticed(sc score) []string {
	if sc.noticed.Failed > 0 {
		return []string{fmt.Sprintf("%d requests failed, the promise is none", sc.noticed.Failed)}
	}
	return nil
}

// routed tells whether both load balancers use the site's servers and no others.
func routed(ctx context.Context, l *lab.Lab, site string) []string {
	return routedOn(ctx, l, site, lab.LBs())
}

// routedOn tells the same of some load balancers.
func routedOn(ctx context.Context, l *lab.Lab, site string, lbs []string) []string {
	var broken []string
	for _, lb := range lbs {
		states, err := l.ServerStates(ctx, lb)
		if err != nil {
			broken = append(broken, err.Error())
			continue
		}
		for name, state := range states {
			_, server, _ := strings.Cut(name, "/")
			if ours := strings.HasPrefix(server, site+"-"); ours != (state == "ready") {
				broken = append(broken, fmt.Sprintf("on %s the server %s is %s while site %s is to serve", lb, name, state, site))
			}
		}
	}
	return broken
}

// uses names the sites with a server that a load balancer sends to; nil if its
// HAProxy does not answer.
func uses(ctx context.Context, l *lab.Lab, lb string) []string {
	states, err := l.ServerStates(ctx, lb)
	if err != nil {
		return nil
	}
	sites := []string{}
	for name, state := range states {
		_, server, _ := strings.Cut(name, "/")
		if site := server[:1]; state == "ready" && !slices.Contains(sites, site) {
			sites = append(sites, site)
		}
	}
	slices.Sort(sites)
	return sites
}
