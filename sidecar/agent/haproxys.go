package agent

import (
	"slices"

	"tandem/haproxy"
	"tandem/sidecar/status"
)

// unserved maps each group of addresses that a HAProxy of this machine would
// have to serve, and does not, to that HAProxy. With one HAProxy these are all
// groups or none.
func (a *Agent) unserved() map[string]haproxy.Observation {
	if a.deps.LB == nil {
		return nil
	}
	o := a.deps.LB.Observed()
	each := o.Each
	if len(each) == 0 {
		each = []haproxy.Observation{o}
	}
	var out map[string]haproxy.Observation
	for _, one := range each {
		if one.Alive {
			continue
		}
		if o.Each != nil {
			one.Detail = one.Name + ": " + one.Detail
		}
		for _, g := range a.cfg.Groups {
			if _, known := out[g]; known || !a.serves(one, g) {
				continue
			}
			if out == nil {
				out = map[string]haproxy.Observation{}
			}
			out[g] = one
		}
	}
	return out
}

// serves says whether clients reach a HAProxy by the addresses of a group.
func (a *Agent) serves(o haproxy.Observation, group string) bool {
	groups, several := a.cfg.Serves[o.Name]
	return !several || slices.Contains(groups, group)
}

// haproxyStatus is what a node tells of its HAProxy, and of each where there
// are several.
func haproxyStatus(o haproxy.Observation) *status.HAProxy {
	s := oneHAProxy(o)
	s.Name = ""
	for _, one := range o.Each {
		s.Each = append(s.Each, oneHAProxy(one))
	}
	return &s
}

func oneHAProxy(o haproxy.Observation) status.HAProxy {
	return status.HAProxy{
		Name: o.Name, Alive: o.Alive, Version: o.Version, PID: o.PID, Reason: string(o.Reason), Detail: o.Detail, Aside: o.Aside,
		SessionsLeft: o.SessionsLeft, SessionsClosed: o.SessionsClosed, Map: mapWord(o.Map),
	}
}

// mapWord says how the active-site map stands. One that was not looked at yet,
// or is not kept, has nothing to say.
func mapWord(m haproxy.MapStatus) string {
	switch {
	case m.Current:
		return status.MapCurrent
	case m.Detail != "":
		return status.MapNotCurrent
	}
	return ""
}

// haproxyWarnings say which files cannot be kept, and what else is to be mended at
// a HAProxy. With one that is gone there is no map to keep but the file.
func haproxyWarnings(o haproxy.Observation) []string {
	each := o.Each
	if len(each) == 0 {
		each = []haproxy.Observation{o}
	}
	var out []string
	for _, one := range each {
		of := ""
		if o.Each != nil {
			of = " (" + one.Name + ")"
		}
		for _, w := range one.Warnings {
			out = append(out, string(w.Kind)+": "+w.Detail+of)
		}
		if one.Alive && mapWord(one.Map) == status.MapNotCurrent {
			out = append(out, "map-not-current: "+one.Map.Detail+of)
		}
	}
	return out
}

// lbSeen is what was last noted of a HAProxy.
type lbSeen struct {
	alive bool
	pid   int
}

// noteHAProxys notes which HAProxys came or went.
func (a *Agent) noteHAProxys(o haproxy.Observation) {
	if o.Each == nil {
		a.noteHAProxy("haproxy", o)
		return
	}
	for _, one := range o.Each {
		a.noteHAProxy("haproxy/"+one.Name, one)
	}
}

func (a *Agent) noteHAProxy(resource string, o haproxy.Observation) {
	before := a.lbSeen[resource]
	if o.Alive == before.alive && o.PID == before.pid {
		return
	}
	reason := string(o.Reason)
	switch {
	case o.Alive && before.alive:
		reason = "reloaded"
	case o.Alive:
		reason = "answers"
	}
	event := map[bool]string{true: "up", false: "down"}[o.Alive]
	if o.Alive != before.alive || o.Alive {
		a.note(status.Transition{Resource: resource, Event: event, Reason: reason, Detail: o.Detail})
	}
	a.lbSeen[resource] = lbSeen{o.Alive, o.PID}
}
