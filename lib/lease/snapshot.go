package lease

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SnapshotVersion grows whenever what a Snapshot holds, or what it means,
// changes: a machine is never made from a snapshot of another version.
const SnapshotVersion = 1

// Snapshot is everything that a Machine knows. A machine that is made from it
// goes on as the same process, under the same incarnation and without a
// quarantine, since it has forgotten nothing.
//
// That is sound only if the machine that it was taken of never steps again, and
// nothing of its outputs after the snapshot leaves the process: two machines
// with one incarnation would be two holders. So it must be used once, by one
// process, on the same machine's clock; whoever passes it on sees to that.
//
// It is a value that encoding/json writes and reads without loss. Times are those
// of the clock that Step is given.
type Snapshot struct {
	Node        string
	Incarnation Incarnation
	Settings    uint64 // fingerprint of voters, mode and longest lease

	Now, Wake      time.Duration
	Started        time.Duration
	QuarantineEnds time.Duration
	Seq, Rand      uint64
	Floor          time.Duration
	ReachOK        bool
	ReachAt        time.Duration
	Tuner          tunerState

	Peers     [MaxVoters]peerState
	Strangers []strangerState
	Resources []resourceState
}

// tunerState is what a Tuner has measured. How short and how long a lease may
// be is configuration.
type tunerState struct {
	Start   time.Duration
	Buckets [tunerWindow]time.Duration
	Second  int64
}

type peerState struct {
	Heard     bool
	At, Fresh time.Duration
	Lives     [8]lifeState
	Settings  uint64
	Owner     Owner
	Since     uint64

	Asked, AskedAt, Held time.Duration
	Holder               Owner
}

type lifeState struct {
	Owner     Owner
	Seq, Echo uint64
}

type strangerState struct {
	Name     string
	At       time.Duration
	Settings uint64
}

type resourceState struct {
	Name    string
	Voter   voterState
	Hint    hintState
	Decided Record

	Willing, Immediate   bool
	Rank                 int
	NotBefore, Jitter    time.Duration
	Failures, Unanswered uint
	Counter              uint64

	Phase                  uint8
	Ballot                 Ballot
	Base, BidEnds, RetryAt time.Duration
	Tally                  tallyState
	Sent                   []sentState
	RenewSeq               uint64
	Best                   Record
	Found                  bool

	Holding                     bool
	Deadline, RenewAt, RenewDue time.Duration
	Rebid, Alone                bool
	Value                       Value
	ValueSeq, Commit            uint64
	Proposed                    bool
	Pending                     []byte // nil: none waits
	Closing                     closingState
}

type voterState struct {
	Promised, Released Ballot
	Vote               Ballot
	Expires            time.Duration
	Seq                uint64
	Record             Record
}

type hintState struct {
	Ballot      Ballot
	Until       time.Duration
	Latest      Ballot
	Seq         uint64
	Predecessor string
	Planned     bool
	Successor   string
}

type tallyState struct {
	Replies  int
	Promises uint8
	Seq      [MaxVoters]uint64
	Until    [MaxVoters]time.Duration
	Silent   [MaxVoters]uint64
	Other    [MaxVoters]Owner
}

type sentState struct {
	Seq           uint64
	Asked, Length time.Duration
}

type closingState struct {
	Item       Item
	Done       uint8
	Tries      int
	Next, Ends time.Duration
}

// Snapshot is taken between two steps. It shares no memory with the machine.
func (m *Machine) Snapshot() Snapshot {
	s := Snapshot{
		Node: m.cfg.Node, Incarnation: m.owner.Incarnation, Settings: m.settings,
		Now: m.now, Wake: m.wake, Started: m.started, QuarantineEnds: m.quarantineEnds,
		Seq: m.seq, Rand: uint64(m.rand), Floor: m.floor, ReachOK: m.reachOK, ReachAt: m.reachAt,
		Tuner: tunerState{Start: m.tuner.start, Buckets: m.tuner.buckets, Second: m.tuner.second},
	}
	for i, p := range m.peers {
		s.Peers[i] = peerState{Heard: p.heard, At: p.at, Fresh: p.fresh, Settings: p.settings, Owner: p.owner, Since: p.since, Asked: p.asked, AskedAt: p.askedAt, Held: p.held, Holder: p.holder}
		for k, l := range p.lives {
			s.Peers[i].Lives[k] = lifeState{Owner: l.owner, Seq: l.seq, Echo: l.echo}
		}
	}
	for _, x := range m.strangers {
		s.Strangers = append(s.Strangers, strangerState{Name: x.name, At: x.at, Settings: x.settings})
	}
	for _, r := range m.resources {
		s.Resources = append(s.Resources, r.state())
	}
	return s
}

