package vip

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// flags6 is what the kernel says of the IPv6 address of web.
func (l *lab) flags6(node string) string {
	l.t.Helper()
	return l.in(node, "ip", "-6", "addr", "show", "dev", "eth0", "to", vip6)
}

// Somebody takes the IPv6 address away and puts it back with duplicate address
// detection, while another node has it too.
func TestFailedDuplicateDetectionIsMended(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	l.server("a")
	l.in("a", "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1")
	l.in("b", "ip", "addr", "add", vip6+"/128", "dev", "eth0", "nodad")
	a := l.sidecar("a", both)
	a.ask("hold web 20s")
	a.signal(unix.SIGSTOP) // or it would be back before anybody else can add it
	l.in("a", "ip", "addr", "del", vip6+"/128", "dev", "eth0")
	l.in("a", "ip", "addr", "add", vip6+"/128", "dev", "eth0")
	l.eventually(5*time.Second, "the kernel finds the duplicate", func() bool { return strings.Contains(l.flags6("a"), "dadfailed") })
	l.in("b", "ip", "addr", "del", vip6+"/128", "dev", "eth0")
	a.signal(unix.SIGCONT)
	took := l.eventually(1500*time.Millisecond, "mended", func() bool {
		f := l.flags6("a")
		return strings.Contains(f, vip6) && !strings.Contains(f, "dadfailed") && !strings.Contains(f, "tentative")
	})
	t.Logf("mended within %s", took)
	f := l.flags6("a")
	for _, want := range []string{"nodad", "deprecated"} {
		if !strings.Contains(f, want) {
			t.Errorf("no %s: %s", want, f)
		}
	}
	c := l.client("c", "dial", "["+vip6+"]:80", "10ms")
	time.Sleep(500 * time.Millisecond)
	if r := c.finish(); r.Failed > 0 || r.By["a"] < 10 {
		t.Errorf("service after the mend: %+v", r)
	}
	if got := a.ask("events"); !strings.Contains(got, string(ReasonFlags)) {
		t.Error(got)
	}
	if as := a.status().Groups[0].Addresses[1]; !as.Present || as.Error != "" {
		t.Errorf("%+v", as)
	}
}

// Flags and a lifetime that somebody changes in place are no event: the next
// extension of the lifetime writes them anew.
func TestChangedFlagsAreRightWithTheNextExtension(t *testing.T) {
	for name, env := range map[string]string{"gate": "NOGATE=", "lifetime": "NOGATE=1"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "a")
			a := l.sidecar("a", both, env)
			a.ask("hold web 3s")
			for range 3 {
				a.signal(unix.SIGSTOP)
				l.in("a", "ip", "addr", "change", vip6+"/128", "dev", "eth0", "valid_lft", "forever", "preferred_lft", "forever")
				if f := l.flags6("a"); strings.Contains(f, "nodad") || strings.Contains(f, "deprecated") || !strings.Contains(f, "valid_lft forever") {
					t.Fatalf("the change did not take: %s", f)
				}
				a.signal(unix.SIGCONT)
				took := l.eventually(time.Second, "as they were", func() bool {
					f := l.flags6("a")
					return strings.Contains(f, "nodad") && strings.Contains(f, "deprecated") && !strings.Contains(f, "valid_lft forever")
				})
				t.Logf("as they were within %s", took)
			}
			if got := a.ask("events"); strings.Contains(got, string(ReasonFlags)) || strings.Contains(got, string(ReasonRemoved)) {
				t.Error(got)
			}
		})
	}
}
