// Package status is the one schema in which a node tells what it knows: the
// agent fills it, the HTTP interface serves it, the command line prints it.
//
// Facts carry their age. A field that is not known is absent or null, never a
// zero that could be taken for a fact.
package status

import (
	"strings"
	"time"
)

// Health is the answer to "do I have to get up?".
type Health string

// The healths, and the exit code with which `tandem status` reports each.
const (
	Healthy    Health = "healthy"     // exit 0: one more failure is survived
	Degraded   Health = "degraded"    // exit 1: serving, but no further failure is tolerated
	NotServing Health = "not-serving" // exit 2: an address has no holder, or a site no servers
	Unknown    Health = "unknown"     // exit 3: this node cannot tell
)

// Status is the whole picture as one node sees it.
type Status struct {
	Node    string    `json:"node"`
	Role    string    `json:"role"`
	Cluster string    `json:"cluster"`
	Mode    string    `json:"mode"`
	Version string    `json:"version"`
	At      time.Time `json:"at"`

	Health   Health   `json:"health"`
	Problems []string `json:"problems"` // what keeps the health from being better, a sentence each
	NextFail []string `json:"next_failure"`
	Unsafe   bool     `json:"unsafe"` // pair mode, alone: two holders are possible
	Observe  bool     `json:"observe"`
	// Protocol says which version of the messages between nodes is spoken.
	Protocol Protocol `json:"protocol"`
	// Process is the process that tells this.
	Process Process `json:"process"`
	// QuarantineMS is how long this voter still keeps silent after its start.
	QuarantineMS int64 `json:"quarantine_ms"`

	Leases []Lease `json:"leases"`
	// Sites are the names of the sites in order of preference.
	Sites  []string `json:"sites,omitempty"`
	Site   Site     `json:"site"`
	Groups []Site   `json:"groups"`
	Nodes  []Node   `json:"nodes"`
	Views  []View   `json:"views"`
	Held   []Held   `json:"held"` // what a person holds by hand in HAProxy

	PausedUntil *time.Time   `json:"paused_until"`
	Recent      []Transition `json:"recent"`
}

// Protocol is a version of the messages between nodes: a node speaks the newest
// that all nodes read. It is what makes a rolling upgrade possible.
type Protocol struct {
	Speaks int `json:"speaks"` // by this node, now
	Oldest int `json:"oldest"` // that this node reads
	Newest int `json:"newest"` // that this node reads
}

// LeaseUnknown is the source of what a node cannot tell.
const LeaseUnknown = "unknown"

// Process is a sidecar's process, in which a new program may have taken the place
// of the one before (`tandem restart`).
type Process struct {
	Boot     string    `json:"boot"`     // of the leases: it stays when a program is replaced in place
	Started  time.Time `json:"started"`  // of this program
	Restarts int       `json:"restarts"` // how often the program was replaced in place
	// Outcome of the last attempt: in-place, too-late, afresh, not-replaced. Absent:
	// there was none.
	Outcome string `json:"outcome,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// Lease says who has the right to act on a resource, and for how long still.
type Lease struct {
	Resource    string `json:"resource"` // vip/<group> or site
	Holder      string `json:"holder"`   // empty: nobody
	Epoch       uint64 `json:"epoch"`
	ExpiresInMS int64  `json:"expires_in_ms"`
	LengthMS    int64  `json:"length_ms"`
	Fence       string `json:"fence"` // gate, lifetime or none
	// Source is own (this node holds it), vote (this node voted for it), hint, or
	// unknown: too few voters are heard to tell whether anybody holds it.
	Source string `json:"source"`
	Alone  bool   `json:"alone"`
	// Addresses are those of the group, whoever carries them.
	Addresses []string `json:"addresses,omitempty"`
}

// Site is the site decision of one group of backends.
type Site struct {
	Group  string     `json:"group"`
	Active string     `json:"active"`
	Phase  string     `json:"phase"`
	Target string     `json:"target"`
	Epoch  uint64     `json:"epoch"`
	Reason string     `json:"reason"`
	Actor  string     `json:"actor"`
	Since  *time.Time `json:"since"` // null: not known
	// Waiting says what a switch or a decision waits for now, as a reason word.
	Waiting string `json:"waiting,omitempty"`
	// AckNeeded: after several switches in a short time nothing switches by
	// itself until `tandem ack`.
	AckNeeded bool `json:"ack_needed,omitempty"`
	// Stale: this node hears too few voters. It is what was decided last as far
	// as it knows, and may be another by now.
	Stale bool `json:"stale,omitempty"`
}

// Switching says whether a switch is under way.
func (s Site) Switching() bool { return s.Phase != "" }

// HAProxy is what a node says of the process that it runs beside, or of the
// several together.
type HAProxy struct {
	// Name is set where there are several.
	Name    string `json:"name,omitempty"`
	Alive   bool   `json:"alive"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail,omitempty"`
	// Aside: clients reach it by no virtual IP, so the node is fit without it.
	Aside bool `json:"aside,omitempty"`
	// SessionsLeft were on drained servers when it was last looked, once a second,
	// under TANDEM_DRAIN_TIMEOUT; what is found is closed.
	SessionsLeft int `json:"sessions_left,omitempty"`
	// SessionsClosed counts those, since the sidecar started.
	SessionsClosed uint64 `json:"sessions_closed,omitempty"`
	// Map says how the active-site map (TANDEM_MAP) stands: current or
	// not-current. Absent: none is kept, or it was not looked at yet.
	Map string `json:"map,omitempty"`
	// Each is every one of several; empty where there is one.
	Each []HAProxy `json:"each,omitempty"`
}

