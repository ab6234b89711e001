package gossip

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func node(name, ip string) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: net.ParseIP(ip), Port: 7946, Meta: []byte(name)}
}

func TestSuccessorKeepsItsPlace(t *testing.T) {
	table := newTable("n1.00000001")
	boot := func() string { m, _ := table.get("n2"); return m.Boot }
	table.put(node("n1.00000001", "10.0.0.1"))
	table.put(node("n2.0000000a", "10.0.0.2"))
	table.put(node("n2.0000000b", "10.0.0.2"))
	if boot() != "0000000b" {
		t.Errorf("after a restart: %s", boot())
	}
	table.remove("n2.0000000a")
	table.put(node("n2.0000000a", "10.0.0.2")) // replayed
	if boot() != "0000000b" {
		t.Errorf("the predecessor took the place of its successor: %s", boot())
	}
	table.remove("n2.0000000b")
	if boot() != "0000000a" {
		t.Errorf("the only one left: %s", boot())
	}
	table.remove("n2.0000000a")
	if _, ok := table.get("n2"); ok || table.count() != 1 {
		t.Error("n2 is still there")
	}
	table.put(node("n1.0000000f", "10.0.0.9"))
	if m, _ := table.get("n1"); !m.Self {
		t.Error("somebody else took our own place")
	}
	table.remove("n1.00000001") // we have left
	table.remove("never.00000000")
	table.put(node("nonsense", "10.0.0.9"))
	table.put(&memberlist.Node{Name: "n3.00000001", Addr: []byte{1, 2}})
	if table.count() != 1 {
		t.Errorf("%d members", table.count())
	}
	for i := range 3 * maxNames {
		name := fmt.Sprintf("n.%08x", i)
		table.put(node(name, "10.0.0.9"))
		table.remove(name)
	}
	if len(table.seen) > maxNames || len(table.names) > maxNames {
		t.Errorf("%d names remembered", len(table.seen))
	}
}

func TestClashNeedsTwoAddressesForLong(t *testing.T) {
	table := newTable("n1.00000001")
	table.put(node("n2.0000000a", "10.0.0.2"))
	table.put(node("n2.0000000b", "10.0.0.2"))
	later := time.Now().Add(time.Minute)
	if got := clashes(table, later); got != "" {
		t.Errorf("two boots at one address: %v", got)
	}
	table.put(node("n2.0000000c", "10.0.0.3"))
	if got := clashes(table, time.Now()); got != "" {
		t.Errorf("at once: %v", got)
	}
	if got := clashes(table, later); got != "n2 10.0.0.2:7946 10.0.0.3:7946" {
		t.Errorf("after a minute: %v", got)
	}
}

// clashes are those of a table whose process sends from 10.0.0.7, as text.
func clashes(table *table, now time.Time) string {
	var out []string
	for _, c := range table.clashes(now, netip.MustParseAddrPort("10.0.0.7:7946")) {
		out = append(out, c.Node)
		for _, a := range c.At {
			out = append(out, a.String())
		}
	}
	return strings.Join(out, " ")
}

// TestClashWithOurselvesNeedsNoSecondAddress: who has this node's settings says
// that it is at this node's address, wherever it is.
func TestClashWithOurselvesNeedsNoSecondAddress(t *testing.T) {
	table := newTable("n1.00000001")
	table.put(node("n1.00000001", "10.0.0.1"))
	table.put(node("n1.0000000a", "10.0.0.1"))
	if got := clashes(table, time.Now().Add(clashAfter/2)); got != "" {
		t.Errorf("as long as it may be our predecessor: %v", got)
	}
	if got := clashes(table, time.Now().Add(time.Minute)); got != "n1 10.0.0.1:7946 10.0.0.7:7946" {
		t.Errorf("after a minute: %v", got)
	}
	table.remove("n1.0000000a")
	if got := clashes(table, time.Now().Add(time.Minute)); got != "" {
		t.Errorf("when it is gone: %v", got)
	}
}

// TestClashOfACopiedProcess: a machine that was copied while it ran has the same
// boot. Memberlist says so now and then for as long as it lasts.
func TestClashOfACopiedProcess(t *testing.T) {
	table := newTable("n1.00000001")
	now := time.Now()
	for range 2 * maxCopies {
		table.conflict(node("n2.0000000a", "10.0.0.2"), node("n2.0000000a", "10.0.0.3"), now)
	}
	if got := clashes(table, now.Add(time.Second)); got != "n2 10.0.0.2:7946 10.0.0.3:7946" || len(table.copies) != 1 {
		t.Errorf("%v, remembered %d times", got, len(table.copies))
	}
	if got := clashes(table, now.Add(2*copyLife)); got != "" {
		t.Errorf("long after: %v", got)
	}
	for i := range 2 * maxCopies {
		table.conflict(node(fmt.Sprintf("n%d.0000000a", i), "10.0.0.2"), node("x", "10.0.0.3"), now)
	}
	if len(table.copies) > maxCopies {
		t.Errorf("%d remembered", len(table.copies))
	}
}
