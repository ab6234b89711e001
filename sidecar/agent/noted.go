package agent

import (
	"slices"

	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// What stands in the history of a command: one line when it is begun, with the
// kind of command for a reason; or, when it is refused, one whose event is
// named so and whose reason is that of the refusal. A move that is carried out
// is noted by what it does.

// What an operator's words can add to the history of every node is bounded.
const (
	longestName   = 64
	longestDetail = 500
)

// noteCommand notes a command that is carried out.
func (a *Agent) noteCommand(c status.Command) {
	reason := c.Kind
	if c.Kind == "maintenance" && !c.On {
		reason = reasonMaintenanceOff
	}
	a.noteFor(status.Transition{Resource: a.resourceOf(c), Event: status.EventCommand, To: object(c), Reason: reason, Actor: c.Actor}, c.ID)
}

// noteRefusal notes, once, a command that was not carried out.
func (a *Agent) noteRefusal(p *pendingCommand, r status.Result) {
	if p.refused {
		return
	}
	p.refused = true
	a.noteOutcome(p.cmd, r)
}

// noteOutcome notes a command that is over at once.
func (a *Agent) noteOutcome(c status.Command, r status.Result) {
	if r.OK {
		a.noteCommand(c)
		return
	}
	event := c.Kind + status.Refused
	if r.Reason == refusedTimeout {
		event = c.Kind + status.Unanswered
	}
	a.noteFor(status.Transition{Resource: a.resourceOf(c), Event: event, To: object(c), Reason: r.Reason, Actor: c.Actor, Detail: firstOf(r.Message, longestDetail)}, c.ID)
}

// noteSiteCommands notes what the decider made of commands, before what comes
// of them. One that had to wait for its turn was noted when it came, and is
// once more if it is refused then.
func (a *Agent) noteSiteCommands(in site.Input, replies []site.Reply) {
	var refused []string
	for _, r := range replies {
		p := a.pending[r.ID]
		if _, begun := a.underWay[r.ID]; !r.Done || r.OK || begun || p == nil {
			continue // what was begun and came to nothing has its own transitions
		}
		refused = append(refused, r.ID)
		a.noteRefusal(p, status.Result{Reason: string(r.Reason), Message: r.Text})
	}
	c, ok := in.(site.Command)
	if p := a.pending[c.ID]; ok && p != nil && !slices.Contains(refused, c.ID) {
		a.noteCommand(p.cmd)
	}
}

// object is what a command is about: a site or a node.
func object(c status.Command) string { return firstOf(c.Site+c.Node+c.To, longestName) }

func firstOf(text string, most int) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), most)])
}

// resourceOf is what a command is about. It is a label of metrics, so it is
// never a word that an operator made up.
func (a *Agent) resourceOf(c status.Command) string {
	switch {
	case c.Kind == "maintenance":
		return "node"
	case c.Kind != "move":
		return ResourceSite
	case slices.Contains(a.cfg.Groups, c.Group):
		return vipPrefix + c.Group
	case c.Group == "" && len(a.cfg.Groups) > 0:
		return vipPrefix + a.cfg.Groups[0]
	}
	return "vip"
}
