package vip

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addresser puts addresses on interfaces and takes them away.
type addresser interface {
	// Put adds the address or, if it is there, gives it a new lifetime in
	// seconds. The IPv6 flags are put right as well.
	Put(a Address, life int) error
	// Settle returns when the kernel takes packets for an address that has just
	// been added, after a short while in any case.
	Settle(a Address)
	// Remove says whether the address was there. One that is not is no error.
	Remove(a Address) (bool, error)
	// Look says what is there. A flag or lifetime that somebody has changed in place
	// is no fault: the next Put, at most extendEvery later, writes it anew.
	Look(a Address) (presence, error)
}

// presence is what the kernel says of an address.
type presence struct {
	there bool
	// fault is what is wrong with it as it stands: a word, or "".
	fault   string
	carrier bool // of its interface
	index   int  // the same; 0: not known
}

var errNoInterface = errors.New("no such interface")

// kernel is the addresser of a real machine, by rtnetlink.
type kernel struct{ h *netlink.Handle }

func openKernel() (*kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &kernel{h: h}, nil
}

func (k *kernel) link(name string) (netlink.Link, error) {
	l, err := k.h.LinkByName(name)
	if err != nil {
		var none netlink.LinkNotFoundError
		if errors.As(err, &none) || errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("interface %s: %w", name, errNoInterface)
		}
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	return l, nil
}

// address is the form netlink wants. An IPv6 address is added without duplicate
// address detection (the predecessor may still have it, by agreement) and as
// deprecated, so that this machine never picks it as a source for connections of
// its own.
func address(a Address, life int) *netlink.Addr {
	ip := a.Prefix.Addr()
	na := &netlink.Addr{
		IPNet:    &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), ip.BitLen())},
		ValidLft: life, PreferedLft: life,
	}
	if ip.Is6() {
		na.Flags, na.PreferedLft = unix.IFA_F_NODAD, 0
		if a.Prefix.IsSingleIP() { // no route to itself that each extension would replace
			na.Flags |= unix.IFA_F_NOPREFIXROUTE
		}
	}
	return na
}

func (k *kernel) Put(a Address, life int) error {
	l, err := k.link(a.Interface)
	if err != nil {
		return err
	}
	err = k.h.AddrReplace(l, address(a, life))
	if errors.Is(err, unix.ENODEV) { // gone in between
		return fmt.Errorf("interface %s: %w", a.Interface, errNoInterface)
	}
	if err != nil {
		return named(fmt.Errorf("ip addr replace %s dev %s valid_lft %d: %w", a.Prefix, a.Interface, life, err))
	}
	return nil
}

const (
	settleStep = 500 * time.Microsecond
	settleMost = 40 * time.Millisecond
)

// Settle waits for the local route. Linux adds that of an IPv6 address later,
// from a work queue, also without duplicate address detection: who announces the
// address before that loses packets.
func (k *kernel) Settle(a Address) {
	if a.Prefix.Addr().Is4() {
		return
	}
	for waited := time.Duration(0); waited < settleMost; waited += settleStep {
		routes, err := k.h.RouteGet(a.Prefix.Addr().AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		time.Sleep(settleStep)
	}
}

func (k *kernel) Remove(a Address) (bool, error) {
	l, err := k.link(a.Interface)
	if errors.Is(err, errNoInterface) {
		return k.removeElsewhere(a, err)
	}
	if err != nil {
		return false, err
	}
	// Another prefix length may have been configured before: look by address.
	there, err := k.h.AddrList(l, family(a.Prefix.Addr().Is6()))
	if err != nil {
		return false, fmt.Errorf("ip addr show dev %s: %w", a.Interface, err)
	}
	found := false
	for _, have := range there {
		if !have.IP.Equal(a.Prefix.Addr().AsSlice()) {
			continue
		}
		err := k.h.AddrDel(l, &netlink.Addr{IPNet: have.IPNet})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return true, named(fmt.Errorf("ip addr del %s dev %s: %w", have.IPNet, a.Interface, err))
		}
		found = true
	}
	return found, nil
}

// removeElsewhere removes an address from an interface that has got another name
// since, and keeps its addresses. Only ours has an end: one that an operator has put
// elsewhere on this machine, for reasons of his own, stays.
func (k *kernel) removeElsewhere(a Address, none error) (bool, error) {
	there, err := k.h.AddrList(nil, family(a.Prefix.Addr().Is6()))
	if err != nil {
		return false, fmt.Errorf("ip addr show: %w", err)
	}
	const forever = 1<<32 - 1
	found := false
	for _, have := range there {
		if !have.IP.Equal(a.Prefix.Addr().AsSlice()) || have.ValidLft <= 0 || have.ValidLft == forever {
			continue
		}
		link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: have.LinkIndex}}
		if err := k.h.AddrDel(link, &netlink.Addr{IPNet: have.IPNet}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return true, named(fmt.Errorf("ip addr del %s from interface %d: %w", have.IPNet, have.LinkIndex, err))
		}
		found = true
	}
	if !found {
		return false, none
	}
	return true, nil
}

func (k *kernel) Look(a Address) (presence, error) {
	l, err := k.link(a.Interface)
	if err != nil {
		return presence{}, err
	}
	p := presence{index: l.Attrs().Index, carrier: hasCarrier(l.Attrs().RawFlags)}
	there, err := k.h.AddrList(l, family(a.Prefix.Addr().Is6()))
	if err != nil {
		return p, fmt.Errorf("ip addr show dev %s: %w", a.Interface, err)
	}
	for _, have := range there {
		if !have.IP.Equal(a.Prefix.Addr().AsSlice()) {
			continue
		}
		p.there = true
		switch {
		case have.Flags&unix.IFA_F_DADFAILED != 0:
			p.fault = "dad-failed"
		case have.Flags&unix.IFA_F_TENTATIVE != 0:
			p.fault = "tentative"
		}
	}
	return p, nil
}

// hasCarrier reads the flags of an interface.
func hasCarrier(flags uint32) bool { return flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING != 0 }

func family(six bool) int {
	if six {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
