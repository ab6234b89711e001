package gossip

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Member is a node that gossip believes alive.
type Member struct {
	Node string
	Boot string
	Addr netip.AddrPort
	Meta []byte // not to be changed
	Self bool
}

// table is our own copy of the membership, kept by memberlist's events. The
// list of memberlist itself consists of pointers that it goes on writing to, and
// must not be asked for from within an event.
type table struct {
	mu     sync.Mutex
	self   string            // our name on the wire
	all    map[string]*entry // by name on the wire
	latest map[string]*entry // by node: the one first seen last, ourselves always
	seen   map[string]uint64 // by name on the wire: when it was first seen, in order
	names  []string          // of seen, the oldest first
	order  uint64
	copies []copied // one boot at two addresses
}

// maxNames is how many names are remembered. A predecessor that comes back to
// life, because somebody replays what he recorded of it or because it was
// falsely called dead, must not take the place of its successor.
const maxNames = 4096

type entry struct {
	Member
	name  string
	order uint64
	since time.Time
}

func newTable(self string) *table {
	return &table{self: self, all: map[string]*entry{}, latest: map[string]*entry{}, seen: map[string]uint64{}}
}

// splitName takes the name on the wire apart.
func splitName(name string) (node, boot string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 1 {
		return "", "", false
	}
	node, boot = name[:i], name[i+1:]
	return node, boot, namePattern.MatchString(node) && bootPattern.MatchString(boot)
}

// put adds or replaces a member.
func (t *table) put(n *memberlist.Node) {
	node, boot, ok := splitName(n.Name)
	ip, valid := netip.AddrFromSlice(n.Addr)
	if !ok || !valid {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &entry{
		Member: Member{
			Node: node, Boot: boot, Addr: netip.AddrPortFrom(ip.Unmap(), n.Port),
			Meta: slices.Clone(n.Meta), Self: n.Name == t.self,
		},
		name: n.Name, order: t.firstSeen(n.Name), since: time.Now(),
	}
	if old := t.all[n.Name]; old != nil {
		e.since = old.since
	}
	t.all[n.Name] = e
	if l := t.latest[node]; l == nil || !l.Self && l.order <= e.order || e.Self {
		t.latest[node] = e
	}
}

// firstSeen is the place of a name in the order in which names came up.
func (t *table) firstSeen(name string) uint64 {
	if order, ok := t.seen[name]; ok {
		return order
	}
	if len(t.names) >= maxNames {
		delete(t.seen, t.names[0])
		t.names = t.names[1:]
	}
	t.order++
	t.seen[name] = t.order
	t.names = append(t.names, name)
	return t.order
}

// remove takes a member out; another boot of the same node takes its place.
func (t *table) remove(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone := t.all[name]
	if gone == nil {
		return
	}
	delete(t.all, name)
	if t.latest[gone.Node] != gone {
		return
	}
	delete(t.latest, gone.Node)
	for _, e := range t.all {
		if l := t.latest[e.Node]; e.Node == gone.Node && (l == nil || l.order < e.order) {
			t.latest[e.Node] = e
		}
	}
}

// get is the member of a node.
func (t *table) get(node string) (Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.latest[node]
	if e == nil {
		return Member{}, false
	}
	return e.Member, true
}

// at is the node at one of the addresses, or nothing.
func (t *table) at(addrs []netip.AddrPort) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.latest {
		if slices.Contains(addrs, e.Addr) {
			return e.Node
		}
	}
	return ""
}

func (t *table) list() []Member {
	t.mu.Lock()
	out := make([]Member, 0, len(t.latest))
	for _, e := range t.latest {
		out = append(out, e.Member)
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// sample is up to n members at random, without this node.
func (t *table) sample(n int) []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Member, 0, n)
	seen := 0
	for _, e := range t.latest {
		if e.Self {
			continue
		}
		if seen++; len(out) < n {
			out = append(out, e.Member)
		} else if i := rand.IntN(seen); i < n {
			out[i] = e.Member
		}
	}
	return out
}

func (t *table) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all)
}
