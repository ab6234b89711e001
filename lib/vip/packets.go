package vip

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
)

// Ignored is the named reason why a packet that was heard says nothing about
// our addresses. The empty reason means that it does.
type Ignored string

// Why packets are ignored.
const (
	heeded             Ignored = ""
	IgnoredShort       Ignored = "short-frame"
	IgnoredEtherType   Ignored = "not-arp"
	IgnoredMalformed   Ignored = "malformed"
	IgnoredHardware    Ignored = "not-ethernet"
	IgnoredProtocol    Ignored = "not-ipv4"
	IgnoredOperation   Ignored = "not-request-or-reply"
	IgnoredMessage     Ignored = "not-neighbor-advertisement"
	IgnoredHopLimit    Ignored = "hop-limit-not-255"
	IgnoredNoLinkLayer Ignored = "no-link-layer-address"
	IgnoredOtherLink   Ignored = "other-interface"
	IgnoredOtherIP     Ignored = "not-our-address"
	IgnoredOwn         Ignored = "our-own"
	IgnoredNotHeld     Ignored = "not-held"
)

// claim is somebody's word that an address is at a link-layer address.
type claim struct {
	ip netip.Addr
	at net.HardwareAddr
}

const (
	etherHeader  = 14
	etherTypeARP = 0x0806
	// The constant hopLimit is what neighbour discovery must arrive with (RFC 4861, 7.1.2):
	// it has not passed a router.
	hopLimit = ndp.HopLimit
)

// arpClaim reads an Ethernet frame with an ARP packet. Every ARP packet, request
// or reply, claims its sender address for its sender hardware address; a probe
// (sender 0.0.0.0, RFC 5227) claims nothing.
func arpClaim(frame []byte) (claim, Ignored) {
	if len(frame) < etherHeader {
		return claim{}, IgnoredShort
	}
	if binary.BigEndian.Uint16(frame[12:14]) != etherTypeARP {
		return claim{}, IgnoredEtherType
	}
	var p arp.Packet
	if err := p.UnmarshalBinary(frame[etherHeader:]); err != nil {
		return claim{}, IgnoredMalformed
	}
	switch {
	case p.HardwareType != 1 || p.HardwareAddrLength != 6:
		return claim{}, IgnoredHardware
	case p.ProtocolType != 0x0800 || p.IPLength != 4 || !p.SenderIP.Is4():
		return claim{}, IgnoredProtocol
	case p.Operation != arp.OperationRequest && p.Operation != arp.OperationReply:
		return claim{}, IgnoredOperation
	}
	return claim{ip: p.SenderIP, at: p.SenderHardwareAddr}, heeded
}

// ndClaim reads an ICMPv6 message that arrived with the given hop limit.
func ndClaim(b []byte, hops int) (claim, Ignored) {
	if hops != hopLimit {
		return claim{}, IgnoredHopLimit
	}
	if len(b) < 4 {
		return claim{}, IgnoredShort
	}
	if b[0] != 136 {
		return claim{}, IgnoredMessage
	}
	msg, err := ndp.ParseMessage(b)
	if err != nil {
		return claim{}, IgnoredMalformed
	}
	na, ok := msg.(*ndp.NeighborAdvertisement)
	if !ok {
		return claim{}, IgnoredMessage
	}
	for _, o := range na.Options {
		if ll, ok := o.(*ndp.LinkLayerAddress); ok && ll.Direction == ndp.Target {
			return claim{ip: na.TargetAddress, at: ll.Addr}, heeded
		}
	}
	return claim{}, IgnoredNoLinkLayer
}

// against says whether a claim contradicts us: one of the addresses given, at a
// hardware address that is not ours.
func (c claim) against(ours []netip.Addr, hw net.HardwareAddr) Ignored {
	for _, ip := range ours {
		if ip != c.ip {
			continue
		}
		if bytes.Equal(c.at, hw) {
			return IgnoredOwn
		}
		return heeded
	}
	return IgnoredOtherIP
}

// gratuitousARP makes the two frames that announce ip at hw: a request and a
// reply for oneself. Some switches and hosts heed only the one or the other. The
// reply's target hardware address is the sender's: a Linux neighbour heeds the
// frame within a second of its last change only if it is so (arp_is_garp), and
// keepalived's, which has ff:ff:ff:ff:ff:ff there, it ignores.
func gratuitousARP(ip netip.Addr, hw net.HardwareAddr) ([][]byte, error) {
	var out [][]byte
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for _, op := range []arp.Operation{arp.OperationRequest, arp.OperationReply} {
		target := hw
		if op == arp.OperationRequest {
			target = make(net.HardwareAddr, 6)
		}
		frame, err := arpFrame(op, broadcast, hw, ip, target, ip)
		if err != nil {
			return nil, err
		}
		out = append(out, frame)
	}
	return out, nil
}

// arpProbe asks who has ip without claiming anything (RFC 5227, 2.1.1).
func arpProbe(ip netip.Addr, hw net.HardwareAddr) ([]byte, error) {
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	return arpFrame(arp.OperationRequest, broadcast, hw, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), ip)
}

func arpFrame(op arp.Operation, to, hw net.HardwareAddr, sender netip.Addr, thw net.HardwareAddr, target netip.Addr) ([]byte, error) {
	p, err := arp.NewPacket(op, hw, sender, thw, target)
	if err != nil {
		return nil, err
	}
	body, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	frame := make([]byte, 0, 60)
	frame = append(frame, to...)
	frame = append(frame, hw...)
	frame = binary.BigEndian.AppendUint16(frame, etherTypeARP)
	frame = append(frame, body...)
	return append(frame, make([]byte, 60-len(frame))...), nil
}

// advertisement is the unsolicited neighbour advertisement that announces ip at
// hw, to be heeded also by who knows another (override).
func advertisement(ip netip.Addr, hw net.HardwareAddr) *ndp.NeighborAdvertisement {
	return &ndp.NeighborAdvertisement{
		Override: true, TargetAddress: ip,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: hw}},
	}
}
