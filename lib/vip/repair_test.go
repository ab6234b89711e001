package vip

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// An address that duplicate address detection has found elsewhere is there, and
// yet the kernel neither answers for it nor serves it.
func TestAddressOfFailedDuplicateDetectionIsMended(t *testing.T) {
	m, k, _ := fixture(t, FenceGate, "fd77::100/128")
	must(t, m.Set("web", hold(hour+hour)))
	k.take()
	k.fault = "dad-failed"
	for range 2 { // the second finds it right
		m.addressChanged(web6)
	}
	said(t, k,
		"ip addr del fd77::100/128 dev eth0",
		"ip -6 addr replace fd77::100/128 dev eth0 valid_lft 3601 preferred_lft 0 nodad",
		"ndsend fd77::100 eth0")
	if e := <-m.Events(); e.Kind != ReasonFlags || e.Group != "web" || e.Detail != "dad-failed" || len(m.Events()) > 0 {
		t.Errorf("%+v, and %d more", e, len(m.Events()))
	}
	as := m.Status().Groups[0].Addresses[0]
	if as.Repairs != 0 || !as.Present || as.Error != "" || as.Announcements != 2 {
		t.Errorf("nobody removed it: %+v", as)
	}
	if n := testutil.ToFloat64(m.metrics.events.WithLabelValues("web", string(ReasonFlags))); n != 1 {
		t.Errorf("the metric counts %v", n)
	}
}

func TestLikelyCulpritIsNamedWithTheMend(t *testing.T) {
	files := func(names ...string) fstest.MapFS {
		out := fstest.MapFS{}
		for _, n := range names {
			out[n] = &fstest.MapFile{}
		}
		return out
	}
	for name, c := range map[string]struct {
		root fstest.MapFS
		want []string // each once
		not  string
	}{
		"nobody": {files("run/systemd/notify"), []string{"no program known", "`ip addr del`"}, "likely"},
		"networkd": {
			files("run/systemd/netif/state"),
			[]string{"likely systemd-networkd runs here", "KeepConfiguration=yes"},
			"NetworkManager",
		},
		"NetworkManager, by two files": {
			files("run/NetworkManager/NetworkManager.pid", "run/NetworkManager/devices/3"),
			[]string{"likely NetworkManager runs here", "nmcli device set IFACE managed no"},
			"networkd",
		},
		"two": {files("run/dhcpcd.pid", "run/keepalived.pid"), []string{"denyinterfaces IFACE", "; or keepalived runs here"}, "networkd"},
	} {
		t.Run(name, func(t *testing.T) {
			got := culprit(c.root)
			for _, w := range c.want {
				if strings.Count(got, w) != 1 {
					t.Errorf("want once %q: %s", w, got)
				}
			}
			if strings.Contains(got, c.not) {
				t.Errorf("names %s: %s", c.not, got)
			}
		})
	}
}

// What goes with its interface is nobody's removal, also when the interface is
// up again before anybody could look.
func TestAddressesThatGoWithTheirInterfaceAreNotRemovals(t *testing.T) {
	m, k, _ := fixture(t, FenceGate, "fd77::100/128")
	must(t, m.Set("web", hold(hour+hour)))
	clear(k.have)
	m.linkReported(linkReport{2, "eth0", false})
	m.addressChanged(web6)
	m.linkReported(linkReport{2, "eth0", true})
	if got := told(m); got != lost+", "+back {
		t.Errorf("told: %s", got)
	}
	if as := m.Status().Groups[0].Addresses[0]; as.Repairs != 0 || !as.Present || len(k.have) != 1 {
		t.Errorf("%+v", as)
	}
	clear(k.have)
	m.addressChanged(web6)
	if e := <-m.Events(); e.Kind != ReasonRemoved || len(k.have) != 1 {
		t.Errorf("%+v", e)
	}
	repairs := testutil.ToFloat64(m.metrics.events.WithLabelValues("web", string(ReasonRemoved)))
	if as := m.Status().Groups[0].Addresses[0]; as.Repairs != 1 || repairs != 1 {
		t.Errorf("%+v; the metric counts %v", as, repairs)
	}
}

// An absence that the kernel has not reported yet is judged by the next look.
func TestUnreportedAbsenceIsJudgedByTheSecondLook(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	must(t, m.Set("web", hold(hour+hour)))
	m.step()
	clear(k.have)
	c.at += lookEvery
	if m.step(); len(k.have) != 0 {
		t.Error("judged by the first look")
	}
	c.at += gateEvery
	if m.step(); len(k.have) != 1 {
		t.Error("not put back by the second look")
	}
	if e := <-m.Events(); e.Kind != ReasonRemoved {
		t.Errorf("%+v", e)
	}
}

func TestLeftoversAreRemovedWhenTheirGateShuts(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32", "fd77::100/128")
	k.have["10.77.0.100/32@eth0"], k.have["fd77::100/128@eth0"] = 2, 2
	k.left[web4] = 300 * ms
	must(t, m.Clean())
	said(t, k, "ip addr del fd77::100/128 dev eth0") // its gate is shut already
	c.at += 299 * ms
	if wait := m.step(); wait > ms || len(k.have) != 1 {
		t.Errorf("waits %s, has %v", wait, k.have)
	}
	said(t, k)
	c.at += ms
	m.step()
	said(t, k, "ip addr del 10.77.0.100/32 dev eth0", "nft {  }")
	for range 2 {
		if e := <-m.Events(); e.Kind != ReasonLeftBehind {
			t.Errorf("%+v", e)
		}
	}
}

func TestTakingUpEndsWhatAPredecessorLeft(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	k.have["10.77.0.100/32@eth0"] = 2
	k.left[web4] = 300 * ms
	must(t, m.Clean())
	must(t, m.Set("web", hold(c.at+500*ms)))
	said(t, k, "ip addr del 10.77.0.100/32 dev eth0", "nft {  }",
		"nft { 10.77.0.100 until 1h0m0.5s }",
		"ip addr replace 10.77.0.100/32 dev eth0 valid_lft 2 preferred_lft 2",
		"arping -c 1 -A -I eth0 10.77.0.100")
}

// TestWhatANewProgramGoesOnHoldingIsNotLeftBehind: the address that the former
// program of this process put up is never gone, nor is its gate ever shut; what is
// not kept goes as ever.
func TestWhatANewProgramGoesOnHoldingIsNotLeftBehind(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	k.have["10.77.0.100/32@eth0"] = 2
	k.left[web4] = 1800 * ms
	must(t, m.Set("web", hold(c.at+1800*ms)))
	must(t, m.Clean("web"))
	said(t, k, "nft { 10.77.0.100 until 1h0m1.8s }",
		"ip addr replace 10.77.0.100/32 dev eth0 valid_lft 3 preferred_lft 3",
		"arping -c 1 -A -I eth0 10.77.0.100",
		"nft { 10.77.0.100 until 1h0m1.8s }")
	c.at += 1700 * ms
	m.step()
	if len(k.have) != 1 {
		t.Errorf("it has %v", k.have)
	}

	m, k, c = fixture(t, FenceGate, "10.77.0.100/32")
	k.have["10.77.0.100/32@eth0"] = 2 // the lease has ended while nobody was there
	if err := m.Set("web", hold(c.at-ms)); !errors.Is(err, ErrLate) {
		t.Error(err)
	}
	must(t, m.Clean())
	said(t, k, "ip addr del 10.77.0.100/32 dev eth0", "nft {  }")
}
