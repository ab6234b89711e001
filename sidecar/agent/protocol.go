package agent

import (
	"slices"

	"tandem/lib/lease"
	"tandem/sidecar/status"
)

// The versions of the messages between sidecars. The lease messages name theirs in
// their first byte; the others are JSON, in which what is not known is left
// out. A node reads every version from the oldest to the newest that it knows,
// and speaks the newest that all others read: so a cluster in the middle of an
// upgrade speaks the old one, whatever the order, and changes over when the
// last node has been upgraded.
const (
	oldestProtocol = lease.Version
	NewestProtocol = lease.Version // as this source has it
)

// newest is the newest version that this node reads.
func (a *Agent) newest() int { return max(a.cfg.Protocol, NewestProtocol) }

// speaks is the version in which this node writes. Of a voter that has not
// been heard since it last started nothing is known, so it may be an old one.
func (a *Agent) speaks() int {
	v := a.newest()
	for _, name := range a.cfg.Voters {
		if name != a.cfg.Node {
			v = min(v, a.reads(a.peers[name]))
		}
	}
	for _, p := range a.peers {
		if !p.voter && p.report != nil {
			v = min(v, a.reads(p))
		}
	}
	return max(v, oldestProtocol)
}

func (a *Agent) reads(p *peer) int {
	if p == nil || p.report == nil {
		return oldestProtocol
	}
	return max(p.report.Protocol, oldestProtocol)
}

func (a *Agent) protocol() status.Protocol {
	return status.Protocol{Speaks: a.speaks(), Oldest: oldestProtocol, Newest: a.newest()}
}

// encodeLease writes a lease message in the version that is spoken.
func (a *Agent) encodeLease(m lease.Message) []byte {
	b := lease.Encode([]byte{kindLease}, m)
	b[1] = byte(a.speaks())
	return b
}

// decodeLease reads a lease message of any version that this node knows. Those
// newer than the oldest mean the same by it.
func (a *Agent) decodeLease(body []byte) (lease.Message, error) {
	if len(body) > 0 && int(body[0]) > oldestProtocol && int(body[0]) <= a.newest() {
		body = slices.Clone(body)
		body[0] = oldestProtocol
	}
	return lease.Decode(body)
}
