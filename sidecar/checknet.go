package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tandem/lib/gossip"
	"tandem/lib/vip"
	"tandem/sidecar/config"
	"tandem/sidecar/status"
)

// clock looks for what would make the clock of the leases run at another rate
// than everybody else's. What time it shows does not matter.
func (c *checker) clock() {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		c.fault("clock", "this kernel has no CLOCK_BOOTTIME: "+err.Error(), "use Linux 2.6.39 or later")
		return
	}
	tx := unix.Timex{}
	if _, err := unix.Adjtimex(&tx); err != nil {
		tx.Tick = nominalTick // nobody says that it is another
	}
	c.tick(tx.Tick)
}

// nominalTick is in µs, for each tick of the kernel's 100 Hz user clock.
const nominalTick = 10000

func (c *checker) tick(tick int64) {
	if tick < nominalTick*995/1000 || tick > nominalTick*1005/1000 {
		c.fault("clock", fmt.Sprintf("the kernel's clock is set to run at %.1f %% of its rate; leases assume less than 1 %% of difference", float64(tick)/nominalTick*100), "adjtimex --tick 10000, and find out who changed it")
		return
	}
	c.ok("clock", "CLOCK_BOOTTIME, at its nominal rate")
}

// keys names the keys by a hash, so that they can be compared by eye before the
// start, and finds that the running sidecar has others.
func (c *checker) keys() {
	if c.cfg.Insecure {
		return // a warning of the configuration
	}
	names := make([]string, len(c.cfg.Keys))
	for i, key := range c.cfg.Keys {
		names[i] = gossip.KeyID(key)
	}
	self := slices.IndexFunc(c.nodes(), func(n status.Node) bool { return n.Name == c.cfg.Node })
	switch {
	case self < 0:
		c.ok("key", "%s encrypts; the same must stand here on every node", strings.Join(names, ", with "))
	case slices.Equal(c.nodes()[self].Keys, names):
		c.ok("key", "%s encrypts, as in the running sidecar", strings.Join(names, ", with "))
	default:
		c.note("key", fmt.Sprintf("the running sidecar holds %s, here it is %s", strings.Join(c.nodes()[self].Keys, ", "), strings.Join(names, ", ")),
			"a key file that changed is taken over step by step, as the others allow: see `tandem keys`; TANDEM_KEY takes a restart")
	}
}

// nodes are those that the running sidecar knows.
func (c *checker) nodes() []status.Node {
	if c.status == nil {
		return nil
	}
	return c.status.Nodes
}

// ports are taken by our own sidecar when it runs.
func (c *checker) ports(ctx context.Context) {
	if c.status != nil || c.mute {
		return
	}
	var lc net.ListenConfig
	bind := c.cfg.Bind.String()
	if packets, err := lc.ListenPacket(ctx, "udp", bind); err != nil {
		c.bindFault("TANDEM_BIND", "udp "+bind, err)
	} else {
		_ = packets.Close() // it was only tried
		c.tcpPort(ctx, "TANDEM_BIND", bind)
	}
	if !c.cfg.API.Off {
		c.tcpPort(ctx, "TANDEM_API", c.cfg.API.String())
	}
}

func (c *checker) tcpPort(ctx context.Context, variable, addr string) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		c.bindFault(variable, "tcp "+addr, err)
		return
	}
	_ = listener.Close() // it was only tried
	c.ok("port", "%s is free (%s)", addr, variable)
}

func (c *checker) bindFault(variable, addr string, err error) {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		c.fault("port", addr+" is taken by another process", "find it with `ss -tulpn`, or choose another port ("+variable+")")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		c.fault("port", "this machine has no address "+addr, "set "+variable+" to an address of this machine, or 0.0.0.0")
	default:
		c.fault("port", addr+" cannot be used: "+err.Error(), "see "+variable)
	}
}

const dialTimeout = time.Second

// peers looks whether each has an address and answers. The running sidecar
// knows more: whether a peer has our key and our cluster's name.
func (c *checker) peers(ctx context.Context) {
	own := localAddresses()
	for _, peer := range c.cfg.Peers {
		host, _, _ := net.SplitHostPort(peer.Addr)
		resolve, cancel := context.WithTimeout(ctx, dialTimeout)
		addrs, err := net.DefaultResolver.LookupNetIP(resolve, "ip", host)
		cancel()
		if err != nil || len(addrs) == 0 {
			c.fault("peers", fmt.Sprintf("%s: %s has no address", peer.Name, host), "use an IP address in TANDEM_PEERS, or add the name to DNS or /etc/hosts")
			continue
		}
		here := slices.ContainsFunc(addrs, func(a netip.Addr) bool {
			return slices.Contains(own, a.Unmap()) || peer.Name == c.cfg.Node && a.Unmap().IsLoopback()
		})
		switch {
		case peer.Name == c.cfg.Node && !here:
			c.fault("peers", fmt.Sprintf("%s is this node, and %s is no address of this machine", peer.Name, host), "mend TANDEM_PEERS or TANDEM_NODE; behind address translation this is as it should be")
		case peer.Name == c.cfg.Node:
			c.ok("peers", "%s is this node", peer.Name)
		case here && !addrs[0].IsLoopback():
			c.fault("peers", fmt.Sprintf("%s is another node, and %s is an address of this machine", peer.Name, host), "mend TANDEM_NODE or TANDEM_PEERS")
		default:
			c.peer(ctx, peer)
		}
	}
}

