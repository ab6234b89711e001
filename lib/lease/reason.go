package lease

// Reason is why something happened or was refused: one word, the same in log,
// metric, API and documentation.
type Reason string

// Why a lease was taken up or let go.
const (
	Acquired     Reason = "acquired"      // a quorum accepted a lease that nobody had
	HandedOver   Reason = "handed-over"   // the former holder released it
	LeaseExpired Reason = "lease-expired" // no quorum renewed it in time
	Superseded   Reason = "superseded"    // others say that somebody else holds it
	PairHealed   Reason = "pair-healed"   // both of a pair held it; the higher epoch goes on
	Withdrawn    Reason = "withdrawn"     // a bid that came to nothing
)

// Why a voter refused.
const (
	PromisedHigher Reason = "promised-higher" // rule A1
	LeaseLive      Reason = "lease-live"      // rule A2: another owner's lease is not over
	BallotReleased Reason = "ballot-released" // rule A3
	Quarantine     Reason = "quarantine"      // rule A4: started a moment ago
	LeaseTooLong   Reason = "lease-too-long"  // longer than MaxLease
	StaleRequest   Reason = "stale-request"   // an older request than the one accepted last
)

// Why a message, or a part of one, was ignored.
const (
	WrongAddressee   Reason = "wrong-addressee"
	OwnMessage       Reason = "own-message"
	NameTaken        Reason = "name-taken" // another process has this node's name
	NotAVoter        Reason = "not-a-voter"
	StaleReply       Reason = "stale-reply"
	FormerLife       Reason = "former-life"     // the answer of a voter that has restarted since
	BallotMismatch   Reason = "ballot-mismatch" // the sender is not the ballot's owner
	UnknownKind      Reason = "unknown-kind"
	BadItem          Reason = "bad-item"
	TooManyResources Reason = "too-many-resources"
)

// Why a request of the caller was refused, and other things worth a log line.
const (
	NotHolder       Reason = "not-holder"
	ValueTooLarge   Reason = "value-too-large"
	FloorTooHigh    Reason = "floor-too-high"   // the fence needs a longer lease than MaxLease
	SettingsDiffer  Reason = "settings-differ"  // a peer has other voters, mode or longest lease
	HoldersConflict Reason = "holders-conflict" // another node says that it holds what this one holds
	Alone           Reason = "alone"            // pair mode: going on without the peer, unsafe
	PeerBack        Reason = "peer-back"        // pair mode: the peer votes again
	HigherBallot    Reason = "higher-ballot"    // a holder goes through phase 1 again
)
