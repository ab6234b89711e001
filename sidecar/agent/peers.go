package agent

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"tandem/lib/lease"
	"tandem/sidecar/status"
)

const (
	// How often a node reports when nothing changed.
	reportEvery = time.Second
	// This keeps a storm of changes from becoming a storm of datagrams.
	reportGap = 5 * time.Millisecond
	// How long a report is believed: three were missed.
	freshReport = 3500 * time.Millisecond
	// How recently a voter must have been heard to be worth a
	// hand-over: four renewals at their slowest. Gaps of up to 400 ms were
	// measured at 30 % loss.
	heardWithin = 800 * time.Millisecond
)

// peer is what this node knows of another.
type peer struct {
	name       string
	voter      bool
	boot       string
	seq        uint64
	report     *report
	at         time.Duration // when the report came
	arrived    time.Duration // when anything came
	answering  time.Duration // when this node sent the latest report that it is known to have heard
	attendedAt time.Duration // when an order of it was last answered with a report
	remindedAt time.Duration // when a follower was last sent the decision again
	absent     bool          // it was heard once, and then not any more
	lives      []life        // the processes of its name, in the order of their first report
}

func bootName(i lease.Incarnation) string { return hex.EncodeToString(i[:4]) }

func seedOf(i lease.Incarnation) uint64 {
	var s uint64
	for _, b := range i[8:] {
		s = s<<8 | uint64(b)
	}
	return s
}

// envelope numbers a message of this node.
func (a *Agent) envelope(to string) envelope {
	a.seq++
	e := envelope{From: a.cfg.Node, Boot: a.boot, To: to, Seq: a.seq}
	if p := a.peers[to]; p != nil {
		e.ToBoot, e.Heard = p.boot, p.seq
	}
	return e
}

// receive sorts a message by its kind. What cannot be read or is not for us is
// counted under a named reason and otherwise ignored.
func (a *Agent) receive(b []byte) {
	if len(b) == 0 {
		a.ignored("empty")
		return
	}
	body := b[1:]
	switch b[0] {
	case kindLease:
		m, err := a.decodeLease(body)
		if errors.Is(err, lease.ErrVersion) {
			a.ignored("protocol-version")
			a.problem("protocol-version", "a node speaks a version of the messages that this one does not read: "+err.Error())
			return
		}
		if err != nil {
			a.ignored("undecodable-lease")
			return
		}
		a.stepLease(lease.Receive{Message: m})
	case kindReport:
		a.receiveReport(body)
	case kindDecision:
		a.receiveDecision(body)
	case kindCommand:
		a.receiveCommand(body)
	case kindReply:
		a.receiveReply(body)
	case kindTransition:
		a.receiveTransition(body)
	case kindHook:
		a.receiveHook(body)
	case kindHookDone:
		a.receiveHookDone(body)
	default:
		a.ignored("unknown-kind")
	}
}

// admit says whether an envelope is for this node, from somebody else, and not
// one that was seen before. A sender's boot is believed when membership knows
// it: names on the wire are per boot, so an earlier one is a replay.
func (a *Agent) admit(e envelope) (*peer, bool) {
	switch {
	case e.From == "" || e.From == a.cfg.Node:
		a.ignored("own-name")
		return nil, false
	case e.To != "" && e.To != a.cfg.Node:
		a.ignored("not-addressee")
		return nil, false
	case e.ToBoot != "" && e.ToBoot != a.boot:
		a.ignored("earlier-boot")
		return nil, false
	}
	p := a.peers[e.From]
	if p == nil {
		if !a.isMember(e.From, e.Boot) {
			a.ignored("stranger")
			return nil, false
		}
		p = &peer{name: e.From, voter: slices.Contains(a.cfg.Voters, e.From)}
		a.peers[e.From] = p
	}
	if p.boot != e.Boot {
		if p.boot != "" && !a.isMember(e.From, e.Boot) {
			a.ignored("unknown-boot")
			return nil, false
		}
		p.boot, p.seq, p.report, p.answering = e.Boot, 0, nil, 0
	}
	p.arrived = a.deps.Now()
	p.answering = max(p.answering, a.spokeAt(e.Heard))
	return p, true
}

func (a *Agent) isMember(node, boot string) bool {
	for _, m := range a.deps.Network.Members() {
		if m.Node == node && m.Boot == boot {
			return true
		}
	}
	return false
}

func (a *Agent) receiveReport(body []byte) {
	r := new(report)
	if err := decode(body, r); err != nil {
		a.ignored("undecodable-report")
		return
	}
	p, ok := a.admit(r.envelope)
	if p := a.peers[r.From]; p != nil && r.To == a.cfg.Node {
		a.meetLife(p, r, a.deps.Now())
	}
	if !ok {
		return
	}
	if r.Seq <= p.seq {
		a.ignored("stale-report")
		return
	}
	first := p.report == nil
	p.seq, p.report, p.at = r.Seq, r, a.deps.Now()
	if r.Heard == 0 {
		p.answering = 0 // its program may have been replaced by one that does not tell
	}
	a.dirty = true
	if !first && !p.voter && r.Role == RoleLB && r.Applied < a.decided.Value.Epoch && p.at-p.remindedAt > reportEvery {
		p.remindedAt = p.at // it missed the broadcast
		a.sendDecision(p.name)
	}
	if first {
		a.log.Info("node heard", zap.String("peer", p.name), zap.String("role", r.Role),
			zap.String("version", r.Version), zap.Bool("eligible", r.Eligible))
		a.greet(p.name)
	}
}

