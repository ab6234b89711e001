package agent

import "time"

// announceGap is how far apart announcements for peers that are back are at
// least: a switch that comes up again brings many.
const announceGap = time.Second

// welcome announces what this node holds when a peer is back that was not heard
// for a while: it, and whatever was cut off together with it, may have heard
// somebody else announce them meanwhile, or nobody.
func (a *Agent) welcome(now time.Duration) {
	for name, p := range a.peers {
		alive := a.alive(name, now)
		if alive && p.absent && a.announceAt == 0 {
			a.announceAt = max(now, a.announcedAt+announceGap)
		}
		p.absent = !alive && (p.absent || p.arrived > 0)
	}
	if a.announceAt == 0 {
		return
	}
	if now < a.announceAt {
		a.wakeAt(a.announceAt)
		return
	}
	a.announceAt, a.announcedAt = 0, now
	for _, name := range a.cfg.Groups {
		if g := a.groups[name]; g.holding {
			a.answer(g)
		}
	}
}
