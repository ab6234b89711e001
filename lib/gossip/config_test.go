package gossip

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/lib/gossip/gossiptest"
)

func validConfig() Config {
	return Config{
		Node: "lb1", Boot: "0a1b2c3d", Cluster: "prod", Bind: "0.0.0.0:7946", Keys: [][]byte{testKey},
		Peers: []Peer{{Name: "lb1", Addr: "10.0.0.11"}, {Name: "lb2", Addr: "lb2.example.net:7000"}},
	}
}

func TestNewNamesEveryFaultAtOnce(t *testing.T) {
	_, err := New(Config{
		Node: "l b", Boot: "x", Cluster: "", Bind: "here", Advertise: "0.0.0.0:1", Meta: make([]byte, MaxMeta+1),
		Keys:  [][]byte{[]byte("short"), testKey},
		Peers: []Peer{{Name: "a", Addr: "10.0.0.1:0"}, {Name: "a", Addr: "10.0.0.1:x"}, {Name: "", Addr: "http://a"}},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`node name "l b"`, `boot id "x"`, `cluster name ""`, `bind address "here"`, `advertise address "0.0.0.0:1"`,
		"meta: 513 bytes", "key 1 of 2: 5 bytes, want 16, 24 or 32", `"10.0.0.1:0"`, `"10.0.0.1:x"`, `peer name ""`, `"http://a"`, "listed twice",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "short") {
		t.Error("the error shows a key")
	}
}

func TestKeysAreNeededUnlessInsecureIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		name     string
		keys     [][]byte
		insecure bool
		ok       bool
	}{
		{"none", nil, false, false},
		{"none, insecure", nil, true, true},
		{"both", [][]byte{testKey}, true, false},
		{"AES-128", [][]byte{testKey[:16]}, false, true},
		{"AES-192", [][]byte{testKey[:24]}, false, true},
		{"AES-256 and an older one", [][]byte{testKey, testKey[:16]}, false, true},
		{"33 bytes", [][]byte{append(bytes.Clone(testKey), 1)}, false, false},
		{"empty", [][]byte{{}}, false, false},
	} {
		cfg := validConfig()
		cfg.Keys, cfg.Insecure = c.keys, c.insecure
		g, err := New(cfg)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			if err := g.SetKeys([][]byte{[]byte("bad")}); err == nil {
				t.Errorf("%s: a bad key was set later", c.name)
			}
		}
	}
}

func TestAddressesOfPeers(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1":           "10.0.0.1 7946",
		"10.0.0.1:1":         "10.0.0.1 1",
		"lb2":                "lb2 7946",
		"lb2.example.net:80": "lb2.example.net 80",
		"2001:db8::1":        "2001:db8::1 7946",
		"[2001:db8::1]":      "2001:db8::1 7946",
		"[2001:db8::1]:9":    "2001:db8::1 9",
		"[fe80::1%eth0]:9":   "fe80::1%eth0 9",
	} {
		host, port, err := splitHostPort(in)
		if err != nil || host+" "+itoa(port) != want {
			t.Errorf("%s: %s %d, %v", in, host, port, err)
		}
	}
	for _, in := range []string{"", ":7946", "a:0", "a:65536", "a:b:c:d", "a b", "http://a", "a;b"} {
		if host, port, err := splitHostPort(in); err == nil && host != in {
			t.Errorf("%q is taken as %s port %d", in, host, port)
		}
	}
}

func itoa(n uint16) string {
	return strings.TrimPrefix(netip.AddrPortFrom(netip.IPv4Unspecified(), n).String(), "0.0.0.0:")
}

