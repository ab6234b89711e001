package gossip

import (
	"errors"
	"strings"
)

// Reason says in one word why a peer is not a member, or why something that
// came in was dropped. The words are the same in Health, log and metrics.
type Reason string

// Why a peer is not a member.
const (
	ReasonNone         Reason = ""              // it is a member
	ReasonJoining      Reason = "joining"       // no attempt has ended yet
	ReasonUnresolved   Reason = "unresolved"    // its name has no address
	ReasonUnreachable  Reason = "unreachable"   // no answer, or no route
	ReasonRefused      Reason = "refused"       // its machine answers, nobody listens on the port
	ReasonWrongKey     Reason = "wrong-key"     // it uses a key that we do not have
	ReasonOtherCluster Reason = "other-cluster" // it belongs to a cluster of another name
	ReasonNotEncrypted Reason = "not-encrypted" // it does not encrypt, we do
	ReasonEncrypted    Reason = "encrypted"     // it encrypts, we do not
	ReasonClosed       Reason = "closed"        // it hung up without a word: other cluster, other key mode, or overloaded
	ReasonOtherName    Reason = "other-name"    // a node of another name answers at its address
	ReasonFailed       Reason = "failed"        // anything else; see the detail
)

// Why the guard dropped something. ReasonOtherCluster, ReasonNotEncrypted and
// ReasonEncrypted are used here as well.
const (
	ReasonUnlabelled    Reason = "unlabelled"     // not our protocol at all
	ReasonShort         Reason = "short"          // cut off
	ReasonVersion       Reason = "version"        // an encryption version that we do not speak
	ReasonOversized     Reason = "oversized"      // a stream that declares too much
	ReasonStreams       Reason = "streams"        // too many streams at a time
	ReasonStreamsOfOne  Reason = "streams-of-one" // too many streams of one address
	ReasonSlow          Reason = "slow"           // no header within its time
	ReasonForeignAnswer Reason = "foreign-answer" // an answer to a stream of ours that is not of our protocol
	ReasonFull          Reason = "full"           // a queue of ours is full
	ReasonFrame         Reason = "frame"          // authentic, but not a message that this version knows
	ReasonNameClash     Reason = "name-clash"     // two live processes have one node name
	ReasonBusy          Reason = "busy"           // too many reliable sends at a time
	ReasonSendBuffer    Reason = "send-buffer"    // the kernel has no room for another datagram
	ReasonSendFailed    Reason = "send-failed"    // the kernel or the peer refused it
	ReasonAcceptFailed  Reason = "accept-failed"  // the kernel hands out no more streams
	ReasonReceiveFailed Reason = "receive-failed" // the kernel cannot read from the socket
)

// Mend says in a line what an operator can do about a peer that is no member.
func (r Reason) Mend() string { return mends[r] }

var mends = map[Reason]string{
	ReasonJoining:      "wait: the first attempt is not over",
	ReasonUnresolved:   "its name has no address: check the peer list and the name server",
	ReasonUnreachable:  "nothing comes back from its address: check that its machine runs, that its process does not stand still, and that UDP and TCP pass the firewall",
	ReasonRefused:      "its machine answers, but nothing listens on the port: start it there, or correct the port",
	ReasonWrongKey:     "it uses a key that this node does not have: give both the same key",
	ReasonOtherCluster: "it belongs to a cluster of another name: give both the same cluster name",
	ReasonNotEncrypted: "it does not encrypt: give it the key",
	ReasonEncrypted:    "it encrypts: give this node the key",
	ReasonClosed:       "it hangs up without a word: compare key and cluster name, and look at its log",
	ReasonOtherName:    "a node of another name answers at its address: correct the peer list or the name of that node",
	ReasonFailed:       "see the detail",
}

var errAnswer = errors.New("answer is not of our protocol")

// The error of a join becomes a reason in classify. Memberlist flattens its
// errors into text, so text is all there is to go by; the texts are those of
// v0.7.0 and of the Go runtime, and a test pins them.
func classify(err error) Reason {
	if err == nil {
		return ReasonNone
	}
	text := err.Error()
	for _, c := range []struct {
		part   string
		reason Reason
	}{
		{"no installed keys could decrypt", ReasonWrongKey},
		{"encryption is configured but remote state is not encrypted", ReasonNotEncrypted},
		{string(ReasonNotEncrypted) + ": " + errAnswer.Error(), ReasonNotEncrypted},
		{string(ReasonEncrypted) + ": " + errAnswer.Error(), ReasonEncrypted},
		{"encryption is not configured", ReasonEncrypted},
		{"connection refused", ReasonRefused},
		{"i/o timeout", ReasonUnreachable},
		{"deadline exceeded", ReasonUnreachable},
		{"no route to host", ReasonUnreachable},
		{"network is unreachable", ReasonUnreachable},
		{"network is down", ReasonUnreachable},
		{"host is down", ReasonUnreachable},
		{"EOF", ReasonClosed},
		{"connection reset", ReasonClosed},
		{"broken pipe", ReasonClosed},
		{"closed pipe", ReasonClosed},
	} {
		if strings.Contains(text, c.part) {
			return c.reason
		}
	}
	return ReasonFailed
}
