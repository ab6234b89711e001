package site

import "time"

// Input is one thing that happened: Adopt, Decided, World, Command, HookDone
// or Tick.
type Input interface{ isInput() }

// Adopt says that this node has taken up the site lease, and with which value.
// A switch found under way is continued.
type Adopt struct {
	Decision Decision
	Epoch    uint64
	Blank    bool // nobody knew a value
	// PauseLeft is how long a pause that has an end still lasts, as far as this
	// node knows.
	PauseLeft time.Duration
	// Ages are how long ago the groups came into the phases that they are in, as
	// far as this node knows: no switch of theirs that counts began later.
	Ages map[string]time.Duration
}

// Decided says that a quorum accepted a decision.
type Decided struct {
	Decision Decision
	Epoch    uint64
}

// World is what is known of the load balancers, as a whole: a later World
// replaces an earlier one.
type World struct {
	Nodes    []NodeWorld
	Hooks    Hooks    // which hooks some live node has commands for; added to those of Config
	Hookable []string // sites in which a live node can run hooks (all of them, if TANDEM_SITE is not used)
}

// NodeWorld is what is known of one load balancer. Witnesses, nodes that only
// run hooks and nodes that only observe are not load balancers.
type NodeWorld struct {
	Node         string
	Alive        bool // heard of late
	HAProxyAlive bool
	Barred       bool  // cannot carry traffic (maintenance, no carrier): its view is no reason to stay
	View         *View // nil: none yet
	ViewAge      time.Duration
	AppliedEpoch uint64 // highest epoch that its HAProxy was read back to obey

	// Of one that is not Alive:
	Silent  time.Duration // since when nothing came from it; 0: not known
	Lingers time.Duration // how long it may route on without word, when that is less than Config.IsolatedAfter; 0: it is not
}

// CommandKind is what an operator may ask of the decider.
type CommandKind string

// The commands.
const (
	Takeover CommandKind = "takeover" // make Site active
	Renounce CommandKind = "renounce" // give Site (or whatever is active) up to the next usable one
	Pause    CommandKind = "pause"    // no automatic decision for Duration; 0: until resume
	Resume   CommandKind = "resume"
	Ack      CommandKind = "ack" // automatic switching may go on after flapping
)

// Command asks for something. A command with an ID that was seen of late gets
// its last reply again and has no other effect.
type Command struct {
	ID       string
	Kind     CommandKind
	Site     string
	Group    string // empty: default
	Force    bool
	Actor    string
	Duration time.Duration
}

// HookDone is the result of a HookRun: all its commands succeeded, or not.
type HookDone struct {
	ID     string
	OK     bool
	Err    Reason // node-lost and no-node have a meaning here; any other word is a failure
	Detail string
}

// Tick says that time has passed.
type Tick struct{}

func (Adopt) isInput()    {}
func (Decided) isInput()  {}
func (World) isInput()    {}
func (Command) isInput()  {}
func (HookDone) isInput() {}
func (Tick) isInput()     {}

// Output is what the caller has to do, in the order of the fields.
type Output struct {
	Propose     *Decision    // to the lease; comes back as Decided. A repetition replaces the former
	Hooks       []HookRun    // to a node of the site concerned; come back as HookDone
	Path        *PathHint    // a level, not an event: nil when there is none
	Replies     []Reply      // to who gave the command
	Transitions []Transition // to log, metrics, history
	Wake        time.Duration
}

// HookKind is what a hook is for.
type HookKind string

// The kinds; the words are those of TANDEM_EVENT.
const (
	HookPrecheck HookKind = "precheck"
	HookTakeover HookKind = "takeover"
	HookRenounce HookKind = "renounce"
	HookNotify   HookKind = "notify"
)

// HookRun asks for the commands of one hook to be run once in the cluster.
//
// Another decider asks for the same ID again if the first died before the
// completion was recorded: at least once then, exactly once otherwise.
type HookRun struct {
	ID      string // kind/group/site/epoch: the same for every repetition
	Kind    HookKind
	Group   string
	Site    string // whose nodes run it
	From    string
	To      string
	Epoch   uint64 // fencing token: a lower one than was seen for Group must be refused
	Reason  Reason
	Planned bool
	Actor   string
}

// PathHint says that the active site is seen by some load balancers and not by
// others: the path is broken, not the site. Virtual IPs belong on Better.
type PathHint struct {
	Group  string // the first group concerned
	Site   string
	Better []string
	Worse  []string
}

// Reply answers a command; several may come before the one that is Done.
type Reply struct {
	ID     string
	OK     bool
	Done   bool
	Reason Reason
	Text   string // a sentence; when refused, with what to do
	Group  string
	Phase  Phase
	Epoch  uint64
}

// Event is the kind of a Transition.
type Event string

// The events.
const (
	EventBoot   Event = "boot"   // first decision of a group
	EventAdopt  Event = "adopt"  // a switch under way was found and is continued
	EventSwitch Event = "switch" // a switch began
	EventPhase  Event = "phase"
	EventDone   Event = "done"  // the target is active, the switch is over
	EventAbort  Event = "abort" // the switch ended without its target becoming active
	EventStay   Event = "stay"  // nothing is done, and why; told when the reason changes
	EventPath   Event = "path"
	EventHook   Event = "hook" // a result
	EventSkip   Event = "skip" // a load balancer that could not be waited for
	EventPause  Event = "pause"
	EventResume Event = "resume"
	EventAck    Event = "ack"
)

// Transition is one line of the history.
type Transition struct {
	Event  Event
	Group  string
	From   string
	To     string
	Phase  Phase
	Epoch  uint64
	Reason Reason
	Actor  string
	Detail string
}
