package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tandem/examples/lab"
)

// mixture is a load of all kinds of connections, and how often the address moves
// under it.
type mixture struct {
	fresh time.Duration // between two new connections
	loads []lab.Load
	grace time.Duration // TANDEM_MOVE_GRACE
	moves int
	ipv6  bool
}

// The kinds of kept connections of a mixture.
const (
	kindBusy = "keep-alive"
	kindSlow = "download"
	kindIdle = "idle"
)

// pauses between two moves, over and over: to and fro within a second and
// within the grace, and now and then past its end, so that connections of all
// ages meet a move.
func (m mixture) pause(n int) time.Duration {
	pauses := []time.Duration{300 * ms, 900 * ms, 100 * ms, 2 * time.Second, 500 * ms, 1200 * ms, m.grace + time.Second}
	return pauses[n%len(pauses)]
}

const ms = time.Millisecond

// fullMixture is 500 new connections a second; 200 keep-alive clients with 2000
// requests a second; 20 slow downloads; 20 connections that speak once a second.
func fullMixture(moves int, ipv6 bool) mixture {
	return mixture{
		fresh: 2 * ms, moves: moves, ipv6: ipv6, grace: 5 * time.Second,
		loads: []lab.Load{
			{Kind: kindBusy, Count: 200, Pace: 100 * ms, Path: "/"},
			{Kind: kindSlow, Count: 20, Pace: 100 * ms, Path: "/endless", Piece: 1 << 13},
			{Kind: kindIdle, Count: 20, Pace: time.Second, Path: "/"},
		},
	}
}

func movesCommand(program *string) *cobra.Command {
	var moves int
	var ipv6 bool
	cmd := &cobra.Command{
		Use: "moves", Args: cobra.NoArgs,
		Short: "Move the address to and fro under a mixed load, and count what a client noticed",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			r, err := playMoves(cmd.Context(), os.Stderr, *program, fullMixture(moves, ipv6))
			if err != nil {
				return err
			}
			fmt.Fprint(os.Stdout, r)
			return r.verdict()
		},
	}
	cmd.Flags().IntVar(&moves, "moves", 20, "how many")
	cmd.Flags().BoolVar(&ipv6, "ipv6", false, "over IPv6")
	return cmd
}

// playMoves builds a lab, puts it under the load, moves the address and waits
// until the last grace has ended.
func playMoves(ctx context.Context, progress io.Writer, program string, mix mixture) (*moveReport, error) {
	cfg := lab.Config{
		System:   lab.Tandem{Program: program, Env: map[string]string{"TANDEM_MOVE_GRACE": mix.grace.String()}},
		Interval: mix.fresh, Keep: -1, Loads: mix.loads, IPv6: mix.ipv6,
	}
	if mix.ipv6 {
		cfg.Target = net.JoinHostPort(lab.VIP6().String(), "80")
	}
	l, err := lab.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	if err = l.Settled(ctx, time.Minute); err != nil {
		return nil, err
	}
	r := &moveReport{mixture: mix, from: lab.Now()}
	holder := l.Holder()
	for n := range mix.moves {
		if holder, err = r.move(ctx, progress, l, holder); err != nil {
			return nil, err
		}
		if n < mix.moves-1 {
			if err = pause(ctx, mix.pause(n)); err != nil {
				return nil, err
			}
		}
	}
	if err = pause(ctx, mix.grace+time.Second); err != nil {
		return nil, err
	}
	return r, r.look(ctx, l)
}

// handOver is one move.
type handOver struct {
	at, took time.Duration
	from     string
	back     bool // no move: the old holder took the address back
}

// move moves the address from its holder, and says who holds it then. On a
// machine that stands still at the wrong time the successor is not fit for a
// moment, which is waited for, or comes too late, and the old holder takes the
// address back.
func (r *moveReport) move(ctx context.Context, progress io.Writer, l *lab.Lab, holder string) (string, error) {
	to := lab.Other(holder)
	at := lab.Now()
	_, err := l.Tandem(ctx, to, "move", "--to", to)
	for end := at + 10*time.Second; err != nil && strings.Contains(err.Error(), "cannot take over") && lab.Now() < end; {
		if err = pause(ctx, 200*ms); err != nil {
			return holder, err
		}
		at = lab.Now()
		_, err = l.Tandem(ctx, to, "move", "--to", to)
	}
	took := lab.Now() - at
	r.moves = append(r.moves, handOver{at: at, took: took, from: holder})
	if err != nil && strings.Contains(err.Error(), "did not take") {
		fmt.Fprintf(progress, "%s → %s: %v\n", holder, to, err)
		r.moves = append(r.moves, handOver{at: at + took, from: to, back: true})
		return holder, nil
	}
	if err != nil {
		return holder, fmt.Errorf("after %s: %w", millis(at-r.from), err)
	}
	fmt.Fprintf(progress, "%s → %s, the command took %s\n", holder, to, millis(took))
	return to, nil
}

// moveReport is what a client noticed of moves under a mixed load.
type moveReport struct {
	mixture
	lab.Noticed
	from  time.Duration
	moves []handOver
	kinds map[string]*keptReport
	late  []string      // when what went wrong began, after which move
	blind time.Duration // the longest stall of the referee
	other int           // moves that nobody asked for, for example since HAProxy stood still
}

// keptReport is about one kind of kept connections.
type keptReport struct {
	requests int
	broken   int            // within the grace
	hanging  int            // no answer and no reset
	refused  int            // the first request failed, or the answer was not 200
	reset    int            // when the grace had ended
	slowest  time.Duration  // of the answers
	errors   map[string]int // of all but reset
}

