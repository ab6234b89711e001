package lease

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func fullMessage() Message {
	b := Ballot{Counter: 300, Incarnation: Incarnation{1, 2}, Node: "lb1"}
	return Message{
		From: Owner{"lb1", Incarnation{1, 2}}, To: "witness", Settings: 1 << 60,
		Items: []Item{
			{Kind: KindPrepare, Resource: "site", Ballot: b, Seq: 1},
			{
				Kind: KindPropose, Resource: "vip/default", Ballot: b, Seq: 7, Lease: 500 * time.Millisecond, Held: true,
				Remaining: 400 * time.Millisecond, Value: Value{Epoch: 3, Data: []byte(`{"active":"a"}`)}, ValueSeq: 5, Commit: 5,
			},
			{
				Kind: KindRefuse, Resource: "site", Ballot: b, Echo: 9, Promised: b, Holder: Owner{"lb2", Incarnation{9}},
				Remaining: time.Second, Reason: LeaseLive,
			},
			{Kind: KindPromise, Resource: "site", Ballot: b, Echo: 2, Accepted: b, ValueSeq: 4, Value: Value{Epoch: 1}},
			{Kind: KindRelease, Resource: "site", Ballot: b, Seq: 8, Successor: "lb2", Reason: "planned"},
		},
	}
}

func TestDecodeReversesEncode(t *testing.T) {
	m := fullMessage()
	b := Encode(nil, m)
	got, err := Decode(b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, m)
	}
	rapid.Check(t, func(t *rapid.T) {
		m := Message{
			From:     Owner{Node: rapid.StringN(1, 20, MaxName).Draw(t, "node")},
			Settings: rapid.Uint64().Draw(t, "settings"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "items") {
			m.Items = append(m.Items, Item{
				Kind: Kind(rapid.IntRange(1, 255).Draw(t, "kind")), Resource: rapid.StringN(1, 20, MaxResource).Draw(t, "resource"),
				Ballot: Ballot{Counter: rapid.Uint64Range(0, maxCounter).Draw(t, "counter"), Node: rapid.StringN(0, 20, MaxName).Draw(t, "owner")},
				Seq:    rapid.Uint64().Draw(t, "seq"), Held: rapid.Bool().Draw(t, "held"),
				Lease: time.Duration(rapid.Int64Range(0, int64(maxAsked)).Draw(t, "lease")),
			})
		}
		b := Encode(nil, m)
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("got %+v, %v; want %+v", got, err, m)
		}
		size := headerSize(&m)
		for i := range m.Items {
			size += itemSize(&m.Items[i])
		}
		if len(b) > size {
			t.Fatalf("%d bytes, estimated at most %d", len(b), size)
		}
	})
}

func TestUnknownVersionIsTold(t *testing.T) {
	b := Encode(nil, fullMessage())
	b[0]++
	if _, err := Decode(b); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v, want ErrVersion", err)
	}
}

// TestEveryByteChanged changes, cuts and repeats real messages: nothing of it
// may panic, and a machine that is given what still decodes lives on.
func TestEveryByteChanged(t *testing.T) {
	good := Encode(nil, fullMessage())
	m, err := New(Config{
		Node: "witness", Incarnation: Incarnation{7}, Voters: []string{"lb1", "lb2", "witness"},
		MaxLease: time.Second, Tuning: Tuning{Fixed: time.Second},
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	now := 3 * time.Second
	try := func(b []byte) {
		if msg, err := Decode(b); err == nil {
			now += time.Millisecond
			m.Step(now, Receive{msg})
		}
	}
	for i := range good {
		try(good[:i])
		for _, x := range []byte{0x00, 0x01, 0x7f, 0x80, 0xff, good[i] ^ 1, good[i] ^ 0x80} {
			b := bytes.Clone(good)
			b[i] = x
			try(b)
		}
	}
	try(append(bytes.Clone(good), good...))
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(nil, fullMessage()))
	f.Add([]byte{Version})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrVersion) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("unnamed error %v", err)
			}
			return
		}
		again, err := Decode(Encode(nil, m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("not the same again: %+v, %v; want %+v", again, err, m)
		}
	})
}

// FuzzReceive lets a machine take whatever decodes, as if it came from a peer.
func FuzzReceive(f *testing.F) {
	f.Add(Encode(nil, fullMessage()))
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := Decode(b)
		if err != nil {
			return
		}
		m, err := New(Config{
			Node: "lb2", Incarnation: Incarnation{7}, Voters: []string{"lb1", "lb2", "witness"},
			MaxLease: time.Second, Tuning: Tuning{Fixed: time.Second},
		}, 0)
		if err != nil {
			t.Fatal(err)
		}
		now := 3 * time.Second
		m.Step(now, Stand{Resource: "site", Willing: true})
		for range 3 {
			msg.To = "lb2"
			now += 10 * time.Millisecond
			out := m.Step(now, Receive{msg})
			if len(out.TakeUp) > 0 {
				t.Fatal("took a lease up with one voter's answer")
			}
		}
		if len(m.resources) > MaxResources {
			t.Fatal("too many resources")
		}
	})
}

// TestCorpus keeps the committed corpus in place: it is what go test replays.
func TestCorpus(t *testing.T) {
	for _, name := range []string{"FuzzDecode", "FuzzReceive"} {
		files, err := os.ReadDir(filepath.Join("testdata", "fuzz", name))
		if err != nil || len(files) == 0 {
			t.Errorf("no corpus of %s: %v", name, err)
		}
		for _, f := range files {
			if strings.HasPrefix(f.Name(), ".") {
				t.Errorf("%s: hidden file", f.Name())
			}
		}
	}
}
