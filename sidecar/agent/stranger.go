package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"tandem/lib/gossip"
	"tandem/lib/vip"
	"tandem/sidecar/status"
)

// reasonInUse is why nobody takes an address up that a stranger answers for.
const reasonInUse = "address-in-use"

// seekAgain is how often the answer of the network is looked at.
const seekAgain = 50 * time.Millisecond

// unclaimed says whether a group's addresses are free of strangers, as far as
// this node has to care: before it takes a group up for the first time since it
// started, and as long as no node of the cluster is known to hold it, it asks
// the network who answers for its addresses. The quarantine of its vote covers
// the time that this takes. Later on a holder's death is no time for questions.
func (a *Agent) unclaimed(now time.Duration, g *group) bool {
	if a.deps.Addresses == nil || len(a.cfg.VIPs[g.name]) == 0 {
		return true
	}
	if g.holding || a.holder(g.resource) != "" {
		g.free, g.force = true, false
	}
	if g.free || g.force {
		a.foundFree(g)
		return true
	}
	found, asked := a.deps.Addresses.Seek(g.name, true)
	a.wakeAt(now + seekAgain)
	switch {
	case !asked:
		return false
	case len(found) == 0:
		g.free = true
		a.foundFree(g)
		return true
	}
	// A holder that this node has not heard of yet answers, too: until its vote
	// counts there is nothing to report.
	if _, quiet := a.lease.Quarantined(now); !quiet {
		a.foundClaimed(g, found)
	}
	return false
}

// foundFree ends the search for strangers.
func (a *Agent) foundFree(g *group) {
	_, _ = a.deps.Addresses.Seek(g.name, false)
	if g.claimed != "" {
		a.log.Info("address no longer in use by a stranger, or taken up all the same", zap.String("group", g.name), zap.String("was", g.claimed))
		g.claimed = ""
	}
}

func (a *Agent) foundClaimed(g *group, found []vip.Stranger) {
	var words []string
	for _, s := range found {
		words = append(words, fmt.Sprintf("%s answers for %s", s.At, s.Address))
	}
	slices.Sort(words)
	text := strings.Join(words, ", ")
	if text != g.claimed {
		a.note(status.Transition{Resource: g.resource, Event: "address", Reason: reasonInUse, Detail: text})
	}
	g.claimed = text
}

// inUse says in a sentence who keeps a group from being taken up; "" if nobody.
func (a *Agent) inUse(g *group) string {
	if g.claimed == "" {
		return ""
	}
	if silent := a.silentVoters(); len(silent) > 0 {
		return fmt.Sprintf("%s is not taken up: %s, and this node does not hear %s: that may be one of them, which holds it by right. Mend that first; see `tandem why`",
			g.name, g.claimed, strings.Join(silent, ", "))
	}
	return fmt.Sprintf("%s is not taken up: %s, and no node of the cluster holds it. Remove it there, or take it up all the same: tandem move %s --to %s --force",
		g.name, g.claimed, g.name, a.cfg.Node)
}

// takeUpByForce makes this node bid for a group that a stranger answers for.
// The result comes when a quorum has accepted it.
func (a *Agent) takeUpByForce(g *group, c status.Command) {
	a.noteFor(status.Transition{Resource: g.resource, Event: "move", To: c.To, Epoch: g.epoch, Reason: string(moveCommand), Detail: "by force: " + g.claimed, Actor: c.Actor}, c.ID)
	g.moveID, g.moveTo, g.force, a.dirty = c.ID, c.To, true, true
}

// silentVoters names the other voters that are not heard, with the reason: those
// that are silent for one of the reasons given, or all.
func (a *Agent) silentVoters(because ...gossip.Reason) []string {
	var out []string
	now := a.deps.Now()
	for _, v := range a.cfg.Voters {
		if v == a.cfg.Node || a.alive(v, now) {
			continue
		}
		reason, _ := a.whySilent(v)
		if len(because) == 0 || slices.Contains(because, gossip.Reason(reason)) {
			out = append(out, v+" ("+reason+")")
		}
	}
	return out
}
