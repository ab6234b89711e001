package gossip

import (
	"bytes"
	"testing"
)

func TestBroadcastQueueKeepsEqualLengths(t *testing.T) {
	// The case in which memberlist's own queue loses a message; see enqueue.
	s := newSpread(func() int { return 3 }, 0)
	for _, b := range []string{"a1", "a2", "a3"} {
		if err := s.own("n1.00000001", "site", []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	other := frame{broadcast: true, key: "site", origin: "n2.00000002", number: 1, payload: []byte("b1")}
	if !s.first(other, other.encode()) {
		t.Fatal("a new broadcast was not new")
	}
	got := s.take(2, 1000)
	if len(got) != 2 || !bytes.HasSuffix(got[0], []byte("b1")) || !bytes.HasSuffix(got[1], []byte("a3")) {
		t.Errorf("handed out %q", got)
	}
}

func TestBroadcastIsHandedOutALimitedNumberOfTimes(t *testing.T) {
	for members, want := range map[int]int{1: 8, 9: 8, 10: 12, 300: 16} {
		s := newSpread(func() int { return members }, 0)
		_ = s.own("n1.00000001", "k", []byte("x"))
		times := 0
		for len(s.take(2, 1000)) > 0 {
			times++
		}
		if times != want {
			t.Errorf("%d members: handed out %d times, want %d", members, times, want)
		}
	}
}

func TestBroadcastMemoryIsBounded(t *testing.T) {
	s := newSpread(func() int { return 3 }, 0)
	for i := range 3 * maxSeen {
		f := frame{broadcast: true, key: "k", origin: "n.00000001", number: 1, payload: []byte("x")}
		f.key = string([]byte{byte(i), byte(i >> 8)})
		s.first(f, f.encode())
	}
	if len(s.seen) > maxSeen || len(s.queue) > maxQueue {
		t.Errorf("%d remembered, %d queued", len(s.seen), len(s.queue))
	}
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(directFrame([]byte("renew")))
	f.Add(frame{broadcast: true, key: "site", origin: "lb1.0a1b2c3d", number: 7, payload: []byte("decision")}.encode())
	f.Add([]byte{frameBroadcast, 255, 1, 2, 3})
	f.Add([]byte{3})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFrame(b)
		if err != nil {
			return
		}
		again := directFrame(got.payload)
		if got.broadcast {
			again = got.encode()
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, got, again)
		}
	})
}
