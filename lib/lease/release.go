package lease

import "time"

const (
	firstRepeats = 10 * time.Millisecond // a release goes out at 0, 10 and 20 ms, then every 25 ms
	releaseEnds  = 200 * time.Millisecond
)

// closing is a release on its way.
type closing struct {
	item  Item
	done  voterSet
	tries int
	next  time.Duration
	ends  time.Duration
}

func (c *closing) active() bool { return c.item.Kind != 0 }

// withdraw closes the ballot for ever (rule A3), first here, then at all
// voters. Nothing is sent for a ballot that has not got beyond phase 1: there
// is nothing to forget.
func (m *Machine) withdraw(r *resource, held bool, successor string, reason Reason) {
	asked := r.phase == proposing || held
	r.phase = idle
	r.retryAt, r.renewAt = never, never
	if !asked {
		return
	}
	m.forget(&r.voter, r.ballot)
	m.seq++
	r.closing = closing{
		item: Item{Kind: KindRelease, Resource: r.name, Ballot: r.ballot, Seq: m.seq, Held: held, Successor: successor, Reason: reason},
		ends: m.now + releaseEnds,
	}
	if m.self >= 0 {
		r.closing.done = r.closing.done.with(m.self)
	}
	m.sendRelease(r)
}

// sendRelease repeats the release to whoever has not confirmed it.
func (m *Machine) sendRelease(r *resource) {
	c := &r.closing
	if c.done.size() == len(m.voters) || m.now >= c.ends {
		*c = closing{}
		return
	}
	for i, name := range m.voters {
		if !c.done.has(i) {
			m.queue(name, c.item)
		}
	}
	c.tries++
	c.next = m.now + firstRepeats
	if c.tries > 2 {
		c.next = m.now + retryEvery
	}
}

func (m *Machine) onReleased(r *resource, voter int, it *Item) {
	c := &r.closing
	if !c.active() || it.Ballot != c.item.Ballot {
		return
	}
	c.done = c.done.with(voter)
	if c.done.size() == len(m.voters) {
		*c = closing{}
	}
}
