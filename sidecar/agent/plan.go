package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// Plan says what would happen if all of these faults befell the cluster now, by
// rehearsing it. An error that wraps [ErrQuestion] is the asker's.
func (a *Agent) Plan(ctx context.Context, faults []string) (status.Plan, error) {
	p, err := a.takePicture(ctx)
	if err != nil {
		return status.Plan{}, err
	}
	all, err := p.parseFaults(faults)
	if err != nil {
		return status.Plan{}, err
	}
	return p.plan(ctx, all)
}

func (a *Agent) takePicture(ctx context.Context) (picture, error) {
	got := make(chan picture, 1)
	if err := a.ask(ctx, func() { got <- a.picture(a.deps.Now()) }); err != nil {
		return picture{}, fmt.Errorf("take a picture of the cluster: %w", err)
	}
	return <-got, nil
}

// course is what a rehearsal shows: who holds what and which sites are active,
// and since when.
type course struct {
	r      *rehearsal
	from   time.Duration // when the faults begin
	state  map[string]string
	since  map[string]time.Duration
	change time.Duration // when anything was last noted
	steps  []status.PlanStep
}

// sitePrefix precedes a group of backends among the things that may move.
const sitePrefix = "site of "

func (c *course) look() map[string]string {
	state := map[string]string{}
	for _, l := range c.r.picture.Leases {
		state[l.Resource] = strings.Join(c.r.holders(l.Resource), " and ")
	}
	if x := c.latest(); x != nil {
		for _, g := range x.decision.Groups {
			state[sitePrefix+g.In()] = g.Active
		}
	}
	return state
}

// latest is the node that knows of the latest site decision.
func (c *course) latest() *actor {
	var best *actor
	for _, x := range c.r.actors {
		if !x.down && (best == nil || x.decided.Value.Epoch > best.decided.Value.Epoch) {
			best = x
		}
	}
	return best
}

// compare notes since when something is another than before.
func (c *course) compare() {
	state := c.look()
	for what, who := range state {
		if c.state[what] != who {
			c.since[what], c.change = c.r.now, c.r.now
		}
	}
	c.state = state
}

// watch says whether all is quiet.
func (c *course) watch(quiet time.Duration) bool {
	c.compare()
	moving := slices.ContainsFunc(c.r.actors, func(x *actor) bool {
		return !x.down && slices.ContainsFunc(x.decision.Groups, site.Group.Switching)
	})
	return !moving && c.r.now-c.change >= quiet
}

// plan rehearses.
func (p picture) plan(ctx context.Context, faults []fault) (status.Plan, error) {
	r, err := newRehearsal(p, faults)
	if err != nil {
		return status.Plan{}, err
	}
	c := &course{r: r, from: r.now, change: r.now, since: map[string]time.Duration{}}
	before := c.look()
	c.state = before
	out := status.Plan{Node: p.Node, Faults: []string{}, Moves: []status.PlanMove{}, Steps: []status.PlanStep{}, Notes: p.notes(before)}
	r.tapped = c.note
	for _, f := range faults {
		f.begin(r)
		out.Faults = append(out.Faults, f.text)
		if f.note != "" {
			out.Notes = append(out.Notes, f.note)
		}
	}
	quiet := p.quiet()
	most := rehearsalMost + quiet
	r.live(most, func() bool { return c.watch(quiet) || ctx.Err() != nil })
	if err := ctx.Err(); err != nil {
		return status.Plan{}, fmt.Errorf("rehearse: %w", err)
	}
	if r.now-c.from >= most {
		out.Notes = append(out.Notes, "it had not come to rest after "+most.String())
	}
	out.Steps = append(out.Steps, c.steps...)
	c.outcome(&out, before)
	out.Sentence = "if " + joined(faults) + ", " + c.sentence(out.Moves, out.Health)
	return out, nil
}

func joined(faults []fault) string {
	words := make([]string, len(faults))
	for i, f := range faults {
		words[i] = f.words
	}
	return strings.Join(words, " and ")
}

