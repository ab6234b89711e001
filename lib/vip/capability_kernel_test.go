package vip

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// nobody runs helpers as an ordinary user with the capabilities given, such as
// +net_admin,+net_raw, and no others.
func nobody(t *testing.T, caps string) []string {
	t.Helper()
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("NOT TESTED: setpriv (util-linux) is not installed")
	}
	return []string{
		"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
		"--bounding-set", "-all," + caps, "--inh-caps", "-all," + caps, "--ambient-caps", "-all," + caps,
	}
}

func TestOrdinaryUserWithTwoCapabilitiesCanDoAll(t *testing.T) {
	l := newLab(t, "a", "c")
	l.server("a")
	l.as = nobody(t, "+net_admin,+net_raw")
	a := l.sidecar("a", both)
	l.as = nil
	a.ask("hold web 500ms")
	c := l.client("c", "dial", "["+vip6+"]:80", "10ms")
	time.Sleep(300 * time.Millisecond)
	if r := c.finish(); r.Failed > 0 {
		t.Errorf("%+v", r)
	}
	s := a.status()
	if s.Fence != FenceGate || len(s.Missing) > 0 {
		t.Errorf("%+v", s)
	}
	for _, as := range s.Groups[0].Addresses {
		if as.Announcements == 0 || as.Error != "" {
			t.Errorf("%+v", as)
		}
	}
	kept := l.client("c", "keep", vip4+":80", "3", "50ms")
	a.ask("yield web 1s 100ms")
	l.eventually(2*time.Second, "the end of the grace", func() bool { return !l.has("a", vip4) })
	if got := a.ask("events"); !strings.Contains(got, string(ReasonMoveEnded)) {
		t.Error(got)
	}
	r := kept.finish()
	if len(r.EndedBy) != 3 || r.Answered < 3*10 {
		t.Errorf("want 3 connections served over the grace: %+v", r)
	}
	for _, how := range r.EndedBy {
		if !strings.Contains(how, "reset") {
			t.Errorf("a connection ended by %q, want a reset at the end of the grace", how)
		}
	}
}

func TestEachMissingCapabilityIsNamed(t *testing.T) {
	l := newLab(t, "a")
	l.as = nobody(t, "+net_raw")
	a := l.sidecar("a", both)
	if got := a.try("hold web 500ms"); !strings.Contains(got, "missing capability NET_ADMIN") || !strings.Contains(got, "AmbientCapabilities=CAP_NET_ADMIN") {
		t.Error(got)
	}
	if s := a.status(); s.Fence != FenceLifetime || !strings.Contains(s.FenceWhy, "NET_ADMIN") || len(s.Missing) != 1 {
		t.Errorf("%+v", s)
	}
	a.ask("quit")
	l.as = nobody(t, "+net_admin")
	a = l.sidecar("a", both)
	a.ask("hold web 500ms") // it serves, and says that it cannot announce
	s := a.status()
	if len(s.Missing) != 1 || !strings.Contains(s.Groups[0].Addresses[0].Error, "missing capability NET_RAW") {
		t.Errorf("%+v", s)
	}
}
