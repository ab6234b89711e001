package agent

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// A rehearsal plays the present cluster on in virtual time, within one call:
// every node is a real Agent with the real lease machine and the real site
// decider; only what surrounds it is played (actors.go), from the reports that
// the nodes send each other anyway. What it shows is therefore what the code
// would do, and not what somebody wrote about the code.

const (
	// How long a message takes.
	rehearsalWay = time.Millisecond
	// How long nothing must change before it is believed that
	// nothing more will; what the settings let wait comes on top.
	rehearsalQuiet = 4 * time.Second
	// What comes after a fault is bounded, besides that.
	rehearsalMost = 2 * time.Minute
	// How many nodes without a vote take part.
	rehearsalFollowers = 16
)

// picture is what a rehearsal begins with. Nothing in it is written to.
type picture struct {
	Config  Config `json:"-"`
	Node    string
	Decided lease.Record
	Leases  []pictureLease
	Nodes   []pictureNode
}

type pictureLease struct {
	Resource, Holder, Last string
	Epoch                  uint64
}

type pictureNode struct {
	Name   string
	Voter  bool
	Alive  bool
	Report *report
}

// picture is taken in the loop.
func (a *Agent) picture(now time.Duration) picture {
	p := picture{Config: a.cfg, Node: a.cfg.Node, Decided: a.decided}
	for _, l := range a.leaseStatus(now) {
		if l.Resource == ResourceSite && a.cfg.Sites == nil {
			continue // who is not told the sites cannot play what decides about them
		}
		item := pictureLease{Resource: l.Resource, Holder: l.Holder, Epoch: l.Epoch}
		if g := a.groupOf(l.Resource); g != nil {
			item.Last = g.lastHolder
		}
		p.Leases = append(p.Leases, item)
	}
	self := a.self
	for _, n := range a.nodeStatus(now) {
		x := pictureNode{Name: n.Name, Voter: n.Voter, Alive: n.Alive}
		if n.Name == a.cfg.Node {
			x.Report = &self
		} else if peer := a.peers[n.Name]; peer != nil {
			x.Report = peer.report
		}
		p.Nodes = append(p.Nodes, x)
	}
	return p
}

