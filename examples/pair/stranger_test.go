package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"tandem/examples/lab"
)

// TestStrangerKeepsTheAddressUntilForced: somebody on the network has the IPv6
// address when the cluster starts.
func TestStrangerKeepsTheAddressUntilForced(t *testing.T) {
	long(t)
	l := start(t, lab.Config{System: lab.Tandem{Program: tandem(t)}, IPv6: true})
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, node := range l.System.Nodes() {
		if err := l.Kill(node, "tandem"); err != nil {
			t.Fatal(err)
		}
	}
	until(t, 20*time.Second, "the kernels forget the addresses", func() bool { return len(l.Referee.Last().Have) == 0 })
	vip := lab.VIP6().String()
	out, err := exec.CommandContext(t.Context(), "ip", "-n", l.Node("a").NS, "addr", "add", vip+"/128", "dev", "eth0", "nodad").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := l.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "status names the stranger", func() bool {
		out, _ := l.Tandem(t.Context(), "lb1", "status") // its exit code is about health
		return strings.Contains(out, "address-in-use") && strings.Contains(out, l.Node("a").MAC.String())
	})
	if out, err := l.Tandem(t.Context(), "lb2", "check"); err == nil || !strings.Contains(out, l.Node("a").MAC.String()+" answers for "+vip) {
		t.Errorf("check: %v\n%s", err, out)
	}
	if have := l.Referee.Last().Have; len(have) > 0 {
		t.Fatalf("%v took it up", have)
	}
	if out, err := l.Tandem(t.Context(), "lb1", "move", "--to", "lb2"); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("move without --force: %v\n%s", err, out)
	}
	if out, err := l.Tandem(t.Context(), "lb1", "move", "--to", "lb2", "--force"); err != nil {
		t.Errorf("move --force: %v\n%s", err, out)
	}
	until(t, 20*time.Second, "lb2 has it", func() bool { h := l.Referee.Last().Have; return len(h) == 1 && h[0] == "lb2" })
}
