package lab

import "testing"

func TestCountersAreRead(t *testing.T) {
	// Of nft 1.0.6.
	const printed = `{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}, {"set": {"family": "bridge", "name": "sent", "table": "labcount", "type": "ifname", "handle": 2, "size": 512, "elem": [{"elem": {"val": "lb1", "counter": {"packets": 7, "bytes": 896}}}, {"elem": {"val": "edge1", "counter": {"packets": 1, "bytes": 90}}}], "stmt": [{"counter": null}]}}]}`
	got, err := readCounts([]byte(printed))
	if err != nil || len(got) != 2 || got["lb1"] != (Count{7, 896}) || got["edge1"] != (Count{1, 90}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := readCounts([]byte("Error: No such file")); err == nil {
		t.Error("no error")
	}
}

func TestOnlyTandemHasFollowers(t *testing.T) {
	for _, c := range []struct {
		cfg Config
		ok  bool
	}{
		{Config{System: Tandem{}, Followers: 59}, true},
		{Config{System: Keepalived{}}, true},
		{Config{System: Tandem{}, Followers: 60}, false},
		{Config{System: Tandem{}, Followers: -1}, false},
		{Config{System: Keepalived{}, Followers: 1}, false},
	} {
		if err := c.cfg.checkFollowers(); (err == nil) != c.ok {
			t.Errorf("%d under %s: %v", c.cfg.Followers, c.cfg.System.Name(), err)
		}
	}
}
