package lease

import (
	"fmt"
	"time"
)

// Kind is what an item of a message asks or answers.
type Kind uint8

// The kinds. A renewal is a Propose: phase 2 alone, under the same ballot.
const (
	KindPrepare  Kind = 1 + iota // phase 1: may I propose under this ballot?
	KindPromise                  // yes, and this is what I accepted last
	KindPropose                  // phase 2 and renewal: remember my lease and my value
	KindAccept                   // I do
	KindRefuse                   // no, and why
	KindRelease                  // I let go; forget this lease
	KindReleased                 // forgotten
	KindInform                   // to nodes without a vote: who holds what, and what was decided
)

// answers reports whether the kind is an answer to a request.
func (k Kind) answers() bool {
	return k == KindPromise || k == KindAccept || k == KindRefuse || k == KindReleased
}

// String returns the name of the kind in lower case.
func (k Kind) String() string {
	switch k {
	case KindPrepare:
		return "prepare"
	case KindPromise:
		return "promise"
	case KindPropose:
		return "propose"
	case KindAccept:
		return "accept"
	case KindRefuse:
		return "refuse"
	case KindRelease:
		return "release"
	case KindReleased:
		return "released"
	case KindInform:
		return "inform"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Message is one datagram: everything that one node has to say to another in
// one step, about all resources.
type Message struct {
	From     Owner
	To       string // the node it is for; empty, for everybody, only if all items are KindInform
	Settings uint64 // fingerprint of voters, mode and longest lease
	Items    []Item
}

// Item is one request, reply or piece of news about one resource. Durations,
// never times, travel: the clocks of two nodes have nothing in common.
type Item struct {
	Kind     Kind
	Resource string
	Ballot   Ballot // of the request; a reply repeats it
	Seq      uint64 // the sender's number of a request, growing
	Echo     uint64 // in a reply: Seq of the request

	Lease     time.Duration // propose: the length asked for
	Held      bool          // propose, inform: the sender holds it; release: it held it
	Remaining time.Duration // propose, inform: held for so long still; refuse: the obstacle lasts so long
	Value     Value         // propose, inform: the value; promise: the one accepted last
	ValueSeq  uint64        // propose, inform, promise: Record.Seq of Value
	Accepted  Ballot        // promise: the ballot under which Value was accepted
	Commit    uint64        // propose, inform: Record.Seq of the value decided last under this ballot
	Promised  Ballot        // refuse: the ballot to exceed
	Holder    Owner         // refuse: whose lease is live
	Reason    Reason        // refuse, release
	Successor string        // release
}

// record is the value that a proposal carries.
func (it *Item) record() Record {
	return Record{Resource: it.Resource, Value: it.Value, Ballot: it.Ballot, Seq: it.ValueSeq}
}
