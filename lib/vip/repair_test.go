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
