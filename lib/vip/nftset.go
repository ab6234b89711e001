package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
)

// element of a set: a key, in a map its value, and until when it lives (0: for
// ever).
type element struct {
	key, value netip.Addr
	until      time.Duration
}

// wants lists the elements that a table should have, by set.
func (t *table) wants(open map[netip.Addr]opening) map[string][]element {
	six := t.Family == nftables.TableFamilyIPv6
	out := map[string][]element{}
	put := func(set string, e element) {
		if t.sets[set] != nil {
			out[set] = append(out[set], e)
		}
	}
	for _, ip := range slices.SortedFunc(keys(open), netip.Addr.Compare) {
		o := open[ip]
		if ip.Is6() != six {
			continue
		}
		put(setOurs, element{key: ip})
		put(setServe, element{key: ip, until: o.until})
		if o.watch {
			put(setWatch, element{key: ip})
		}
		if o.relay.IsValid() {
			put(setRelay, element{key: ip, value: o.relay, until: o.strays})
		}
		if !o.yielding {
			put(setAnswer, element{key: ip, until: o.until})
			continue
		}
		put(setYield, element{key: ip})
		put(setFresh, element{key: ip, until: o.fresh})
		if o.self.IsValid() {
			put(setSelf, element{key: ip, value: o.self})
		}
		if o.late.IsValid() {
			put(setLate, element{key: ip, value: o.late, until: o.until})
		}
	}
	return out
}

// elements queues what has to change in the sets. An element is never changed in
// place, which only recent kernels can: a set that differs is emptied and filled
// in one transaction. Connections are forgotten with the last move.
func (n *nft) elements(open map[netip.Addr]opening) (changed bool, err error) {
	now := n.now()
	n.adds = 0
	for _, t := range n.tables {
		want := t.wants(open)
		for _, name := range sorted(t.sets) {
			if !t.differs(name, want) && name != n.stale {
				continue
			}
			changed = true
			n.conn.FlushSet(t.sets[name])
			at := now
			if name == setServe || name == setAnswer {
				at += n.allow
			}
			if err := n.fill(t.sets[name], want[name], at); err != nil {
				return changed, err
			}
		}
		t.written, t.dirty = want, false
	}
	n.stale = ""
	return changed, nil
}

// differs says whether a set has to be written. The connections that packets
// have put into a set are emptied out when the move that needs them is over.
func (t *table) differs(name string, want map[string][]element) bool {
	if move, ok := map[string]string{setMineA: setWatch, setMineB: setWatch, setTheirs: setYield}[name]; ok {
		return len(want[move]) == 0 && len(t.written[move]) > 0
	}
	return t.dirty || !slices.Equal(want[name], t.written[name])
}

// refill has the next transaction write all sets again.
func (n *nft) refill() {
	for _, t := range n.tables {
		t.dirty = true
	}
}

func (n *nft) fill(s *nftables.Set, want []element, now time.Duration) error {
	var list []nftables.SetElement
	for _, e := range want {
		if el, alive := e.nft(now); alive {
			list = append(list, el)
		}
	}
	if len(list) == 0 {
		return nil
	}
	if err := n.conn.SetAddElements(s, list); err != nil {
		return fmt.Errorf("nft add element %s: %w", s.Name, err)
	}
	n.adds += len(list)
	return nil
}

func (e element) nft(now time.Duration) (nftables.SetElement, bool) {
	out := nftables.SetElement{Key: e.key.AsSlice()}
	if e.value.IsValid() {
		out.Val = e.value.AsSlice()
	}
	if e.until != 0 {
		out.Timeout = (e.until - now).Truncate(time.Millisecond)
		return out, out.Timeout > 0
	}
	return out, true
}

// mineSets are the two lists of our own connections.
var mineSets = [2]string{setMineA, setMineB}

var errNoRules = errors.New("the rules are not there")

func (n *nft) Note() { n.stale = mineSets[1-n.list] }

func (n *nft) Mine(conns []connection) error {
	if n.conn == nil || !n.stands {
		return errNoRules
	}
	next := 1 - n.list
	const chunk = 500
	for _, t := range n.tables {
		s := t.sets[mineSets[next]]
		if s == nil {
			continue
		}
		var list []nftables.SetElement
		for _, c := range conns {
			if c.local.Addr().Is6() == (t.Family == nftables.TableFamilyIPv6) {
				list = append(list, nftables.SetElement{Key: c.key()})
			}
		}
		for part := range slices.Chunk(list, chunk) {
			if err := n.conn.SetAddElements(s, part); err != nil {
				return fmt.Errorf("nft add element %s: %w", s.Name, err)
			}
			if err := n.flush(); err != nil {
				return fmt.Errorf("nft add element %s: %w", s.Name, err)
			}
			n.committed() // what is added may have been there
		}
	}
	n.list, n.stale = next, mineSets[1-next]
	return nil
}

// key is the form of a tuple in a set: each part is padded to four bytes.
func (c connection) key() []byte {
	out := append([]byte(nil), c.remote.Addr().AsSlice()...)
	out = append(out, byte(c.remote.Port()>>8), byte(c.remote.Port()), 0, 0)
	out = append(out, c.local.Addr().AsSlice()...)
	return append(out, byte(c.local.Port()>>8), byte(c.local.Port()), 0, 0)
}
