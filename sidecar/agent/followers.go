package agent

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tandem/lib/lease"
)

// announceLeases tells the nodes without a vote who holds what: at once what is
// new, and what has only been renewed when it is due. Every report of a node has
// the agent look around, and what that would broadcast would grow with their
// number.
func (a *Agent) announceLeases(now time.Duration) {
	if !a.followed() {
		return
	}
	m, ok := a.lease.Announcement(now)
	if !ok {
		a.informed = nil
		return
	}
	if due := a.informedAt + announceEvery; now < due && slices.EqualFunc(a.informed, m.Items, sameButRenewed) {
		a.wakeAt(due)
		return
	}
	a.informed, a.informedAt = m.Items, now
	a.wakeAt(now + announceEvery)
	if err := a.deps.Network.Broadcast("leases/"+a.cfg.Node, a.encodeLease(m)); err != nil {
		a.problem("broadcast", err.Error())
	}
}

// announceEvery is how often a holder tells the nodes without a vote: well
// within the shortest lease.
const announceEvery = 150 * time.Millisecond

// sameButRenewed says whether two announcements of a lease differ in how long it
// is held, and in nothing that a follower acts on.
func sameButRenewed(x, y lease.Item) bool {
	return x.Resource == y.Resource && x.Ballot == y.Ballot && x.ValueSeq == y.ValueSeq && x.Value.Epoch == y.Value.Epoch && x.Commit == y.Commit
}

// followed says whether any member has no vote.
func (a *Agent) followed() bool {
	for name := range a.peers {
		if !a.peers[name].voter {
			return true
		}
	}
	return false
}

// receiveDecision is how a node without a vote learns of a decision. A voter
// learns it from the lease.
func (a *Agent) receiveDecision(body []byte) {
	var m decision
	if err := decode(body, &m); err != nil {
		a.ignored("undecodable-decision")
		return
	}
	p, ok := a.admit(m.envelope)
	if !ok || slices.Contains(a.cfg.Voters, a.cfg.Node) {
		return
	}
	known := a.decided
	newer := m.Ballot.Compare(known.Ballot) > 0 || m.Ballot == known.Ballot && m.Version > known.Seq
	// When all voters have forgotten, epochs begin again: the live incarnation of
	// the present holder is believed all the same.
	reborn := m.From == m.Holder && m.Ballot.Owner() != known.Ballot.Owner() &&
		bootName(m.Ballot.Incarnation) == p.boot && a.holder(ResourceSite) == m.From
	if !reborn && (m.Epoch < known.Value.Epoch || m.Epoch == known.Value.Epoch && !newer) {
		return
	}
	a.siteDecided(lease.Record{
		Resource: ResourceSite, Ballot: m.Ballot, Seq: m.Version, Value: lease.Value{Epoch: m.Epoch, Data: m.Data},
	}, m.Holder)
}

// membersChanged drops followers that are gone for good, so that a thousand
// that came and went do not stay in every status.
func (a *Agent) membersChanged() {
	a.dirty = true
	now := a.deps.Now()
	for name, p := range a.peers {
		if !p.voter && now-p.arrived > 10*time.Minute {
			delete(a.peers, name)
		}
	}
	a.sweep(now)
	a.log.Debug("membership changed", zap.Int("members", len(a.deps.Network.Members())))
}
