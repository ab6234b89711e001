package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

const (
	retransmitMult = 4
	maxSeen        = 4096 // broadcasts remembered, by origin and key
	maxQueue       = 256

	maxBroadcastFrame = MaxBroadcast + 1 + 1 + maxKey + 1 + maxName + 9 + 8
)

// Frames: what we put before a message, inside of the encryption.
//
//	1, message                                                      to one node
//	2, len, key, len, origin, number (8, big endian), message       to all
const (
	frameDirect    = 1
	frameBroadcast = 2
)

var errFrame = errors.New("decode frame: malformed or of an unknown kind")

// frame is a decoded message.
type frame struct {
	broadcast bool
	key       string
	origin    string // name on the wire of the node that began it
	number    uint64 // grows with each broadcast of the origin
	payload   []byte // aliases the input
}

func directFrame(b []byte) []byte {
	return append(append(make([]byte, 0, len(b)+1), frameDirect), b...)
}

func (f frame) encode() []byte {
	out := make([]byte, 0, 1+1+1+8+len(f.key)+len(f.origin)+len(f.payload))
	out = append(out, frameBroadcast, byte(len(f.key)))
	out = append(out, f.key...)
	out = append(out, byte(len(f.origin)))
	out = append(out, f.origin...)
	out = binary.BigEndian.AppendUint64(out, f.number)
	return append(out, f.payload...)
}

// decodeFrame never keeps b, but the payload aliases it.
func decodeFrame(b []byte) (frame, error) {
	if len(b) == 0 {
		return frame{}, errFrame
	}
	switch b[0] {
	case frameDirect:
		return frame{payload: b[1:]}, nil
	case frameBroadcast:
		f := frame{broadcast: true}
		var ok bool
		if f.key, b, ok = cutString(b[1:], maxKey); !ok {
			return frame{}, errFrame
		}
		if f.origin, b, ok = cutString(b, maxName+9); !ok || len(b) < 8 {
			return frame{}, errFrame
		}
		if _, _, ok = splitName(f.origin); !ok {
			return frame{}, errFrame
		}
		f.number, f.payload = binary.BigEndian.Uint64(b), b[8:]
		return f, nil
	default:
		return frame{}, errFrame
	}
}

func cutString(b []byte, limit int) (s string, rest []byte, ok bool) {
	if len(b) == 0 || int(b[0]) > limit || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}

// spread hands broadcasts on: its own, and those of others when it sees them
// for the first time. Of one origin and key only the newest lives; those of
// different origins do not touch each other, since only the reader of the
// messages knows which of them counts.
type spread struct {
	members func() int
	fresh   chan struct{} // there is something that has not been pushed yet

	mu     sync.Mutex
	number uint64
	seen   map[string]uint64 // the newest number, by origin and key
	order  []string          // of seen, the oldest first
	queue  []*broadcast
}

// broadcast is a frame on its way. Each is handed out several times, more often
// in a large cluster.
type broadcast struct {
	id     string
	raw    []byte
	times  int
	pushed bool
}

func newSpread(members func() int, number uint64) *spread {
	return &spread{members: members, number: number, fresh: make(chan struct{}, 1), seen: map[string]uint64{}}
}

// own queues a broadcast of this node.
func (s *spread) own(origin, key string, b []byte) error {
	if len(b) > MaxBroadcast || len(key) > maxKey {
		return fmt.Errorf("broadcast %q: %d bytes, at most %d fit, and %d for the key", key, len(b), MaxBroadcast, maxKey)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	f := frame{broadcast: true, key: key, origin: origin, number: s.number, payload: b}
	s.note(f)
	s.enqueue(f, f.encode())
	return nil
}

// first says whether a broadcast of another node is new, and if so hands it on.
func (s *spread) first(f frame, raw []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, known := s.seen[f.id()]; known && f.number <= old {
		return false
	}
	s.note(f)
	if len(raw) <= maxBroadcastFrame {
		s.enqueue(f, raw)
	}
	return true
}

// enqueue replaces what is queued of the same origin and key. It is no
// TransmitLimitedQueue: that of memberlist v0.7.0 loses messages. When one
// replaces the only one that is queued, its number is given out again, and the
// next message of the same length takes its place without a word.
func (s *spread) enqueue(f frame, raw []byte) {
	id := f.id()
	s.queue = slices.DeleteFunc(s.queue, func(b *broadcast) bool { return b.id == id })
	if len(s.queue) >= maxQueue {
		s.queue = slices.Delete(s.queue, len(s.queue)-1, len(s.queue)) // the one sent most often
	}
	s.queue = slices.Insert(s.queue, 0, &broadcast{id: id, raw: raw})
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}

// push is what has come since the last push. A broadcast is sent to some members
// at once, by each node that sees it for the first time, and handed out in the
// rounds of gossip afterwards, for those who have missed it. So the rounds need
// not be frequent, and a node with nothing to tell sleeps.
func (s *spread) push() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]byte
	for _, b := range s.queue {
		if !b.pushed {
			b.pushed = true
			out = append(out, b.raw)
		}
	}
	return out
}

// take is memberlist's GetBroadcasts: those handed out least often, as many as
// fit. Each is handed out one round more often than memberlist would: with five
// nodes and a tenth of the datagrams lost, each node would miss about one
// broadcast in 250 and wait for the next exchange of state.
func (s *spread) take(overhead, limit int) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	often := retransmitMult * (1 + int(math.Ceil(math.Log10(float64(s.members()+1)))))
	var out [][]byte
	for _, b := range s.queue {
		if overhead+len(b.raw) > limit {
			continue
		}
		limit -= overhead + len(b.raw)
		out = append(out, b.raw)
		b.times++
	}
	s.queue = slices.DeleteFunc(s.queue, func(b *broadcast) bool { return b.times >= often })
	slices.SortStableFunc(s.queue, func(a, b *broadcast) int { return a.times - b.times })
	return out
}

// note remembers a broadcast; of too many it forgets the one known longest.
func (s *spread) note(f frame) {
	id := f.id()
	if _, known := s.seen[id]; !known {
		if len(s.order) >= maxSeen {
			delete(s.seen, s.order[0])
			s.order = s.order[1:]
		}
		s.order = append(s.order, id)
	}
	s.seen[id] = f.number
}

func (f frame) id() string { return f.origin + "/" + f.key }