// key tells whether two pictures differ in anything that a rehearsal depends on.
func (p picture) key() string {
	p.Nodes = slices.Clone(p.Nodes)
	for i, n := range p.Nodes {
		if n.Report == nil {
			continue
		}
		r := *n.Report
		r.envelope, r.Warnings, r.Hops, r.Held, r.Detail = envelope{}, nil, nil, nil, ""
		p.Nodes[i].Report = &r
	}
	p.Decided.Seq, p.Decided.Ballot, p.Decided.Promised = 0, lease.Ballot{}, lease.Ballot{} // of renewals
	b, err := json.Marshal(p)
	if err != nil {
		return "" // never the key of anything
	}
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// steady says whether every lease has a holder and no switch is under way: what
// follows from a moment of change is not foreseen.
func (p picture) steady() bool {
	d, err := site.Decode(p.Decided.Value.Data)
	moving := err != nil || slices.ContainsFunc(d.Groups, site.Group.Switching)
	return !moving && !slices.ContainsFunc(p.Leases, func(l pictureLease) bool { return l.Holder == "" })
}

// delivery is a message on its way.
type delivery struct {
	at       time.Duration
	from, to string
	body     []byte
}

// rehearsal is one run. It is used by one goroutine and starts none.
type rehearsal struct {
	picture picture
	now     time.Duration
	actors  []*actor
	queue   []delivery // in the order of their time, since every way is as long
	tapped  func(status.Transition)
}

// newRehearsal brings the cluster into its present state. Of many nodes without
// a vote, only some take part, and those that something befalls.
func newRehearsal(p picture, faults []fault) (*rehearsal, error) {
	r := &rehearsal{picture: p, now: time.Hour, tapped: func(status.Transition) {}}
	followers := 0
	for _, n := range p.Nodes {
		if !n.Alive {
			continue
		}
		if !n.Voter && !slices.ContainsFunc(faults, func(f fault) bool { return f.node == n.Name }) {
			if followers++; followers > rehearsalFollowers {
				continue
			}
		}
		x, err := r.actor(n)
		if err != nil {
			return nil, err
		}
		r.actors = append(r.actors, x)
	}
	r.assume()
	return r, nil
}

func (r *rehearsal) actor(n pictureNode) (*actor, error) {
	known := n.Report
	if known == nil {
		known = &report{Role: RoleWitness} // it votes, and has not said more yet
	}
	x := &actor{}
	cfg := r.picture.Config
	cfg.Node, cfg.Role, cfg.Site, cfg.Hooks, cfg.Observe = n.Name, known.Role, known.Site, known.Hooks, known.Observe
	sum := sha256.Sum256([]byte(n.Name)) // distinct, and the same in every rehearsal
	cfg.Incarnation = lease.Incarnation(sum[:len(lease.Incarnation{})])
	if cfg.Probe != nil {
		cfg.Probe = func() time.Duration {
			if x.cut {
				return 0
			}
			return r.now
		}
	}
	deps := Deps{
		Now: func() time.Duration { return r.now }, Log: zap.NewNop(),
		Network: playedNetwork{r, n.Name}, Store: playedStore{r.records(), known.Maintenance},
		Hooks: playedHooks{done: make(chan HookResult, 64), started: r.started},
	}
	if known.Role == RoleLB {
		x.lb = newPlayedHAProxy(known, r.picture.Decided.Value.Epoch)
		deps.LB, deps.Addresses = x.lb, playedAddresses{known}
	}
	var err error
	if x.Agent, err = New(cfg, deps); err != nil {
		return nil, fmt.Errorf("rehearse %s: %w", n.Name, err)
	}
	x.started, x.siteHeardAt = 0, r.now+time.Hour // it has run for long
	if x.lb != nil {
		x.self.View = x.lb.view
		x.noteHAProxys(x.lb.o) // before anybody listens
	}
	x.tap = func(t status.Transition) { r.tapped(t) }
	return x, nil
}

// records are what every voter knows of the leases.
func (r *rehearsal) records() []lease.Record {
	var all []lease.Record
	for _, l := range r.picture.Leases {
		rec := lease.Record{Resource: l.Resource, Value: lease.Value{Epoch: l.Epoch}, Seq: 1}
		if l.Resource == ResourceSite {
			rec.Value = r.picture.Decided.Value
		} else if last := orWord(l.Holder, l.Last); last != "" {
			rec.Value.Data, _ = json.Marshal(vipValue{Holder: last}) // strings always encode
		}
		if rec.Value.Epoch > 0 {
			rec.Ballot = lease.Ballot{Counter: 1, Node: r.picture.Node, Incarnation: lease.Incarnation{1}}
			rec.Promised = rec.Ballot
			all = append(all, rec)
		}
	}
	return all
}

// assume lets the present holders take their leases up while nobody else bids,
// and then all of them live for a while, so that each knows of each.
func (r *rehearsal) assume() {
	for _, l := range r.picture.Leases {
		if x := r.find(l.Holder); x != nil {
			x.stepLease(lease.Stand{Resource: l.Resource, Willing: true, Immediate: true})
		}
	}
	quarantine := lease.Remember(r.picture.Config.MaxLease)
	r.play(quarantine+time.Second, func(x *actor) { x.stepLease(lease.Tick{}) }, func(x *actor) time.Duration { return x.leaseWake })
	for _, x := range r.actors {
		x.siteHeardAt = r.now + lease.Remember(r.picture.Config.MaxLease)
		x.wake = 0
	}
	r.live(2*time.Second, nil)
	if following := func(x *actor) bool { return x.following.since > 0 }; slices.ContainsFunc(r.actors, following) {
		// What is about to happen in any case is no consequence of a fault.
		r.live(2*followAfter, func() bool { return !slices.ContainsFunc(r.actors, following) })
		r.live(time.Second, nil)
	}
}

// live plays the nodes as they are, for some time or until done says so.
func (r *rehearsal) live(long time.Duration, done func() bool) {
	end := r.now + long
	for r.now < end && (done == nil || !done()) {
		r.play(min(50*time.Millisecond, end-r.now), (*actor).act, func(x *actor) time.Duration { return x.next() })
	}
}

// act is one turn of a node, as in Agent.Run.
func (x *actor) act() {
	x.turn()
	for {
		select {
		case done := <-x.deps.Hooks.Done():
			x.hookEnded(done)
			x.dirty = true
			x.turn()
		default:
			return
		}
	}
}

// play moves time on: messages are delivered and nodes woken in order.
func (r *rehearsal) play(long time.Duration, act func(*actor), wake func(*actor) time.Duration) {
	const least = 50 * time.Microsecond // two turns of a node are never closer
	for end := r.now + long; ; {
		next := end
		if len(r.queue) > 0 {
			next = min(next, r.queue[0].at)
		}
		for _, x := range r.actors {
			if !x.down {
				next = min(next, x.wake)
			}
		}
		r.now = max(r.now, next)
		for len(r.queue) > 0 && r.queue[0].at <= r.now {
			d := r.queue[0]
			r.queue = r.queue[1:]
			if x := r.find(d.to); x != nil && r.reaches(d.from, d.to) {
				x.receive(d.body)
				x.wake = r.now
			}
		}
		for _, x := range r.actors {
			if !x.down && x.wake <= r.now {
				act(x)
				x.wake = max(wake(x), r.now+least)
			}
		}
		if r.now >= end {
			return
		}
	}
}

// post puts a message on its way. Tales of what happened change nothing.
func (r *rehearsal) post(from, to string, body []byte) {
	if len(body) > 0 && body[0] != kindTransition {
		r.queue = append(r.queue, delivery{at: r.now + rehearsalWay, from: from, to: to, body: body})
	}
}

func (r *rehearsal) reaches(from, to string) bool {
	x, y := r.find(from), r.find(to)
	return x != nil && y != nil && !x.down && !y.down && !x.cut && !y.cut
}

func (r *rehearsal) find(node string) *actor {
	for _, x := range r.actors {
		if x.cfg.Node == node {
			return x
		}
	}
	return nil
}

// started plays what takeover hooks are for, where the standby is stopped on
// purpose: the servers of the site come up.
func (r *rehearsal) started(name string) {
	if s := r.picture.Config.Sites; s == nil || !s.Cold {
		return
	}
	r.recount("", func(s site.SiteView, b site.BackendView) int {
		if s.Site == name {
			return b.Total
		}
		return b.Up
	})
}

// recount changes what the load balancers see; an empty node is all of them.
func (r *rehearsal) recount(node string, up func(site.SiteView, site.BackendView) int) {
	for _, x := range r.actors {
		if x.lb == nil || x.lb.view == nil || node != "" && x.cfg.Node != node {
			continue
		}
		x.lb.count(x.lb.view.Recount(*r.picture.Config.Sites, up))
		x.lbChanged()
		x.wake = r.now
	}
}

// holders are those that act on a lease now.
func (r *rehearsal) holders(resource string) []string {
	var all []string
	for _, x := range r.actors {
		if !x.down && x.holds(resource) {
			all = append(all, x.cfg.Node)
		}
	}
	return all
}

// eye is the node from which the outcome is looked at: one that hears most
// others, a load balancer if there is one.
func (r *rehearsal) eye() *actor {
	var best *actor
	score := -1
	for _, x := range r.actors {
		if x.down {
			continue
		}
		n := 2 * x.votersHeard(r.now)
		if x.lb != nil {
			n++
		}
		if n > score {
			best, score = x, n
		}
	}
	return best
}
