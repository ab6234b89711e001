package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// told are the events so far.
func told(m *Manager) string {
	var out []string
	for len(m.Events()) > 0 {
		e := <-m.Events()
		out = append(out, strings.TrimSpace(string(e.Kind)+" "+e.Detail))
	}
	return strings.Join(out, ", ")
}

const (
	lost = "carrier-lost eth0"
	back = "carrier-back eth0"
)

// Whoever notices first that an interface is gone which carries an address: it is
// told by that, and by nobody who notices it after.
func TestAnInterfaceThatIsGoneIsToldOnceWhoeverNoticesFirst(t *testing.T) {
	type notice struct {
		who  string
		look func(*Manager, *machine, *clock)
	}
	looks := []notice{
		{"the look that is due", func(m *Manager, _ *machine, c *clock) { c.at += lookEvery; m.step() }},
		{"a renewal", func(m *Manager, _ *machine, c *clock) { c.at += extendEvery; _ = m.Set("web", hold(c.at+hour)) }},
		{"who begins to listen", func(m *Manager, _ *machine, _ *clock) { _ = m.catchUp() }},
	}
	reports := []notice{
		{"the report of an address", func(m *Manager, _ *machine, _ *clock) { m.addressChanged(web4) }},
		{"the report of another interface", func(m *Manager, _ *machine, _ *clock) { m.linkReported(linkReport{7, "eth7", true}) }},
	}
	losses := map[string][]notice{
		"renamed": {{"the report", func(m *Manager, _ *machine, _ *clock) { m.linkReported(linkReport{2, "lan0", true}) }}},
		"deleted": {
			{"the report that it is down", func(m *Manager, _ *machine, _ *clock) { m.linkReported(linkReport{2, "eth0", false}) }},
			{"the report that it is deleted", func(m *Manager, _ *machine, _ *clock) { m.linkReported(linkReport{2, "eth0", false}) }},
		},
	}
	for loss, its := range losses {
		all := slices.Concat(looks, reports, its)
		for listening, since := range map[string]func(*Manager) error{
			"listened to": (*Manager).catchUp,
			"not yet":     func(*Manager) error { return nil },
		} {
			for i := range all {
				for j := range all {
					first, second := all[i], all[j]
					t.Run(fmt.Sprintf("%s, %s, %s, %s", loss, listening, first.who, second.who), func(t *testing.T) {
						m, k, c := fixture(t, FenceGate, "10.77.0.100/32", "fd77::100/128")
						must(t, m.Set("web", hold(hour+hour)))
						must(t, since(m))
						m.step()
						k.index = 0
						clear(k.have)
						for _, n := range slices.Concat([]notice{first, second}, all) {
							n.look(m, k, c)
						}
						if got := told(m); got != lost {
							t.Errorf("told: %s", got)
						}
						if as := m.Status().Groups[0].Addresses[0]; as.Present || as.Repairs > 0 {
							t.Errorf("%+v", as)
						}
					})
				}
			}
		}
	}
}

// Of two who look one has it told at once: nobody has to wait for a report.
func TestALookTellsThatAnInterfaceIsGone(t *testing.T) {
	for who, look := range map[string]func(*Manager, *clock){
		"the look that is due": func(m *Manager, c *clock) { c.at += lookEvery; m.step() },
		"a renewal":            func(m *Manager, c *clock) { c.at += extendEvery; _ = m.Set("web", hold(c.at+hour)) },
		"who is asked to":      func(m *Manager, _ *clock) { m.addressChanged(web4) },
	} {
		t.Run(who, func(t *testing.T) {
			m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
			must(t, m.Set("web", hold(hour+hour)))
			m.step()
			k.index = 0
			if look(m, c); told(m) != lost {
				t.Error("not told")
			}
		})
	}
}

// moment is something that happens to the interface, and what is told of it.
type moment struct {
	what func(*Manager, *machine, *clock)
	want string
}

func is(index int) moment { // without anybody's noticing
	return moment{func(_ *Manager, k *machine, _ *clock) { k.index = index }, ""}
}

