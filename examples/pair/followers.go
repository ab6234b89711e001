package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tandem/examples/lab"
)

// edgePlan is how many load balancers without a vote there are, and what is done
// with them.
type edgePlan struct {
	followers int
	rest      time.Duration // in which nothing is done to them
	switches  int           // of the site
	shot      int           // in the middle of a switch
	cut       int           // off from all other nodes
	seed      uint64        // whom it meets
}

func followersCommand(program *string) *cobra.Command {
	p := edgePlan{}
	cmd := &cobra.Command{
		Use: "followers", Args: cobra.NoArgs,
		Short: "Measure many load balancers without a vote: how soon the last one obeys, what they say, what follows when some are shot or cut off",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			if p.shot > p.followers || p.cut > p.followers {
				return fmt.Errorf("there are %d followers: as many can be shot or cut off, and no more", p.followers)
			}
			if p.seed == 0 {
				p.seed = rand.Uint64()
			}
			r, err := playFollowers(cmd.Context(), os.Stderr, *program, p)
			if err != nil {
				return err
			}
			fmt.Fprint(os.Stdout, r)
			return r.verdict(time.Second)
		},
	}
	f := cmd.Flags()
	f.IntVar(&p.followers, "followers", 30, "how many")
	f.DurationVar(&p.rest, "rest", 10*time.Second, "how long they are watched at rest")
	f.IntVar(&p.switches, "switches", 10, "planned switches of the site")
	f.IntVar(&p.shot, "shot", 10, "how many are shot in a switch")
	f.IntVar(&p.cut, "cut", 5, "how many are cut off")
	f.Uint64Var(&p.seed, "seed", 0, "which ones (0: any)")
	return cmd
}

// playFollowers builds a lab in which sites overlap and one in which they
// exclude each other, one after the other: who is cut off goes on in the one,
// and must not in the other.
func playFollowers(ctx context.Context, progress io.Writer, program string, p edgePlan) (*edgeReport, error) {
	r := &edgeReport{edgePlan: p, progress: progress, random: rand.New(rand.NewPCG(p.seed, 0))}
	if err := r.with(ctx, program, "overlap", r.follow); err != nil {
		return nil, fmt.Errorf("overlap: %w", err)
	}
	if p.cut == 0 {
		return r, nil
	}
	if err := r.with(ctx, program, "exclusive", r.expire); err != nil {
		return nil, fmt.Errorf("exclusive: %w", err)
	}
	return r, nil
}

// with plays on a lab of its own, whose followers all follow.
func (r *edgeReport) with(ctx context.Context, program, order string, play func(context.Context, *lab.Lab) error) error {
	l, err := lab.New(ctx, lab.Config{
		Followers: r.followers,
		System:    lab.Tandem{Program: program, Env: map[string]string{"TANDEM_SWITCH": order}},
	})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if err = l.Settled(ctx, time.Minute); err != nil {
		return err
	}
	if _, err = r.obey(ctx, l, "a", l.Balancers()); err != nil {
		return err
	}
	r.say("%s: %d load balancers without a vote follow", order, r.followers)
	return play(ctx, l)
}

func (r *edgeReport) say(format string, args ...any) {
	fmt.Fprintf(r.progress, format+"\n", args...)
}

// obey waits until load balancers use the site and no other, and says how long
// that took.
func (r *edgeReport) obey(ctx context.Context, l *lab.Lab, site string, lbs []string) (time.Duration, error) {
	from := lab.Now()
	for {
		broken := routedOn(ctx, l, site, lbs)
		if len(broken) == 0 {
			return lab.Now() - from, nil
		}
		if lab.Now()-from > time.Minute {
			return 0, fmt.Errorf("after a minute still: %s", strings.Join(broken, "; "))
		}
		if err := pause(ctx, 50*ms); err != nil {
			return 0, err
		}
	}
}

// follow is what happens to followers in a cluster that is well.
func (r *edgeReport) follow(ctx context.Context, l *lab.Lab) error {
	from := lab.Now()
	if err := r.atRest(ctx, l); err != nil {
		return err
	}
	r.say("at rest: %s", r.quiet)
	if err := r.switchSites(ctx, l); err != nil {
		return err
	}
	r.say("%d switches: %s", r.switches, plain(r.last))
	if r.shot > 0 {
		if err := r.shoot(ctx, l); err != nil {
			return err
		}
		r.say("%d shot in a switch, which took %s; all back after %s", r.shot, millis(r.shotSwitch), millis(r.back))
	}
	var err error
	r.Noticed, err = l.Client.Noticed(ctx, from, lab.Now())
	r.Judgement = l.Referee.Judge(from, lab.Now())
	return err
}

// atRest counts what is said while nothing happens, and what it costs.
func (r *edgeReport) atRest(ctx context.Context, l *lab.Lab) error {
	if err := pause(ctx, 5*time.Second); err != nil { // the joining has been told
		return err
	}
	before, err := usages(l)
	if err != nil {
		return err
	}
	if err = l.CountGossip(ctx); err != nil {
		return err
	}
	from := lab.Now()
	if err = pause(ctx, r.rest); err != nil {
		return err
	}
	counted, err := l.Gossip(ctx)
	span := lab.Now() - from
	if err != nil {
		return err
	}
	after, err := usages(l)
	if err != nil {
		return err
	}
	r.quiet = talk{followers: loads(l.Edge(), counted, before, after, span), voters: loads(l.System.Nodes(), counted, before, after, span)}
	return nil
}

func usages(l *lab.Lab) (map[string]lab.Usage, error) {
	all := map[string]lab.Usage{}
	for _, node := range slices.Concat(l.System.Nodes(), l.Edge()) {
		u, err := l.Usage(node, l.System.Daemon())
		if err != nil {
			return nil, err
		}
		all[node] = u
	}
	return all, nil
}