// look counts.
func (r *moveReport) look(ctx context.Context, l *lab.Lab) (err error) {
	to := lab.Now()
	if r.Noticed, err = l.Client.Noticed(ctx, r.from, to); err != nil {
		return err
	}
	seen := l.Referee.Judge(r.from, to)
	r.blind = seen.Blind
	r.other = len(seen.Moves)
	for _, m := range r.moves {
		if m.back {
			r.other += 2
		}
		r.other--
	}
	r.kinds = map[string]*keptReport{}
	for _, load := range r.loads {
		r.kinds[load.Kind] = &keptReport{errors: map[string]int{}}
	}
	for _, q := range l.Client.Requests(r.from) {
		if q.Start < r.from || q.Start >= to {
			continue
		}
		wrong := q.Kind == lab.KindNew && !q.OK()
		if k := r.kinds[q.Kind]; k != nil {
			wrong = k.count(q, r.graceEnded(q))
		}
		if wrong {
			r.late = append(r.late, fmt.Sprintf("%s by %s %s: %s", q.Kind, or(q.LB, "nobody"), or(q.Err, fmt.Sprint(q.Status)), r.after(q.Start)))
		}
	}
	return nil
}

// after says when something was, by the move before it.
func (r *moveReport) after(at time.Duration) string {
	n := 0
	for n < len(r.moves) && r.moves[n].at <= at {
		n++
	}
	if n == 0 {
		return "before the first"
	}
	return fmt.Sprintf("%d + %s", n, millis(at-r.moves[n-1].at))
}

// graceEnded tells whether a connection ended when the grace of who carried it
// had: in order, or as near to it as the resets are early.
func (r *moveReport) graceEnded(q lab.Request) bool {
	const early = 200 * ms
	var yielded time.Duration
	for _, m := range r.moves { // the last word about its node before its end
		switch {
		case m.at > q.Start+q.Took:
		case m.from == q.LB:
			yielded = m.at
		default:
			yielded = 0 // the node holds again
		}
	}
	return yielded > 0 && q.Start+q.Took-yielded >= r.grace-early
}

// count tells whether something went wrong.
func (k *keptReport) count(q lab.Request, graceEnded bool) (wrong bool) {
	k.requests++
	switch {
	case q.OK():
		k.slowest = max(k.slowest, q.Took)
		return false
	case q.Err == "timeout":
		k.hanging++
	case q.First || q.Err == "":
		k.refused++
	case graceEnded:
		k.reset++
		return false
	default:
		k.broken++
	}
	k.errors[or(q.Err, fmt.Sprint("status ", q.Status))]++
	return true
}

// verdict is what must not have happened.
func (r *moveReport) verdict() error {
	var errs []error
	if r.Failed > 0 {
		errs = append(errs, fmt.Errorf("%d of %d new connections failed: %v", r.Failed, r.Requests, r.Errors))
	}
	for _, name := range slices.Sorted(maps.Keys(r.kinds)) {
		if k := r.kinds[name]; k.broken+k.hanging+k.refused > 0 {
			errs = append(errs, fmt.Errorf("%s: %d connections broken within the grace, %d left hanging, %d failed at once: %v",
				name, k.broken, k.hanging, k.refused, k.errors))
		}
	}
	return errors.Join(errs...)
}

// stalled says whether the machine stood still for so long that the moves were
// not what they were to be.
func (r *moveReport) stalled() bool { return max(r.Lag, r.blind) > 100*ms || r.other > 0 }

func (r *moveReport) String() string {
	var b strings.Builder
	var longest time.Duration
	near, back := 0, 0
	for i, m := range r.moves {
		longest = max(longest, m.took)
		if m.back {
			back++
		}
		if i > 0 && m.at-r.moves[i-1].at < time.Second {
			near++
		}
	}
	if back > 0 {
		fmt.Fprintf(&b, "%d times the successor came too late and the old holder took the address back\n", back)
	}
	fmt.Fprintf(&b, "%d moves within %.0f s, %d of them within a second of the one before; a move took at most %s; grace %v\n",
		len(r.moves)-2*back, (r.To - r.From).Seconds(), near, millis(longest), r.grace)
	fmt.Fprintf(&b, "%-12s %7d new connections (%.0f/s), %d failed %v; longest without an answer %s, slowest answer %s\n",
		"new", r.Requests, float64(r.Requests)/(r.To-r.From).Seconds(), r.Failed, r.Errors, millis(r.Outage), millis(r.Slowest))
	for _, load := range r.loads {
		k := r.kinds[load.Kind]
		fmt.Fprintf(&b, "%-12s %7d requests on %d connections (%.0f/s), %d broken, %d left hanging, %d failed at once %v; %d reset at the end of the grace; slowest answer %s\n",
			load.Kind, k.requests, load.Count, float64(k.requests)/(r.To-r.From).Seconds(), k.broken, k.hanging, k.refused, k.errors, k.reset, millis(k.slowest))
	}
	if some := r.late[:min(len(r.late), 8)]; len(some) > 0 {
		fmt.Fprintf(&b, "the first that went wrong, begun after which move: %s\n", strings.Join(some, ", "))
	}
	if r.stalled() {
		fmt.Fprintf(&b, "(the machine stalled: client %s, referee %s; unasked moves: %d)\n", millis(r.Lag), millis(r.blind), r.other)
	}
	return b.String()
}
