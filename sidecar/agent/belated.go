package agent

import "time"

// What was sent to a process that stands still is there to be read when it
// wakes, the oldest first, and nothing that it can see tells how long ago that
// was: the clocks of two machines cannot be compared. So every message to one
// node names the latest report of that node which its sender had heard, and by
// its own clock a node knows when it sent that. An order cannot be older.

// freshOrder is how old an order may be: a decider that has heard a node since
// then has not given it up, nor does in the next two seconds. A report each
// second and an order each half arrive within that, unless many are lost; then
// the order is taken a little later.
const freshOrder = 2*reportEvery + hookRepeat

const (
	spokenEvery = 100 * time.Millisecond
	spokenKept  = 32 // they reach back for longer than freshOrder
)

// spoken is when a message was sent.
type spoken struct {
	seq uint64
	at  time.Duration
}

// spoke notes when a report is sent.
func (a *Agent) spoke(seq uint64) {
	now := a.deps.Now()
	if n := len(a.spoken); n > 0 && now-a.spoken[n-1].at < spokenEvery {
		return
	}
	if a.spoken = append(a.spoken, spoken{seq, now}); len(a.spoken) > spokenKept {
		a.spoken = a.spoken[1:]
	}
}

// spokeAt is when this node sent a report, or up to spokenEvery earlier; 0: long
// ago.
func (a *Agent) spokeAt(seq uint64) time.Duration {
	at := time.Duration(0)
	for _, s := range a.spoken {
		if s.seq > seq {
			break
		}
		at = s.at
	}
	return at
}

// belated says whether a message may be older than an order should be. A sender
// that says nothing of what it has heard is a version that does not, or has
// heard nothing yet.
func (a *Agent) belated(e envelope) bool {
	return e.Heard > 0 && a.deps.Now()-a.spokeAt(e.Heard) > freshOrder
}

// admitOrder admits what somebody wants this node to do, a hook or a command, and
// returns who that is; nil: it is left out, for a reason that is counted.
func (a *Agent) admitOrder(e envelope) *peer {
	p, ok := a.admit(e)
	switch {
	case !ok:
		return nil
	case e.ToBoot != a.boot:
		a.ignored("earlier-boot") // without the addressee's boot it could be a replay
		return nil
	case a.belated(e):
		a.attend(p)
		a.ignored("belated") // who asked may have been told long ago that nothing came of it
		return nil
	}
	return p
}

// attend reports to a node from which an order has come, new or repeated. What that
// sends next names this report: so where datagrams are lost, neither what it orders
// nor that it decides is taken for old longer than it must be.
func (a *Agent) attend(p *peer) {
	if now := a.deps.Now(); now-p.attendedAt >= spokenEvery {
		p.attendedAt = now
		a.sendReport(p.name)
	}
}
