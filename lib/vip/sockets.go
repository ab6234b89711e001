package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// resetter knows the TCP connections of this machine.
type resetter interface {
	// Connections lists the open ones whose local address is ip.
	Connections(ip netip.Addr) ([]connection, error)
	// Open counts them.
	Open(ip netip.Addr) (int, error)
	// Reset ends them, with a reset to the other side, and says how many there
	// were.
	Reset(ip netip.Addr) (int, error)
	// Forget ends what the kernel keeps of those that have ended (TIME-WAIT),
	// and says how many there were.
	Forget(ip netip.Addr) (int, error)
}

// diag is the resetter of a real machine, by sock_diag(7). Its own messages
// rather than the library's: that one lists the connections of all addresses,
// and ends those of IPv4 only.
type diag struct{}

const (
	sockDestroy = 21
	tcpTimeWait = 6
	tcpClose    = 7
	tcpListen   = 10
	ended       = 1 << tcpTimeWait
	// Those that have somebody to be told. What has ended is none of ours any
	// more: its client may use the same port again, for another node.
	open     = 0xfff &^ (1 << tcpListen) &^ (1 << tcpTimeWait) &^ (1 << tcpClose)
	idOffset = 4  // of struct inet_diag_sockid in struct inet_diag_msg
	idSize   = 48 // its length
	sourceIs = 7  // INET_DIAG_BC_S_COND
)

// query is struct inet_diag_req_v2.
func query(family byte, states uint32, id []byte) []byte {
	b := make([]byte, 8+idSize)
	b[0], b[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], states)
	copy(b[8:], id)
	return b
}

// sourceFilter has the kernel pass only sockets whose source is ip: one
// operation of its filter language, followed by its condition.
func sourceFilter(ip netip.Addr) ([]byte, error) {
	addr := ip.AsSlice()
	size := 4 + 8 + len(addr)
	b := make([]byte, 12, size)
	b[0], b[1] = sourceIs, byte(size)
	binary.NativeEndian.PutUint16(b[2:], uint16(size+4)) // a jump past the end: no
	b[4], b[5] = byte(family(ip.Is6())), byte(ip.BitLen())
	binary.NativeEndian.PutUint32(b[8:], 0xffffffff) // any port
	return netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: append(b, addr...)}})
}

// each calls f with the identity of every socket in one of the states.
func (diag) each(c *netlink.Conn, ip netip.Addr, states uint32, f func(family byte, id []byte) error) error {
	filter, err := sourceFilter(ip)
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	families := []byte{unix.AF_INET6}
	if ip.Is4() { // listeners on [::] have IPv4 connections of family IPv6
		families = append(families, unix.AF_INET)
	}
	for _, fam := range families {
		answer, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   append(query(fam, states, nil), filter...),
		})
		if err != nil {
			return fmt.Errorf("list connections of %s: %w", ip, named(err))
		}
		for _, m := range answer {
			if len(m.Data) < idOffset+idSize {
				continue
			}
			if err := f(m.Data[0], m.Data[idOffset:idOffset+idSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d diag) Connections(ip netip.Addr) ([]connection, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	defer c.Close()
	var out []connection
	err = d.each(c, ip, open, func(family byte, id []byte) error {
		if conn, ok := parseID(family, id); ok {
			out = append(out, conn)
		}
		return nil
	})
	return out, err
}

func (d diag) Open(ip netip.Addr) (int, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return 0, fmt.Errorf("open sock_diag: %w", err)
	}
	defer c.Close()
	n := 0
	err = d.each(c, ip, open, func(byte, []byte) error { n++; return nil })
	return n, err
}

// parseID reads struct inet_diag_sockid.
func parseID(fam byte, id []byte) (connection, bool) {
	if len(id) < idSize {
		return connection{}, false
	}
	size := 4
	if fam == unix.AF_INET6 {
		size = 16
	}
	src, ok1 := netip.AddrFromSlice(id[4 : 4+size])
	dst, ok2 := netip.AddrFromSlice(id[20 : 20+size])
	return connection{
		local:  netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(id)),
		remote: netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(id[2:])),
	}, ok1 && ok2
}

func (d diag) Reset(ip netip.Addr) (int, error) { return d.destroy(ip, open) }

func (d diag) Forget(ip netip.Addr) (int, error) { return d.destroy(ip, ended) }

func (d diag) destroy(ip netip.Addr, states uint32) (int, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return 0, fmt.Errorf("open sock_diag: %w", err)
	}
	defer c.Close()
	type found struct {
		family byte
		id     []byte
	}
	var list []found
	err = d.each(c, ip, states, func(family byte, id []byte) error {
		list = append(list, found{family, append([]byte(nil), id...)})
		return nil
	})
	if err != nil {
		return 0, err
	}
	done := 0
	for _, s := range list {
		_, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDestroy, Flags: netlink.Request | netlink.Acknowledge},
			Data:   query(s.family, states, s.id),
		})
		if errors.Is(err, unix.ENOENT) { // it ended by itself
			continue
		}
		if err != nil {
			return done, fmt.Errorf("end connections of %s: %w", ip, named(err))
		}
		done++
	}
	return done, nil
}
