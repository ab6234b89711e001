package gossip

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

var testHeader = header{label: "gossip/test", encrypted: true}

// sealed is a datagram as it looks from outside.
func sealed(label string, version byte, size int) []byte {
	b := append([]byte{magicLabel, byte(len(label))}, label...)
	return append(append(b, version), make([]byte, size)...)
}

func TestWhatTheGuardLetsIn(t *testing.T) {
	const l = "gossip/test"
	for _, c := range []struct {
		name      string
		in        []byte
		encrypted bool
		want      Reason
	}{
		{"ours", sealed(l, 1, 40), true, ReasonNone},
		{"the shortest of ours", sealed(l, 1, encryptOverhead), true, ReasonNone},
		{"without a message in it", sealed(l, 1, encryptOverhead-1), true, ReasonShort},
		{"cut in the label", sealed(l, 1, 40)[:8], true, ReasonShort},
		{"only the label", sealed(l, 1, 40)[:2+len(l)], true, ReasonShort},
		{"other label", sealed("gossip/prod", 1, 40), true, ReasonOtherCluster},
		{"longer label", sealed("gossip/test2", 1, 40), true, ReasonOtherCluster},
		{"no label", []byte("GET / HTTP/1.1\r\n"), true, ReasonUnlabelled},
		{"one byte", []byte{magicLabel}, true, ReasonUnlabelled},
		{"nothing", nil, true, ReasonUnlabelled},
		{"the version that makes memberlist panic", sealed(l, 0, 40), true, ReasonVersion},
		{"a message in clear", sealed(l, 8, 40), true, ReasonNotEncrypted},
		{"jumbo", sealed(l, 1, maxPacket), true, ReasonOversized},
		{"a message in clear, insecure", sealed(l, 8, 4), false, ReasonNone},
		{"no label, insecure", []byte{8, 1, 2}, false, ReasonUnlabelled},
		{"other label, insecure", sealed("gossip/prod", 8, 4), false, ReasonOtherCluster},
	} {
		if got := (header{label: l, encrypted: c.encrypted}).packet(c.in); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// sealedStream is the beginning of a stream that declares a size.
func sealedStream(label string, kind byte, size uint32, version byte) []byte {
	b := append([]byte{magicLabel, byte(len(label))}, label...)
	b = binary.BigEndian.AppendUint32(append(b, kind), size)
	return append(b, version)
}

func TestWhatStreamsTheGuardLetsIn(t *testing.T) {
	const l = "gossip/test"
	for _, c := range []struct {
		name      string
		in        []byte
		encrypted bool
		want      Reason
		size      int
	}{
		{"ours", sealedStream(l, 10, 100, 1), true, ReasonNone, 100},
		{"the largest", sealedStream(l, 10, maxStream, 1), true, ReasonNone, maxStream},
		{"too large", sealedStream(l, 10, maxStream+1, 1), true, ReasonOversized, 0},
		{"empty", sealedStream(l, 10, encryptOverhead, 1), true, ReasonShort, 0},
		{"older version", sealedStream(l, 10, 100, 0), true, ReasonVersion, 0},
		{"in clear", sealedStream(l, 6, 100, 1), true, ReasonNotEncrypted, 0},
		{"other label", sealedStream("gossip/prod", 10, 100, 1), true, ReasonOtherCluster, 0},
		{"no label", []byte("GET / HTTP/1.1"), true, ReasonUnlabelled, 0},
		{"cut", sealedStream(l, 10, 100, 1)[:16], true, ReasonSlow, 0},
		{"nothing", nil, true, ReasonSlow, 0},
		{"in clear, insecure", sealedStream(l, 6, 100, 1)[:3+len(l)], false, ReasonNone, maxStream},
		{"encrypted, insecure", sealedStream(l, 10, 100, 1), false, ReasonEncrypted, 0},
	} {
		h := header{label: l, encrypted: c.encrypted}
		read, size, got := h.stream(bytes.NewReader(c.in))
		if got != c.want || size != c.size {
			t.Errorf("%s: %q, size %d, want %q, size %d", c.name, got, size, c.want, c.size)
		}
		if got == ReasonNone && !bytes.Equal(read, c.in) {
			t.Errorf("%s: passes on %x of %x", c.name, read, c.in)
		}
	}
}

func FuzzPacketHeader(f *testing.F) {
	f.Add(sealed("gossip/test", 1, 40))
	f.Add(sealed("gossip/test", 0, 40))
	f.Add(sealed("gossip/prod", 1, 40))
	f.Add([]byte{magicLabel, 255})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		want := append([]byte{magicLabel, byte(len(testHeader.label))}, testHeader.label...)
		want = append(want, encryptVersion)
		passes := bytes.HasPrefix(b, want) && len(b) >= len(want)+encryptOverhead && len(b) <= maxPacket
		if got := testHeader.packet(b); (got == ReasonNone) != passes {
			t.Errorf("%x: %q", b, got)
		}
		_ = header{label: testHeader.label}.packet(b)
	})
}

func FuzzStreamHeader(f *testing.F) {
	f.Add(sealedStream("gossip/test", 10, 100, 1))
	f.Add(sealedStream("gossip/test", 10, 1<<31, 1))
	f.Add(sealedStream("gossip/test", 6, 100, 1))
	f.Add([]byte{magicLabel, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		read, size, reason := testHeader.stream(bytes.NewReader(b))
		if reason != ReasonNone {
			return
		}
		want := sealedStream("gossip/test", 10, uint32(size), 1)
		if size > maxStream || size <= encryptOverhead || !slices.Equal(read, want) || !bytes.HasPrefix(b, want) {
			t.Errorf("%x passes as %x with size %d", b, read, size)
		}
	})
}
