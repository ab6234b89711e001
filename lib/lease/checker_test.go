package lease

import (
	"fmt"
	"slices"
	"time"
)

// checker watches a world with the knowledge that no node has: true time, and
// what every voter remembers. It judges by what machines report, and by when
// their fences end, not by what they believe.
type checker struct {
	w       *world
	failure string // the first violation
	only    breaks // a mutant must break this: other violations do not count
	pair    bool   // two holders and lost decisions are possible: see the pair tests

	claims    []claim
	origins   map[string]Ballot // under which each value was proposed first
	first     map[string]Ballot // under which each value was decided first
	decisions []decision
	counters  []counter

	takeUps, renewals, decided, risks int
}

// breaks is a promise that can be broken.
type breaks string

const (
	exclusion breaks = "at most one holder"
	memory    breaks = "a quorum remembers for longer than the holder acts"
	decisions breaks = "what was decided stays so"
	liveness  breaks = "somebody holds after the network has healed"
	oneLife   breaks = "a voter counts in one life"
)

// claim is a lease in the hands of a process until deadline (true time), also
// if the process has died or stands still: then its fence ends it.
type claim struct {
	resource string
	owner    Owner
	deadline time.Duration
}

type decision struct{ rec Record }

// counter is, for each resource, the highest ballot counter ever sent, and up to
// which one the decisions no longer bind, because too few voters remember them.
type counter struct {
	resource string
	highest  uint64
	risked   uint64
}

func (c *checker) fail(what breaks, format string, args ...any) {
	if c.failure == "" && (c.only == "" || c.only == what) {
		c.failure = fmt.Sprintf("at %.6fs: ", c.w.now.Seconds()) + fmt.Sprintf(format, args...)
	}
}

func (c *checker) counter(resource string) *counter {
	for i := range c.counters {
		if c.counters[i].resource == resource {
			return &c.counters[i]
		}
	}
	c.counters = append(c.counters, counter{resource: resource})
	return &c.counters[len(c.counters)-1]
}

func (c *checker) sent(msg *Message) {
	for i := range msg.Items {
		k := c.counter(msg.Items[i].Resource)
		k.highest = max(k.highest, msg.Items[i].Ballot.Counter)
	}
}

func (c *checker) output(n *node, out *Output) {
	for _, rec := range out.Persist {
		if key := origin(rec); rec.Value.Epoch > 0 && c.origins[key].IsZero() {
			if c.origins == nil {
				c.origins = map[string]Ballot{}
			}
			c.origins[key] = rec.Ballot
		}
	}
	for _, l := range out.LetGo {
		c.drop(n.m.owner, l.Resource)
	}
	for _, t := range out.TakeUp {
		c.takeUps++
		c.claim(n, t.Resource, t.Deadline)
		if t.Value.Epoch == 0 && t.Reason != PairHealed {
			c.decision(Record{Resource: t.Resource, Ballot: n.m.resource(t.Resource).ballot})
		}
	}
	for _, r := range out.Renewed {
		c.renewals++
		c.claim(n, r.Resource, r.Deadline)
	}
	for _, d := range out.Decided {
		c.decided++
		c.decision(d.Record)
	}
}

func origin(rec Record) string {
	return fmt.Sprint(rec.Resource, rec.Value.Epoch, string(rec.Value.Data))
}

func (c *checker) drop(o Owner, resource string) {
	c.claims = slices.DeleteFunc(c.claims, func(k claim) bool { return k.owner == o && k.resource == resource })
}

// claim is the first two promises: nobody else may act now, and a quorum
// remembers the lease for longer than its holder acts.
func (c *checker) claim(n *node, resource string, deadline time.Duration) {
	now := c.w.now
	k := claim{resource: resource, owner: n.m.owner, deadline: n.global(deadline)}
	c.claims = slices.DeleteFunc(c.claims, func(k claim) bool { return k.deadline <= now })
	for _, other := range c.claims {
		if other.resource == resource && other.owner != k.owner && !c.pair {
			c.fail(exclusion, "TWO HOLDERS of %s: %v until %.6fs and %v until %.6fs", resource,
				other.owner, other.deadline.Seconds(), k.owner, k.deadline.Seconds())
		}
	}
	c.drop(k.owner, resource)
	c.claims = append(c.claims, k)
	if !c.pair {
		c.remembered(k, n.m.voters)
	}
}

func (c *checker) remembered(k claim, voters []string) {
	n := 0
	for _, name := range voters {
		v := c.w.node(name)
		switch {
		case v.m == nil:
			n++ // when it starts it will keep silent for longer than any lease
		case v.global(v.m.quarantineEnds) >= k.deadline && v.m.owner != k.owner:
			n++
		default:
			if vote := v.m.resource(k.resource).voter.vote; vote.ballot.Owner() == k.owner && v.global(vote.expires) >= k.deadline {
				n++
			}
		}
	}
	if n < len(voters)/2+1 {
		c.fail(memory, "FORGOTTEN EARLY: only %d of %d voters remember %v of %v until its deadline", n, len(voters), k.resource, k.owner)
	}
}

