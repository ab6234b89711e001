package gossip

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Types of memberlist's messages that a knock sends or gets.
const (
	messagePing = 0
	messageAck  = 2
	messageErr  = 13
)

// knockPing is a ping to whoever is there, as memberlist encodes it: msgpack of
// {SeqNo: 1, Node: ""}. It is answered, and nothing comes of it.
var knockPing = []byte("\x00\x82\xa5SeqNo\x01\xa4Node\xa0")

const knockTimeout = 2 * time.Second

// Knock asks the node at an address, without becoming a member, whether it would
// take this one in: whether it has the key and the name of the cluster. Nothing
// is changed there but a line in its log when it would not. It needs nothing
// that runs here, so it serves a check before the start. ReasonNone: it would;
// the detail says more of ReasonFailed.
func Knock(ctx context.Context, addr, cluster string, keys [][]byte) (reason Reason, detail string) {
	label := labelPrefix + cluster
	reason, detail = knock(ctx, addr, label, keys)
	if reason != ReasonClosed || len(keys) == 0 {
		return reason, detail
	}
	// It hangs up on who is of another cluster, and on who encrypts when it does
	// not itself: in clear these differ.
	if plain, _ := knock(ctx, addr, label, nil); plain == ReasonNone {
		return ReasonNotEncrypted, ""
	}
	return ReasonOtherCluster, ""
}

func knock(ctx context.Context, addr, label string, keys [][]byte) (reason Reason, detail string) {
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return classify(err), err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(knockTimeout))
	message := knockPing
	if len(keys) > 0 {
		if message, err = seal(keys[0], label, knockPing); err != nil {
			return ReasonFailed, err.Error()
		}
	}
	message = append(append([]byte{magicLabel, byte(len(label))}, label...), message...)
	if _, err := conn.Write(message); err != nil {
		return classify(err), err.Error()
	}
	answer, err := readKnock(conn, label, keys)
	switch {
	case errors.Is(err, errSealed):
		return ReasonWrongKey, ""
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ReasonFailed, "it takes the connection and says nothing"
	case err != nil:
		return classify(err), err.Error()
	case answer[0] == messageAck:
		return ReasonNone, ""
	case answer[0] == messageErr && len(keys) > 0:
		return classify(errors.New(string(answer[1:]))), ""
	}
	return ReasonFailed, "what answers there is not tandem"
}

// errSealed: an answer was encrypted with a key that we do not have.
var errSealed = errors.New("no key decrypts the answer")

// readKnock reads the answer and returns its type and what follows.
func readKnock(r io.Reader, label string, keys [][]byte) ([]byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if head[0] != magicEncrypted {
		return head[:1], nil
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size <= encryptOverhead || size > maxPacket {
		return nil, errSealed // not one of ours
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	for _, key := range keys {
		gcm, err := newGCM(key)
		if err != nil {
			return nil, err
		}
		nonce := body[1 : 1+gcm.NonceSize()]
		if plain, err := gcm.Open(nil, nonce, body[1+gcm.NonceSize():], append(head, label...)); err == nil && len(plain) > 0 {
			return plain, nil
		}
	}
	return nil, errSealed
}

// seal encrypts a message of a stream as memberlist does.
func seal(key []byte, label string, message []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32([]byte{magicEncrypted}, uint32(encryptOverhead+len(message)))
	known := append(append([]byte{}, out...), label...) // authenticated, not sent again
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce) // never fails: it ends the process rather than return an error
	out = append(append(out, encryptVersion), nonce...)
	return gcm.Seal(out, nonce, message, known), nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use key: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("use key: %w", err)
	}
	return gcm, nil
}
