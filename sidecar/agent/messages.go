package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// A message between sidecars is one kind byte and a body. Lease messages have
// a binary body (package lease); everything else is JSON with an envelope that
// names sender, addressee and the boot of both, since the transport delivers
// late, twice, out of order and does not protect against replay.
const (
	kindLease      byte = 'L'
	kindReport     byte = 'R'
	kindDecision   byte = 'D'
	kindCommand    byte = 'C'
	kindReply      byte = 'A'
	kindTransition byte = 'T'
	kindHook       byte = 'H'
	kindHookDone   byte = 'h'
)

// maxMessage bounds what is decoded: far above the largest report of a
// thousand backends, far below what could hurt.
const maxMessage = 1 << 20

// envelope is what every JSON message carries.
type envelope struct {
	From   string `json:"f"`
	Boot   string `json:"b"`           // the sender's incarnation, 8 hex digits
	To     string `json:"t,omitempty"` // empty: everybody
	ToBoot string `json:"tb,omitempty"`
	Seq    uint64 `json:"s"`
	// Heard is the number of the addressee's latest report that the sender has: it
	// tells the addressee how old the message may be at most.
	Heard uint64 `json:"h,omitempty"`
}

// report is what a node tells about itself, once a second and on change.
type report struct {
	envelope

	Role        string          `json:"role"`
	At          netip.AddrPort  `json:"at,omitzero"` // where it sends from
	Site        string          `json:"site,omitempty"`
	Version     string          `json:"version,omitempty"`
	Eligible    bool            `json:"eligible"`
	Reason      string          `json:"reason,omitempty"`
	Detail      string          `json:"detail,omitempty"`
	Maintenance bool            `json:"maintenance,omitempty"`
	Observe     bool            `json:"observe,omitempty"`
	HAProxy     *status.HAProxy `json:"haproxy,omitempty"`
	VIPs        []string        `json:"vips,omitempty"`
	Hops        map[string]hops `json:"hops,omitempty"`       // own addresses on the link of each group
	Yielding    []string        `json:"yielding,omitempty"`   // groups handed over whose connections are served here
	NoCarrier   []string        `json:"no_carrier,omitempty"` // groups that cannot be carried here
	Fence       string          `json:"fence,omitempty"`
	MinLease    time.Duration   `json:"min_lease,omitempty"`
	Applied     uint64          `json:"applied"`
	// Settings must be the same everywhere: the digests of the variables in the
	// order of their names. A report has to fit into one datagram.
	Settings []string      `json:"settings,omitempty"`
	View     *site.View    `json:"view,omitempty"`
	Held     []status.Held `json:"held,omitempty"`
	Hooks    []string      `json:"hooks,omitempty"` // the kinds that this node has commands for
	Took     []string      `json:"took,omitempty"`  // hooks of the present phase that run or ran here, by id
	Warnings []string      `json:"warnings,omitempty"`
	// Keys names the keys that this node holds, the one that encrypts first.
	Keys []string `json:"keys,omitempty"`
	// Protocol is the newest version of the messages that this node reads; 0 is
	// a version that does not tell, and reads the oldest.
	Protocol int `json:"protocol,omitempty"`
}

// hops are a node's own addresses on the link of a virtual IP: where strays of
// a planned move are sent.
type hops struct {
	Four netip.Addr `json:"4,omitzero"`
	Six  netip.Addr `json:"6,omitzero"`
}

// decision carries a decided value to those that have no vote.
type decision struct {
	envelope

	Holder  string       `json:"holder"`
	Epoch   uint64       `json:"epoch"`
	Ballot  lease.Ballot `json:"ballot"`
	Version uint64       `json:"version"`
	Data    []byte       `json:"data"`
}

// command is an operator's wish on its way to the node that can fulfil it.
type command struct {
	envelope

	Command status.Command `json:"command"`
}

// reply answers a command.
type reply struct {
	envelope

	ID     string        `json:"id"`
	Result status.Result `json:"result"`
}

// transition tells the others what happened here, so that every node can show
// the history of all.
type transition struct {
	envelope

	Items []status.Transition `json:"items"`
	// Old: they are told again, to a node that may not have been there.
	Old bool `json:"old,omitempty"`
}

// hookOrder asks a node to run the hooks of one phase. Epoch is the one in
// force: hooks of an earlier one are to be ended, and their end reported.
type hookOrder struct {
	envelope

	Run   site.HookRun `json:"run"`
	Epoch uint64       `json:"epoch,omitempty"`
	// Decider is the boot of the process under whose ballot the decision was made.
	Decider string `json:"decider,omitempty"`
}

// hookDone reports the end of a hook order.
type hookDone struct {
	envelope

	ID     string      `json:"id"`
	OK     bool        `json:"ok"`
	Err    site.Reason `json:"err,omitempty"`
	Detail string      `json:"detail,omitempty"`
}

var errTooLarge = errors.New("message too large")

// encode puts the kind before the JSON of m.
func encode(kind byte, m any) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message %q: %w", kind, err)
	}
	return append([]byte{kind}, body...), nil
}

// decode fills m from a message without its kind byte.
func decode(body []byte, m any) error {
	if len(body) > maxMessage {
		return fmt.Errorf("decode message: %w: %d bytes", errTooLarge, len(body))
	}
	if err := json.Unmarshal(body, m); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}
