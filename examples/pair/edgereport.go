package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"tandem/examples/lab"
)

// edgeReport is what many load balancers without a vote did.
type edgeReport struct {
	edgePlan
	progress io.Writer
	random   *rand.Rand

	quiet     talk
	took      []time.Duration // a switch, as a person waits for it
	last      []time.Duration // for each decision: until the last follower had read it back
	datagrams int             // of all nodes while the site was switched
	switching time.Duration   // for so long

	shotSwitch time.Duration
	shotLast   []time.Duration // as last, of those that were not shot
	back       time.Duration   // until those that were followed again

	expired   []time.Duration // after the cut, who was cut off had no ready server
	cutSwitch time.Duration   // a switch meanwhile
	split     []string        // who used the old site while the others used the new one
	healed    time.Duration   // until those that were cut off followed again

	lab.Noticed // in the first lab
	lab.Judgement
}

// load is what one node says and uses in a second.
type load struct {
	sent, got float64 // datagrams
	bytes     float64 // both ways, with headers
	cpu       float64 // cores
	resident  int64
}

// talk is what the nodes say at rest.
type talk struct{ followers, voters []load }

func loads(nodes []string, counted map[string]lab.Traffic, before, after map[string]lab.Usage, span time.Duration) []load {
	var all []load
	for _, node := range nodes {
		t, s := counted[node], span.Seconds()
		all = append(all, load{
			sent: float64(t.Sent.Packets) / s, got: float64(t.Got.Packets) / s, bytes: float64(t.Sent.Bytes+t.Got.Bytes) / s,
			cpu: (after[node].CPU - before[node].CPU).Seconds() / s, resident: after[node].Resident,
		})
	}
	return all
}

func (t talk) String() string {
	return "a follower " + describe(t.followers) + "; a voter " + describe(t.voters)
}