func (c *checker) peer(ctx context.Context, peer config.Peer) {
	if c.status != nil {
		c.knownPeer(peer)
		return
	}
	reason, detail := gossip.Knock(ctx, peer.Addr, c.cfg.Cluster, c.cfg.Keys)
	switch reason { //nolint:exhaustive // the others have a mend of their own
	case gossip.ReasonNone:
		c.ok("peers", "%s answers at %s (TCP), and has the same key and cluster name", peer.Name, peer.Addr)
	case gossip.ReasonRefused:
		c.note("peers", fmt.Sprintf("%s: its machine answers, nobody listens at %s", peer.Name, peer.Addr), "start tandem there")
	case gossip.ReasonUnreachable:
		c.fault("peers", fmt.Sprintf("%s does not answer at %s", peer.Name, peer.Addr), c.mend(status.Node{Reason: string(reason)}))
	case gossip.ReasonFailed:
		c.fault("peers", fmt.Sprintf("%s at %s: %s", peer.Name, peer.Addr, detail), "correct the port (TANDEM_PEERS here, TANDEM_BIND there)")
	default:
		c.fault("peers", fmt.Sprintf("%s answers at %s: %s", peer.Name, peer.Addr, reason), c.mend(status.Node{Reason: string(reason)}))
	}
}

// knownPeer says what the running sidecar knows of a peer.
func (c *checker) knownPeer(peer config.Peer) {
	for _, n := range c.status.Nodes {
		if n.Name != peer.Name {
			continue
		}
		if n.Alive {
			c.ok("peers", "%s is heard", n.Name)
		} else {
			c.fault("peers", strings.TrimSuffix(fmt.Sprintf("%s is not heard: %s: %s", n.Name, n.Reason, n.Detail), ": "), c.mend(n))
		}
		for _, warning := range n.Warnings {
			mend := "see `tandem why`"
			switch kind, _, _ := strings.Cut(warning, ":"); kind {
			case "settings-differ":
				mend = "make the settings the same on all nodes (`tandem config` prints them), and restart the one that had others"
			case string(gossip.ReasonNameClash):
				mend = "correct TANDEM_NODE on one of the two machines, and restart it there"
			}
			c.fault("peers", n.Name+": "+warning, mend)
		}
		return
	}
	c.fault("peers", peer.Name+" is not known to the running sidecar", "restart it: its TANDEM_PEERS is another")
}

// mend says what to do about a peer that is not heard.
func (c *checker) mend(n status.Node) string {
	mend := map[gossip.Reason]string{
		gossip.ReasonWrongKey:     "give all nodes the same key (TANDEM_KEY_FILE, TANDEM_KEY): `tandem check` on each names its own; a file is read again within seconds",
		gossip.ReasonOtherCluster: "give all nodes the same TANDEM_CLUSTER, and restart the one that had another",
		gossip.ReasonNotEncrypted: "give it the key (TANDEM_KEY_FILE) in place of TANDEM_INSECURE, and restart it",
		gossip.ReasonEncrypted:    "give this node the key (TANDEM_KEY_FILE) in place of TANDEM_INSECURE, and restart it",
		gossip.ReasonRefused:      "start tandem there, or correct the port (TANDEM_PEERS here, TANDEM_BIND there)",
		gossip.ReasonUnreachable:  "is the machine up, does its sidecar not stand still, and do firewalls let UDP and TCP through both ways?",
		gossip.ReasonUnresolved:   "use an IP address in TANDEM_PEERS, or add the name to DNS or /etc/hosts",
		gossip.ReasonOtherName:    "correct TANDEM_PEERS here or TANDEM_NODE there",
		gossip.ReasonClosed:       "compare key and TANDEM_CLUSTER (it may encrypt, and this node does not), and look at its log",
		"not-heard":               "it is a member and its votes do not arrive: do firewalls let UDP through both ways?",
	}[gossip.Reason(n.Reason)]
	others, alike := 0, 0
	for _, o := range c.nodes() {
		if o.Voter && o.Name != c.cfg.Node {
			others++
			if o.Reason == n.Reason {
				alike++
			}
		}
	}
	switch gossip.Reason(n.Reason) { //nolint:exhaustive // those that one side alone can have caused
	case gossip.ReasonWrongKey, gossip.ReasonOtherCluster, gossip.ReasonEncrypted, gossip.ReasonNotEncrypted:
		if others > 1 && alike == others {
			mend += ". No other voter agrees with this node: the mistake is probably here"
		}
	}
	return cmp.Or(mend, "see `tandem why`")
}

func localAddresses() []netip.Addr {
	var all []netip.Addr
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, prefix.Addr().Unmap())
		}
	}
	return all
}

func (c *checker) capabilities() {
	if !c.cfg.HasAddresses() {
		return
	}
	missing, err := vip.MissingCapabilities()
	if err != nil {
		c.note("capabilities", "cannot be read: "+err.Error(), "")
		return
	}
	for _, m := range missing {
		c.fault("capabilities", "this process lacks "+m.Name+": "+m.For, m.Mend())
	}
	if len(missing) == 0 {
		c.ok("capabilities", "NET_ADMIN and NET_RAW")
	}
}