func TestJoinErrorsBecomeReasons(t *testing.T) {
	for text, want := range map[string]Reason{
		"1 error occurred: * failed to join 10.0.0.2:7946: no installed keys could decrypt the message":                      ReasonWrongKey,
		"failed to join 10.0.0.2:7946: remote error: encryption is configured but remote state is not encrypted":             ReasonNotEncrypted,
		"failed to join 10.0.0.2:7946: dial tcp 10.0.0.2:7946: connect: connection refused":                                  ReasonRefused,
		"failed to join 10.0.0.2:7946: dial tcp 10.0.0.2:7946: i/o timeout":                                                  ReasonUnreachable,
		"failed to join 10.0.0.2:7946: dial tcp 10.0.0.2:7946: connect: no route to host":                                    ReasonUnreachable,
		"failed to join 10.0.0.2:7946: dial tcp 10.0.0.2:7946: connect: network is unreachable":                              ReasonUnreachable,
		"failed to join 10.0.0.2:7946: EOF":                                                                                  ReasonClosed,
		"failed to join 10.0.0.2:7946: read tcp 10.0.0.1:40000->10.0.0.2:7946: read: connection reset by peer":               ReasonClosed,
		"failed to join 10.0.0.2:7946: node 'x' protocol version (9) is incompatible":                                        ReasonFailed,
		"failed to join 10.0.0.2:7946: " + string(ReasonEncrypted) + ": " + errAnswer.Error():                                ReasonEncrypted,
		"failed to join 10.0.0.2:7946: " + string(ReasonVersion) + ": " + errAnswer.Error():                                  ReasonFailed,
		"failed to join 10.0.0.2:7946: remote state is encrypted and encryption is not configured":                           ReasonEncrypted,
		"failed to join 10.0.0.2:7946: read tcp 10.0.0.1:40000->10.0.0.2:7946: use of closed network connection, not an end": ReasonFailed,
	} {
		if got := classify(errors.New(text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestMetricsTellWhatHealthTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		registry := prometheus.NewPedanticRegistry()
		n := start(t, network, "n1", testAddr(1), testPeers(2), func(c *Config) { c.Registerer = registry })
		network.Inject("10.9.9.9:1", testAddr(1), []byte("garbage"))
		time.Sleep(3 * time.Second)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range families {
			for _, m := range f.GetMetric() {
				var labels []string
				for _, l := range m.GetLabel() {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
				got = append(got, f.GetName()+"{"+strings.Join(labels, ",")+"}")
			}
		}
		for _, want := range []string{
			"tandem_gossip_guard_dropped_total{reason=unlabelled}",
			"tandem_gossip_join_failures_total{reason=refused}",
			"tandem_gossip_members{}",
			"tandem_gossip_peer_member{peer=n2,reason=refused}",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("no %s among %v", want, got)
			}
		}
		if _, err := New(Config{
			Node: "n1", Boot: "00000001", Cluster: "c", Bind: "127.0.0.1:0", Insecure: true, Registerer: registry,
		}); err == nil {
			t.Error("registered twice")
		}
		stopAll(n)
	})
}

func TestWaitsForItsOwnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		tries := 0
		peers := []Peer{{Name: "n1", Addr: "one.test"}}
		n := start(t, network, "n1", testAddr(1), peers, func(c *Config) {
			c.Bind = "0.0.0.0:7946"
			c.lookup = func(context.Context, string) ([]netip.Addr, error) {
				if tries++; tries < guessAfter {
					return nil, errors.New("server misbehaving")
				}
				return []netip.Addr{netip.MustParseAddr("10.0.0.2")}, nil
			}
		})
		time.Sleep(1500 * time.Millisecond)
		if h := n.Health(); h.Running || !strings.Contains(h.Fault, "resolve one.test: server misbehaving") {
			t.Errorf("meanwhile: %+v", h)
		}
		within(t, 5*time.Second, "runs", func() bool { return n.Health().Running })
		if h := n.Health(); h.Fault != "" || h.Advertise.String() != "10.0.0.2:7946" {
			t.Errorf("afterwards: %+v", h)
		}
		stopAll(n)

		waiting := start(t, network, "n1", testAddr(1), peers, func(c *Config) {
			c.Bind = "0.0.0.0:7946"
			c.lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no") }
		})
		time.Sleep(time.Second)
		waiting.stop() // ends although it never found one
	})
}