func reported(index int, name string, up bool, want ...string) moment {
	return moment{func(m *Manager, _ *machine, _ *clock) { m.linkReported(linkReport{index, name, up}) }, strings.Join(want, ", ")}
}

// What is told of an interface, report by report, when some of them are out of date.
func TestWhatBecomesOfAnInterfaceIsToldOnceEach(t *testing.T) {
	look := func(want string) moment {
		return moment{func(m *Manager, _ *machine, c *clock) { c.at += lookEvery; m.step() }, want}
	}
	listen := func(want string) moment {
		return moment{func(m *Manager, _ *machine, _ *clock) { _ = m.catchUp() }, want}
	}
	carrier := func(yes bool) moment {
		return moment{func(_ *Manager, k *machine, _ *clock) { k.down = !yes }, ""}
	}
	for name, story := range map[string][]moment{
		"down and up before anybody could look": {
			reported(2, "eth0", false, lost), reported(2, "eth0", true, back),
		},
		"renamed and back before anybody could look": {
			reported(2, "lan0", true, lost), reported(2, "eth0", true, back), reported(2, "eth0", true),
		},
		"renamed and back, and a look in between, ahead of the reports": {
			is(0), look(lost), is(2), look(""),
			reported(2, "eth0", true), // of before
			reported(2, "lan0", true), reported(2, "eth0", true, back),
		},
		"down and up, then renamed, and a look ahead of the reports": {
			is(0), look(lost),
			reported(2, "eth0", false), reported(2, "eth0", true), reported(2, "lan0", true),
			is(2), reported(2, "eth0", true, back),
		},
		"deleted and made anew": {
			is(0), reported(2, "eth0", false, lost), reported(2, "eth0", false),
			is(9), carrier(false), reported(9, "eth0", false),
			carrier(true), reported(9, "eth0", true, back), reported(9, "eth0", true),
		},
		"deleted, and a look before its reports, and made anew": {
			is(0), look(lost), is(9),
			reported(2, "eth0", false), reported(2, "eth0", false), reported(9, "eth0", false), reported(9, "eth0", true, back),
		},
		"another has its name at once": {
			is(9), reported(2, "lan0", true, lost), reported(9, "eth0", true, back),
		},
		"another has its name, and no report says where the first is": {
			is(9), reported(9, "eth0", true, lost, back),
		},
		"another has its name, and then a third": {
			is(11), reported(2, "lan0", true, lost), reported(9, "eth0", true), reported(9, "lan1", true), reported(11, "eth0", true, back),
		},
		"a report that it is back comes when it is gone again": {
			reported(2, "eth0", false, lost), is(0), reported(2, "eth0", true), reported(2, "lan0", true),
			is(2), reported(2, "eth0", true, back),
		},
		"without carrier again when the report of it is read": {
			reported(2, "eth0", false, lost), carrier(false), reported(2, "eth0", true), reported(2, "eth0", false),
			carrier(true), reported(2, "eth0", true, back),
		},
		"renamed while nobody listens": {is(0), listen(lost), listen(""), reported(2, "lan0", true)},
		"renamed and seen while nobody listens": {
			is(0), look(lost), listen(""), is(2), reported(2, "eth0", true, back),
		},
		"renamed, seen and back while nobody listens": {is(0), look(lost), is(2), listen(back), listen("")},
		"without carrier while nobody listens":        {carrier(false), listen(lost), listen(""), carrier(true), listen(back)},
		"another in its place while nobody listens":   {is(9), listen(lost + ", " + back), listen(""), reported(9, "eth0", true)},
		"another interface":                           {reported(7, "eth7", true), reported(7, "eth7", false), reported(7, "lan0", true)},
	} {
		t.Run(name, func(t *testing.T) {
			m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
			must(t, m.Set("web", hold(hour+hour)))
			must(t, m.catchUp())
			m.step()
			for i, now := range story {
				if now.what(m, k, c); told(m) != now.want {
					t.Fatalf("moment %d: not told as %q", i+1, now.want)
				}
			}
		})
	}
}

