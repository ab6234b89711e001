package vip

import "testing"

// What goes with its interface is nobody's removal, also when the interface is
// up again before anybody could look.
func TestAddressesThatGoWithTheirInterfaceAreNotRemovals(t *testing.T) {
	m, k, _ := fixture(t, FenceGate, "fd77::100/128")
	must(t, m.Set("web", hold(hour+hour)))
	m.linkChanged("eth0", true)
	clear(k.have)
	m.linkChanged("eth0", false)
	m.addressChanged(web6)
	m.linkChanged("eth0", true)
	for _, want := range []Reason{ReasonCarrierLost, ReasonCarrierBack} {
		if e := <-m.Events(); e.Kind != want {
			t.Errorf("%s, want %s", e.Kind, want)
		}
	}
	if as := m.Status().Groups[0].Addresses[0]; as.Repairs != 0 || !as.Present || len(k.have) != 1 {
		t.Errorf("%+v", as)
	}
	clear(k.have)
	m.addressChanged(web6)
	if e := <-m.Events(); e.Kind != ReasonRemoved || len(k.have) != 1 {
		t.Errorf("%+v", e)
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
