package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// mostTracked is the largest table that a test fills: the kernel's own choice on a
// machine of some memory, 100 MB or so.
const mostTracked = 1 << 18

// inNamespace runs f in a namespace of the lab.
func (l *lab) inNamespace(node string, f func() error) {
	l.t.Helper()
	done := make(chan error)
	go func() { // its thread is never used again
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + l.ns(node))
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		l.t.Fatal(err)
	}
}

// fillTracking has a node's kernel track connections of nobody, until it takes no
// more. They are `assured`: the kernel gives up none of them for a new one.
func (l *lab) fillTracking(node string) {
	l.t.Helper()
	l.inNamespace(node, func() error {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		for n := 0; n <= mostTracked; {
			var batch []netlink.Message
			for range 50 {
				n++
				data, err := trackedFlow(n)
				if err != nil {
					return err
				}
				batch = append(batch, netlink.Message{
					Header: netlink.Header{
						Type:  netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK << 8),
						Flags: netlink.Request | netlink.Create | netlink.Excl,
					}, Data: data,
				})
			}
			batch[len(batch)-1].Header.Flags |= netlink.Acknowledge
			if _, err := conn.SendMessages(batch); err != nil {
				return err
			}
			if _, err := conn.Receive(); errors.Is(err, unix.ENOMEM) { // the table is full
				return nil
			} else if err != nil {
				return fmt.Errorf("track connection %d: %w", n, err)
			}
		}
		return errors.New("the table took more than it has room for")
	})
}

// trackedFlow is the body of the message that has the kernel track the nth flow.
func trackedFlow(n int) ([]byte, error) {
	const (
		orig, reply, state, timeout = 1, 2, 3, 7
		ip, proto                   = 1, 2
		seenReply, assured          = 1 << 1, 1 << 2
		confirmed                   = 1 << 3
	)
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 0xc6120000+uint32(n>>15)) // 198.18.0.0, for benchmarks
	there, here := netip.AddrFrom4(b).AsSlice(), netip.MustParseAddr("198.19.0.1").AsSlice()
	port := uint16(1 + n&0x7fff)
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	tuple := func(kind uint16, from, to []byte, sport, dport uint16) {
		ae.Nested(kind, func(nae *netlink.AttributeEncoder) error {
			nae.Nested(ip, func(x *netlink.AttributeEncoder) error { x.Bytes(1, from); x.Bytes(2, to); return nil })
			nae.Nested(proto, func(x *netlink.AttributeEncoder) error {
				x.Uint8(1, unix.IPPROTO_UDP)
				x.Uint16(2, sport)
				x.Uint16(3, dport)
				return nil
			})
			return nil
		})
	}
	tuple(orig, there, here, port, 9)
	tuple(reply, here, there, 9, port)
	ae.Uint32(state, seenReply|assured|confirmed)
	ae.Uint32(timeout, 600)
	body, err := ae.Encode()
	return append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, body...), err
}

// A full table on both nodes: new connections fail, with and without tandem, and
// status says why. Those that there are go on over a planned move, and the
// address can be held, moved and announced all the same.
func TestPlannedMoveWithAFullConnectionTable(t *testing.T) {
	t.Parallel()
	l := newLab(t, "a", "b", "c")
	m := newMover(l)
	for _, n := range []string{"a", "b"} {
		l.in(n, "sh", "-c", "echo '"+firewall+"' | nft -f -")
	}
	room := m.node["a"].status().Tracking.Max
	if room > mostTracked {
		t.Skipf("NOT TESTED: net.netfilter.nf_conntrack_max is %d, and a table of more than %d takes too much memory to fill; it is the whole machine's setting and stays as it is", room, mostTracked)
	}
	m.node["a"].ask("hold web %s", testLease)
	var kept []*proc
	for _, to := range []string{vip4 + ":80", "[" + vip6 + "]:80"} {
		kept = append(kept, l.client("c", "keep", to, "10", "50ms"))
	}
	time.Sleep(300 * time.Millisecond)
	if s := m.node["a"].status(); s.Tracking.Count < 20 || s.Tracking.Full() {
		t.Fatalf("tracking %+v, want the 20 connections and not full", s.Tracking)
	}
	for _, n := range []string{"a", "b"} {
		l.fillTracking(n)
		if s := m.node[n].status(); !s.Tracking.Full() || s.Tracking.Max != room {
			t.Errorf("%s: tracking %+v, want that it is full", n, s.Tracking)
		}
	}
	// What this is about is there: nothing new gets in.
	if r := l.client("c", "dial", vip4+":80", "50ms"); true {
		time.Sleep(1500 * time.Millisecond)
		if got := r.finish(); got.Answered > 0 {
			t.Errorf("a new connection was answered: %+v", got)
		}
	}
	m.move("a", "b", 20*time.Second)
	time.Sleep(time.Second)
	if !l.has("b", vip4) || !l.has("b", vip6) {
		t.Error("the successor has not taken the addresses up")
	}
	m.move("b", "a", 20*time.Second)
	time.Sleep(time.Second)
	for _, c := range kept {
		r := c.finish()
		t.Logf("%+v", r)
		if r.Failed > 0 || r.By["a"] < 200 || r.By["b"] > 0 || len(r.EndedBy) != 10 {
			t.Errorf("connections from before: %+v", r)
		}
		for _, how := range r.EndedBy {
			if how != "client" {
				t.Errorf("a connection from before was ended by %q", how)
			}
		}
	}
	for _, n := range []string{"a", "b"} {
		if got := m.node[n].ask("errors"); got != "map[]" {
			t.Errorf("%s: %s", n, got)
		}
	}
}
