// Package apitest has an agent without a cluster: it keeps a status, carries
// commands out on it, and tells those who watch. It serves the tests of the
// API, of the command line and of the status page.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"tandem/sidecar/status"
)

// Agent is the fake. Make it with [New].
type Agent struct {
	mu       sync.Mutex
	now      status.Status
	history  []status.Transition
	commands []status.Command
	events   []status.Event
	watchers map[chan status.Event]bool
	fail     error
}

// New makes an agent with that status.
func New(st status.Status) *Agent {
	return &Agent{now: st, history: append([]status.Transition(nil), st.Recent...), watchers: map[chan status.Event]bool{}}
}

// Pair is a healthy cluster of two load balancers and a witness, as lb1 sees
// it, at that moment.
func Pair(at time.Time) status.Status {
	day := at.Add(-26 * time.Hour)
	hourBefore := day.Add(-time.Hour)
	ha := func(pid int) *status.HAProxy { return &status.HAProxy{Alive: true, Version: "2.6.12", PID: pid} }
	view := func(node, site string) status.View {
		return status.View{Node: node, Site: site, Usable: true, AgeMS: 220, Backends: []status.Backend{{Name: "app", Up: 2, Total: 2}, {Name: "chat", Up: 1, Total: 1}}}
	}
	return status.Status{
		Node: "lb1", Role: "lb", Cluster: "shop", Mode: "quorum", Version: "0.1.0", At: at,
		Health:   status.Healthy,
		NextFail: []string{"if lb1 fails, lb2 takes over", "if lb2 fails, nothing moves", "if witness fails, nothing moves, but then no further failure is survived", "if site a fails, site b takes over"},
		Leases: []status.Lease{
			{Resource: "site", Holder: "lb1", Epoch: 9, ExpiresInMS: 430, LengthMS: 500, Source: "own"},
			{Resource: "vip/default", Holder: "lb1", Epoch: 12, ExpiresInMS: 430, LengthMS: 500, Fence: "gate", Source: "own", Addresses: []string{"10.0.0.100/32"}},
		},
		Sites:  []string{"a", "b"},
		Site:   status.Site{Group: "default", Active: "a", Epoch: 9, Reason: "commanded", Actor: "alice", Since: &day},
		Groups: []status.Site{{Group: "default", Active: "a", Epoch: 9, Reason: "commanded", Actor: "alice", Since: &day}, {Group: "broker", Active: "b", Epoch: 7, Reason: "active-unusable", Since: &hourBefore}},
		Nodes: []status.Node{
			{Name: "lb1", Role: "lb", Site: "a", Voter: true, Alive: true, Eligible: true, HAProxy: ha(4711), VIPs: []string{"10.0.0.100"}, Fence: "gate", AppliedEpoch: 9, Version: "0.1.0", Protocol: 1, Keys: []string{"1a2b3c4d"}},
			{Name: "lb2", Role: "lb", Site: "b", Voter: true, Alive: true, Eligible: true, HAProxy: ha(815), Fence: "gate", AppliedEpoch: 9, AgeMS: 31, Version: "0.1.0", Protocol: 1, Keys: []string{"1a2b3c4d"}},
			{Name: "witness", Role: "witness", Voter: true, Alive: true, AgeMS: 28, Version: "0.1.0", Protocol: 1, Keys: []string{"1a2b3c4d"}},
		},
		Views: []status.View{view("lb1", "a"), view("lb1", "b"), view("lb2", "a"), view("lb2", "b")},
		Recent: []status.Transition{
			{At: day, Node: "lb1", Resource: "site", Event: "decided", From: "b", To: "a", Epoch: 9, Reason: "commanded", Actor: "alice"},
			{At: day.Add(time.Hour), Node: "lb1", Resource: "vip/default", Event: "take-up", From: "lb2", To: "lb1", Epoch: 12, Reason: "handed-over", Actor: "bob"},
		},
	}
}

// Status is a copy of the status, at this moment.
func (a *Agent) Status() status.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.now
	st.Recent = append([]status.Transition(nil), a.history[max(0, len(a.history)-10):]...)
	return st
}

// Outlook is the status: the fake's picture of the future stands in it.
func (a *Agent) Outlook(context.Context) status.Status { return a.Status() }

// ErrQuestion is what a plan for a node other than lb1 ends in.
var ErrQuestion = errors.New("there is no such node; the nodes are lb1, lb2, witness")

// Plan knows the loss of lb1 alone.
func (a *Agent) Plan(_ context.Context, faults []string) (status.Plan, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.fail != nil:
		return status.Plan{}, a.fail
	case len(faults) != 1 || faults[0] != "lb1=down":
		return status.Plan{}, fmt.Errorf("%q: %w", faults, ErrQuestion)
	}
	return status.Plan{
		Node: "lb1", Faults: faults, Health: status.Degraded, Problems: []string{"lb1 is silent (not-heard)"},
		Sentence: "if lb1 fails, lb2 takes site and vip/default over, but then no further failure is survived",
		Moves: []status.PlanMove{
			{What: "site", From: "lb1", To: "lb2", AfterMS: 640, Reason: "acquired"},
			{What: "vip/default", From: "lb1", To: "lb2", AfterMS: 588, Reason: "acquired"},
		},
		Holders: []status.PlanHolder{{Resource: "site", Holder: "lb2"}, {Resource: "vip/default", Holder: "lb2"}},
		Sites:   []status.PlanSite{{Group: "default", Active: "a", Reason: "commanded"}},
		Steps: []status.PlanStep{
			{AfterMS: 588, Transition: status.Transition{Node: "lb2", Resource: "vip/default", Event: "take-up", From: "lb1", To: "lb2", Epoch: 13, Reason: "acquired"}},
			{AfterMS: 640, Transition: status.Transition{Node: "lb2", Resource: "site", Event: "take-up", From: "lb1", To: "lb2", Epoch: 9, Reason: "acquired"}},
		},
		Notes: []string{"hooks are taken to succeed at once"},
	}, nil
}