// describe gives the middle of some nodes, and the most of what they send and
// get together.
func describe(all []load) string {
	middle := func(of func(load) float64) float64 {
		var values []float64
		for _, l := range all {
			values = append(values, of(l))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	most := 0.0
	for _, l := range all {
		most = max(most, l.sent+l.got)
	}
	return fmt.Sprintf("sends %.1f and gets %.1f datagrams a second (the busiest %.1f in all), %.1f kB/s, and takes %.1f %% of a core and %.0f MB",
		middle(func(l load) float64 { return l.sent }), middle(func(l load) float64 { return l.got }), most,
		middle(func(l load) float64 { return l.bytes })/1000, 100*middle(func(l load) float64 { return l.cpu }),
		middle(func(l load) float64 { return float64(l.resident) })/1e6)
}

// perDecision is how many datagrams a node sent for one decision beyond what it
// sends at rest.
func (r *edgeReport) perDecision() float64 {
	nodes := slices.Concat(r.quiet.followers, r.quiet.voters)
	atRest := 0.0
	for _, l := range nodes {
		atRest += l.sent
	}
	return (float64(r.datagrams) - atRest*r.switching.Seconds()) / float64(max(len(r.last), 1)) / float64(len(nodes))
}

// expire cuts followers off in exclusive order, where they must not go on: no
// server is ready on them when the others use another site.
func (r *edgeReport) expire(ctx context.Context, l *lab.Lab) error {
	victims := r.choose(l, r.cut)
	from := lab.Now()
	if err := l.CutGossip(ctx, victims...); err != nil {
		return err
	}
	switched := make(chan error, 1)
	go func() {
		_, err := l.Tandem(ctx, "lb1", "takeover", "b", "--wait", "--timeout", "30s")
		r.cutSwitch = lab.Now() - from
		switched <- err
	}()
	err := r.watchExpiry(ctx, l, victims, from)
	if err = firstOf([]error{<-switched, err}); err != nil {
		return err
	}
	r.say("exclusive: %d cut off had no ready server after %s; a switch meanwhile took %s", r.cut, plain(r.expired), millis(r.cutSwitch))
	alive := slices.DeleteFunc(l.Balancers(), func(lb string) bool { return slices.Contains(victims, lb) })
	if _, err = r.obey(ctx, l, "b", alive); err != nil {
		return err
	}
	if err = l.Heal(ctx); err != nil {
		return err
	}
	r.healed, err = r.obey(ctx, l, "b", l.Balancers())
	return err
}

// watchExpiry looks at those that were cut off until none of them has a ready
// server, and longer than the switch of the others can take.
func (r *edgeReport) watchExpiry(ctx context.Context, l *lab.Lab, victims []string, from time.Duration) error {
	const long = 10 * time.Second
	expired := map[string]bool{}
	for lab.Now()-from < long {
		for _, v := range victims {
			// The victim twice, with the other in between: what has not changed
			// was so all the time.
			before, other, after := uses(ctx, l, v), uses(ctx, l, "lb1"), uses(ctx, l, v)
			switch {
			case before == nil || other == nil || after == nil:
				return fmt.Errorf("HAProxy on %s or lb1 does not answer", v)
			case len(after) == 0 && !expired[v]:
				expired[v] = true
				r.expired = append(r.expired, lab.Now()-from)
			case len(after) > 0 && expired[v]:
				r.split = append(r.split, fmt.Sprintf("%s uses %v again while it is cut off", v, after))
			}
			if slices.Equal(before, after) && len(before) > 0 && len(other) > 0 && !slices.Equal(before, other) {
				r.split = append(r.split, fmt.Sprintf("%s uses %v and lb1 uses %v", v, before, other))
			}
		}
		if err := pause(ctx, 20*ms); err != nil {
			return err
		}
	}
	if len(expired) < len(victims) {
		return fmt.Errorf("after %v only %d of %d that are cut off have stopped routing", long, len(expired), len(victims))
	}
	return nil
}

// verdict is what must not have happened.
func (r *edgeReport) verdict(limit time.Duration) error {
	var errs []error
	for _, last := range [][]time.Duration{r.last, r.shotLast} {
		if len(last) > 0 && slices.Max(last) > limit {
			errs = append(errs, fmt.Errorf("the last follower obeyed after %s, more than %v", millis(slices.Max(last)), limit))
		}
	}
	if r.Failed > 0 {
		errs = append(errs, fmt.Errorf("%d of %d requests failed: %v", r.Failed, r.Requests, r.Errors))
	}
	if len(r.Moves) > 0 || r.TwoAnswer > 0 {
		errs = append(errs, fmt.Errorf("the address moved %d times; two answered for %s", len(r.Moves), millis(r.TwoAnswer)))
	}
	if len(r.split) > 0 {
		errs = append(errs, errors.New(strings.Join(r.split[:min(len(r.split), 5)], "; ")))
	}
	return errors.Join(errs...)
}

func (r *edgeReport) String() string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", what, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%d load balancers without a vote, beside 3 voters; seed %d\n", r.followers, r.seed)
	line("at rest", "%s", r.quiet)
	line("switches", "%d with %d decisions: the last follower had read one back after %s ms, a switch took %s ms; %.1f datagrams a node for a decision",
		len(r.took), len(r.last), plain(r.last), plain(r.took), r.perDecision())
	if r.shot > 0 {
		line("shot", "%d in a switch, which took %s; the last of the others had read a decision back after %s ms; all followed again %s after the start",
			r.shot, millis(r.shotSwitch), plain(r.shotLast), millis(r.back))
	}
	if r.cut > 0 {
		line("cut off", "%d in exclusive order: no ready server any more after %s ms; a switch meanwhile took %s; they followed again %s after the heal",
			r.cut, plain(r.expired), millis(r.cutSwitch), millis(r.healed))
	}
	line("clients", "%d new connections, %d failed; the address moved %d times, two answered for %s",
		r.Requests, r.Failed, len(r.Moves), millis(r.TwoAnswer))
	if r.Lag > 50*ms || r.Blind > 50*ms {
		line("", "(the machine stalled: client %s, referee %s)", millis(r.Lag), millis(r.Blind))
	}
	return b.String()
}

// plain is the spread for people.
func plain(ds []time.Duration) string { return strings.ReplaceAll(spread(ds), "**", "") }