func (r *resource) state() resourceState {
	s := resourceState{
		Name: r.name, Decided: r.decided.clone(),
		Voter: voterState{
			Promised: r.voter.promised, Released: r.voter.released, Vote: r.voter.vote.ballot, Expires: r.voter.vote.expires,
			Seq: r.voter.seq, Record: r.voter.record.clone(),
		},
		Hint: hintState{
			Ballot: r.hint.ballot, Until: r.hint.until, Latest: r.hint.latest, Seq: r.hint.seq,
			Predecessor: r.hint.predecessor, Planned: r.hint.planned, Successor: r.hint.successor,
		},
		Willing: r.willing, Immediate: r.immediate, Rank: r.rank, NotBefore: r.notBefore, Jitter: r.jitter,
		Failures: r.failures, Unanswered: r.unanswered, Counter: r.counter,
		Phase: uint8(r.phase), Ballot: r.ballot, Base: r.base, BidEnds: r.bidEnds, RetryAt: r.retryAt,
		Tally: tallyState{
			Replies: r.tally.replies, Promises: uint8(r.tally.promises), Seq: r.tally.seq, Until: r.tally.until,
			Silent: r.tally.silent, Other: r.tally.other,
		},
		RenewSeq: r.renewSeq, Best: r.best.clone(), Found: r.found,
		Holding: r.holding, Deadline: r.deadline, RenewAt: r.renewAt, RenewDue: r.renewDue, Rebid: r.rebid, Alone: r.alone,
		Value: r.value.clone(), ValueSeq: r.valueSeq, Commit: r.commit, Proposed: r.proposed, Pending: slices.Clone(r.pending),
		Closing: closingState{
			Item: r.closing.item, Done: uint8(r.closing.done), Tries: r.closing.tries, Next: r.closing.next, Ends: r.closing.ends,
		},
	}
	for _, x := range r.sent {
		s.Sent = append(s.Sent, sentState{Seq: x.seq, Asked: x.asked, Length: x.length})
	}
	return s
}

func (v Value) clone() Value { return Value{Epoch: v.Epoch, Data: slices.Clone(v.Data)} }

func (r Record) clone() Record {
	r.Value = r.Value.clone()
	return r
}

// Restore makes the machine that a snapshot was taken of, at now. Node, voters,
// mode and longest lease must be what they were; the incarnation is the one of
// the snapshot, whatever cfg says. Everything that was due meanwhile happens in
// the next Step: a lease whose deadline has passed is let go there, as ever.
//
// What it holds is renewed at once, if any time has passed. That nothing was
// answered while the process was replaced says nothing of how long answers take,
// so the lease does not get longer for it.
func Restore(cfg Config, s Snapshot, now time.Duration) (*Machine, error) {
	return restoreMachine(cfg, s, now, soundRules(cfg.Mode))
}

func restoreMachine(cfg Config, s Snapshot, now time.Duration, rules *rules) (*Machine, error) {
	cfg.Incarnation, cfg.Restored = s.Incarnation, nil
	m, err := newMachine(cfg, now, rules)
	if err != nil {
		return nil, err
	}
	if err := m.fits(s, now); err != nil {
		return nil, fmt.Errorf("restore lease: %w", err)
	}
	away := now - s.Now
	m.started, m.quarantineEnds = s.Started, s.QuarantineEnds
	m.now, m.wake = s.Now, s.Wake
	if s.Wake < never-away {
		m.wake += away
	}
	m.seq, m.rand, m.floor, m.reachOK, m.reachAt = s.Seq, random(s.Rand), s.Floor, s.ReachOK, s.ReachAt
	m.tuner.start, m.tuner.buckets, m.tuner.second = s.Tuner.Start, s.Tuner.Buckets, s.Tuner.Second
	for i, p := range s.Peers {
		m.peers[i] = peer{heard: p.Heard, at: p.At, fresh: p.Fresh, settings: p.Settings, owner: p.Owner, since: p.Since, asked: p.Asked, askedAt: p.AskedAt, held: p.Held, holder: p.Holder}
		for k, l := range p.Lives {
			m.peers[i].lives[k] = life{owner: l.Owner, seq: l.Seq, echo: l.Echo}
		}
	}
	for _, x := range s.Strangers {
		m.strangers = append(m.strangers, stranger{name: x.Name, at: x.At, settings: x.Settings})
	}
	for i := range s.Resources {
		r := s.Resources[i].resource()
		r.renewDue += away
		if r.holding && away > 0 {
			r.renewAt = now // nobody knows how much of the lease it has cost
		}
		m.resources = append(m.resources, r)
	}
	return m, nil
}

