package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
)

// announcer tells the network where an address is.
type announcer interface {
	Announce(a Address) error
	Close()
}

// speaker is the announcer of a real machine. It keeps a socket for each
// interface and family, and opens it anew when the interface has changed.
type speaker struct{ mouths map[mouthKey]*mouth }

type mouthKey struct {
	name string
	six  bool
}

type mouth struct {
	ifi *net.Interface
	arp *packet.Conn
	nd  *ndp.Conn
}

func newSpeaker() *speaker { return &speaker{mouths: map[mouthKey]*mouth{}} }

// speakTime bounds a send: an interface whose queue is full must not hold up a
// renewal.
const speakTime = 20 * time.Millisecond

func (s *speaker) Announce(a Address) error {
	err := s.say(a)
	if err != nil { // the interface may have been replaced by one of the same name
		s.drop(mouthKey{a.Interface, a.Prefix.Addr().Is6()})
		err = s.say(a)
	}
	if err != nil {
		return named(fmt.Errorf("announce %s: %w", a, err))
	}
	return nil
}

func (s *speaker) say(a Address) error {
	m, err := s.mouth(a)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(speakTime)
	ip := a.Prefix.Addr()
	if ip.Is6() {
		if err := m.nd.SetWriteDeadline(deadline); err != nil {
			return err
		}
		return m.nd.WriteTo(advertisement(ip, m.ifi.HardwareAddr), nil, netip.IPv6LinkLocalAllNodes())
	}
	frames, err := gratuitousARP(ip, m.ifi.HardwareAddr)
	if err != nil {
		return err
	}
	if err := m.arp.SetWriteDeadline(deadline); err != nil {
		return err
	}
	for _, f := range frames {
		if _, err := m.arp.WriteTo(f, &packet.Addr{HardwareAddr: net.HardwareAddr(f[:6])}); err != nil {
			return err
		}
	}
	return nil
}

var errNoHardware = errors.New("interface has no Ethernet address, nothing to announce")

func (s *speaker) mouth(a Address) (*mouth, error) {
	key := mouthKey{a.Interface, a.Prefix.Addr().Is6()}
	if m := s.mouths[key]; m != nil {
		return m, nil
	}
	ifi, err := net.InterfaceByName(a.Interface)
	if err != nil {
		return nil, err
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, errNoHardware
	}
	m := &mouth{ifi: ifi}
	if key.six {
		m.nd, _, err = ndp.Listen(ifi, ndp.Unspecified)
		if err == nil {
			err = m.nd.SetICMPFilter(deafFilter())
		}
	} else {
		m.arp, err = packet.Listen(ifi, packet.Raw, 0, nil)
	}
	if err != nil {
		m.close()
		return nil, err
	}
	s.mouths[key] = m
	return m, nil
}

func (s *speaker) drop(key mouthKey) {
	if m := s.mouths[key]; m != nil {
		m.close()
		delete(s.mouths, key)
	}
}

// forget closes the sockets of an interface that has changed.
func (s *speaker) forget(name string) {
	s.drop(mouthKey{name, false})
	s.drop(mouthKey{name, true})
}

func (s *speaker) Close() {
	for key := range s.mouths {
		s.drop(key)
	}
}

func (m *mouth) close() {
	if m.arp != nil {
		_ = m.arp.Close() // nothing to be done about it
	}
	if m.nd != nil {
		_ = m.nd.Close() // nothing to be done about it
	}
}
