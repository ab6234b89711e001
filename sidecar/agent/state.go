package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// StateVersion grows whenever what a State holds, or what it means, changes. What
// the lease machine knows has a version of its own, which is part of it.
const StateVersion = 2*1000 + lease.SnapshotVersion

// State is what an agent hands to the program that takes its place in the same
// process: all that safety and the decisions rest on, and what would move
// something without need if it were forgotten. What is found out anew within a
// second, as what HAProxy and the kernel say, is not in it, nor are the decider's
// clocks: another decider finds those out anew as well.
type State struct {
	Lease lease.Snapshot
	Seq   uint64 // of the last message sent

	Groups        map[string]groupState
	Peers         []peerState
	Decided       lease.Record
	DecidedFrom   string
	DecidingSince time.Duration // while the site lease is held
	Decides       bool
	SiteHeardAt   time.Duration
	AnnouncedAt   time.Duration
	Dates         datesState
	Maintenance   bool

	HooksRun   []HookResult // those that ended
	HookFrom   map[string]string
	HooksTaken []site.HookRun
	Notices    uint64
	Commands   []commandState // carried out or refused, the oldest first
	HAProxys   map[string]lbState
	History    []status.Transition // empty with a state directory, which has it
}

type groupState struct {
	Holding          bool
	Deadline         time.Duration
	Since            time.Duration
	Epoch            uint64
	LastHolder, Told string
	PreferredOKSince time.Duration
	Unfit            string
	Notice           noticeState
	Free, Force      bool
	Claimed          string
}

type noticeState struct {
	Notice   Notice
	At, Next time.Duration
	Failed   string
}

type peerState struct {
	Name, Boot  string
	Voter       bool
	Seq         uint64
	Report      *report
	At, Arrived time.Duration
	Absent      bool
}

type commandState struct {
	ID     string
	Result *status.Result
}

type datesState struct {
	Known  bool
	Heard  time.Duration
	Groups map[string]momentState
	Phases map[string]momentState
	Pause  momentState
}

type momentState struct {
	What  string
	Dated int64
	At    time.Duration
}

type lbState struct {
	Alive bool
	PID   int
}

// state is taken between two turns of the loop.
func (a *Agent) state() State {
	s := State{
		Lease: a.lease.Snapshot(), Seq: a.seq, Groups: map[string]groupState{},
		Decided: a.decided, DecidedFrom: a.decidedFrom, DecidingSince: a.decidingSince, Decides: a.decider != nil,
		SiteHeardAt: a.siteHeardAt, AnnouncedAt: a.announcedAt, Maintenance: a.maintenance,
		HookFrom: maps.Clone(a.hookFrom), HooksTaken: slices.Clone(a.hooksTaken), Notices: a.notices, HAProxys: map[string]lbState{},
	}
	s.Dates = datesState{
		Known: a.dates.known, Heard: a.dates.heard, Pause: a.dates.pause.state(),
		Groups: momentsState(a.dates.groups), Phases: momentsState(a.dates.phases),
	}
	for name, g := range a.groups {
		s.Groups[name] = groupState{
			Holding: g.holding, Deadline: g.deadline, Since: g.since, Epoch: g.epoch, LastHolder: g.lastHolder, Told: g.told,
			PreferredOKSince: g.preferredOKSince, Unfit: g.unfit, Free: g.free, Force: g.force, Claimed: g.claimed,
			Notice: noticeState{Notice: g.notice.Notice, At: g.notice.at, Next: g.notice.next, Failed: g.notice.failed},
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.peers)) {
		p := a.peers[name]
		s.Peers = append(s.Peers, peerState{
			Name: p.name, Boot: p.boot, Voter: p.voter, Seq: p.seq, Report: p.report, At: p.at, Arrived: p.arrived, Absent: p.absent,
		})
	}
	for _, id := range a.hooksEnded {
		if r := a.hooksRun[id]; r != nil {
			s.HooksRun = append(s.HooksRun, *r)
		}
	}
	for _, id := range a.seen.order {
		s.Commands = append(s.Commands, commandState{ID: id, Result: a.seen.results[id]})
	}
	for name, l := range a.lbSeen {
		s.HAProxys[name] = lbState{l.alive, l.pid}
	}
	if a.deps.Store == nil {
		s.History = a.history.last(historyLength)
	}
	return s
}

func (m moment) state() momentState { return momentState{What: m.what, Dated: m.dated, At: m.at} }

func (s momentState) moment() moment { return moment{what: s.What, dated: s.Dated, at: s.At} }

func momentsState(all map[string]moment) map[string]momentState {
	out := map[string]momentState{}
	for name, m := range all {
		out[name] = m.state()
	}
	return out
}

func moments(all map[string]momentState) map[string]moment {
	out := map[string]moment{}
	for name, m := range all {
		out[name] = m.moment()
	}
	return out
}

// restore is the reverse of state; the lease machine has been restored already.
func (a *Agent) restore(s State) error {
	d, err := site.Decode(s.Decided.Value.Data)
	if err != nil {
		return fmt.Errorf("restore site decision: %w", err)
	}
	a.seq, a.decided, a.decision, a.decidedFrom = s.Seq, s.Decided, d, s.DecidedFrom
	a.decidingSince, a.siteHeardAt, a.announcedAt, a.maintenance = s.DecidingSince, s.SiteHeardAt, s.AnnouncedAt, s.Maintenance
	a.dates = dates{
		known: s.Dates.Known, heard: s.Dates.Heard, pause: s.Dates.Pause.moment(),
		groups: moments(s.Dates.Groups), phases: moments(s.Dates.Phases),
	}
	for name, x := range s.Groups {
		g := a.groups[name]
		if g == nil {
			return fmt.Errorf("restore group %q: it is not configured", name)
		}
		g.holding, g.deadline, g.since, g.epoch, g.lastHolder, g.told = x.Holding, x.Deadline, x.Since, x.Epoch, x.LastHolder, x.Told
		g.preferredOKSince, g.unfit, g.free, g.force, g.claimed = x.PreferredOKSince, x.Unfit, x.Free, x.Force, x.Claimed
		g.notice = noticed{Notice: x.Notice.Notice, at: x.Notice.At, next: x.Notice.Next, failed: x.Notice.Failed}
	}
	for _, x := range s.Peers {
		a.peers[x.Name] = &peer{
			name: x.Name, boot: x.Boot, voter: x.Voter, seq: x.Seq, report: x.Report, at: x.At, arrived: x.Arrived, absent: x.Absent,
		}
	}
	for _, r := range s.HooksRun {
		a.hooksRun[r.Run.ID] = &r
		a.hooksEnded = append(a.hooksEnded, r.Run.ID)
	}
	maps.Copy(a.hookFrom, s.HookFrom)
	a.hooksTaken, a.notices = s.HooksTaken, s.Notices
	for _, c := range s.Commands {
		a.seen.order = append(a.seen.order, c.ID)
		a.seen.results[c.ID] = c.Result
	}
	for name, l := range s.HAProxys {
		a.lbSeen[name] = lbSeen{l.Alive, l.PID}
	}
	if a.deps.Store == nil {
		a.history.items = s.History
	}
	if s.Decides {
		if a.cfg.Sites == nil {
			return fmt.Errorf("restore %s: no sites are configured", ResourceSite)
		}
		a.decider = site.NewDecider(*a.cfg.Sites)
	}
	if a.cfg.Sites != nil {
		a.fenceHooks(false)
	}
	return nil
}
