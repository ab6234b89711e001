package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// machine is a system that keeps state and prints itself as an operator would
// have typed it.
type machine struct {
	log     []string
	have    map[string]int // seconds of life, by address
	open    map[netip.Addr]opening
	refuse  map[string]error // by the first word of what fails
	freeze  func()           // called in the midst of putting an address up
	noRules bool             // somebody has removed the rules
	index   int              // of the interface of every address; 0: it is gone
	down    bool             // it has no carrier
	fault   string           // of the addresses, until they are removed
	conns   map[netip.Addr][]connection
	mine    []connection
	left    map[netip.Addr]time.Duration // for how long a predecessor's gate stays open
}

func newMachine() *machine {
	return &machine{index: 2, have: map[string]int{}, refuse: map[string]error{}, conns: map[netip.Addr][]connection{}, left: map[netip.Addr]time.Duration{}}
}

func (k *machine) did(format string, a ...any) error {
	line := fmt.Sprintf(format, a...)
	k.log = append(k.log, line)
	word, _, _ := strings.Cut(line, " ")
	return k.refuse[word]
}

func (k *machine) take() string {
	out := strings.Join(k.log, "\n")
	k.log = nil
	return out
}

func (k *machine) Put(a Address, life int) error {
	if k.freeze != nil {
		k.freeze()
	}
	if k.index == 0 {
		return errNoInterface
	}
	k.have[a.String()] = life
	return k.did("%s", putCommand(a, life))
}

func (k *machine) Remove(a Address) (bool, error) {
	_, there := k.have[a.String()]
	delete(k.have, a.String())
	k.fault = ""
	return there, k.did("%s", removeCommand(a))
}

func (k *machine) Settle(Address) {}

func (k *machine) Look(a Address) (presence, error) {
	if err := k.refuse["look"]; err != nil {
		return presence{}, err
	}
	if k.index == 0 {
		return presence{}, errNoInterface
	}
	_, there := k.have[a.String()]
	return presence{there: there, carrier: !k.down, index: k.index, fault: k.fault}, nil
}

func (k *machine) Announce(a Address) error {
	if a.Prefix.Addr().Is6() {
		return k.did("ndsend %s %s", a.Prefix.Addr(), a.Interface)
	}
	return k.did("arping -c 1 -A -I %s %s", a.Interface, a.Prefix.Addr())
}

func (k *machine) Close() {}

func (k *machine) Own(Address, []netip.Addr) netip.Addr { return netip.MustParseAddr("10.77.0.1") }

func (k *machine) Other(netip.Addr, string) netip.Addr { return netip.MustParseAddr("fe80::2") }

func (k *machine) Open(ip netip.Addr) (int, error) { return len(k.conns[ip]), nil }

func (k *machine) Connections(ip netip.Addr) ([]connection, error) { return k.conns[ip], nil }

func (k *machine) Reset(ip netip.Addr) (int, error) {
	return len(k.conns[ip]), k.did("ss -K src %s", ip)
}

func (k *machine) Write(open map[netip.Addr]opening) (bool, error) {
	if err := k.refuse["nft"]; err != nil {
		return false, err
	}
	restored := k.noRules
	k.noRules, k.open = false, open
	var words []string
	for _, ip := range slices.SortedFunc(keys(open), netip.Addr.Compare) {
		o := open[ip]
		word := fmt.Sprintf("%s until %s", ip, o.until)
		if o.yielding {
			word += fmt.Sprintf(" yield fresh %s late %s self %s", o.fresh, o.late, o.self)
		}
		if o.watch {
			word += " watch"
		}
		if o.relay.IsValid() {
			word += fmt.Sprintf(" relay %s until %s", o.relay, o.strays)
		}
		words = append(words, word)
	}
	return restored, k.did("nft { %s }", strings.Join(words, "; "))
}

func (k *machine) Forget(ip netip.Addr) (int, error) {
	return 0, k.did("ss -K state time-wait src %s", ip)
}

func (k *machine) Note() {
	k.mine = nil
	_ = k.did("nft flush set mine")
}

func (k *machine) Mine(c []connection) error {
	k.mine = append(k.mine, c...)
	return k.did("nft add element mine # %d", len(c))
}

func (k *machine) Intact() (bool, error) { return !k.noRules, nil }

func (k *machine) Shuts(ip netip.Addr) (time.Duration, error) { return k.left[ip], nil }

func (k *machine) Remove2() error { return k.did("nft delete table") }

// gateOf lends the machine its other Remove.
type gateOf struct{ *machine }

func (g gateOf) Remove() error { return g.Remove2() }

// clock is a clock that tests set.
type clock struct{ at time.Duration }

func (c *clock) now() time.Duration { return c.at }

// fixture is a Manager of one group, web, on a machine that is not there.
func fixture(t *testing.T, f Fence, addrs ...string) (*Manager, *machine, *clock) {
	t.Helper()
	k, c := newMachine(), &clock{at: time.Hour}
	g := Group{Name: "web"}
	for _, a := range addrs {
		g.Addresses = append(g.Addresses, Address{netip.MustParsePrefix(a), "eth0"})
	}
	sys := system{addresses: k, announcer: k, neighbours: k, sockets: k}
	if f == FenceGate {
		sys.gate = gateOf{k}
	}
	m, err := newManager(Config{Node: "a", Cluster: "test", Groups: []Group{g}, Now: c.now, Registerer: prometheus.NewRegistry()}, sys)
	if err != nil {
		t.Fatal(err)
	}
	m.setFence(f, "test")
	return m, k, c
}