// The words of HAProxy.Map.
const (
	MapCurrent    = "current"     // file and memory are as decided, by reading back
	MapNotCurrent = "not-current" // a warning of the node says why
)

// Node is one sidecar as this one sees it.
type Node struct {
	Name        string `json:"name"`
	Role        string `json:"role"`
	Site        string `json:"site,omitempty"`
	Voter       bool   `json:"voter"`
	Alive       bool   `json:"alive"`
	Eligible    bool   `json:"eligible"`
	Reason      string `json:"reason"` // why it is not eligible or not alive
	Detail      string `json:"detail,omitempty"`
	Maintenance bool   `json:"maintenance"`
	Version     string `json:"version,omitempty"`
	// HAProxy is null where there is none, and of a node that is not heard.
	HAProxy *HAProxy `json:"haproxy"`
	VIPs    []string `json:"vips"` // addresses that it carries now
	// Yielding are the groups of addresses that it has handed over and whose
	// connections it serves to their end.
	Yielding     []string `json:"yielding,omitempty"`
	Fence        string   `json:"fence,omitempty"`
	AppliedEpoch uint64   `json:"applied_epoch"`
	AgeMS        int64    `json:"age_ms"` // since it was last heard; -1: never
	Warnings     []string `json:"warnings,omitempty"`
	// Keys names the keys that it holds (a hash of each), the one that encrypts
	// first. None: it does not encrypt, or is of a version that does not tell.
	Keys []string `json:"keys,omitempty"`
	// Protocol is the newest version of the messages that it reads; 0: unknown.
	Protocol int `json:"protocol,omitempty"`
}

// View is what one load balancer sees of one site.
type View struct {
	Node   string `json:"node"`
	Group  string `json:"group,omitempty"`
	Site   string `json:"site"`
	Usable bool   `json:"usable"`
	Reason string `json:"reason,omitempty"`
	AgeMS  int64  `json:"age_ms"`
	// Stale: the node is not heard any more. It is what was seen then, and counts
	// for nothing.
	Stale    bool      `json:"stale,omitempty"`
	Backends []Backend `json:"backends"`
}

// Backend counts the servers of one backend that belong to one site.
type Backend struct {
	Name  string `json:"name"`
	Up    int    `json:"up"`
	Total int    `json:"total"`
}

// Held is a server that somebody holds by hand, and that tandem leaves alone.
type Held struct {
	Node   string `json:"node"`
	Server string `json:"server"` // backend/server
	Kind   string `json:"kind"`   // maintenance, drain, weight, agent
	Detail string `json:"detail,omitempty"`
}

// Transition is one change, with the reason word that also stands in the log
// and in the metric.
type Transition struct {
	At       time.Time `json:"at"`
	Node     string    `json:"node"`     // who saw it
	Resource string    `json:"resource"` // vip/<group>, site, haproxy, node, …
	Event    string    `json:"event"`    // take-up, let-go, decided, switch, hook, command …
	From     string    `json:"from,omitempty"`
	To       string    `json:"to,omitempty"`
	Epoch    uint64    `json:"epoch,omitempty"`
	Reason   string    `json:"reason"`
	Actor    string    `json:"actor,omitempty"` // who asked; empty: tandem itself
	Detail   string    `json:"detail,omitempty"`
	Phase    string    `json:"phase,omitempty"`
}

// The events of commands. One that is not carried out is named after its kind,
// as takeover-refused, and its reason is that of the refusal.
const (
	EventCommand = "command"
	Refused      = "-refused"
	Unanswered   = "-unanswered" // it may still take effect
)

// IsCommand says whether t is what somebody asked for, not what came of it.
func (t Transition) IsCommand() bool { return t.Event == EventCommand || t.NotDone() }

// NotDone says whether t is a command that was refused, or that nobody answered.
func (t Transition) NotDone() bool {
	return strings.HasSuffix(t.Event, Refused) || strings.HasSuffix(t.Event, Unanswered)
}

// Event is a transition on its way to somebody who watches.
type Event struct {
	Transition
	CommandID string `json:"command_id,omitempty"`
	// ID is its place in what this process has told; empty: it is not kept.
	ID string `json:"-"`
}

// Command is what an operator asks for.
type Command struct {
	ID       string        `json:"id,omitempty"`
	Kind     string        `json:"kind"` // takeover, renounce, move, pause, resume, maintenance, ack
	Site     string        `json:"site,omitempty"`
	Group    string        `json:"group,omitempty"`
	To       string        `json:"to,omitempty"`   // move: the node
	Node     string        `json:"node,omitempty"` // maintenance: the node
	On       bool          `json:"on,omitempty"`   // maintenance on or off
	Force    bool          `json:"force,omitempty"`
	Duration time.Duration `json:"duration,omitempty"` // pause: nanoseconds; 0 is until resume
	Begin    bool          `json:"begin,omitempty"`    // answer as soon as it has begun; the rest is told by events
	Actor    string        `json:"actor,omitempty"`    // who, and from where
}

// Result is what came of a command.
type Result struct {
	OK      bool   `json:"ok"`
	Reason  string `json:"reason,omitempty"`  // the word, when refused
	Message string `json:"message,omitempty"` // a sentence, with what to do
	Epoch   uint64 `json:"epoch,omitempty"`
	Node    string `json:"node,omitempty"` // who carried it out
}
