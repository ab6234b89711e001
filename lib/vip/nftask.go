package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Intact compares the kernel's generation number, which every transaction of
// anybody raises by one, with that of our own latest; only when somebody else
// has changed something, or may have, are the rules counted.
func (n *nft) Intact() (bool, error) {
	if !n.stands || n.ask == nil {
		return false, nil
	}
	gen, err := n.generation()
	if err != nil {
		_ = n.dial() // the next question is asked anew
		return false, err
	}
	if gen == n.gen && !n.unsure {
		return true, nil
	}
	for _, t := range n.tables {
		want := 0
		for _, c := range t.chains {
			want += len(c.rules)
		}
		have, err := n.count(t)
		if err != nil {
			return false, err
		}
		if have != want {
			n.stands, n.hurt = false, true
			return false, nil
		}
	}
	n.gen, n.unsure = gen, false
	n.refill() // somebody may have emptied a set
	return true, nil
}

// request to nf_tables: the family, version 0 and resource 0, then attributes.
func (n *nft) request(kind uint16, family byte, flags netlink.HeaderFlags, attrs []byte) ([]netlink.Message, error) {
	if err := n.ask.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	return n.ask.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{family, 0, 0, 0}, attrs...),
	})
}

func (n *nft) generation() (uint32, error) {
	answer, err := n.request(unix.NFT_MSG_GETGEN, 0, 0, nil)
	if err != nil {
		return 0, fmt.Errorf("ask nftables for its generation: %w", err)
	}
	for _, m := range answer {
		if len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, fmt.Errorf("read generation: %w", err)
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), nil
			}
		}
	}
	return 0, errors.New("read generation: not in the answer")
}

// count is the number of rules in a table; a table that is not there has none.
func (n *nft) count(t *table) (int, error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(t.Name + "\x00")},
	})
	if err != nil {
		return 0, fmt.Errorf("list rules: %w", err)
	}
	answer, err := n.request(unix.NFT_MSG_GETRULE, byte(t.Family), netlink.Dump, attrs)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list rules of %s: %w", t.Name, err)
	}
	return len(answer), nil
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func keys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }
