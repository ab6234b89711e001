package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Followers have addresses between that of the virtual IP and those from which
// the referee asks.
const (
	firstFollower = 101
	maxFollowers  = 59
)

// layout is what the lab consists of.
func (l *Lab) layout() []place {
	all := slices.Clone(fixed)
	for i := range l.Followers {
		all = append(all, place{"edge" + strconv.Itoa(i+1), byte(firstFollower + i)})
	}
	return all
}

func (c *Config) checkFollowers() error {
	if c.Followers < 0 || c.Followers > maxFollowers {
		return fmt.Errorf("check followers: %d, at most %d have an address", c.Followers, maxFollowers)
	}
	if _, ok := c.System.(Tandem); c.Followers > 0 && !ok {
		return errors.New("check followers: only tandem has load balancers without a vote")
	}
	return nil
}

// Edge are the names of the load balancers without a vote: edge1, edge2
// and so on.
func (l *Lab) Edge() []string {
	var names []string
	for _, p := range l.layout()[len(fixed):] {
		names = append(names, p.name)
	}
	return names
}

// Balancers are all nodes with a HAProxy: the pair and those that follow.
func (l *Lab) Balancers() []string { return append(LBs(), l.Edge()...) }

// neighbours are entries for everybody else that a node need not learn, in a lab
// with followers. All namespaces of a machine share one table of neighbours,
// which holds 1024 that were learned: where thirty nodes talk to each other it is
// full, and then nobody answers who is not in it. Real machines have a table each.
// Nothing is entered for the virtual address.
func (l *Lab) neighbours(n *Node) []string {
	if l.Followers == 0 {
		return nil
	}
	var lines []string
	for _, p := range l.layout() {
		if p.name != n.Name {
			lines = append(lines, fmt.Sprintf("neigh add %s lladdr %s dev eth0 nud permanent", address(p.host), hardware(p.host)))
		}
	}
	return lines
}

// toGossip matches what one sidecar says to another.
const toGossip = "meta l4proto { tcp, udp } th dport 7946"

// Traffic is what has passed a node's cable, the way it was forwarded to the
// others: what it sent and what it got.
type Traffic struct{ Sent, Got Count }

// Count of datagrams, with their headers.
type Count struct{ Packets, Bytes int }

// counters are in a table of their own, so that filters come and go without it.
// The sets have an element for each cable.
const counters = `table bridge labcount
delete table bridge labcount
table bridge labcount {
 set sent { type ifname; size 512; flags dynamic; counter; }
 set got { type ifname; size 512; flags dynamic; counter; }
 chain forward {
  type filter hook forward priority 10; policy accept;
  udp dport 7946 update @sent { iifname } update @got { oifname }
 }
}
`

// CountGossip counts from now on what the sidecars say to each other, from zero.
func (l *Lab) CountGossip(ctx context.Context) error {
	if _, err := run(ctx, counters, "ip", "netns", "exec", l.bridge, "nft", "-f", "-"); err != nil {
		return fmt.Errorf("count on the bridge: %w", err)
	}
	return nil
}

// Gossip is what was counted since, by node.
func (l *Lab) Gossip(ctx context.Context) (map[string]Traffic, error) {
	all := map[string]Traffic{}
	for _, set := range []string{"sent", "got"} {
		text, err := run(ctx, "", "ip", "netns", "exec", l.bridge, "nft", "-j", "list", "set", "bridge", "labcount", set)
		if err != nil {
			return nil, fmt.Errorf("count on the bridge: %w", err)
		}
		counted, err := readCounts([]byte(text))
		if err != nil {
			return nil, err
		}
		for node, c := range counted {
			t := all[node]
			if set == "sent" {
				t.Sent = c
			} else {
				t.Got = c
			}
			all[node] = t
		}
	}
	return all, nil
}

// readCounts reads what nft prints of a set whose elements count.
func readCounts(text []byte) (map[string]Count, error) {
	var printed struct {
		NFTables []struct {
			Set *struct {
				Elem []struct {
					Elem struct {
						Val     string
						Counter Count
					}
				}
			}
		}
	}
	if err := json.Unmarshal(text, &printed); err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	counts := map[string]Count{}
	for _, part := range printed.NFTables {
		if part.Set == nil {
			continue
		}
		for _, e := range part.Set.Elem {
			counts[e.Elem.Val] = e.Elem.Counter
		}
	}
	return counts, nil
}
