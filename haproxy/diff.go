package haproxy

import (
	"fmt"
	"slices"
)

// Want is what a rule asks of a server.
type Want uint8

// The wants. Maintenance is not among them: under it checks stop, and the
// ready that follows is blind.
const (
	Ready Want = iota // may take requests, if its health allows
	Drain             // takes nothing new
)

// String is HAProxy's word for the state.
func (w Want) String() string {
	switch w {
	case Ready:
		return "ready"
	case Drain:
		return "drain"
	}
	return fmt.Sprintf("want(%d)", uint8(w))
}

// Rule says what is wanted of the servers that a pattern covers.
type Rule struct {
	Pattern string // see ValidPattern
	Want    Want
	// Close, with Drain: sessions that are still on the server are shut. They
	// get a 502 or a cut connection; only a drain that tandem made is cleared so.
	Close bool
}

// Desired is all that is wanted of one HAProxy. Nothing else is ever touched.
type Desired struct {
	Epoch uint64 // grows with every decision; comes back as Observation.Applied
	Rules []Rule // the first that matches counts
	// DrainFirst is for applications that must not run twice: no server is made
	// ready before every drain has been read back. Otherwise it is the other way
	// round, see Diff.
	DrainFirst bool
	// Map is the active site of each group, for the map file.
	Map map[string]string
}

// Rule returns the rule for the server, and false if none matches.
func (d Desired) Rule(id ServerID) (Rule, bool) {
	for _, r := range d.Rules {
		if Match(r.Pattern, id) {
			return r, true
		}
	}
	return Rule{}, false
}

// Unmatched returns the patterns of the rules that cover none of the servers,
// even taken alone.
func (d Desired) Unmatched(observed []Server) []string {
	var out []string
	for _, r := range d.Rules {
		covers := func(s Server) bool { return Match(r.Pattern, s.ServerID) }
		if !slices.Contains(out, r.Pattern) && !slices.ContainsFunc(observed, covers) {
			out = append(out, r.Pattern)
		}
	}
	return out
}

// Command is one change of one server.
type Command struct {
	ServerID
	Want Want
}

// String is the command as an operator would type it.
func (c Command) String() string {
	return "set server " + c.ServerID.String() + " state " + c.Want.String()
}

// Diff returns the commands that are missing between what is observed and what
// is desired, in the order in which they must be carried out. It returns none
// for a server that a person holds; Holds says which and why.
//
// Ready comes before drain, so that there is never an instant without servers:
// measured, no request is lost at 20,000 a second, while drain before ready
// loses thousands. With DrainFirst it is the reverse. The caller reads back
// between the two.
func Diff(desired Desired, observed []Server, journal Journal) []Command {
	var ready, drain []Command
	for _, s := range observed {
		rule, ok := desired.Rule(s.ServerID)
		if !ok || !writable(s) {
			continue
		}
		switch {
		case rule.Want == Drain && !s.Drained():
			drain = append(drain, Command{s.ServerID, Drain})
		case rule.Want == Ready && s.Admin.Has(FDrain) && journal.Ours(s.ServerID):
			ready = append(ready, Command{s.ServerID, Ready})
		}
	}
	if desired.DrainFirst {
		return append(drain, ready...)
	}
	return append(ready, drain...)
}

// writable says whether a command may be sent to the server at all: not into
// maintenance, since both drain and ready would end it; not against an agent,
// which would overrule us at its next answer; not in a backend that is disabled,
// where HAProxy refuses; not under a name that is no name.
func writable(s Server) bool {
	return !s.Admin.Has(inMaintenance) && !s.Agent && !s.Off && s.Valid()
}

// firstStep returns the commands that go out before the next read-back: the
// leading ones that want the same.
func firstStep(commands []Command) []Command {
	for i, c := range commands {
		if c.Want != commands[0].Want {
			return commands[:i]
		}
	}
	return commands
}

// HoldKind is why tandem leaves a server alone, or leaves something of it.
type HoldKind string

// The kinds of holds.
const (
	HoldMaintenance HoldKind = "maintenance" // set by hand, or `disabled` in the configuration
	HoldTracked     HoldKind = "tracked"     // inherited from the server it tracks
	HoldUnresolved  HoldKind = "unresolved"  // its name does not resolve: nobody's hold, but out of service
	HoldDrain       HoldKind = "drain"       // drained, and not by tandem
	HoldWeight      HoldKind = "weight"      // weight 0, set by hand
	HoldAgent       HoldKind = "agent"       // an agent-check could overrule tandem
	HoldBackend     HoldKind = "backend"     // its backend is disabled in the configuration
	HoldName        HoldKind = "name"        // a name that cannot stand in a command
)

// Hold is a server, covered by a rule, that is not as the rule wants it because
// of a person, an agent or the name service.
type Hold struct {
	ServerID
	Kind   HoldKind
	Detail string
}

// Holds lists what is held among the servers that the rules cover, in the order
// of the table.
func Holds(desired Desired, observed []Server, journal Journal) []Hold {
	var out []Hold
	for _, s := range observed {
		rule, ok := desired.Rule(s.ServerID)
		if !ok {
			continue
		}
		if kind, detail := hold(s, rule.Want, journal); kind != "" {
			out = append(out, Hold{s.ServerID, kind, detail})
		}
	}
	return out
}

func hold(s Server, want Want, journal Journal) (HoldKind, string) {
	switch a := s.Admin; {
	case !s.Valid():
		return HoldName, "the name cannot stand in a command; letters, digits, _ . : - can"
	case s.Off:
		return HoldBackend, "its backend is disabled in the configuration, or was shut down, and takes no requests"
	case a.Has(FMaint) && a.Has(CMaint):
		return HoldMaintenance, "disabled in the configuration"
	case a.Has(FMaint):
		return HoldMaintenance, "set to maintenance by hand"
	case a.Has(IMaint):
		return HoldTracked, "the server that it tracks is in maintenance"
	case a.Has(RMaint):
		return HoldUnresolved, "its name does not resolve"
	case s.Agent:
		return HoldAgent, "its agent-check can undo a drain; `disable agent` gives it to tandem"
	case want == Ready && a.Has(FDrain) && !journal.Ours(s.ServerID):
		return HoldDrain, "drained, and not by tandem; `set server … state ready` gives it back"
	case want == Ready && a.Has(IDrain):
		return HoldTracked, "the server that it tracks is drained"
	case s.Weight == 0 && s.InitialWeight != 0:
		return HoldWeight, "weight set to 0 by hand"
	}
	return "", ""
}
