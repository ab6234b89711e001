package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"tandem/lib/gossip"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// Reasons why a command is refused.
const (
	refusedNoMajority = "no-majority"
	refusedNoSites    = "no-sites"
	refusedNoGroup    = "no-such-group"
	refusedNoNode     = "no-such-node"
	refusedNotFit     = "not-eligible"
	refusedTimeout    = "no-answer"
	refusedUnknown    = "unknown-command"
)

const (
	commandRepeat  = 100 * time.Millisecond
	commandTimeout = 5 * time.Second
	seenLength     = 4096
	begunAnswer    = 2 * time.Second
)

// pendingCommand waits for its result: of a command that was asked here, or of
// one that came from another node (then from is set).
type pendingCommand struct {
	cmd  status.Command
	done chan status.Result
	from string
	at   time.Duration
	// refused: it was refused here, which stands in the history once.
	refused bool
}

// seenCommands remembers the results of commands by their id, so that one
// which is delivered twice, or replayed, is carried out once.
type seenCommands struct {
	results map[string]*status.Result
	order   []string
}

func newSeenCommands() *seenCommands { return &seenCommands{results: map[string]*status.Result{}} }

// claim reports whether id is new, and its result if there is one already.
func (s *seenCommands) claim(id string) (fresh bool, r *status.Result) {
	if r, ok := s.results[id]; ok {
		return false, r
	}
	s.results[id] = nil
	s.order = append(s.order, id)
	if len(s.order) > seenLength {
		delete(s.results, s.order[0])
		s.order = s.order[1:]
	}
	return true, nil
}

func (s *seenCommands) finish(id string, r status.Result) {
	if _, ok := s.results[id]; ok {
		s.results[id] = &r
	}
}

// Do carries a command out here or on the node that can, and returns what came
// of it. It returns an error only when the agent has stopped or ctx ended.
func (a *Agent) Do(ctx context.Context, c status.Command) (status.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if c.ID == "" {
		c.ID = rand.Text()
	}
	if c.Site == "" && (c.Kind == string(site.Takeover) || c.Kind == string(site.Renounce)) {
		c.Site = a.cfg.Site // where nodes have none, the decider knows what to say
	}
	p := &pendingCommand{cmd: c, done: make(chan status.Result, 1)}
	defer func() { // also where the time is over as soon as it is noted
		_ = a.ask(context.WithoutCancel(ctx), func() { a.forget(p) })
	}()
	if err := a.ask(ctx, func() { a.pending[c.ID] = p }); err != nil {
		return status.Result{}, fmt.Errorf("%s: %w", c.Kind, err)
	}
	again := time.NewTicker(commandRepeat)
	defer again.Stop()
	for {
		err := a.ask(ctx, func() {
			if ctx.Err() == nil { // else who asked stood still, and has long been told
				a.route(p)
			}
		})
		if err != nil {
			return a.noAnswer(ctx, p), nil
		}
		select {
		case r := <-p.done:
			return r, nil
		case <-again.C:
		case <-ctx.Done():
			return a.noAnswer(ctx, p), nil
		}
	}
}

// forget ends the wait for a result.
func (a *Agent) forget(p *pendingCommand) {
	if a.pending[p.cmd.ID] == p {
		delete(a.pending, p.cmd.ID)
	}
}

