package vip

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAddressIsTakenUpAnnouncedAndLetGo(t *testing.T) {
	for name, env := range map[string]string{"gate": "NOGATE=", "lifetime": "NOGATE=1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, "a", "c")
			a := l.sidecar("a", "web="+vip4+"/32@eth0,"+vip6+"/128@eth0", env)
			l.server("a")
			if got := string(a.status().Fence); got != name {
				t.Fatalf("fence %q (%s), want %q", got, a.status().FenceWhy, name)
			}
			a.ask("hold web 2s")
			c4, c6 := l.client("c", "dial", vip4+":80", "10ms"), l.client("c", "dial", "["+vip6+"]:80", "10ms")
			time.Sleep(3500 * time.Millisecond) // longer than any lifetime given once
			for _, c := range []*proc{c4, c6} {
				if r := c.finish(); r.Failed > 0 || r.Answered < 50 {
					t.Errorf("%+v", r)
				}
			}
			s := a.status().Groups[0]
			for _, as := range s.Addresses {
				if !as.Present || as.Error != "" || as.Announcements < 4 {
					t.Errorf("%+v", as)
				}
			}
			if out := l.in("a", "ip", "-6", "addr", "show", "dev", "eth0", "to", vip6); !strings.Contains(out, "nodad") || !strings.Contains(out, "deprecated") {
				t.Errorf("flags: %s", out)
			}
			a.ask("away web")
			if l.has("a", vip4) || l.has("a", vip6) {
				t.Error("still there after Set(Away)")
			}
		})
	}
}

func TestAddressComesBackWhenSomebodyRemovesIt(t *testing.T) {
	l := newLab(t, "a")
	a := l.sidecar("a", "web="+vip4+"/32@eth0,"+vip6+"/128@eth0")
	a.ask("hold web 2s")
	time.Sleep(1200 * time.Millisecond) // the next announcement that is due is 1.8 s away
	for i, ip := range []string{vip4 + "/32", vip6 + "/128"} {
		sent := func() uint64 { return a.status().Groups[0].Addresses[i].Announcements }
		before := sent()
		l.in("a", "ip", "addr", "del", ip, "dev", "eth0")
		bare, _, _ := strings.Cut(ip, "/")
		took := l.eventually(200*time.Millisecond, "address back", func() bool { return l.has("a", bare) })
		t.Logf("%s back within %s", ip, took)
		l.eventually(time.Second, ip+" announced again", func() bool { return sent() > before })
	}
	l.in("a", "ip", "link", "set", "eth0", "down")
	l.in("a", "ip", "link", "set", "eth0", "up")
	l.eventually(300*time.Millisecond, "addresses back after the interface", func() bool { return l.has("a", vip4) && l.has("a", vip6) })
	seen := ""
	l.eventually(time.Second, "events", func() bool {
		seen += a.ask("events")
		return strings.Contains(seen, "carrier-back")
	})
	if strings.Count(seen, "address-removed") != 2 {
		t.Error(seen)
	}
}

func TestTenRemovalsInTenSecondsEndInAnAlert(t *testing.T) {
	for _, ip := range []string{vip4 + "/32", vip6 + "/128"} {
		t.Run(ip, func(t *testing.T) {
			bare, _, _ := strings.Cut(ip, "/")
			l := newLab(t, "a")
			a := l.sidecar("a", "web="+ip+"@eth0")
			a.ask("hold web 2s")
			for range contestedAfter + 3 { // one that a renewal has just undone is not noticed
				l.eventually(time.Second, "address back", func() bool { return l.has("a", bare) })
				l.in("a", "ip", "addr", "del", ip, "dev", "eth0")
				time.Sleep(20 * time.Millisecond)
				if a.status().Groups[0].Addresses[0].Contested {
					break
				}
			}
			took := l.eventually(2*time.Second, "slow repair", func() bool { return l.has("a", bare) })
			if took < 500*time.Millisecond {
				t.Errorf("eleventh repair after %s, want about a second", took)
			}
			if got := a.ask("events"); strings.Count(got, "address-contested") != 1 {
				t.Error(got)
			}
			if as := a.status().Groups[0].Addresses[0]; as.Repairs != contestedAfter || !as.Contested {
				t.Errorf("%+v", as)
			}
		})
	}
}

// What a predecessor left serves on behind its gate, until the deadline of the
// lease that it held, and not a moment longer.
func TestPredecessorsAddressGoesWithItsLease(t *testing.T) {
	const lease = time.Second
	l := newLab(t, "a", "c")
	l.server("a")
	a := l.sidecar("a", both)
	a.ask("hold web %s", lease)
	pings := map[string]*proc{
		"IPv4": l.client("c", "ping", vip4+":80", "2ms"),
		"IPv6": l.client("c", "ping", "["+vip6+"]:80", "2ms"),
	}
	time.Sleep(300 * time.Millisecond)
	at := a.signal(unix.SIGKILL)
	b := l.sidecar("a", both) // at once
	started := bootTime()
	l.eventually(2*time.Second, "it is removed", func() bool { return !l.has("a", vip4) && !l.has("a", vip6) })
	for name, c := range pings {
		r := c.finish()
		t.Logf("%s: last answer %s after the kill; the successor was ready after %s", name, r.LastAnswer-at, started-at)
		if r.LastAnswer-at > lease {
			t.Errorf("%s: answered %s after the kill, later than the lease of %s", name, r.LastAnswer-at, lease)
		}
		if started-at < lease/2 && r.LastAnswer < started {
			t.Errorf("%s: the successor of a killed sidecar ended its service before its lease did", name)
		}
	}
	l.eventually(time.Second, "events", func() bool { return strings.Count(b.ask("events"), "left-behind") == 2 })
}

func TestPredecessorsAddressIsRemovedAtStartWithoutTheGate(t *testing.T) {
	l := newLab(t, "a")
	a := l.sidecar("a", both, "NOGATE=1")
	a.ask("hold web 5s")
	a.kill()
	if !l.has("a", vip4) {
		t.Fatal("the kernel should still have it")
	}
	b := l.sidecar("a", both, "NOGATE=1")
	if l.has("a", vip4) || l.has("a", vip6) {
		t.Error("still there after Clean")
	}
	if got := b.ask("events"); strings.Count(got, "left-behind") != 2 {
		t.Error(got)
	}
}
