package lease

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Machine is one node's part in all leases. It does nothing by itself: see the
// package comment for how to drive it. It is not safe for concurrent use.
type Machine struct {
	cfg      Config
	rules    *rules
	owner    Owner
	voters   []string // sorted
	self     int      // this node's place among them; -1: it only listens
	majority int
	settings uint64

	started        time.Duration
	quarantineEnds time.Duration
	now            time.Duration // the one clock reading of the present step
	wake           time.Duration // what the last step asked for
	seq            uint64        // of the last request sent
	rand           random
	tuner          *Tuner
	floor          time.Duration
	reachOK        bool
	reachAt        time.Duration

	peers     [MaxVoters]peer
	strangers []stranger
	resources []*resource // sorted by name
	from      Owner       // sender of the message being handled
	out       Output
	outbox    [MaxVoters][]Item
	others    []Envelope // replies to nodes that are not voters
}

// peer is what is known of another voter.
type peer struct {
	heard    bool
	at       time.Duration
	fresh    time.Duration // when it last said something for the first time
	held     time.Duration // when it last said so that it holds something; 0: it has let go
	holder   Owner         // the process that did
	lives    [8]life       // of its latest processes, the last one first
	settings uint64
	owner    Owner         // the process whose answers count
	since    uint64        // the last request that was sent before its first answer came
	asked    time.Duration // the first of the requests that it leaves unanswered; 0: none
	askedAt  time.Duration // the last of them
}

// stranger is a node without a vote.
type stranger struct {
	name     string
	at       time.Duration
	settings uint64
}

// resource is everything about one lease.
type resource struct {
	name    string
	voter   voter
	hint    hint
	decided Record // the last one reported

	// As a candidate.
	willing   bool
	immediate bool
	rank      int
	notBefore time.Duration
	jitter    time.Duration
	failures  uint
	// unanswered counts the bids that came to nothing for want of answers, since
	// a holder was last known.
	unanswered uint
	counter    uint64 // highest ballot counter seen

	// The ballot under way, or held.
	phase    phase
	ballot   Ballot
	base     time.Duration // when its Prepare was last sent
	bidEnds  time.Duration
	retryAt  time.Duration
	tally    tally
	sent     []sent
	renewSeq uint64 // the first request of the present renewal
	best     Record // of the promises
	found    bool

	// As the holder.
	holding  bool
	deadline time.Duration
	renewAt  time.Duration
	renewDue time.Duration // when the present renewal was due
	rebid    bool          // a voter has promised a higher ballot
	alone    bool
	value    Value
	valueSeq uint64 // the request that first carried value under ballot
	commit   uint64 // valueSeq of the value decided last under ballot
	proposed bool   // value is a decision of this node, not yet decided
	pending  []byte // the decision that waits
	closing  closing
}

// New returns a machine that starts at now, in quarantine.
func New(cfg Config, now time.Duration) (*Machine, error) {
	return newMachine(cfg, now, soundRules(cfg.Mode))
}

func newMachine(cfg Config, now time.Duration, rules *rules) (*Machine, error) {
	cfg.applyDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure lease: %w", err)
	}
	m := &Machine{
		cfg: cfg, rules: rules,
		owner:   Owner{Node: cfg.Node, Incarnation: cfg.Incarnation},
		voters:  slices.Sorted(slices.Values(cfg.Voters)),
		started: now, now: now, wake: never, // nothing was promised about the first step
		quarantineEnds: now + rules.quarantine(cfg.MaxLease),
		rand:           random(cfg.Seed),
	}
	m.self = slices.Index(m.voters, cfg.Node)
	m.majority = len(m.voters)/2 + 1
	m.settings = fingerprint(cfg, m.voters)
	if cfg.SkipQuarantine {
		m.quarantineEnds = now
	}
	if cfg.Tuning.Auto {
		m.tuner = NewTuner(cfg.Tuning.Min, cfg.Tuning.Max, now)
	} else {
		m.tuner = NewTuner(cfg.Tuning.Fixed, cfg.Tuning.Fixed, now)
	}
	for _, rec := range cfg.Restored {
		if r := m.resource(rec.Resource); r != nil {
			r.voter.record, r.voter.promised = rec, rec.Promised
			if rec.Ballot.Compare(rec.Promised) > 0 {
				r.voter.promised = rec.Ballot // what was accepted was promised
			}
		}
	}
	return m, nil
}

// Step tells the machine one thing and what time it is: now is the only
// reading of the clock (CLOCK_BOOTTIME), taken just before. Whatever is due by
// then happens first, so that no order of timers or messages matters (rule T1).
func (m *Machine) Step(now time.Duration, in Input) Output {
	m.begin(now)
	for _, r := range m.resources {
		if r.holding && m.now >= r.deadline {
			m.letGo(r, LeaseExpired, "")
		}
	}
	switch in := in.(type) {
	case Tick:
	case Receive:
		m.receive(&in.Message)
	case Stand:
		m.stand(in)
	case Release:
		m.onRelease(in)
	case Propose:
		if r := m.resource(in.Resource); r != nil {
			m.onPropose(r, in.Data)
		}
	case Reach:
		m.reachOK, m.reachAt = in.OK, m.now
		if in.Began > 0 {
			m.reachAt = min(in.Began, m.now)
		}
	case Floor:
		m.setFloor(in.Min)
	}
	for _, r := range m.resources {
		m.timers(r)
	}
	m.flush()
	return m.out
}

