package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"

	"tandem/lib/vip"
	"tandem/sidecar/config"
)

// interfaces looks at each interface that shall carry an address.
func (c *checker) interfaces() {
	seen := map[string]bool{}
	for _, group := range c.cfg.VIPs {
		for _, a := range group.Addresses {
			if !seen[a.Interface] {
				seen[a.Interface] = true
				c.carrier(a.Interface)
			}
			c.subnet(a)
		}
	}
}

func (c *checker) carrier(name string) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		c.fault("interface", "there is no interface "+name, "choose one of "+interfaceNames()+" (TANDEM_VIPS)")
		return
	}
	carrier, err := os.ReadFile(filepath.Join("/sys/class/net", name, "carrier"))
	switch {
	case ifi.Flags&net.FlagUp == 0:
		c.fault("interface", name+" is down", "ip link set "+name+" up")
	case err == nil && strings.TrimSpace(string(carrier)) == "0":
		c.fault("interface", name+" has no carrier", "plug the cable in, or look at the switch")
	default:
		c.ok("interface", "%s is up", name)
	}
}

func interfaceNames() string {
	all, err := net.Interfaces()
	if err != nil {
		return "those of `ip link`"
	}
	var names []string
	for _, ifi := range all {
		names = append(names, ifi.Name)
	}
	return strings.Join(names, ", ")
}

// subnet looks whether the interface has an address in whose network the
// virtual one lies; without, neighbours would hardly find it.
func (c *checker) subnet(a config.Address) {
	ifi, err := net.InterfaceByName(a.Interface)
	if err != nil {
		return // told already
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return
	}
	for _, one := range addrs {
		prefix, err := netip.ParsePrefix(one.String())
		if err == nil && prefix.Addr() != a.Prefix.Addr() && prefix.Contains(a.Prefix.Addr()) {
			return
		}
	}
	c.note("interface", fmt.Sprintf("%s is in no network of %s", a.Prefix.Addr(), a.Interface), "is it the right interface? Hosts of the network find the address only if they take it for a neighbour")
}

// strangers asks the network whether somebody has a virtual IP whom the
// cluster does not know, by ARP or by neighbour discovery. While a node of the
// cluster holds it, an answer is as it should be.
func (c *checker) strangers(ctx context.Context) {
	for _, group := range c.cfg.VIPs {
		if c.held(group.Name) {
			continue
		}
		for _, a := range group.Addresses {
			if ctx.Err() == nil {
				c.stranger(ctx, a)
			}
		}
	}
}

func (c *checker) held(group string) bool {
	if c.status == nil {
		return false
	}
	for _, l := range c.status.Leases {
		if l.Resource == "vip/"+group {
			return l.Holder != ""
		}
	}
	return false
}

// silent names the voters that the running sidecar does not hear.
func (c *checker) silent() string {
	var out []string
	for _, n := range c.status.Nodes {
		if n.Voter && !n.Alive {
			out = append(out, n.Name+" ("+n.Reason+")")
		}
	}
	return strings.Join(out, ", ")
}

func (c *checker) stranger(ctx context.Context, a config.Address) {
	if _, err := net.InterfaceByName(a.Interface); err != nil {
		return // told already
	}
	at, err := vip.Probe(ctx, vip.Address{Prefix: a.Prefix, Interface: a.Interface})
	switch {
	case err != nil:
		c.note("address", fmt.Sprintf("whether somebody has %s already cannot be asked: %v", a.Prefix.Addr(), err), "")
	case at == nil:
		c.ok("address", "nobody answers for %s", a.Prefix.Addr())
	case c.status == nil:
		c.note("address", fmt.Sprintf("%s answers for %s", at, a.Prefix.Addr()), "if that is no node of the cluster, another machine has this address: remove it there, or choose another (TANDEM_VIPS)")
	case c.silent() != "":
		c.note("address", fmt.Sprintf("%s answers for %s; the sidecar does not hear %s, which may hold it by right", at, a.Prefix.Addr(), c.silent()), "mend that first; see `tandem why`")
	default:
		c.fault("address", fmt.Sprintf("%s answers for %s, which no node of the cluster holds", at, a.Prefix.Addr()), "another machine has this address: remove it there, choose another (TANDEM_VIPS), or take it up all the same with `tandem move --force`")
	}
}

// gate looks whether the kernel can keep the gate that fences a frozen holder.
func (c *checker) gate() {
	if !c.cfg.HasAddresses() {
		return
	}
	conn, err := nftables.New()
	if err == nil {
		_, err = conn.ListTablesOfFamily(nftables.TableFamilyINet)
	}
	if err != nil {
		c.note("gate", "nftables cannot be used: "+err.Error()+"; the kernel's address lifetime is the fence, which counts in seconds", "load nf_tables, and give NET_ADMIN; leases are longer without it")
		return
	}
	c.ok("gate", "nftables answers")
}

// tracking looks whether the kernel has room for new connections.
func (c *checker) tracking() {
	switch t := vip.ConnectionTracking(); {
	case t.Full():
		c.fault("connections", fmt.Sprintf("the kernel tracks %d connections of at most %d, and drops new ones when it can track no more", t.Count, t.Max),
			"raise net.netfilter.nf_conntrack_max, or have the firewall not track what it need not (notrack)")
	case t.Count > 0:
		c.ok("connections", "the kernel tracks %d of at most %d", t.Count, t.Max)
	default:
		c.ok("connections", "the kernel tracks none here")
	}
}