// An interface that is not there, or without carrier, when it is first seen is not
// lost. It is back when it comes.
func TestAnInterfaceThatWasNeverThereIsNotLost(t *testing.T) {
	for name, begin := range map[string]func(*machine){
		"there is none":   func(k *machine) { k.index = 0 },
		"without carrier": func(k *machine) { k.down = true },
	} {
		t.Run(name, func(t *testing.T) {
			m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
			begin(k)
			_ = m.Set("web", hold(hour+hour))
			must(t, m.catchUp())
			c.at += lookEvery
			m.step()
			m.linkReported(linkReport{2, "eth0", false})
			if got := told(m); got != "" {
				t.Errorf("told: %s", got)
			}
			k.index, k.down = 2, false
			m.linkReported(linkReport{2, "eth0", true})
			if got := told(m); got != back {
				t.Errorf("told: %s", got)
			}
			if as := m.Status().Groups[0].Addresses[0]; !as.Present || as.Announcements == 0 || as.Error != "" {
				t.Errorf("%+v", as)
			}
		})
	}
}

// A look that fails says nothing of the interface: who begins to listen tries again,
// and a report is believed without it.
func TestALookThatFailsIsNoLoss(t *testing.T) {
	for name, known := range map[string]bool{"known before": true, "not yet": false} {
		t.Run(name, func(t *testing.T) {
			m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
			if !known {
				k.refuse["look"] = unix.EINTR
			}
			must(t, m.Set("web", hold(hour+hour)))
			k.refuse["look"] = unix.EINTR
			if err := m.catchUp(); !errors.Is(err, unix.EINTR) {
				t.Errorf("it says %v", err)
			}
			c.at += lookEvery
			m.step()
			if got := told(m); got != "" {
				t.Errorf("told: %s", got)
			}
			delete(k.refuse, "look")
			must(t, m.catchUp())
			m.linkReported(linkReport{2, "eth0", false})
			k.refuse["look"] = unix.EINTR
			m.linkReported(linkReport{2, "eth0", true})
			if got := told(m); got != lost+", "+back {
				t.Errorf("told: %s", got)
			}
		})
	}
}

// An interface that is back has its addresses put back, and announced again.
func TestAnInterfaceThatIsBackIsAnnounced(t *testing.T) {
	m, k, c := fixture(t, FenceGate, "10.77.0.100/32")
	must(t, m.Set("web", hold(hour+hour)))
	k.index = 0
	c.at += lookEvery
	m.step()
	k.take()
	k.index = 2
	m.linkReported(linkReport{2, "lan0", true})
	m.linkReported(linkReport{2, "eth0", true})
	said(t, k,
		"ip addr replace 10.77.0.100/32 dev eth0 valid_lft 3600 preferred_lft 3600",
		"arping -c 1 -A -I eth0 10.77.0.100")
}

// What a bridge says of its port is said by the same message, of another family.
func TestReportsOfInterfacesAreRead(t *testing.T) {
	name, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.IFLA_MTU, Data: []byte{0, 5, 0, 0}}, {Type: unix.IFLA_IFNAME, Data: []byte("eth0\x00")},
	})
	must(t, err)
	report := func(family byte, flags uint32) []byte {
		b := make([]byte, unix.SizeofIfInfomsg)
		b[0] = family
		binary.NativeEndian.PutUint32(b[4:], 9)
		binary.NativeEndian.PutUint32(b[8:], flags)
		return append(b, name...)
	}
	const up = unix.IFF_UP | unix.IFF_RUNNING
	for what, c := range map[string]struct {
		data []byte
		want linkReport
		ok   bool
	}{
		"up":               {report(unix.AF_UNSPEC, up), linkReport{9, "eth0", true}, true},
		"without carrier":  {report(unix.AF_UNSPEC, unix.IFF_UP), linkReport{9, "eth0", false}, true},
		"port of a bridge": {report(unix.AF_BRIDGE, up), linkReport{}, false},
		"without a name":   {report(unix.AF_UNSPEC, up)[:unix.SizeofIfInfomsg], linkReport{}, false},
		"cut off":          {report(unix.AF_UNSPEC, up)[:12], linkReport{}, false},
	} {
		if r, ok := reportedLink(c.data); ok != c.ok || ok && r != c.want {
			t.Errorf("%s: %+v, %v", what, r, ok)
		}
	}
}
