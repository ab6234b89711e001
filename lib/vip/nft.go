package vip

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// opening is what the gate lets pass for one address. Times are CLOCK_BOOTTIME.
type opening struct {
	until    time.Duration // served until
	yielding bool
	fresh    time.Duration // yielding: new connections until
	self     netip.Addr    // yielding: in whose name neighbours are asked
	late     netip.Addr    // yielding: where connections go that begin afterwards
	watch    bool          // our own connections are noted
	relay    netip.Addr    // where strays go
	strays   time.Duration // ... until
}

// gater is the gate of a machine.
type gater interface {
	// Write makes the gate let pass exactly what is given, in one transaction,
	// and puts its rules up where they are missing. When it has put them up it
	// relays nothing yet, since nothing is known of our own connections; after
	// Mine the next Write does. It says whether somebody had removed them.
	Write(open map[netip.Addr]opening) (restored bool, err error)
	// Note begins, with the next Write, a new list of our own connections, which
	// are no strays: what begins from then on is noted in it, beside the list
	// that is in force.
	Note()
	// Mine completes the new list with the connections that are there already;
	// the next Write drops the old one.
	Mine(conns []connection) error
	// Intact says whether the rules stand as they were put up.
	Intact() (bool, error)
	// Shuts says for how long the gate that stands lets an address pass.
	Shuts(ip netip.Addr) (time.Duration, error)
	// Remove takes the rules away.
	Remove() error
}

// connection is a TCP connection of this machine: the other side first.
type connection struct{ remote, local netip.AddrPort }

// nft is the gater of a real machine.
type nft struct {
	name   string
	now    func() time.Duration
	four   bool // IPv4 tables are needed
	six    bool
	conn   *nftables.Conn
	raw    *netlink.Conn // what conn talks through
	ask    *netlink.Conn // for questions that the library does not know
	tables []*table
	stands bool          // the rules have been put up, and nobody is known to have touched them
	hurt   bool          // somebody has
	gen    uint32        // of the kernel after our latest transaction
	unsure bool          // gen is not known to be that
	adds   int           // elements that the transaction in hand adds
	list   int           // which of mineSets is in force
	stale  string        // the other one, if it is to be emptied
	allow  time.Duration // how late the transaction in hand may be carried out
}

// table is one of ours, with its sets and what was last written to them.
type table struct {
	*nftables.Table
	chains  []chainRules
	sets    map[string]*nftables.Set
	written map[string][]element
	dirty   bool // what is in the sets is not known to be what was written
}

// tableName is ours alone: it carries the cluster and the node, and where their
// letters do not fit a table's name, a hash of them.
func tableName(cluster, node string) string {
	odd := false
	clean := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		odd = true
		return '_'
	}
	name := "tandem_" + strings.Map(clean, cluster) + "_" + strings.Map(clean, node)
	if odd || len(name) > 200 {
		h := fnv.New32a()
		_, _ = h.Write([]byte(cluster + "\x00" + node)) // never fails
		name = fmt.Sprintf("%.190s_%08x", name, h.Sum32())
	}
	return name
}

// openNFT tries the whole gate in tables of another name, so that what a
// predecessor left stands until Clean.
func openNFT(name string, now func() time.Duration, four, six bool) (*nft, error) {
	n := &nft{name: name + "_probe", now: now, four: four, six: six}
	if err := n.dial(); err != nil {
		return nil, err
	}
	if err := n.install(nil); err != nil {
		n.close()
		return nil, fmt.Errorf("nft add table %s: %w", n.name, err)
	}
	if err := n.Remove(); err != nil {
		n.close()
		return nil, err
	}
	n.name = name
	return n, nil
}

func (n *nft) dial() error {
	n.close()
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		n.raw = c
		return nil
	}))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	n.conn = conn
	n.ask, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		n.close()
		return fmt.Errorf("open nftables: %w", err)
	}
	return nil
}

func (n *nft) close() {
	if n.conn != nil {
		_ = n.conn.CloseLasting() // nothing to be done about it
	}
	if n.ask != nil {
		_ = n.ask.Close() // nothing to be done about it
	}
	n.conn, n.ask = nil, nil
}

func (n *nft) build() {
	n.tables = nil
	add := func(f nftables.TableFamily, chains []chainRules) *table {
		t := &table{
			Table: &nftables.Table{Name: n.name, Family: f}, chains: chains,
			sets: map[string]*nftables.Set{}, written: map[string][]element{},
		}
		n.tables = append(n.tables, t)
		return t
	}
	for _, l := range []layout{layout4, layout6} {
		if l.size == 4 && !n.four || l.size == 16 && !n.six {
			continue
		}
		t := add(l.family, l.chains())
		for _, s := range []string{setOurs, setYield, setWatch} {
			t.set(s, nftables.Set{KeyType: l.addr})
		}
		for _, s := range []string{setServe, setFresh} {
			t.set(s, nftables.Set{KeyType: l.addr, HasTimeout: true})
		}
		for _, s := range []string{setLate, setRelay} {
			t.set(s, nftables.Set{KeyType: l.addr, IsMap: true, DataType: l.addr, HasTimeout: true})
		}
		for _, s := range mineSets {
			t.set(s, nftables.Set{KeyType: l.tuple, Concatenation: true, Dynamic: true, Size: tupleSize})
		}
		t.set(setTheirs, nftables.Set{KeyType: l.tuple, Concatenation: true, Dynamic: true, HasTimeout: true, Size: tupleSize})
		if l.size == 16 {
			t.set(setSelf, nftables.Set{KeyType: l.addr, IsMap: true, DataType: l.addr})
		}
	}
	if n.four {
		t := add(nftables.TableFamilyARP, arpChains())
		t.set(setOurs, nftables.Set{KeyType: nftables.TypeIPAddr})
		t.set(setAnswer, nftables.Set{KeyType: nftables.TypeIPAddr, HasTimeout: true})
		t.set(setSelf, nftables.Set{KeyType: nftables.TypeIPAddr, IsMap: true, DataType: nftables.TypeIPAddr})
	}
}

