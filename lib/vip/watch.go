package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// watch hears from the kernel what happens to interfaces and addresses. One
// socket for both keeps their order: the kernel says that an interface goes
// down before it says which addresses it has lost by that, so that these are
// not taken for somebody's removal.
func (m *Manager) watch(ctx context.Context) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		return fmt.Errorf("subscribe to interfaces and addresses: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	m.lookAtAll() // what happened before we listened
	for {
		news, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // more than the socket holds; some of it is lost
			m.log.Debug("virtual IPs: netlink", zap.Error(err))
			m.lookAtLinks()
			m.lookAtAll()
		case err != nil:
			return fmt.Errorf("hear of interfaces and addresses: %w", err)
		}
		for _, n := range news {
			m.reported(n)
		}
	}
}

// lookAtLinks catches up with reports that were lost.
func (m *Manager) lookAtLinks() {
	for _, name := range m.interfaces() {
		ifi, err := net.InterfaceByName(name)
		m.linkChanged(name, err == nil && ifi.Flags&net.FlagUp != 0 && ifi.Flags&net.FlagRunning != 0)
	}
}

// reported deals with one message of the kernel.
func (m *Manager) reported(n netlink.Message) {
	switch uint16(n.Header.Type) {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if ip, ok := reportedAddress(n.Data); ok {
			m.addressChanged(ip)
		}
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if name, flags, ok := reportedLink(n.Data); ok && slices.Contains(m.interfaces(), name) {
			m.linkChanged(name, n.Header.Type == unix.RTM_NEWLINK && hasCarrier(flags))
		} else if ok {
			m.lookForRenamed()
		}
	}
}

// lookForRenamed finds an interface of ours that is there no more. One that gets
// another name is reported under that.
func (m *Manager) lookForRenamed() {
	for _, name := range m.interfaces() {
		if m.vanished(name) {
			m.linkChanged(name, false)
		}
	}
}

func (m *Manager) vanished(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.carriers[name] {
		return false
	}
	for _, g := range m.groups {
		for _, c := range g.addrs {
			if c.Interface == name {
				_, err := m.sys.addresses.Look(c.Address)
				return errors.Is(err, errNoInterface)
			}
		}
	}
	return false
}

// reportedAddress reads struct ifaddrmsg and what follows it.
func reportedAddress(b []byte) (netip.Addr, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, false
	}
	list, err := netlink.UnmarshalAttributes(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return netip.Addr{}, false
	}
	var ip netip.Addr
	for _, a := range list {
		// On a link between two the address itself is IFA_LOCAL; otherwise both
		// are the same, or there is only the other.
		if got, ok := netip.AddrFromSlice(a.Data); ok && (a.Type == unix.IFA_LOCAL || a.Type == unix.IFA_ADDRESS && !ip.IsValid()) {
			ip = got
		}
	}
	return ip, ip.IsValid()
}

// reportedLink reads struct ifinfomsg and what follows it.
func reportedLink(b []byte) (name string, flags uint32, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return "", 0, false
	}
	list, err := netlink.UnmarshalAttributes(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return "", 0, false
	}
	for _, a := range list {
		if a.Type == unix.IFLA_IFNAME {
			name = unix.ByteSliceToString(a.Data)
		}
	}
	return name, binary.NativeEndian.Uint32(b[8:]), name != ""
}