// quiet is how long nothing must change: what the settings let wait comes on
// top of what the machines themselves need.
func (p picture) quiet() time.Duration {
	d := rehearsalQuiet + 2*p.Config.MaxLease
	if s := p.Config.Sites; s != nil {
		d += s.DownAfter + s.IsolatedAfter
	}
	return d
}

// notes are what a rehearsal takes for granted, and what the reader must know
// of the present.
func (p picture) notes(now map[string]string) []string {
	notes := []string{}
	for _, l := range p.Leases {
		if now[l.Resource] != l.Holder {
			notes = append(notes, fmt.Sprintf("%s is about to change by itself, from %s to %s; the plan begins after that", l.Resource, orWord(l.Holder, "nobody"), orWord(now[l.Resource], "nobody")))
		}
	}
	hooks, without := false, 0
	for _, n := range p.Nodes {
		hooks = hooks || n.Report != nil && len(n.Report.Hooks) > 0
		if n.Alive && !n.Voter {
			without++
		}
	}
	if hooks {
		notes = append(notes, "hooks are taken to succeed at once")
	}
	if without > rehearsalFollowers {
		notes = append(notes, fmt.Sprintf("%d of %d nodes without a vote took part", rehearsalFollowers, without))
	}
	return notes
}

func (c *course) note(t status.Transition) {
	t.At = time.Time{}
	c.steps = append(c.steps, status.PlanStep{AfterMS: (c.r.now - c.from).Milliseconds(), Transition: t})
	c.change = c.r.now
	c.compare()
}

// outcome compares what is with what was.
func (c *course) outcome(out *status.Plan, before map[string]string) {
	for _, what := range slices.Sorted(maps.Keys(before)) {
		if c.state[what] == before[what] {
			continue
		}
		out.Moves = append(out.Moves, status.PlanMove{
			What: what, From: before[what], To: c.state[what], AfterMS: (c.since[what] - c.from).Milliseconds(), Reason: c.reason(what, c.state[what]),
		})
	}
	eye := c.r.eye()
	if eye == nil {
		out.Health, out.Problems = status.Unknown, []string{"no node is left"}
		return
	}
	s := eye.snapshot(c.r.now)
	out.Health, out.Problems = s.Health, s.Problems
	for _, l := range s.Leases {
		out.Holders = append(out.Holders, status.PlanHolder{Resource: l.Resource, Holder: c.state[l.Resource]})
	}
	for _, g := range s.Groups {
		out.Sites = append(out.Sites, status.PlanSite{Group: g.Group, Active: g.Active, Reason: g.Reason, Waiting: g.Waiting})
	}
}

// reason is the word under which something came to be so: a decision carries
// its own, a lease is taken up or let go for one.
func (c *course) reason(what, now string) string {
	if group, ok := strings.CutPrefix(what, sitePrefix); ok {
		if x := c.latest(); x != nil {
			g, _ := x.decision.Group(group)
			return string(g.Reason)
		}
		return ""
	}
	for _, s := range slices.Backward(c.steps) {
		if s.Resource == what && (s.Event == "take-up" && s.To == now || s.Event == "let-go" && now == "") {
			return s.Reason
		}
	}
	return ""
}

// sentence tells the moves, and whether anything more may fail.
func (c *course) sentence(moves []status.PlanMove, health status.Health) string {
	taken, lost, parts := map[string][]string{}, []string{}, []string{}
	var takers []string
	for _, m := range moves {
		group, isSite := strings.CutPrefix(m.What, sitePrefix)
		switch {
		case isSite && m.To == "":
			parts = append(parts, "no site is active for "+group)
		case isSite:
			parts = append(parts, fmt.Sprintf("site %s takes over from %s%s", m.To, orWord(m.From, "none"), forGroup(group)))
		case m.To == "":
			lost = append(lost, m.What)
		default:
			if taken[m.To] == nil {
				takers = append(takers, m.To)
			}
			taken[m.To] = append(taken[m.To], m.What)
		}
	}
	slices.Reverse(takers)
	for _, who := range takers {
		verb := " takes "
		if strings.Contains(who, " and ") {
			verb = " both hold "
		}
		end := " over"
		if verb != " takes " {
			end = ""
		}
		parts = append([]string{who + verb + strings.Join(taken[who], " and ") + end}, parts...)
	}
	if len(lost) > 0 {
		parts = append([]string{"nobody takes " + strings.Join(lost, " and ") + " over"}, parts...)
	}
	if len(parts) == 0 {
		parts = []string{"nothing moves"}
	}
	if health == status.NotServing && len(lost) == 0 {
		return strings.Join(append(parts, "not everything is served then"), "; ")
	}
	return strings.Join(parts, "; ") + c.afterwards(lost)
}