func (a *Agent) noAnswer(ctx context.Context, p *pendingCommand) status.Result {
	r := status.Result{
		Reason: refusedTimeout,
		Message: fmt.Sprintf("%s was not answered within %s: nobody holds the lease that decides it, or the holder cannot be reached; see `tandem status`",
			p.cmd.Kind, commandTimeout),
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer cancel()
	_ = a.ask(ctx, func() { a.noteRefusal(p, r) }) // fails when the agent has stopped, and its history with it
	return r
}

// route finds who carries a command out, and passes it on. It is repeated
// until there is a result: datagrams get lost, and a holder may be changing.
func (a *Agent) route(p *pendingCommand) {
	if a.pending[p.cmd.ID] != p {
		return
	}
	target, refusal := a.target(p.cmd)
	if target == "" && refusal == nil {
		refusal = a.noMajority()
	}
	switch {
	case refusal != nil:
		a.noteRefusal(p, *refusal)
		a.finish(p.cmd.ID, *refusal)
	case target == a.cfg.Node:
		a.execute(p.cmd)
	case target != "":
		a.send(target, kindCommand, command{envelope: a.envelope(target), Command: p.cmd})
	}
}

// noMajority refuses what only a majority can decide, and says what an operator
// can do who knows that the others are down: the lease has no way around it.
func (a *Agent) noMajority() *status.Result {
	now := a.deps.Now()
	heard, need := a.votersHeard(now), a.needed()
	if heard >= need || now-a.started < commandTimeout {
		return nil
	}
	advice := fmt.Sprintf("If you are certain that the others are down, restart %s with TANDEM_PEERS naming it alone and TANDEM_MODE=single; it takes up what it can then, and must be set back before the others return",
		a.cfg.Node)
	if apart := a.silentVoters(gossip.ReasonWrongKey, gossip.ReasonOtherCluster); len(apart) > 0 {
		advice = strings.Join(apart, ", ") + ": they answer, so they are not down, and one of them may hold what you ask for. Mend the key or the cluster's name of the node that is the odd one out (TANDEM_KEY or TANDEM_KEY_FILE, TANDEM_CLUSTER; `tandem keys` compares)"
	}
	return &status.Result{
		Reason:  refusedNoMajority,
		Message: fmt.Sprintf("%d of %d voters are heard, %d are needed to decide anything. %s", heard, len(a.cfg.Voters), need, advice),
	}
}

// target is the node that decides a command: the holder of the lease it is
// about. Empty: nobody for the moment.
func (a *Agent) target(c status.Command) (node string, refusal *status.Result) {
	switch c.Kind {
	case "takeover", "renounce", "pause", "resume", "ack":
		if a.cfg.Sites == nil && (a.cfg.Role == RoleLB || a.decided.Value.Epoch == 0) {
			return "", &status.Result{
				Reason:  refusedNoSites,
				Message: "no sites are configured, so none is switched: set TANDEM_SITES, for example a=*/a-*;b=*/b-*; to keep a node from holding an address use `tandem maintenance on`",
			}
		}
		return a.holder(ResourceSite), nil
	case "move":
		name := c.Group
		if name == "" && len(a.cfg.Groups) == 1 {
			name = a.cfg.Groups[0]
		}
		if !slices.Contains(a.cfg.Groups, name) {
			return "", &status.Result{Reason: refusedNoGroup, Message: fmt.Sprintf("no group %q; the groups are %v", c.Group, a.cfg.Groups)}
		}
		holder := a.holder(vipPrefix + name)
		if text := a.inUse(a.groups[name]); text != "" && holder == "" && !c.Force {
			return "", &status.Result{Reason: reasonInUse, Message: text}
		}
		if holder == "" && c.Force && a.votersHeard(a.deps.Now()) >= a.needed() && slices.Contains(a.cfg.Voters, c.To) {
			return c.To, nil
		}
		return holder, nil
	case "maintenance":
		node = c.Node
		if node == "" {
			node = a.cfg.Node
		}
		if node != a.cfg.Node && a.peers[node] == nil {
			return "", &status.Result{Reason: refusedNoNode, Message: fmt.Sprintf("no node %q is known here; see `tandem status`", node)}
		}
		return node, nil
	}
	return "", &status.Result{Reason: refusedUnknown, Message: fmt.Sprintf("unknown command %q", c.Kind)}
}

// holder is who holds a resource, as far as this node knows; "" if nobody.
func (a *Agent) holder(resource string) string {
	for _, s := range a.lease.Status(a.deps.Now()) {
		if s.Resource == resource {
			return s.Holder
		}
	}
	return ""
}

func (a *Agent) receiveCommand(body []byte) {
	var m command
	if err := decode(body, &m); err != nil || m.Command.ID == "" {
		a.ignored("undecodable-command")
		return
	}
	p := a.admitOrder(m.envelope)
	if p == nil {
		return
	}
	if a.pending[m.Command.ID] == nil {
		a.pending[m.Command.ID] = &pendingCommand{
			cmd: m.Command, from: p.name, done: make(chan status.Result, 1), at: a.deps.Now(),
		}
	}
	a.execute(m.Command)
	a.dirty = true
}

// execute carries a command out on this node, once.
func (a *Agent) execute(c status.Command) {
	if a.decider == nil && c.Kind != "move" && c.Kind != "maintenance" || a.succession != nil {
		return // lost the lease meanwhile, or just started in another's place: whoever asked tries again
	}
	if _, known := a.seen.results[c.ID]; !known && c.Kind == "move" && a.between(c) {
		return // lost the lease meanwhile, or has been voted for and does not hold it yet
	}
	fresh, result := a.seen.claim(c.ID)
	if !fresh {
		if result != nil {
			a.finish(c.ID, *result)
		}
		return // still under way: the result will come
	}
	switch c.Kind {
	case "move":
		if r := a.move(c); r != nil {
			a.noteOutcome(c, *r)
			a.finish(c.ID, *r)
		}
	case "maintenance":
		a.noteCommand(c)
		a.finish(c.ID, a.setMaintenance(c))
	default:
		a.feedSite(a.deps.Now(), site.Command{
			ID: c.ID, Kind: site.CommandKind(c.Kind), Site: c.Site, Group: c.Group,
			Force: c.Force, Actor: c.Actor, Duration: c.Duration,
		})
	}
}

// begunCommand is what can be said of a command that takes its time.
type begunCommand struct {
	result status.Result
	first  string // what was said of it at first
	at     time.Duration
}

// begun notes that a command is under way. Most end within a few round trips,
// and who asked is told of the end; of one that takes longer, or for who follows
// the events, that it has begun.
func (a *Agent) begun(now time.Duration, id string, r status.Result) {
	if p := a.pending[id]; p != nil && p.cmd.Begin {
		a.finish(id, r)
		return
	}
	first := r.Message
	if w, ok := a.underWay[id]; ok { // how far it is by now
		now, first = w.at, w.first
		r.Message = first + ": " + r.Message
	}
	a.underWay[id] = begunCommand{result: r, first: first, at: now}
}

func (a *Agent) answerBegun(now time.Duration) {
	for id, w := range a.underWay {
		if now-w.at >= begunAnswer {
			a.finish(id, w.result)
		} else {
			a.wakeAt(w.at + begunAnswer)
		}
	}
}

// finish hands a result to who asked.
func (a *Agent) finish(id string, r status.Result) {
	delete(a.underWay, id)
	r.Node = orWord(r.Node, a.cfg.Node)
	a.seen.finish(id, r)
	p := a.pending[id]
	if p == nil {
		return
	}
	if p.from != "" {
		a.send(p.from, kindReply, reply{envelope: a.envelope(p.from), ID: id, Result: r})
		delete(a.pending, id)
		return
	}
	select {
	case p.done <- r:
	default:
	}
}

func (a *Agent) receiveReply(body []byte) {
	var m reply
	if err := decode(body, &m); err != nil {
		a.ignored("undecodable-reply")
		return
	}
	if _, ok := a.admit(m.envelope); ok && a.pending[m.ID] != nil && a.pending[m.ID].from == "" {
		a.finish(m.ID, m.Result)
	}
}

func (a *Agent) setMaintenance(c status.Command) status.Result {
	a.maintenance = c.On
	if a.deps.Store != nil {
		if err := a.deps.Store.SaveMaintenance(c.On); err != nil {
			return status.Result{OK: true, Message: "in force, but lost at the next restart: " + err.Error()}
		}
	}
	word := map[bool]string{true: "in maintenance: it will hold nothing", false: "out of maintenance"}[c.On]
	return status.Result{OK: true, Message: a.cfg.Node + " is " + word}
}

// sweep forgets commands from elsewhere that never came to an end: who asked
// has long been told that there was no answer.
func (a *Agent) sweep(now time.Duration) {
	for id, p := range a.pending {
		if p.from != "" && now-p.at > 2*commandTimeout {
			delete(a.pending, id)
		}
	}
}
