package lease

import "time"

// Input is what a machine can be told. Each Step takes one.
type Input interface{ isInput() }

// Tick says that the time of Output.Wake has come. It is harmless at any time.
type Tick struct{}

// Receive delivers a message of another node.
type Receive struct{ Message Message }

// Stand says whether this node wants the lease. It may be repeated freely.
// Rank 0 bids at once when the lease is free, rank n after n × 50 ms and 0 to
// 25 ms at random; Immediate bids at once whatever the rank.
//
// A holder that no longer stands keeps the lease: whether nobody is better than
// somebody unfit is the caller's decision, which calls Release.
type Stand struct {
	Resource  string
	Willing   bool
	Rank      int
	Immediate bool
}

// Release gives the lease up, to a named successor or to whoever bids first.
// The successor bids as soon as the release arrives; everybody else, this node
// too, holds back for 200 ms. Without the lease it withdraws a bid.
type Release struct {
	Resource  string
	Successor string
	Reason    Reason
}

// Propose asks for a new decision, with the current epoch plus one; holder
// only. One decision is in flight at a time: another one waits until it is
// decided, and a newer one replaces the one that waits. Data must not be
// written to afterwards.
type Propose struct {
	Resource string
	Data     []byte
}

// Reach is the result of the isolation test, for pair mode: OK if this node
// reaches something besides its peer. A result counts if the test began after the
// peer was last heard, and for MaxLease: what passed before says nothing of what
// has been cut since. Repeat it while the peer is silent.
type Reach struct {
	OK    bool
	Began time.Duration // when the test that passed began; 0: now
}

// Floor is the shortest lease that the fence in force allows. A node whose
// fence needs a longer lease than MaxLease does not bid.
type Floor struct{ Min time.Duration }

func (Tick) isInput()    {}
func (Receive) isInput() {}
func (Stand) isInput()   {}
func (Release) isInput() {}
func (Propose) isInput() {}
func (Reach) isInput()   {}
func (Floor) isInput()   {}

// Output is what the caller must do, in the order of the fields. Its slices
// are valid until the next Step.
type Output struct {
	LetGo   []LetGo
	Persist []Record // with a state directory: on disk before Send goes out
	Send    []Envelope
	TakeUp  []TakeUp
	Renewed []Renewed
	Decided []Decided
	Notes   []Note
	Wake    time.Duration // when to Step(Tick) at the latest, on the clock of now
}

// LetGo is a lease that this node no longer has, from this moment on.
type LetGo struct {
	Resource  string
	Reason    Reason
	Successor string        // named by Release; else empty
	Deadline  time.Duration // until when it would have lasted
}

// Envelope is a message and the node it is for. A node gets one in a step, or
// several if one would be longer than a datagram should be.
type Envelope struct {
	To      string
	Message Message
}

// TakeUp is a lease that this node has from now on. With reason PairHealed the
// node had it already: the other one let go, and what was announced must be
// announced again.
type TakeUp struct {
	Resource    string
	Reason      Reason
	Deadline    time.Duration
	Value       Value  // adopted from the voters; blank if there was none
	Predecessor string // the last other holder that this node knows of
	Planned     bool   // the predecessor released it
}

// Renewed is a lease whose deadline has moved on.
type Renewed struct {
	Resource string
	Deadline time.Duration
}

// Decided is a value that a quorum has accepted. Each is reported once, and
// never an older one after a newer one.
type Decided struct {
	Record Record
	Holder string // under whose lease
}

// Note is something refused, ignored or remarkable, for log and metrics.
type Note struct {
	Resource string
	Reason   Reason
	Detail   string
}

// State is what a node is with regard to a resource.
type State string

// The states.
const (
	Listening State = "listening" // not a voter
	Following State = "following"
	Bidding   State = "bidding"
	Holding   State = "holding"
	Releasing State = "releasing" // let go; not every voter has confirmed yet
)

// Status is what a machine knows of a resource.
type Status struct {
	Resource string
	State    State
	Holder   string        // empty if not known. Never act on it, unless Self
	Self     bool          // this node holds it
	Deadline time.Duration // Self: when it must have let go
	Expires  time.Duration // not Self: when this node stops believing in Holder
	Told     time.Duration // not Self: the end of the lease as its holder told it last; 0: nobody did, or it is over
	Value    Value         // the last decided one that this node knows
	Epoch    uint64        // of Value
	Asked    time.Duration // the lease length this node asks for
	Renewing bool          // Self: a renewal is on its way that no quorum has answered yet
	Alone    bool          // pair mode, Self: without the peer's vote, unsafe
}
