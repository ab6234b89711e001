package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// questions is how many source addresses are in use, from .160 on: with one for
// each question, a late answer is not taken for one to the next.
const questions, firstSource = 64, 160

// wire asks by ARP who has an IPv4 address, and counts who answers.
type wire struct {
	target netip.Addr
	mac    net.HardwareAddr
	fd     int
	ended  sync.WaitGroup

	mu       sync.Mutex
	question byte
	heard    [][]byte // MACs that answered the last question
}

func newWire(target netip.Addr) (*wire, error) {
	const arp = unix.ETH_P_ARP<<8&0xff00 | unix.ETH_P_ARP>>8 // network byte order
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return nil, fmt.Errorf("find eth0: %w", err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, arp)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket (NET_RAW is needed): %w", err)
	}
	// A read ends now and then, so that close is noticed.
	timeout := unix.Timeval{Usec: 100_000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, fmt.Errorf("set up the packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: arp, Ifindex: link.Index}); err != nil {
		return nil, fmt.Errorf("bind the packet socket: %w", err)
	}
	w := &wire{target: target, mac: link.HardwareAddr, fd: fd}
	w.ended.Go(w.listen)
	return w, nil
}

func (w *wire) close() {
	w.mu.Lock()
	w.target = netip.Addr{}
	w.mu.Unlock()
	w.ended.Wait()
	_ = unix.Close(w.fd)
}

// look says how many machines answered the last question, and puts the next.
func (w *wire) look() int {
	w.mu.Lock()
	n := len(w.heard)
	w.heard = nil
	w.question = (w.question + 1) % questions
	source := w.target.As4()
	source[3] = firstSource + w.question
	w.mu.Unlock()
	_, _ = unix.Write(w.fd, slices.Concat( // unheard is unanswered
		[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, w.mac,
		[]byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1}, w.mac, source[:], make([]byte, 6), w.target.AsSlice()))
	return n
}

func (w *wire) listen() {
	frame := make([]byte, 2048)
	for {
		n, err := unix.Read(w.fd, frame)
		w.mu.Lock()
		if !w.target.IsValid() {
			w.mu.Unlock()
			return
		}
		if err == nil {
			w.hear(frame[:n])
		}
		w.mu.Unlock()
	}
}

// hear notes an answer to the last question.
func (w *wire) hear(f []byte) {
	const reply = 2
	if len(f) < 42 || binary.BigEndian.Uint16(f[20:]) != reply || !bytes.Equal(f[:6], w.mac) || !bytes.Equal(f[28:32], w.target.AsSlice()) {
		return
	}
	from := bytes.Clone(f[22:28])
	known := slices.ContainsFunc(w.heard, func(mac []byte) bool { return bytes.Equal(mac, from) })
	if f[41] == firstSource+w.question && !known {
		w.heard = append(w.heard, from)
	}
}