// History is all transitions, oldest first.
func (a *Agent) History() []status.Transition {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]status.Transition(nil), a.history...)
}

// Set changes the status.
func (a *Agent) Set(change func(*status.Status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.now)
}

// Fail makes every further command end in that error; nil ends it.
func (a *Agent) Fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = err
}

// Commands are those carried out so far.
func (a *Agent) Commands() []status.Command {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]status.Command(nil), a.commands...)
}

// Do carries a command out on the status.
func (a *Agent) Do(_ context.Context, c status.Command) (status.Result, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return status.Result{}, a.fail
	}
	a.commands = append(a.commands, c)
	r, err := a.do(c)
	if err == nil && !r.OK {
		a.tell(status.Event{CommandID: c.ID, Transition: status.Transition{
			At: time.Now(), Node: a.now.Node, Resource: map[bool]string{true: "vip/default", false: "site"}[c.Kind == "move"],
			Event: c.Kind + status.Refused, To: c.Site + c.To, Reason: r.Reason, Actor: c.Actor, Detail: r.Message,
		}})
	}
	return r, err
}

func (a *Agent) do(c status.Command) (status.Result, error) {
	switch c.Kind {
	case "takeover":
		return a.takeover(c)
	case "move":
		return a.move(c)
	case "pause":
		until := time.Now().Add(c.Duration)
		a.now.PausedUntil = &until
	case "resume":
		a.now.PausedUntil = nil
	}
	return status.Result{OK: true, Message: c.Kind + ": done"}, nil
}

func (a *Agent) takeover(c status.Command) (status.Result, error) {
	site := c.Site
	if site == "" {
		site = "a"
	}
	if site != "a" && site != "b" {
		return status.Result{Reason: "unknown-site", Message: fmt.Sprintf("there is no site %s; the sites are a, b", site)}, nil
	}
	if a.now.Site.Active == site {
		return status.Result{Reason: "already-active", Message: "site " + site + " is active already"}, nil
	}
	from := a.now.Site.Active
	a.now.Site.Epoch++
	now := time.Now()
	a.now.Site.Active, a.now.Site.Reason, a.now.Site.Actor, a.now.Site.Since = site, "commanded", c.Actor, &now
	a.now.Groups[0] = a.now.Site
	a.tell(status.Event{CommandID: c.ID, Transition: status.Transition{
		At: time.Now(), Node: a.now.Node, Resource: "site", Event: "decided", From: from, To: site,
		Epoch: a.now.Site.Epoch, Reason: "commanded", Actor: c.Actor,
	}})
	return status.Result{OK: true, Message: "site " + site + " is taking over", Epoch: a.now.Site.Epoch, Node: a.now.Node}, nil
}

func (a *Agent) move(c status.Command) (status.Result, error) {
	for i := range a.now.Leases {
		l := &a.now.Leases[i]
		if l.Resource != "vip/default" {
			continue
		}
		if l.Holder == c.To {
			return status.Result{Reason: "already-holder", Message: c.To + " holds vip/default already"}, nil
		}
		from := l.Holder
		l.Holder, l.Source, l.Epoch = c.To, "vote", l.Epoch+1
		a.tell(status.Event{CommandID: c.ID, Transition: status.Transition{
			At: time.Now(), Node: c.To, Resource: "vip/default", Event: "take-up", From: from, To: c.To, Epoch: l.Epoch, Reason: "handed-over", Actor: c.Actor,
		}})
		return status.Result{OK: true, Message: "vip/default moves to " + c.To, Epoch: l.Epoch, Node: c.To}, nil
	}
	return status.Result{Reason: "unknown-group", Message: "there is no such group"}, nil
}

// Tell notes a transition and sends it to those who watch.
func (a *Agent) Tell(e status.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tell(e)
}

func (a *Agent) tell(e status.Event) {
	a.history = append(a.history, e.Transition)
	e.ID = strconv.Itoa(len(a.events) + 1)
	a.events = append(a.events, e)
	for w := range a.watchers {
		select {
		case w <- e:
		default: // a slow reader loses it
		}
	}
}

// Watch gives the transitions until ctx ends, first those behind the one with
// that ID.
func (a *Agent) Watch(ctx context.Context, after string) <-chan status.Event {
	events := make(chan status.Event, 16)
	a.mu.Lock()
	if n, err := strconv.Atoi(after); err == nil {
		for _, e := range a.events[n:] {
			events <- e
		}
	}
	a.watchers[events] = true
	a.mu.Unlock()
	context.AfterFunc(ctx, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers, events)
		close(events)
	})
	return events
}

// Watchers is how many watch now.
func (a *Agent) Watchers() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.watchers)
}