func (m *Machine) begin(now time.Duration) {
	m.now = max(m.now, now) // a clock that goes back is not believed
	if late := m.now - m.wake; late > 0 {
		m.tuner.Late(m.now, late)
	}
	o := &m.out
	o.LetGo, o.Persist, o.Send, o.TakeUp = o.LetGo[:0], o.Persist[:0], o.Send[:0], o.TakeUp[:0]
	o.Renewed, o.Decided, o.Notes = o.Renewed[:0], o.Decided[:0], o.Notes[:0]
}

// stand takes note of the candidacy.
func (m *Machine) stand(in Stand) {
	r := m.resource(in.Resource)
	if r == nil {
		return
	}
	if in.Willing && !r.willing {
		if m.self < 0 {
			m.note(r.name, NotAVoter, "stand")
		}
		r.notBefore = max(r.notBefore, m.now)
		r.jitter = m.rand.upTo(rankJitter)
	}
	r.willing, r.rank, r.immediate = in.Willing, max(0, in.Rank), in.Immediate
	if !r.willing && !r.holding && r.phase != idle {
		m.withdraw(r, false, "", Withdrawn)
	}
}

func (m *Machine) setFloor(d time.Duration) {
	if d > m.cfg.MaxLease && d != m.floor {
		m.note("", FloorTooHigh, fmt.Sprintf("%v, longest lease %v", d, m.cfg.MaxLease))
	}
	m.floor = d
}

// asked is the lease length to ask for now.
func (m *Machine) asked(r *resource) time.Duration {
	var open time.Duration
	if r.holding && r.retryAt != never {
		open = m.now - r.renewDue
	}
	return min(max(m.tuner.Length(m.now, open), m.floor), m.cfg.MaxLease)
}

// timers does what is due for one resource.
func (m *Machine) timers(r *resource) {
	if r.closing.active() && m.now >= r.closing.next {
		m.sendRelease(r)
	}
	if m.now >= m.bidTime(r) {
		m.bid(r)
	}
	if r.phase != idle && m.cfg.Mode == ModePair {
		m.promisesDone(r) // going on alone is a matter of time
		m.progress(r)
	}
	if !r.holding && r.phase != idle && m.now >= m.bidOver(r) {
		m.failBid(r, unanswered)
		r.unanswered++
	}
	if r.holding && r.phase == proposing && m.now >= r.renewAt {
		m.renewAll(r)
	}
	if r.phase != idle && m.now >= r.retryAt {
		m.retry(r)
	}
}

// bidOver is when a bid is given up. In phase 2 that is when nothing can be won
// any more, by T1, at the latest: it would only go on being remembered.
func (m *Machine) bidOver(r *resource) time.Duration {
	if r.phase != proposing {
		return r.bidEnds
	}
	return min(r.bidEnds, r.base+m.asked(r))
}

// renewAll renews a lease, and with it every other one that is half due, so
// that they travel together.
func (m *Machine) renewAll(due *resource) {
	for _, r := range m.resources {
		if !r.holding || r.phase != proposing {
			continue
		}
		if r == due || m.now+rhythm(m.asked(r))/2 >= r.renewAt {
			m.renew(r)
		}
	}
}

func (m *Machine) retry(r *resource) {
	switch {
	case r.phase == preparing:
		m.sendPrepare(r)
	case r.holding && r.rebid:
		m.renew(r)
	case r.holding:
		m.sendPropose(r, m.now)
	default:
		m.sendPropose(r, r.base)
	}
}

// next is when timers has something to do for a resource.
func (m *Machine) next(r *resource) time.Duration {
	at := m.bidTime(r)
	if r.closing.active() {
		at = min(at, r.closing.next)
	}
	if r.phase == idle {
		return at
	}
	at = min(at, r.retryAt)
	if !r.holding {
		at = min(at, m.bidOver(r))
	} else {
		at = min(at, r.deadline)
		if r.phase == proposing {
			at = min(at, r.renewAt)
		}
	}
	if m.cfg.Mode == ModePair && m.self >= 0 {
		if from := m.aloneFrom(r); from > m.now {
			at = min(at, from)
		}
	}
	return at
}

// resource finds or makes the state of one lease; nil if there are too many.
func (m *Machine) resource(name string) *resource {
	i, found := slices.BinarySearchFunc(m.resources, name, func(r *resource, name string) int {
		return strings.Compare(r.name, name)
	})
	if found {
		return m.resources[i]
	}
	if len(m.resources) >= MaxResources || !validName(name, MaxResource) {
		m.note(name, TooManyResources, "")
		return nil
	}
	r := &resource{name: name, retryAt: never, renewAt: never}
	m.resources = slices.Insert(m.resources, i, r)
	return r
}

func (m *Machine) note(resource string, reason Reason, detail string) {
	m.out.Notes = append(m.out.Notes, Note{Resource: resource, Reason: reason, Detail: detail})
}
