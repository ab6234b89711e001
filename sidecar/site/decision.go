package site

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// MaxSize is the most bytes that an encoded decision may have: it travels with
// every renewal of the lease.
const MaxSize = 1024

// maxActor bounds the name of who asked; the rest is cut off.
const maxActor = 32

// Phase is a step of a switch. The empty phase: no switch is under way.
type Phase string

// The phases, in the order of overlap. Exclusive goes precheck, renounce,
// settle, takeover, enable. A phase without content is skipped.
const (
	PhaseNone     Phase = ""
	PhasePrecheck Phase = "precheck"
	PhaseTakeover Phase = "takeover"
	PhaseEnable   Phase = "enable"
	PhaseRenounce Phase = "renounce"
	PhaseSettle   Phase = "settle"
)

// Group is the decision for one group of backends.
//
// Active is the one site whose servers are ready. It is empty while an
// exclusive switch is between two sites. Target is where a switch goes, until
// the target is active. From is the site left by the last switch.
type Group struct {
	Name   string `json:"g,omitempty"` // empty is `default` (see In)
	Active string `json:"a,omitempty"`
	From   string `json:"f,omitempty"`
	Target string `json:"t,omitempty"`
	Phase  Phase  `json:"p,omitempty"`
	Close  bool   `json:"c,omitempty"` // what is left on drained sites has had its time and is closed, until the next drain
	Forced bool   `json:"o,omitempty"` // taken over by force and not seen usable since
	Pinned bool   `json:"h,omitempty"` // a person chose Active: no failback
	Ack    bool   `json:"q,omitempty"` // flapping: no automatic switch until acknowledged
	Reason Reason `json:"r,omitempty"`
	Actor  string `json:"by,omitempty"`

	SinceUnixMS int64    `json:"s,omitempty"` // when Active last changed, by the decider's wall clock
	Epoch       uint64   `json:"e,omitempty"` // of the decision that entered this phase: the hooks' fencing token
	Notify      uint64   `json:"n,omitempty"` // epoch of the change of Active that the notify hook still has to tell; 0: none
	Switches    int      `json:"k,omitempty"` // automatic switches of late
	Failed      []string `json:"x,omitempty"` // sites whose takeover failed of late
}

// In names the group.
func (g Group) In() string {
	if g.Name == "" {
		return DefaultGroup
	}
	return g.Name
}

// Switching says whether a switch is under way.
func (g Group) Switching() bool { return g.Phase != PhaseNone }

func (g Group) blank() bool { return g.Reason == "" }

// Decision is the value of the `site` lease. Its epoch is the lease value's.
type Decision struct {
	Groups        []Group `json:"g,omitempty"`
	PausedUntilMS int64   `json:"pu,omitempty"` // wall clock, unix ms; -1: until resume; 0: not paused
	PausedForMS   int64   `json:"pf,omitempty"`
	Reason        Reason  `json:"r,omitempty"` // of the latest change
	Actor         string  `json:"by,omitempty"`
}

// Group returns the decision for a group; the zero Group if there is none.
func (d Decision) Group(name string) (Group, bool) {
	for _, g := range d.Groups {
		if g.In() == name {
			return g, true
		}
	}
	return Group{}, false
}

// Paused says whether automatic decisions are paused; until is zero if without end.
func (d Decision) Paused() (untilUnixMS int64, paused bool) {
	return max(d.PausedUntilMS, 0), d.PausedUntilMS != 0
}

// Map names the active site of each group that has one, for TANDEM_MAP.
func (d Decision) Map() map[string]string {
	m := make(map[string]string, len(d.Groups))
	for _, g := range d.Groups {
		if g.Active != "" {
			m[g.In()] = g.Active
		}
	}
	return m
}

// Encode writes the decision in at most MaxSize bytes. If it is longer, what
// is only of interest to people (who asked, since when) is left out.
func Encode(d Decision) ([]byte, error) {
	d = d.clone()
	for _, trim := range []func(*Group){
		func(*Group) {},
		func(g *Group) { g.Actor = "" },
		func(g *Group) { g.SinceUnixMS = 0 },
		func(g *Group) {
			if !g.Switching() {
				g.From = ""
			}
		},
	} {
		for i := range d.Groups {
			trim(&d.Groups[i])
		}
		b, err := json.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("encode decision: %w", err)
		}
		if len(b) <= MaxSize {
			return b, nil
		}
	}
	return nil, fmt.Errorf("encode decision: more than %d bytes with %d groups", MaxSize, len(d.Groups))
}

// Decode reads what Encode wrote. Empty input is the blank decision.
func Decode(b []byte) (Decision, error) {
	var d Decision
	if len(b) == 0 {
		return d, nil
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return Decision{}, fmt.Errorf("decode decision: %w", err)
	}
	return d, nil
}

// worstSize is the most that Encode may need when it has left out what it can.
func (c Config) worstSize() int {
	b, err := json.Marshal(c.worst())
	if err != nil {
		return math.MaxInt
	}
	return len(b)
}

// worst is the longest decision of a configuration, without what Encode may
// leave out: every group in the middle of a switch.
func (c Config) worst() Decision {
	long := ""
	for _, s := range c.Sites {
		if len(s.Name) > len(long) {
			long = s.Name
		}
	}
	d := Decision{PausedUntilMS: 1e13, PausedForMS: 1e10, Reason: ReasonActiveUnusable, Actor: strings.Repeat("x", maxActor)}
	for _, name := range c.Groups() {
		g := Group{
			Name: name, Active: long, Target: long, From: long, Phase: PhaseTakeover, Reason: ReasonActiveUnusable,
			Close: true, Forced: true, Pinned: true, Ack: true, Epoch: 1e9, Switches: 9,
		}
		if name == DefaultGroup { // only it has hooks
			g.Notify, g.Failed = 1e9, c.siteNames()
		}
		d.Groups = append(d.Groups, g)
	}
	return d
}

func (d Decision) clone() Decision {
	groups := make([]Group, len(d.Groups))
	copy(groups, d.Groups)
	for i := range groups {
		groups[i].Failed = append([]string(nil), groups[i].Failed...)
	}
	d.Groups = groups
	return d
}

func (g Group) equal(o Group) bool {
	if strings.Join(g.Failed, " ") != strings.Join(o.Failed, " ") {
		return false
	}
	return g.Name == o.Name && g.Active == o.Active && g.From == o.From && g.Target == o.Target && g.Phase == o.Phase &&
		g.Close == o.Close && g.Forced == o.Forced && g.Pinned == o.Pinned && g.Ack == o.Ack && g.Reason == o.Reason && g.Actor == o.Actor &&
		g.SinceUnixMS == o.SinceUnixMS && g.Epoch == o.Epoch && g.Notify == o.Notify && g.Switches == o.Switches
}