func forGroup(group string) string {
	if group == site.DefaultGroup {
		return ""
	}
	return " for " + group
}

// afterwards says whether the next failure of a voter is survived.
func (c *course) afterwards(lost []string) string {
	eye := c.r.eye()
	if eye == nil || eye.cfg.Mode != lease.ModeQuorum {
		return ""
	}
	heard, need := eye.votersHeard(c.r.now), eye.needed()
	switch {
	case heard < need:
		return ": no majority of voters would be left"
	case len(lost) > 0:
		return ""
	case heard-1 < need:
		return ", but then no further failure is survived"
	}
	return ""
}

// outlook remembers what the next failure would do, for the picture that it was
// rehearsed from.
type outlook struct {
	mu  sync.Mutex
	key string
	say []string
}

// Outlook is Status with what the next failure would do. It rehearses when the
// picture has changed, which takes some milliseconds of processor time, in the
// goroutine of who asks. In a moment of change nothing is foreseen.
func (a *Agent) Outlook(ctx context.Context) status.Status {
	short, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	l, err := a.look(short)
	if err != nil {
		return a.unknown(err)
	}
	if l.status.Health != status.Unknown && l.picture.steady() {
		l.status.NextFail = a.outlook.of(ctx, l.picture)
	}
	return l.status
}

// look is a picture, for machines and for people.
type look struct {
	picture picture
	status  status.Status
}

// look asks the loop, which writes into a channel of its own: a look that comes
// too late is dropped with it.
func (a *Agent) look(ctx context.Context) (look, error) {
	got := make(chan look, 1)
	if err := a.ask(ctx, func() { now := a.deps.Now(); got <- look{a.picture(now), a.snapshot(now)} }); err != nil {
		return look{}, err
	}
	return <-got, nil
}

// known is what was foreseen, if it was for this picture.
func (o *outlook) known(p picture) []string {
	if !o.mu.TryLock() {
		return []string{} // somebody is finding it out
	}
	defer o.mu.Unlock()
	if o.key == "" || o.key != p.key() {
		return []string{}
	}
	return o.say
}

func (o *outlook) of(ctx context.Context, p picture) []string {
	o.mu.Lock() // one rehearsal at a time: whoever comes meanwhile finds the result
	defer o.mu.Unlock()
	key := p.key()
	if key != "" && key == o.key {
		return o.say
	}
	say := []string{}
	for _, text := range p.nextFaults() {
		faults, err := p.parseFaults([]string{text})
		if err != nil {
			continue
		}
		plan, err := p.plan(ctx, faults)
		if err != nil {
			if errors.Is(err, context.Cause(ctx)) {
				return []string{}
			}
			plan.Sentence = "what follows if " + faults[0].words + " cannot be told: " + err.Error()
		}
		say = append(say, plan.Sentence)
	}
	o.key, o.say = key, say
	return say
}

// nextFaults are the single failures worth a sentence: of every voter that
// lives, and of every site that serves.
func (p picture) nextFaults() []string {
	var all []string
	for _, n := range p.Nodes {
		if n.Voter && n.Alive {
			all = append(all, n.Name+"=down")
		}
	}
	d, err := site.Decode(p.Decided.Value.Data)
	if err != nil || p.Config.Sites == nil {
		return all
	}
	for _, name := range p.siteNames() {
		if slices.ContainsFunc(d.Groups, func(g site.Group) bool { return g.Active == name }) {
			all = append(all, "site."+name+"=down")
		}
	}
	return all
}