// switchSites moves the site to and fro, and reads in the sidecars' logs when
// each decision was made, and when each follower had read back that its HAProxy
// obeys.
func (r *edgeReport) switchSites(ctx context.Context, l *lab.Lab) error {
	sites := lab.Sites()
	from := lab.Now()
	if err := l.CountGossip(ctx); err != nil {
		return err
	}
	for n := range r.switches {
		began, wall := lab.Now(), time.Now()
		to := sites[(n+1)%len(sites)]
		if _, err := l.Tandem(ctx, "lb1", "takeover", to, "--wait"); err != nil {
			return err
		}
		r.took = append(r.took, lab.Now()-began)
		if _, err := r.obey(ctx, l, to, l.Balancers()); err != nil {
			return err
		}
		if err := pause(ctx, 1500*ms); err != nil { // the rounds that repeat it are over
			return err
		}
		last, err := lastToObey(l, l.Edge(), wall)
		if err != nil {
			return err
		}
		r.last = append(r.last, last...)
	}
	counted, err := l.Gossip(ctx)
	for _, t := range counted {
		r.datagrams += t.Sent.Packets
	}
	r.switching = lab.Now() - from
	return err
}

// shoot kills some followers in the middle of a switch: every other one loses
// its power, of the rest both processes are killed. Then they are started again.
func (r *edgeReport) shoot(ctx context.Context, l *lab.Lab) error {
	active, err := r.active(ctx, l)
	if err != nil {
		return err
	}
	to := map[string]string{"a": "b", "b": "a"}[active]
	victims := r.choose(l, r.shot)
	began, wall := lab.Now(), time.Now()
	var shots sync.WaitGroup
	errs := make([]error, len(victims))
	for i, v := range victims {
		after := time.Duration(r.random.Int64N(int64(150 * ms)))
		shots.Go(func() { errs[i] = shootOne(ctx, l, v, i%2 == 0, after) })
	}
	_, err = l.Tandem(ctx, "lb1", "takeover", to, "--wait")
	r.shotSwitch = lab.Now() - began
	shots.Wait()
	if err = firstOf(append(errs, err)); err != nil {
		return err
	}
	alive := slices.DeleteFunc(l.Balancers(), func(lb string) bool { return slices.Contains(victims, lb) })
	if _, err = r.obey(ctx, l, to, alive); err != nil {
		return err
	}
	if r.shotLast, err = lastToObey(l, alive[len(lab.LBs()):], wall); err != nil {
		return err
	}
	if err = l.Repair(ctx); err != nil {
		return err
	}
	r.back, err = r.obey(ctx, l, to, l.Balancers())
	return err
}

func shootOne(ctx context.Context, l *lab.Lab, node string, power bool, after time.Duration) error {
	if err := pause(ctx, after); err != nil {
		return err
	}
	if power {
		return l.PowerOff(ctx, node)
	}
	return firstOf([]error{l.Kill(node, "tandem"), l.Kill(node, "haproxy")})
}

func firstOf(errs []error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

// choose picks followers at random.
func (r *edgeReport) choose(l *lab.Lab, count int) []string {
	edge := l.Edge()
	r.random.Shuffle(len(edge), func(i, j int) { edge[i], edge[j] = edge[j], edge[i] })
	return edge[:count]
}

func (r *edgeReport) active(ctx context.Context, l *lab.Lab) (string, error) {
	for _, site := range lab.Sites() {
		if len(routed(ctx, l, site)) == 0 {
			return site, nil
		}
	}
	return "", fmt.Errorf("no site is active: %v", routed(ctx, l, lab.Sites()[0]))
}

// entry is a line of a sidecar's log.
type entry struct {
	Time     time.Time
	Logger   string
	Msg      string
	Resource string
	Epoch    uint64
}

// entries are the lines of a sidecar's log since a time, to the millisecond.
func entries(l *lab.Lab, node string, since time.Time) []entry {
	var all []entry
	for line := range strings.Lines(l.Log(node, "tandem")) {
		var e entry
		if json.Unmarshal([]byte(line), &e) == nil && !e.Time.Before(since.Truncate(time.Millisecond)) {
			all = append(all, e)
		}
	}
	return all
}

// lastToObey is, for each decision since a time, how long after it the last of
// some followers had read back from its HAProxy that it obeys.
func lastToObey(l *lab.Lab, followers []string, since time.Time) ([]time.Duration, error) {
	decided := map[uint64]time.Time{}
	for _, voter := range l.System.Nodes() {
		for _, e := range entries(l, voter, since) {
			if e.Logger == "agent" && e.Resource == "site" && slices.Contains([]string{"switch", "phase", "done"}, e.Msg) {
				decided[e.Epoch] = e.Time
			}
		}
	}
	if len(decided) == 0 {
		return nil, fmt.Errorf("no decision is in the logs since %s", since.Format(time.TimeOnly))
	}
	last := map[uint64]time.Duration{}
	for _, f := range followers {
		obeyed := slices.DeleteFunc(entries(l, f, since), func(e entry) bool { return e.Msg != "servers are as wanted" })
		for epoch, at := range decided {
			i := slices.IndexFunc(obeyed, func(e entry) bool { return e.Epoch >= epoch })
			if i < 0 {
				return nil, fmt.Errorf("%s has not read back the decision of epoch %d", f, epoch)
			}
			last[epoch] = max(last[epoch], obeyed[i].Time.Sub(at))
		}
	}
	var all []time.Duration
	for _, d := range last {
		all = append(all, d)
	}
	return all, nil
}
