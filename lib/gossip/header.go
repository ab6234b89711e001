package gossip

import (
	"encoding/binary"
	"io"
)

// What stands before memberlist's ciphertext (net.go, label.go and security.go
// of memberlist v0.7.0).
//
//	datagram: 244, length of the label, label, version, nonce (12), ciphertext, tag (16)
//	stream:   244, length of the label, label, 10, size (4, big endian), version, ...
//	answer:   10, size (4, big endian), version, ...
//
// The label is authenticated, and so are the 10 and the size. The version is
// not: whoever recorded a packet can change it from 1 to 0, it decrypts all the
// same, and memberlist then cuts a padding that is not there and panics. So
// only version 1 is let in, which is the only one that we send.
const (
	magicLabel      = 244
	magicEncrypted  = 10
	encryptVersion  = 1
	encryptOverhead = 1 + 12 + 16
	maxStream       = 2 << 20
	maxPacket       = 4 << 10 // none of ours is longer than udpBuffer and a little
)

// header knows what the beginning of our own traffic looks like.
type header struct {
	label     string
	encrypted bool
}

// packet says why a datagram must not be let in, or ReasonNone.
func (h header) packet(b []byte) Reason {
	if len(b) < 2 || b[0] != magicLabel {
		return ReasonUnlabelled
	}
	if len(b) > maxPacket {
		return ReasonOversized
	}
	n := int(b[1])
	if len(b) < 2+n {
		return ReasonShort
	}
	if string(b[2:2+n]) != h.label {
		return ReasonOtherCluster
	}
	rest := b[2+n:]
	switch {
	case len(rest) == 0:
		return ReasonShort
	case !h.encrypted:
		return ReasonNone
	case rest[0] == 0: // memberlist's older encryption, and also a ping in clear
		return ReasonVersion
	case rest[0] != encryptVersion:
		return ReasonNotEncrypted
	case len(rest) <= encryptOverhead:
		return ReasonShort
	}
	return ReasonNone
}

// stream reads the header of a stream that somebody opened to us. It returns
// what it read, which memberlist wants to see again, the size that the other
// side says it will send, and why it must not be let in.
func (h header) stream(r io.Reader) (read []byte, size int, reason Reason) {
	buf := make([]byte, 2, 2+len(h.label)+6)
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, 0, ReasonSlow
	}
	if buf[0] != magicLabel {
		return nil, 0, ReasonUnlabelled
	}
	label := make([]byte, buf[1])
	if _, err := io.ReadFull(r, label); err != nil {
		return nil, 0, ReasonSlow
	}
	if string(label) != h.label {
		return nil, 0, ReasonOtherCluster
	}
	body, size, reason := h.body(r)
	return append(append(buf, label...), body...), size, reason
}

// body reads what follows the label of a stream, which is also what an answer
// begins with.
func (h header) body(r io.Reader) (read []byte, size int, reason Reason) {
	var b [6]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return nil, 0, ReasonSlow
	}
	if !h.encrypted {
		if b[0] == magicEncrypted {
			return nil, 0, ReasonEncrypted
		}
		return b[:1], maxStream, ReasonNone
	}
	if b[0] != magicEncrypted {
		return nil, 0, ReasonNotEncrypted
	}
	if _, err := io.ReadFull(r, b[1:]); err != nil {
		return nil, 0, ReasonSlow
	}
	declared := binary.BigEndian.Uint32(b[1:5])
	switch {
	case declared > maxStream:
		return nil, 0, ReasonOversized
	case declared <= encryptOverhead:
		return nil, 0, ReasonShort
	case b[5] != encryptVersion:
		return nil, 0, ReasonVersion
	}
	return b[:], int(declared), ReasonNone
}