// decision is the third promise: what a quorum has accepted is never lost or
// gone back on, and an epoch is given once.
func (c *checker) decision(rec Record) {
	k := c.counter(rec.Resource)
	if c.pair || rec.Ballot.Counter <= k.risked {
		return
	}
	if key := origin(rec); c.first[key].IsZero() {
		if c.first == nil {
			c.first = map[string]Ballot{}
		}
		c.first[key] = rec.Ballot
	}
	at := len(c.decisions)
	for i, d := range c.decisions {
		if d.rec.Resource != rec.Resource {
			continue
		}
		if d.rec.Ballot == rec.Ballot && d.rec.Seq == rec.Seq && d.rec.Value.equal(rec.Value) {
			return
		}
		older, newer := d.rec, rec
		if older.newer(newer) {
			older, newer = newer, older
			at = min(at, i)
		}
		switch {
		case newer.Value.Epoch < older.Value.Epoch:
			c.fail(decisions, "GONE BACK on %s: %s under %v, after %s under %v", rec.Resource,
				show(newer.Value), newer.Ballot, show(older.Value), older.Ballot)
		case newer.Value.Epoch == older.Value.Epoch && !newer.Value.equal(older.Value):
			c.fail(decisions, "EPOCH TWICE for %s: %s under %v, and %s under %v", rec.Resource,
				show(older.Value), older.Ballot, show(newer.Value), newer.Ballot)
		case newer.Value.Epoch > 0 && !newer.Value.equal(older.Value) && c.origins[origin(newer)].Compare(c.first[origin(older)]) < 0:
			c.fail(decisions, "REVIVED for %s: %s under %v, though proposed before %s was decided under %v", rec.Resource,
				show(newer.Value), newer.Ballot, show(older.Value), c.first[origin(older)])
		}
	}
	if rec.Value.Epoch == 0 {
		return
	}
	c.decisions = slices.Insert(c.decisions, at, decision{rec: rec})
	c.prune(rec.Resource)
	c.memory(rec.Resource)
}

// prune keeps the last few decisions of a resource: later ones are compared
// with the newest in any case.
func (c *checker) prune(resource string) {
	n, first := 0, -1
	for i, d := range c.decisions {
		if d.rec.Resource == resource {
			n++
			if first < 0 {
				first = i
			}
		}
	}
	if n > 40 {
		c.decisions = slices.Delete(c.decisions, first, first+1)
	}
}

// memory notes when fewer than a quorum remember the newest decision: then it
// may be lost, which is the price of having no disk.
func (c *checker) memory(resource string) {
	if newest := c.newest(resource); newest.Value.Epoch > 0 && !c.quorumHas(newest) {
		c.risk(c.counter(resource))
	}
}

func (c *checker) newest(resource string) (newest Record) {
	for i := range c.decisions {
		if d := c.decisions[i].rec; d.Resource == resource && d.newer(newest) {
			newest = d
		}
	}
	return newest
}

func (c *checker) risk(k *counter) {
	c.risks++
	k.risked = k.highest
	c.decisions = slices.DeleteFunc(c.decisions, func(d decision) bool { return d.rec.Resource == k.resource })
}

// quorumHas: while the voters are being changed, of either list.
func (c *checker) quorumHas(rec Record) bool {
	return c.mostHave(rec, c.w.voters) || c.w.former != nil && c.mostHave(rec, c.w.former)
}

func (c *checker) mostHave(rec Record, voters []string) bool {
	n := 0
	for _, name := range voters {
		v := c.w.node(name)
		has := func(r Record) bool { return r.Resource == rec.Resource && !rec.newer(r) }
		switch {
		case v.m != nil && slices.Contains(v.m.voters, name) && has(v.m.resource(rec.Resource).voter.record):
			n++
		case v.m == nil && c.w.disk && slices.ContainsFunc(v.saved, has):
			n++
		}
	}
	return n > len(voters)/2
}

// crashed: a voter without a disk forgets values and promises. It may thereby
// let a later decision be made under a lower ballot than that of a proposal
// that came to nothing; so if there is one, nothing under lower ballots binds.
func (c *checker) crashed(*node) {
	for i := range c.counters {
		k := &c.counters[i]
		c.memory(k.resource)
		if newest := c.newest(k.resource); !c.w.disk && c.undecidedAfter(k.resource, newest) {
			c.risk(k)
		}
	}
}

// undecidedAfter reports whether a voter holds a proposal later than the newest
// decision.
func (c *checker) undecidedAfter(resource string, newest Record) bool {
	for _, n := range c.w.nodes {
		if n.m != nil && n.m.resource(resource).voter.record.newer(newest) {
			return true
		}
	}
	return false
}
