package gossip

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMachinesThatAreGoneDoNotStopTheSocket sends to two neighbours that never
// answer for their hardware address, in a network namespace of its own, and to
// one that is there.
func TestMachinesThatAreGoneDoNotStopTheSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	result := make(chan error, 1)
	var s *sockets
	counts := &counters{}
	go func() { // on a thread that ends with it
		runtime.LockOSThread()
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "tdgossip0"}, PeerName: "tdgossip1"}
			if err := netlink.LinkAdd(veth); err != nil {
				return fmt.Errorf("add veth: %w", err)
			}
			addr, err := netlink.ParseAddr("10.8.0.1/24")
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(veth, addr); err != nil {
				return fmt.Errorf("add address: %w", err)
			}
			for _, name := range []string{"lo", "tdgossip0", "tdgossip1"} {
				link, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				if err := netlink.LinkSetUp(link); err != nil {
					return err
				}
			}
			s, err = listen(netip.MustParseAddrPort("10.8.0.1:7946"), counts)
			return err
		}()
	}()
	if err := <-result; err != nil {
		t.Skipf("no network namespace here: %v", err)
	}
	defer s.Shutdown() //nolint:errcheck // never fails
	s.start()

	var slowest time.Duration
	got := 0
	for range 120 { // 2.4 seconds; the kernel's default is full after 1
		for _, to := range []string{"10.8.0.2:7946", "10.8.0.3:7946", "10.8.0.1:7946"} {
			begin := time.Now()
			_, err := s.WriteTo(make([]byte, 1200), to)
			slowest = max(slowest, time.Since(begin))
			if err != nil && to == "10.8.0.1:7946" {
				t.Fatalf("send to the neighbour that is there: %v; counted %v", err, counts.sends.all())
			}
		}
		select {
		case <-s.packets:
			got++
		case <-time.After(time.Second):
			t.Fatalf("nothing came after %d messages", got)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("slowest send %s", slowest)
}
