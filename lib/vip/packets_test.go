package vip

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
)

var (
	ourHW   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	theirHW = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	web4    = netip.MustParseAddr(vip4)
	web6    = netip.MustParseAddr(vip6)
)

func arpFrames(tb testing.TB, ip netip.Addr, hw net.HardwareAddr) [][]byte {
	tb.Helper()
	frames, err := gratuitousARP(ip, hw)
	if err != nil {
		tb.Fatal(err)
	}
	return frames
}

func changed(b []byte, at int, to ...byte) []byte {
	out := append([]byte(nil), b...)
	copy(out[at:], to)
	return out
}

func TestEveryIgnoredARPPacketHasAReason(t *testing.T) {
	frame := arpFrames(t, web4, theirHW)[0]
	probe, err := arpProbe(web4, theirHW)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		frame []byte
		want  Ignored
	}{
		"gratuitous request":        {frame, heeded},
		"gratuitous reply":          {arpFrames(t, web4, theirHW)[1], heeded},
		"our own":                   {arpFrames(t, web4, ourHW)[0], IgnoredOwn},
		"another address":           {arpFrames(t, netip.MustParseAddr("10.77.0.9"), theirHW)[0], IgnoredOtherIP},
		"a probe claims nothing":    {probe, IgnoredOtherIP},
		"nothing":                   {nil, IgnoredShort},
		"a header only":             {frame[:14], IgnoredMalformed},
		"cut short":                 {frame[:30], IgnoredMalformed},
		"IPv4, not ARP":             {changed(frame, 12, 8, 0), IgnoredEtherType},
		"another hardware":          {changed(frame, 14, 0, 6), IgnoredHardware},
		"long hardware address":     {append(changed(frame, 18, 8), make([]byte, 8)...), IgnoredHardware},
		"another protocol":          {changed(frame, 16, 0x86, 0xdd), IgnoredProtocol},
		"reverse ARP":               {changed(frame, 20, 0, 3), IgnoredOperation},
		"addresses of no length":    {changed(frame, 19, 0), IgnoredMalformed},
		"addresses longer than all": {changed(frame, 18, 255, 255), IgnoredMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			cl, got := arpClaim(c.frame)
			if got == heeded {
				got = cl.against([]netip.Addr{web4}, ourHW)
			}
			if got != c.want {
				t.Errorf("ignored for %q, want %q", got, c.want)
			}
		})
	}
}

func ndMessage(tb testing.TB, m ndp.Message) []byte {
	tb.Helper()
	b, err := ndp.MarshalMessage(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestEveryIgnoredNeighbourMessageHasAReason(t *testing.T) {
	good := ndMessage(t, advertisement(web6, theirHW))
	bare := ndMessage(t, &ndp.NeighborAdvertisement{TargetAddress: web6})
	ns := ndMessage(t, &ndp.NeighborSolicitation{TargetAddress: web6})
	for name, c := range map[string]struct {
		message []byte
		hops    int
		want    Ignored
	}{
		"advertisement":         {good, 255, heeded},
		"our own":               {ndMessage(t, advertisement(web6, ourHW)), 255, IgnoredOwn},
		"another address":       {ndMessage(t, advertisement(netip.MustParseAddr("fd77::9"), theirHW)), 255, IgnoredOtherIP},
		"from beyond a router":  {good, 254, IgnoredHopLimit},
		"solicitation":          {ns, 255, IgnoredMessage},
		"without a link layer":  {bare, 255, IgnoredNoLinkLayer},
		"nothing":               {nil, 255, IgnoredShort},
		"cut short":             {good[:20], 255, IgnoredMalformed},
		"option of no length":   {changed(good, 25, 0), 255, IgnoredMalformed},
		"option beyond the end": {changed(good, 25, 9), 255, IgnoredMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			cl, got := ndClaim(c.message, c.hops)
			if got == heeded {
				got = cl.against([]netip.Addr{web6}, ourHW)
			}
			if got != c.want {
				t.Errorf("ignored for %q, want %q", got, c.want)
			}
		})
	}
}

func TestGratuitousARPIsOfTheFormThatLinuxAlwaysHeeds(t *testing.T) {
	for i, want := range []arp.Operation{arp.OperationRequest, arp.OperationReply} {
		f := arpFrames(t, web4, ourHW)[i]
		var p arp.Packet
		if err := p.UnmarshalBinary(f[etherHeader:]); err != nil {
			t.Fatal(err)
		}
		if p.Operation != want || p.SenderIP != p.TargetIP || len(f) != 60 {
			t.Errorf("%+v, %d bytes", p, len(f))
		}
		if want == arp.OperationReply && p.TargetHardwareAddr.String() != ourHW.String() {
			t.Errorf("target hardware address %s, want the sender's", p.TargetHardwareAddr)
		}
	}
}

// Who knows another link-layer address heeds an advertisement only with the
// override flag; one that says it was asked for would confirm a neighbour that
// did not ask (RFC 4861, 7.2.5 and 7.2.6).
func TestAdvertisementOverridesAndWasNotAskedFor(t *testing.T) {
	b := ndMessage(t, advertisement(web6, ourHW))
	const solicited, override = 0x40, 0x20
	if b[0] != 136 || b[4]&override == 0 || b[4]&solicited != 0 {
		t.Errorf("type %d, flags %#x: want 136, override set, solicited not", b[0], b[4])
	}
	msg, err := ndp.ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	na, ok := msg.(*ndp.NeighborAdvertisement)
	if !ok || !na.Override || na.Solicited || na.TargetAddress != web6 || len(na.Options) != 1 {
		t.Fatalf("%+v", msg)
	}
	if ll, ok := na.Options[0].(*ndp.LinkLayerAddress); !ok || ll.Direction != ndp.Target || ll.Addr.String() != ourHW.String() {
		t.Errorf("%+v", na.Options[0])
	}
}

func FuzzARP(f *testing.F) {
	for _, frame := range arpFrames(f, web4, theirHW) {
		f.Add(frame)
		f.Add(frame[:42])
		f.Add(changed(frame, 18, 255, 255))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, why := arpClaim(b)
		if (why == heeded) != (c.ip.Is4() && len(c.at) == 6) {
			t.Errorf("%q with %v", why, c)
		}
		if why == heeded && (len(b) < 42 || binary.BigEndian.Uint16(b[12:]) != etherTypeARP) {
			t.Errorf("heeded %x", b)
		}
	})
}

func FuzzND(f *testing.F) {
	good := ndMessage(f, advertisement(web6, theirHW))
	f.Add(good, 255)
	f.Add(good[:24], 255)
	f.Add(ndMessage(f, &ndp.NeighborSolicitation{TargetAddress: web6}), 255)
	f.Fuzz(func(t *testing.T, b []byte, hops int) {
		c, why := ndClaim(b, hops)
		if why == heeded && (!c.ip.Is6() || hops != 255 || b[0] != 136) {
			t.Errorf("heeded %x, %d hops: %v", b, hops, c)
		}
	})
}

func FuzzSocketIdentity(f *testing.F) {
	f.Add(byte(2), make([]byte, 48))
	f.Add(byte(10), make([]byte, 47))
	f.Fuzz(func(t *testing.T, fam byte, b []byte) {
		if c, ok := parseID(fam, b); ok != (len(b) >= idSize) || ok && !c.local.IsValid() {
			t.Errorf("%v %v", c, ok)
		}
	})
}
