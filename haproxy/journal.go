package haproxy

import (
	"maps"
	"time"
)

// Origin says who drained a server.
type Origin uint8

// The origins.
const (
	ours   Origin = iota + 1 // tandem did
	theirs                   // somebody else did
)

// entry is what the journal knows of one drain.
type entry struct {
	Origin Origin
	// Seen: the drain has been read back. One that was sent and not yet seen may
	// still come, out of a connection that was given up.
	Seen bool
	// At is when the drain was sent, or when a later process read of it. It serves
	// only to forget what never came.
	At time.Time
}

// straggler is how long a command that was sent and never answered may still
// take effect once HAProxy answers others.
const straggler = 5 * time.Second

// Process is one run of HAProxy.
type Process struct {
	PID   int
	Start int64 // seconds since 1970, from Start_time_sec; 0 before HAProxy 2.5
}

// Journal remembers which drains are tandem's own: HAProxy does not tell them
// from an operator's. The zero Journal is blank: it has never looked.
type Journal struct {
	// Process is the one that was last looked at.
	Process Process
	drains  map[ServerID]entry
}

// Ours says whether tandem drained the server.
func (j Journal) Ours(id ServerID) bool { return j.drains[id].Origin == ours }

// Theirs says whether the server is known to have been drained by somebody else.
func (j Journal) Theirs(id ServerID) bool { return j.drains[id].Origin == theirs }

// Blank says whether the journal has never looked at an HAProxy.
func (j Journal) Blank() bool { return j.Process == Process{} }

// clone returns a copy that shares nothing.
func (j Journal) clone() Journal {
	return Journal{Process: j.Process, drains: maps.Clone(j.drains)}
}

// equal says whether two journals know the same.
func (j Journal) equal(o Journal) bool {
	return j.Process == o.Process && maps.Equal(j.drains, o.drains)
}

// Intend notes drains before they are sent: whatever happens then, they are
// known to be ours.
func (j Journal) Intend(commands []Command, now time.Time) Journal {
	j = j.clone()
	for _, c := range commands {
		if c.Want == Drain {
			note(&j, c.ServerID, entry{Origin: ours, At: now})
		}
	}
	return j
}

// Learn brings the journal up to date with what has been read.
//
// A drain that nobody noted is somebody else's, with two exceptions. On the very
// first look, with nothing remembered, a drain is ours where the rules want one
// (the standby site), and where the server-state file contains it. On the first
// look at another process, a drain that the server-state file contains came out of
// that file and is ours if it was not known as somebody else's before: nobody set
// it by hand, it is left over from an earlier time.
//
// With nothing remembered, the file may also contain what a person drained, and
// that is undone on the active site then. It is the lesser evil: otherwise a
// decision that changed while the machine was off would leave the active site
// drained for good, held by nobody.
//
// A server that is no longer there is forgotten: one that is added under its name
// is another.
func (j Journal) Learn(desired Desired, observed []Server, process Process, fromFile func(ServerID) bool, now time.Time) Journal {
	next := j.clone()
	next.Process = process
	for _, s := range observed {
		known, ok := next.drains[s.ServerID]
		switch {
		case !s.Admin.Has(FDrain), s.Admin.Has(FMaint):
			// Both at once is what a look meets in the middle of a person's change
			// between the two: HAProxy sets one, then clears the other.
			if ok && (known.Seen || known.stale(now)) {
				delete(next.drains, s.ServerID)
			}
		case ok:
			known.Seen = true
			next.drains[s.ServerID] = known
		default:
			origin := theirs
			rule, matched := desired.Rule(s.ServerID)
			switch {
			case !matched:
				continue
			case j.Blank() && rule.Want == Drain:
				origin = ours
			case (j.Blank() || j.Process != process) && fromFile(s.ServerID):
				origin = ours
			}
			note(&next, s.ServerID, entry{Origin: origin, Seen: true, At: now})
		}
	}
	next.forget(observed, now)
	return next
}

// forget drops the servers that are not there any more. A drain that was sent and
// not yet seen may be on its way to one that is added just now.
func (j Journal) forget(observed []Server, now time.Time) {
	if len(j.drains) == 0 {
		return
	}
	there := make(map[ServerID]bool, len(observed))
	for _, s := range observed {
		there[s.ServerID] = true
	}
	maps.DeleteFunc(j.drains, func(id ServerID, e entry) bool {
		return !there[id] && (e.Seen || e.stale(now))
	})
}

// stale says whether a drain that was sent and not seen will not come any more.
func (e entry) stale(now time.Time) bool {
	return now.Sub(e.At) > straggler || now.Before(e.At)
}

// note puts an entry into a journal that nobody else has yet.
func note(j *Journal, id ServerID, e entry) {
	if j.drains == nil {
		j.drains = make(map[ServerID]entry)
	}
	j.drains[id] = e
}