// greet gives a node that has just appeared what it would otherwise wait for.
func (a *Agent) greet(node string) {
	a.sendReport(node)
	if a.decided.Value.Epoch > 0 {
		a.sendDecision(node)
	}
	a.announceTo(node)
}

// tell sends this node's report when it changed or is due.
func (a *Agent) tell(now time.Duration) {
	a.self = a.makeReport(now)
	body, err := json.Marshal(a.self)
	if err != nil {
		a.log.Error("report not encodable", zap.Error(err))
		return
	}
	due := a.toldAt + reportEvery
	if !bytes.Equal(body, a.told) {
		due = a.toldAt + reportGap
	}
	if a.told != nil && now < due {
		a.wakeAt(due)
		return
	}
	a.told, a.toldAt = body, now
	for _, n := range a.reachable() {
		a.sendReport(n)
	}
	a.wakeAt(now + reportEvery)
}

func (a *Agent) sendReport(to string) {
	r := a.self
	r.envelope = a.envelope(to)
	a.spoke(r.Seq)
	a.send(to, kindReport, r)
}

// reachable lists the voters and, for a voter, the followers that are members.
// Followers report to voters only: a thousand of them must not talk to each
// other.
func (a *Agent) reachable() []string {
	var out []string
	voter := slices.Contains(a.cfg.Voters, a.cfg.Node)
	for _, v := range a.cfg.Voters {
		if v != a.cfg.Node {
			out = append(out, v)
		}
	}
	if !voter {
		return out
	}
	for _, m := range a.deps.Network.Members() {
		if !m.Self && m.Node != a.cfg.Node && !slices.Contains(out, m.Node) {
			out = append(out, m.Node)
		}
	}
	return out
}

func (a *Agent) send(to string, kind byte, m any) {
	b, err := encode(kind, m)
	if err != nil {
		a.log.Error("message not encodable", zap.Error(err))
		return
	}
	if err := a.deps.Network.Send(to, b); err != nil {
		a.metrics.sendFailures.Inc()
		a.log.Debug("message not sent", zap.String("to", to), zap.Error(err))
	}
}

// makeReport is this node as it is now.
func (a *Agent) makeReport(now time.Duration) report {
	ok, reason, detail := a.eligible(now)
	r := report{
		Role: a.cfg.Role, At: a.deps.Network.Source(), Site: a.cfg.Site, Version: a.cfg.Version,
		Eligible: ok, Reason: reason, Detail: detail, Maintenance: a.maintenance, Observe: a.cfg.Observe,
		Settings: a.settings(), Hooks: a.cfg.Hooks,
		Warnings: a.warnings(now), Keys: a.deps.Network.Keys(), Protocol: a.newest(),
	}
	for _, h := range a.hooksTaken {
		r.Took = append(r.Took, h.ID)
	}
	if a.deps.Addresses != nil {
		k, unserved := a.kernel(now), a.unserved()
		r.Fence, r.MinLease, r.VIPs = string(k.status.Fence), k.status.MinLease, a.carried()
		for _, g := range a.cfg.Groups {
			if a.groups[g].yielding() {
				r.Yielding = append(r.Yielding, g)
			}
			if h := k.hops[g]; h != (hops{}) {
				if r.Hops == nil {
					r.Hops = map[string]hops{}
				}
				r.Hops[g] = h
			}
			if _, sick := unserved[g]; sick || k.noCarrier[g] {
				r.NoCarrier = append(r.NoCarrier, g)
			}
		}
	}
	if a.deps.LB != nil {
		o := a.deps.LB.Observed()
		r.HAProxy = haproxyStatus(o)
		r.Applied = a.appliedEpoch(o)
		r.View = a.view(o)
		for _, h := range o.Held {
			r.Held = append(r.Held, status.Held{
				Node: a.cfg.Node, Server: h.String(), Kind: string(h.Kind), Detail: h.Detail,
			})
		}
	}
	return r
}

// fresh is a peer's report if it is recent enough to act on, else nil.
func (a *Agent) fresh(name string, now time.Duration) *report {
	p := a.peers[name]
	if p == nil || p.report == nil || now-p.at > freshReport {
		return nil
	}
	return p.report
}

// alive says whether a node was heard recently. Whoever holds a lease is
// answered by every voter at each renewal, so silence tells soon; for the rest,
// and for followers, there are the reports.
func (a *Agent) alive(name string, now time.Duration) bool {
	if name == a.cfg.Node {
		return true
	}
	ago, ok := a.lease.PeerHeard(now, name)
	if ok && ago <= heardWithin {
		return true
	}
	p := a.peers[name]
	if p != nil && p.voter && a.holdsLongEnough(now) {
		return false
	}
	return p != nil && p.arrived > 0 && now-p.arrived <= 2*reportEvery+heardWithin/2
}

// holdsLongEnough says whether this node has held a lease for so long that
// every voter that lives has answered it.
func (a *Agent) holdsLongEnough(now time.Duration) bool {
	return a.decider != nil && now-a.decidingSince > heardWithin
}
