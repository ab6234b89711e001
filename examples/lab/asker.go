package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// asker asks the wire who has an address: by ARP, or by neighbour
// solicitation. Each question comes from a source address of its own, so that
// a late answer is not taken for one to the next question.
type asker struct {
	target netip.Addr
	mac    net.HardwareAddr
	file   *os.File // a packet socket
	done   chan struct{}

	mu       sync.Mutex
	question byte
	heard    []string // MACs that answered the last question
}

const questions = 64 // source addresses in use: 10.77.0.160 … 223

func newAsker(n *Node, target netip.Addr) (*asker, error) {
	a := &asker{target: target, mac: n.MAC, done: make(chan struct{})}
	protocol := uint16(unix.ETH_P_ARP)
	if target.Is6() {
		protocol = unix.ETH_P_IPV6
	}
	big := protocol<<8 | protocol>>8
	err := inside(n.NS, func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(big))
		if err != nil {
			return err
		}
		a.file = os.NewFile(uintptr(fd), "packet")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: big, Ifindex: link.Index})
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket for %s: %w", target, err)
	}
	go a.listen()
	return a, nil
}

func (a *asker) close() error {
	err := a.file.Close()
	<-a.done
	return err
}

// ask puts a new question; answers to those before no longer count.
func (a *asker) ask() {
	a.mu.Lock()
	a.question = (a.question + 1) % questions
	a.heard = nil
	q := a.question
	a.mu.Unlock()
	frame := a.arp(q)
	if a.target.Is6() {
		frame = a.solicitation(q)
	}
	_, _ = a.file.Write(frame) // unheard is unanswered
}

func (a *asker) answers() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.heard)
}

func (a *asker) listen() {
	defer close(a.done)
	frame := make([]byte, 2048)
	for {
		n, err := a.file.Read(frame)
		if err != nil {
			return
		}
		question, mac, ok := a.arpAnswer(frame[:n])
		if a.target.Is6() {
			question, mac, ok = a.advertisement(frame[:n])
		}
		if !ok {
			continue
		}
		a.mu.Lock()
		if question == a.question && !slices.Contains(a.heard, mac.String()) {
			a.heard = append(a.heard, mac.String())
		}
		a.mu.Unlock()
	}
}

// source is the address that a question comes from.
func (a *asker) source(question byte) netip.Addr {
	if a.target.Is6() {
		return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 14: 0x77, 15: question})
	}
	return address(160 + question)
}

// arp is a request as RFC 826 has it, to everybody.
func (a *asker) arp(question byte) []byte {
	var b bytes.Buffer
	b.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	b.Write(a.mac)
	b.Write([]byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1})
	b.Write(a.mac)
	b.Write(a.source(question).AsSlice())
	b.Write(make([]byte, 6))
	b.Write(a.target.AsSlice())
	return b.Bytes()
}

func (a *asker) arpAnswer(f []byte) (question byte, mac net.HardwareAddr, ok bool) {
	const reply = 2
	if len(f) < 42 || binary.BigEndian.Uint16(f[12:]) != unix.ETH_P_ARP || binary.BigEndian.Uint16(f[20:]) != reply {
		return 0, nil, false
	}
	if !bytes.Equal(f[28:32], a.target.AsSlice()) || !bytes.Equal(f[:6], a.mac) {
		return 0, nil, false
	}
	return f[41] - 160, bytes.Clone(f[22:28]), true
}

// solicitation is a neighbour solicitation as RFC 4861 has it, to the target's
// solicited-node group.
func (a *asker) solicitation(question byte) []byte {
	const icmp = 58
	target, source := a.target.As16(), a.source(question).As16()
	group := [16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
	message := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target[:]...)
	message = append(append(message, 1, 1), a.mac...) // source link-layer address
	pseudo := slices.Concat(source[:], group[:], []byte{0, 0, 0, byte(len(message)), 0, 0, 0, icmp})
	binary.BigEndian.PutUint16(message[2:], checksum(slices.Concat(pseudo, message)))
	return slices.Concat(
		[]byte{0x33, 0x33}, group[12:], a.mac, []byte{0x86, 0xdd},
		[]byte{0x60, 0, 0, 0, 0, byte(len(message)), icmp, 255}, source[:], group[:], message)
}

func (a *asker) advertisement(f []byte) (question byte, mac net.HardwareAddr, ok bool) {
	const icmp, advert = 58, 136
	if len(f) < 14+40+24 || binary.BigEndian.Uint16(f[12:]) != unix.ETH_P_IPV6 || f[20] != icmp || f[54] != advert {
		return 0, nil, false
	}
	if !bytes.Equal(f[62:78], a.target.AsSlice()) || !bytes.Equal(f[:6], a.mac) {
		return 0, nil, false
	}
	return f[53], bytes.Clone(f[6:12]), true
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