// fits says what keeps a snapshot from being this machine's.
func (m *Machine) fits(s Snapshot, now time.Duration) error {
	switch {
	case s.Node != m.cfg.Node:
		return fmt.Errorf("it is of node %q, this is %q", s.Node, m.cfg.Node)
	case s.Settings != m.settings:
		return errors.New("voters, mode or longest lease are not what they were")
	case now < s.Now:
		return fmt.Errorf("it is of a later time: %v, now %v", s.Now, now)
	case len(s.Resources) > MaxResources || len(s.Strangers) > MaxResources:
		return fmt.Errorf("it has %d resources: want at most %d", len(s.Resources), MaxResources)
	case !slices.IsSortedFunc(s.Resources, func(a, b resourceState) int { return strings.Compare(a.Name, b.Name) }):
		return errors.New("its resources are not in order")
	}
	for _, r := range s.Resources {
		if r.Phase > uint8(proposing) || r.Counter > maxCounter || !validName(r.Name, MaxResource) {
			return fmt.Errorf("resource %q makes no sense", r.Name)
		}
	}
	return nil
}

func (s *resourceState) resource() *resource {
	r := &resource{
		name: s.Name, decided: s.Decided.clone(),
		voter: voter{
			promised: s.Voter.Promised, released: s.Voter.Released, vote: vote{ballot: s.Voter.Vote, expires: s.Voter.Expires},
			seq: s.Voter.Seq, record: s.Voter.Record.clone(),
		},
		hint: hint{
			ballot: s.Hint.Ballot, until: s.Hint.Until, latest: s.Hint.Latest, seq: s.Hint.Seq,
			predecessor: s.Hint.Predecessor, planned: s.Hint.Planned, successor: s.Hint.Successor,
		},
		willing: s.Willing, immediate: s.Immediate, rank: s.Rank, notBefore: s.NotBefore, jitter: s.Jitter,
		failures: s.Failures, unanswered: s.Unanswered, counter: s.Counter,
		phase: phase(s.Phase), ballot: s.Ballot, base: s.Base, bidEnds: s.BidEnds, retryAt: s.RetryAt,
		tally: tally{
			replies: s.Tally.Replies, promises: voterSet(s.Tally.Promises), seq: s.Tally.Seq, until: s.Tally.Until,
			silent: s.Tally.Silent, other: s.Tally.Other,
		},
		renewSeq: s.RenewSeq, best: s.Best.clone(), found: s.Found,
		holding: s.Holding, deadline: s.Deadline, renewAt: s.RenewAt, renewDue: s.RenewDue, rebid: s.Rebid, alone: s.Alone,
		value: s.Value.clone(), valueSeq: s.ValueSeq, commit: s.Commit, proposed: s.Proposed, pending: slices.Clone(s.Pending),
		closing: closing{
			item: s.Closing.Item, done: voterSet(s.Closing.Done), tries: s.Closing.Tries, next: s.Closing.Next, ends: s.Closing.Ends,
		},
	}
	for _, x := range s.Sent {
		r.sent = append(r.sent, sent{seq: x.Seq, asked: x.Asked, length: x.Length})
	}
	return r
}

// Undecided says whether a decision of this node on a resource is on its way: a
// quorum has not accepted it yet, or it waits for the one before.
func (m *Machine) Undecided(name string) bool {
	for _, r := range m.resources {
		if r.name == name && r.holding {
			return r.pending != nil || r.phase != proposing || r.commit != r.valueSeq
		}
	}
	return false
}
