package vip

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// A transaction that may have been carried out later than its timeouts allow for
// is repeated, with earlier ones.
func TestLateTransactionIsRepeatedWithEarlierDeadlines(t *testing.T) {
	for name, c := range map[string]struct {
		takes []time.Duration // of each write, the last of all that follow
		want  []time.Duration // what each was allowed
	}{
		"in time":            {[]time.Duration{2 * ms}, []time.Duration{0}},
		"on the edge":        {[]time.Duration{stale, 0}, []time.Duration{0, stale}},
		"late once":          {[]time.Duration{5 * ms, ms}, []time.Duration{0, 5 * ms}},
		"as slow every time": {[]time.Duration{8 * ms}, []time.Duration{0, 8 * ms}},
		"slower and slower":  {[]time.Duration{4 * ms, 9 * ms, 9 * ms}, []time.Duration{0, 4 * ms, 9 * ms}},
		"frozen":             {[]time.Duration{time.Minute, ms}, []time.Duration{0, allowMost}},
		"always too slow": {
			[]time.Duration{time.Second},
			[]time.Duration{0, allowMost, allowMost, allowMost, allowMost},
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := &clock{at: hour}
			n := &nft{now: k.now, tables: []*table{{}}}
			var got []time.Duration
			_, err := n.inTime(nil, func(map[netip.Addr]opening) (bool, error) {
				if i := len(got); n.tables[0].dirty != (i > 0) {
					t.Errorf("write %d: all sets written again: %v", i, n.tables[0].dirty)
				}
				got = append(got, n.allow)
				k.at += c.takes[min(len(got), len(c.takes))-1]
				return false, nil
			})
			must(t, err)
			if len(got) != len(c.want) {
				t.Fatalf("allowed %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Fatalf("allowed %v, want %v", got, c.want)
				}
			}
		})
	}
}

func TestRepeatedTransactionRelaysNothingOverRestoredRules(t *testing.T) {
	k := &clock{at: hour}
	n := &nft{now: k.now}
	open := map[netip.Addr]opening{web4: {relay: netip.MustParseAddr("10.77.0.2")}}
	writes := 0
	restored, err := n.inTime(open, func(o map[netip.Addr]opening) (bool, error) {
		writes++
		if relays := o[web4].relay.IsValid(); relays != (writes == 1) {
			t.Errorf("write %d: relays: %v", writes, relays)
		}
		if writes == 1 {
			k.at += time.Second
		}
		return writes == 1, nil
	})
	if must(t, err); !restored || writes != 2 || !open[web4].relay.IsValid() {
		t.Errorf("restored %v, %d writes, %+v", restored, writes, open)
	}
}

func TestFailedTransactionIsNotRepeated(t *testing.T) {
	k := &clock{at: hour}
	n := &nft{now: k.now}
	writes := 0
	_, err := n.inTime(nil, func(map[netip.Addr]opening) (bool, error) {
		writes++
		k.at += time.Second
		return false, errNoRules
	})
	if !errors.Is(err, errNoRules) || writes != 1 {
		t.Errorf("%v, %d writes", err, writes)
	}
}
