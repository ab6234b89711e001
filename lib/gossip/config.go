package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	// DefaultPort is the port of a peer whose address names none.
	DefaultPort = 7946
	// MaxDatagram is the longest message, in bytes, that Send puts into one
	// datagram. With frame, encryption and label it stays below 1400 bytes, so
	// that it is not fragmented on the usual networks, overlays included.
	MaxDatagram = 1200
	// MaxBroadcast is the longest message that Broadcast takes. What does not
	// fit into one datagram is never gossiped by memberlist.
	MaxBroadcast = 1150
	// MaxMessage is the longest message that Send takes.
	MaxMessage = 1 << 20
	// MaxState is the longest local state.
	MaxState = 1 << 20
	// MaxMeta is the longest Meta; memberlist panics above it.
	MaxMeta = memberlist.MetaMaxSize
)

const (
	maxName     = 64
	maxKey      = 32 // of Broadcast
	labelPrefix = "gossip/"

	tcpTimeout   = time.Second
	leaveTimeout = 500 * time.Millisecond
	leaveLinger  = 150 * time.Millisecond // Leave returns before everybody was told
	udpBuffer    = 1400

	// The rounds of gossip repeat what pushLoop has sent at once, and tell of
	// members that come and go, so they may be few: each wakes the process, on
	// every node, all day long.
	gossipInterval = 200 * time.Millisecond
	gossipNodes    = 3
)

// Peer is a voter of the cluster: a node that everybody knows by configuration.
type Peer struct {
	Name string
	// Addr is host:port; the host may be a DNS name, the port may be absent
	// (DefaultPort). Names are resolved again every 15 s.
	Addr string
}

// Config is what New needs.
type Config struct {
	// Node is the name of this node, Boot 8 hexadecimal digits drawn at random
	// at each start. On the wire the node is called Node.Boot.
	Node string
	Boot string
	// Cluster separates clusters: traffic of another name is not let in.
	Cluster string
	// Bind is the ip:port to listen on, UDP and TCP. Advertise is the ip:port
	// that others are told; it may be left empty. It is Bind then, or if Bind
	// has no particular address, the own entry in Peers, or else the address
	// from which the kernel would talk to a peer.
	Bind      string
	Advertise string
	// Keys are AES keys of 16, 24 or 32 bytes. The first encrypts, all decrypt.
	// None are accepted only together with Insecure: the traffic is neither
	// encrypted nor authenticated then, and anybody who can reach the port can
	// end the process.
	Keys     [][]byte
	Insecure bool
	// Peers are the voters; this node may be among them.
	Peers []Peer
	// Broadcasts is how many broadcasts a program has made whose place this one
	// takes in the same process, at the same address and with the same Boot. The
	// others hold both for one, and take no number twice. Else 0.
	Broadcasts uint64
	// Meta is known to all members together with the address.
	Meta []byte

	Log        *zap.Logger
	Registerer prometheus.Registerer

	// Transport replaces the sockets, for tests: see package gossiptest.
	Transport memberlist.Transport

	lookup func(ctx context.Context, host string) ([]netip.Addr, error) // tests
}

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	bootPattern = regexp.MustCompile(`^[0-9a-f]{8}$`)
)

// check reports everything that is wrong with the configuration at once.
func (c *Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !namePattern.MatchString(c.Node) {
		bad("check node name %q: want 1 to %d letters, digits, dots, dashes or underscores, for example lb1", c.Node, maxName)
	}
	if !bootPattern.MatchString(c.Boot) {
		bad("check boot id %q: want 8 hexadecimal digits, for example 0a1b2c3d", c.Boot)
	}
	if !namePattern.MatchString(c.Cluster) {
		bad("check cluster name %q: want 1 to %d letters, digits, dots, dashes or underscores, for example prod", c.Cluster, maxName)
	}
	if _, err := netip.ParseAddrPort(c.Bind); err != nil {
		bad("check bind address %q: want ip:port, for example 0.0.0.0:%d", c.Bind, DefaultPort)
	}
	if c.Advertise != "" {
		if a, err := netip.ParseAddrPort(c.Advertise); err != nil || a.Addr().IsUnspecified() || a.Port() == 0 {
			bad("check advertise address %q: want the ip:port by which others reach this node, for example 10.0.0.11:%d", c.Advertise, DefaultPort)
		}
	}
	if err := checkKeys(c.Keys, c.Insecure); err != nil {
		errs = append(errs, err)
	}
	if len(c.Meta) > MaxMeta {
		bad("check meta: %d bytes, at most %d are possible", len(c.Meta), MaxMeta)
	}
	seen := map[string]bool{}
	for _, p := range c.Peers {
		if !namePattern.MatchString(p.Name) {
			bad("check peer name %q: want 1 to %d letters, digits, dots, dashes or underscores, for example lb2", p.Name, maxName)
		}
		if seen[p.Name] {
			bad("check peer %s: listed twice", p.Name)
		}
		seen[p.Name] = true
		if _, _, err := splitHostPort(p.Addr); err != nil {
			bad("check peer %s: %w", p.Name, err)
		}
	}
	return errors.Join(errs...)
}

// checkKeys refuses keys that AES does not know, and an empty ring unless that
// was asked for. It never shows a key.
func checkKeys(keys [][]byte, insecure bool) error {
	if len(keys) == 0 && !insecure {
		return errors.New("check keys: none given; want one AES key of 16, 24 or 32 bytes, or an explicit insecure mode")
	}
	if len(keys) > 0 && insecure {
		return errors.New("check keys: given although the insecure mode is asked for; drop one of the two")
	}
	var errs []error
	for i, k := range keys {
		if memberlist.ValidateKey(k) != nil {
			errs = append(errs, fmt.Errorf("check key %d of %d: %d bytes, want 16, 24 or 32", i+1, len(keys), len(k)))
		}
	}
	return errors.Join(errs...)
}

// splitHostPort takes host, host:port, ip, [ip] and [ip]:port.
func splitHostPort(s string) (host string, port uint16, err error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.String(), DefaultPort, nil
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		host, text = s, strconv.Itoa(DefaultPort)
		if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || host == "" || !hostPattern.MatchString(host) {
		return "", 0, fmt.Errorf("parse address %q: want host:port, for example 10.0.0.12:%d", s, DefaultPort)
	}
	return host, uint16(n), nil
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_.:%-]{1,253}$`)

// settings are memberlist's, chosen slow and quiet: failure detection is a hint
// here, and false alarms cost more than late ones.
func (g *Gossip) settings(t memberlist.Transport, advertise netip.AddrPort) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.self
	c.Label = g.label
	c.Keyring = g.ring
	c.Transport = t
	c.BindAddr, c.BindPort = advertise.Addr().String(), int(advertise.Port())
	c.AdvertiseAddr, c.AdvertisePort = advertise.Addr().String(), int(advertise.Port())
	c.ProbeInterval, c.ProbeTimeout = 500*time.Millisecond, 200*time.Millisecond
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 4, 3
	c.GossipInterval, c.GossipNodes, c.RetransmitMult = gossipInterval, gossipNodes, retransmitMult
	c.PushPullInterval = 10 * time.Second
	c.GossipToTheDeadTime = 15 * time.Second
	c.DeadNodeReclaimTime = time.Second // harmless with a name for each boot
	c.TCPTimeout = tcpTimeout
	c.EnableCompression = false // small messages; and no decompressor for strangers
	c.UDPBufferSize = udpBuffer
	c.HandoffQueueDepth = 4096
	c.LogOutput = g.logs
	c.Delegate, c.Events, c.Conflict, c.Alive = g.delegate, g.delegate, g.delegate, g.delegate
	return c
}
