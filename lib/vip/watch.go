package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// watch hears from the kernel what happens to interfaces and addresses, until ctx
// ends. When more happens than its socket holds it begins anew with another: what
// waits in the old one is out of date, and the kernel drops more until all of it has
// been read, and does not say so again.
func (m *Manager) watch(ctx context.Context) error {
	for {
		err := m.hearKernel(ctx)
		if !errors.Is(err, errReportsLost) {
			return err
		}
		m.log.Debug("virtual IPs: netlink", zap.Error(err))
	}
}

var errReportsLost = errors.New("reports of the kernel were lost")

// hearKernel uses one socket for interfaces and addresses, which keeps their order:
// the kernel says that an interface goes down before it says which addresses it has
// lost by that, so that these are not taken for somebody's removal.
func (m *Manager) hearKernel(ctx context.Context) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		return fmt.Errorf("subscribe to interfaces and addresses: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	if err := m.catchUp(); err != nil {
		return fmt.Errorf("look at interfaces and addresses: %w", err)
	}
	for {
		news, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			return errReportsLost
		case err != nil:
			return fmt.Errorf("hear of interfaces and addresses: %w", err)
		}
		for _, n := range news {
			m.reported(n)
		}
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
		if r, ok := reportedLink(n.Data); ok {
			r.up = r.up && n.Header.Type == unix.RTM_NEWLINK
			m.linkReported(r)
		}
	}
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

// reportedLink reads struct ifinfomsg and what follows it. A bridge says by the same
// messages, of another family, what its ports are to it: that one is deleted means
// that it is no port any more.
func reportedLink(b []byte) (linkReport, bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC {
		return linkReport{}, false
	}
	list, err := netlink.UnmarshalAttributes(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return linkReport{}, false
	}
	r := linkReport{index: int(binary.NativeEndian.Uint32(b[4:])), up: hasCarrier(binary.NativeEndian.Uint32(b[8:]))}
	for _, a := range list {
		if a.Type == unix.IFLA_IFNAME {
			r.name = unix.ByteSliceToString(a.Data)
		}
	}
	return r, r.name != ""
}
