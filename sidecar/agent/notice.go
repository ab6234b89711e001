package agent

import (
	"fmt"
	"slices"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// What the notify hook is told of a group of virtual IPs.
const (
	NoticeTakeUp = "take-up" // this node holds it from now on
	NoticeLetGo  = "let-go"  // it does not any more
	NoticeHold   = "hold"    // it still does
)

const (
	// How often the hook is told that a group is still held here: providers lose
	// what they were told.
	noticeEvery = 10 * time.Second
	// How long a hook may take before status mentions it.
	noticePatience = 10 * time.Second
	// How long a node that is to stop waits for the hook that it told of the last
	// address that it let go.
	noticeTail = 5 * time.Second
)

// Notice is what this node does with a group of virtual IPs, for the notify
// hook: it can move an address or a route at a provider.
type Notice struct {
	ID        string
	Event     string
	Group     string
	Addresses []string // without prefix length; none in a cloud
	From, To  string   // nodes; empty if not known
	Epoch     uint64
	Reason    string
	Planned   bool // it was handed over, not lost
}

// NoticeResult is the end of a notice: every command succeeded, or Reason and
// Detail say what went wrong.
type NoticeResult struct {
	ID, Group string
	OK        bool
	Reason    string
	Detail    string // exit code, duration and the end of the output, for people
}

// Notifier runs the notify hook for a group. Notify never blocks. A notice takes
// the place of those of its group that have not ended, and every one has a
// result.
type Notifier interface {
	Notify(n Notice)
	Notified() <-chan NoticeResult
}

// noticed is what the notify hook was told last of a group.
type noticed struct {
	Notice

	open   bool          // it has not ended
	at     time.Duration // when it was told
	next   time.Duration // when it is to be told again that the group is held
	failed string        // how the last one that ended went wrong; empty: it did not
}

// notify tells the hook, whatever became of what it was told before.
func (a *Agent) notify(now time.Duration, g *group, n Notice) {
	if a.deps.Notifier == nil || a.cfg.Observe {
		return
	}
	a.notices++
	n.ID = fmt.Sprintf("%s/%s/%d", n.Event, g.resource, a.notices)
	n.Group, n.Addresses = g.name, a.cfg.VIPs[g.name]
	failed := ""
	if n.Event == NoticeHold {
		failed = g.notice.failed
	}
	g.notice = noticed{Notice: n, open: true, at: now, next: now + noticeEvery, failed: failed}
	a.deps.Notifier.Notify(n)
}

// notifyTakeUp tells that this node holds the group from now on.
func (a *Agent) notifyTakeUp(now time.Duration, g *group, t lease.TakeUp) {
	a.notify(now, g, Notice{
		Event: NoticeTakeUp, From: t.Predecessor, To: a.cfg.Node, Epoch: t.Value.Epoch + 1, Reason: string(t.Reason), Planned: t.Planned,
	})
}

// notifyLetGo tells that this node holds the group no longer.
func (a *Agent) notifyLetGo(now time.Duration, g *group, l lease.LetGo) {
	lost := []lease.Reason{lease.LeaseExpired, lease.Superseded, lease.PairHealed, lease.Withdrawn}
	a.notify(now, g, Notice{
		Event: NoticeLetGo, From: a.cfg.Node, To: l.Successor, Epoch: g.epoch, Reason: string(l.Reason),
		Planned: !slices.Contains(lost, l.Reason),
	})
}

// notifyHold tells every now and then that the group is still held here, unless
// the hook has not done with what it was told before.
func (a *Agent) notifyHold(now time.Duration, g *group) {
	if a.deps.Notifier == nil || a.cfg.Observe {
		return
	}
	if now < g.notice.next {
		a.wakeAt(g.notice.next)
		return
	}
	if g.notice.open {
		g.notice.next = now + noticeEvery
		return
	}
	n := g.notice.Notice // what it says of the take-up is still so
	n.Event, n.Epoch = NoticeHold, max(g.epoch, n.Epoch)
	a.notify(now, g, n)
}

// noticeEnded records the end of a notice. That the group is held is told for as
// long as it is: only a change of how that goes is worth a line.
func (a *Agent) noticeEnded(r NoticeResult) {
	g := a.groups[r.Group]
	if g == nil || g.notice.ID != r.ID {
		return // something later has been told meanwhile
	}
	a.dirty = true
	n := &g.notice
	n.open = false
	was := n.failed
	if n.failed = ""; !r.OK {
		n.failed = orWord(r.Reason, string(site.ReasonHookFailed))
	}
	if n.Event == NoticeHold && n.failed == was {
		return
	}
	a.note(status.Transition{
		Resource: g.resource, Event: "hook-notify", From: n.From, To: n.To, Epoch: n.Epoch,
		Reason: orWord(n.failed, "succeeded"), Detail: n.Event + "\n" + r.Detail,
	})
}

// untold says what the notify hook has not told, or nothing.
func (a *Agent) untold(now time.Duration, g *group) string {
	switch n := g.notice; {
	case n.failed != "":
		return fmt.Sprintf("the notify hook failed to tell the %s of %s: %s", n.Event, g.name, n.failed)
	case n.open && n.Event != NoticeHold && now-n.at > noticePatience:
		return fmt.Sprintf("the notify hook has not yet told the %s of %s; it is tried again", n.Event, g.name)
	}
	return ""
}

// tellingUntil is until when a node that is to stop waits for the hook that
// learns of what it let go; 0: it need not.
func (g *group) tellingUntil() time.Duration {
	if !g.notice.open || g.notice.Event != NoticeLetGo {
		return 0
	}
	return g.notice.at + noticeTail
}
