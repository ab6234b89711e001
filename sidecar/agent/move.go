package agent

import (
	"fmt"
	"slices"
	"time"

	"tandem/sidecar/status"
)

// move hands a group to the node that the operator named. The result comes
// when a quorum has accepted who holds it now; nil means that it is awaited.
func (a *Agent) move(c status.Command) *status.Result {
	now := a.deps.Now()
	name := orWord(c.Group, a.cfg.Groups[0])
	g := a.groups[name]
	switch {
	case g == nil:
		return &status.Result{Reason: refusedNoGroup, Message: fmt.Sprintf("no group %q on %s; its groups are %v", name, a.cfg.Node, a.cfg.Groups)}
	case c.To == a.cfg.Node && c.Force && !g.holding && a.holder(g.resource) == "":
		a.takeUpByForce(g, c)
		return nil
	case c.To == a.cfg.Node && g.holding:
		return &status.Result{OK: true, Epoch: g.epoch, Message: fmt.Sprintf("%s is already on %s", name, c.To)}
	case !slices.Contains(a.cfg.Voters, c.To):
		return &status.Result{Reason: refusedNoNode, Message: fmt.Sprintf("no node %q among the voters %v", c.To, a.cfg.Voters)}
	case !a.fit(c.To, g, now) && !c.Force:
		return &status.Result{Reason: refusedNotFit, Message: fmt.Sprintf("%s cannot take over: %s; --force moves it all the same", c.To, a.whyUnfit(c.To, now))}
	}
	a.noteFor(status.Transition{Resource: g.resource, Event: "move", From: a.cfg.Node, To: c.To, Epoch: g.epoch, Reason: string(moveCommand), Actor: c.Actor}, c.ID)
	g.moveID, g.moveTo = c.ID, c.To
	a.handOver(now, g, c.To, moveCommand, true)
	return nil
}

// between says whether a move that makes sense has come here while this node does
// not hold the group. Another one does, or will in a moment: who asked asks again.
func (a *Agent) between(c status.Command) bool {
	g := a.groups[orWord(c.Group, a.cfg.Groups[0])]
	if g == nil || g.holding || !slices.Contains(a.cfg.Voters, c.To) {
		return false
	}
	return !c.Force || c.To != a.cfg.Node || a.holder(g.resource) != ""
}

// moved answers the operator who asked for a move, now that a quorum has
// accepted a holder.
func (a *Agent) moved(g *group, holder string) {
	if g.moveID == "" || holder == "" {
		return
	}
	if holder == a.cfg.Node && !g.holding {
		return // what was under way when this node released it
	}
	r := status.Result{OK: holder == g.moveTo, Epoch: g.epoch, Message: fmt.Sprintf("%s moved from %s to %s", g.name, a.cfg.Node, holder)}
	if holder == a.cfg.Node {
		r.Message = fmt.Sprintf("%s is held by %s", g.name, holder)
	}
	if !r.OK {
		r.Reason = refusedNotFit
		r.Message = fmt.Sprintf("%s did not take %s up; %s holds it", g.moveTo, g.name, holder)
	}
	a.finish(g.moveID, r)
	g.moveID, g.moveTo = "", ""
}

func (a *Agent) whyUnfit(node string, now time.Duration) string {
	r := a.fresh(node, now)
	switch {
	case r == nil:
		return "it is not heard"
	case !r.Eligible:
		return r.Reason
	}
	return "its votes are not heard"
}