func (t *table) set(name string, s nftables.Set) {
	s.Name, s.Table = name, t.Table
	t.sets[name] = &s
}

// install puts the tables up with what is open, or replaces them, in one
// transaction: there is no instant without a gate.
func (n *nft) install(open map[netip.Addr]opening) error {
	n.build()
	for _, t := range n.tables {
		n.conn.AddTable(t.Table) // so that there is one to delete
		n.conn.DelTable(t.Table)
		n.conn.AddTable(t.Table)
		for _, name := range sorted(t.sets) {
			if err := n.conn.AddSet(t.sets[name], nil); err != nil {
				return fmt.Errorf("nft add set %s: %w", name, err)
			}
		}
		for _, c := range t.chains {
			n.addChain(t, c)
		}
	}
	if _, err := n.elements(open); err != nil {
		return err
	}
	if err := n.flush(); err != nil {
		return err
	}
	n.stands, n.unsure = true, true
	return nil
}

// committed notes a transaction that the kernel has carried out. It does not
// count those that changed nothing, such as the emptying of an empty set: had we
// counted one, somebody's next transaction would pass for ours.
func (n *nft) committed() {
	n.gen++
	n.unsure = n.unsure || n.adds == 0
	n.adds = 0
}

func (n *nft) addChain(t *table, c chainRules) {
	chain := &nftables.Chain{Name: c.name, Table: t.Table}
	if c.hook != nil {
		chain.Type, chain.Hooknum = nftables.ChainTypeFilter, c.hook
		chain.Priority = nftables.ChainPriorityRef(gatePriority)
	}
	n.conn.AddChain(chain)
	for _, r := range c.rules {
		n.conn.AddRule(&nftables.Rule{Table: t.Table, Chain: chain, Exprs: r})
	}
}

// stale is how much later than the reading of the clock a transaction may have
// been carried out. When it may have been later, because this process was
// stopped or starved in between, its timeouts end too late: it is repeated, with
// deadlines earlier by what the last one took. (Not those of a planned move:
// they are agreements, and an old holder that takes no new connections before
// the new one does loses some.)
const (
	stale = 3 * time.Millisecond
	// The constant allowMost bounds it, so that one long stall does not shut the
	// gate of a lease that has been renewed.
	allowMost = 20 * time.Millisecond
	maxWrites = 5
)

func (n *nft) Write(open map[netip.Addr]opening) (restored bool, err error) {
	return n.inTime(open, n.write)
}

// inTime repeats a write until one was surely carried out in time, at most
// maxWrites times. A process that is stopped between the reading of the clock and
// the transaction, for less than a millisecond of each renewal, carries out a
// late one when it wakes; the repetition shuts the gate again at once.
func (n *nft) inTime(open map[netip.Addr]opening, write func(map[netip.Addr]opening) (bool, error)) (restored bool, err error) {
	n.allow = 0
	for range maxWrites {
		began := n.now()
		again, err := write(open)
		if restored = restored || again; again {
			open = unrelayed(open)
		}
		took := n.now() - began
		if err != nil || took < n.allow+stale {
			return restored, err
		}
		n.allow = min(took, allowMost)
		n.refill()
	}
	return restored, nil
}

func unrelayed(open map[netip.Addr]opening) map[netip.Addr]opening {
	out := map[netip.Addr]opening{}
	for ip, o := range open {
		o.relay = netip.Addr{}
		out[ip] = o
	}
	return out
}

func (n *nft) write(open map[netip.Addr]opening) (restored bool, err error) {
	if n.conn == nil {
		if err := n.dial(); err != nil {
			return false, err
		}
	}
	if n.stands {
		changed, err := n.elements(open)
		if err != nil || !changed {
			return false, err
		}
		if err = n.flush(); err == nil {
			n.committed()
			return false, nil
		}
		// The sets are gone, or the answers of the kernel have got out of step.
		if derr := n.dial(); derr != nil {
			return false, errors.Join(err, derr)
		}
		n.hurt = true
	}
	restored, n.hurt = n.hurt, false
	if err := n.install(unrelayed(open)); err != nil {
		n.stands, n.hurt = false, restored
		return restored, fmt.Errorf("nft add table %s: %w", n.name, named(err))
	}
	return restored, nil
}

// patience bounds the wait for the kernel's answers. The library waits for one
// to each message, and some errors have only one answer to all.
const patience = 500 * time.Millisecond

func (n *nft) flush() error {
	if err := n.raw.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return n.conn.Flush()
}

func (n *nft) Remove() error {
	if n.conn == nil {
		return nil
	}
	n.build()
	for _, t := range n.tables {
		n.conn.AddTable(t.Table)
		n.conn.DelTable(t.Table)
	}
	n.stands = false
	if err := n.flush(); err != nil {
		return fmt.Errorf("nft delete table %s: %w", n.name, named(err))
	}
	return nil
}
