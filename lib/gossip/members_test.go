package gossip

import (
	"fmt"
	"net"
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
	if got := table.clashes(later); got != nil {
		t.Errorf("two boots at one address: %v", got)
	}
	table.put(node("n2.0000000c", "10.0.0.3"))
	if got := table.clashes(time.Now()); got != nil {
		t.Errorf("at once: %v", got)
	}
	if got := table.clashes(later); len(got) != 1 || got[0] != "n2" {
		t.Errorf("after a minute: %v", got)
	}
}
