package keepalived

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Setting is one line of an environment file.
type Setting struct {
	Variable, Value string
	Comment         string
}

// Note is something of the file that is not carried over, and what to do.
type Note struct {
	Line          int
	What, Instead string
}

// Result is what a keepalived.conf comes to.
type Result struct {
	Settings []Setting
	Notes    []Note // in the order of the file
}

// Import reads a keepalived.conf. It fails only when the file cannot be taken
// apart or has no VRRP instance.
func Import(r io.Reader) (Result, error) {
	root, err := parse(r)
	if err != nil {
		return Result{}, fmt.Errorf("read keepalived.conf: %w", err)
	}
	c := &conversion{root: root, instances: root.find("vrrp_instance")}
	if len(c.instances) == 0 {
		return Result{}, fmt.Errorf("read keepalived.conf: there is no vrrp_instance in it; an include is not followed")
	}
	c.node()
	c.peers()
	c.cluster()
	c.addresses()
	c.preference()
	c.failback()
	c.haproxy()
	c.leftovers()
	slices.SortStableFunc(c.result.Notes, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })
	return c.result, nil
}

// conversion collects a Result.
type conversion struct {
	root      *node
	instances []*node
	self      string   // name of this node
	others    []string // names of its peers, at least one
	result    Result
}

func (c *conversion) set(variable, value, comment string) {
	c.result.Settings = append(c.result.Settings, Setting{variable, value, comment})
}

func (c *conversion) note(line int, what, instead string) {
	c.result.Notes = append(c.result.Notes, Note{line, what, instead})
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)

// sampleID is the router_id of the configuration that comes with keepalived, so
// most nodes have it.
const sampleID = "LVS_DEVEL"

func (c *conversion) node() {
	c.self = "lb1"
	if c.backup(c.instances[0]) {
		c.self = "lb2"
	}
	comment := "no usable router_id was there"
	for _, global := range c.root.find("global_defs") {
		for _, keyword := range []string{"lvs_id", "router_id"} {
			id := global.first(keyword)
			if id != nil && len(id.words) == 2 && plainName.MatchString(id.arg()) && id.arg() != sampleID {
				c.self, comment = id.arg(), "from "+keyword+"; each node needs its own"
			}
		}
	}
	c.set("TANDEM_NODE", c.self, comment)
}

// backup says whether an instance begins as the backup of another node.
func (c *conversion) backup(instance *node) bool {
	state := instance.first("state")
	return state == nil || !strings.EqualFold(state.arg(), "MASTER")
}

// peers come from unicast addresses. With multicast nobody has written them
// down.
func (c *conversion) peers() {
	first := c.instances[0]
	own, others := "", []string{}
	for _, name := range []string{"mcast_src_ip", "unicast_src_ip"} {
		if n := first.first(name); n != nil {
			own = n.arg()
		}
	}
	for _, block := range first.find("unicast_peer") {
		for _, peer := range block.block {
			others = append(others, peer.name())
		}
	}
	list := []string{c.self + "=" + cmp.Or(own, "ADDRESS")}
	for _, address := range others {
		name := fmt.Sprintf("lb%d", len(c.others)+1)
		if name >= c.self && strings.HasPrefix(c.self, "lb") {
			name = fmt.Sprintf("lb%d", len(c.others)+2)
		}
		c.others = append(c.others, name)
		list = append(list, name+"="+address)
	}
	comment := "the same on every node; use the names that the nodes have"
	if own == "" || len(others) == 0 {
		if len(others) == 0 {
			c.others = []string{"OTHER"}
			list = append(list, "OTHER=ADDRESS")
		}
		comment = "fill in: keepalived found its peers by multicast, tandem is told them"
	}
	c.set("TANDEM_PEERS", strings.Join(list, ","), comment)
	c.note(first.line, "two nodes cannot tell a dead peer from a cut link", "add a third voter that only votes: TANDEM_ROLE=witness on another machine, listed in TANDEM_PEERS")
}

func (c *conversion) cluster() {
	for _, instance := range c.instances {
		if id := instance.first("virtual_router_id"); id != nil && plainName.MatchString(id.arg()) {
			c.set("TANDEM_CLUSTER", "vrrp-"+id.arg(), "in place of virtual_router_id; the same on every node")
			break
		}
	}
	c.set("TANDEM_KEY", "", "fill in, the same on every node: openssl rand -base64 32")
	for _, instance := range c.instances {
		if auth := instance.first("authentication"); auth != nil {
			c.note(auth.line, "authentication: VRRP sends it readable by all", "TANDEM_KEY encrypts and authenticates; do not use the old password again")
		}
	}
}

// groups gives instances that move together: those of a sync group do, and an
// instance that is in none is a group of its own.
func (c *conversion) groups() (names []string, members map[string][]*node) {
	members = map[string][]*node{}
	of := map[string]string{}
	for _, sync := range c.root.find("vrrp_sync_group") {
		for _, list := range sync.find("group") {
			for _, member := range list.block {
				of[member.name()] = cmp.Or(sync.arg(), "sync")
			}
		}
	}
	for _, instance := range c.instances {
		name := cmp.Or(of[instance.arg()], instance.arg(), "default")
		if !plainName.MatchString(name) {
			name = fmt.Sprintf("group%d", len(names)+1)
		}
		if members[name] == nil {
			names = append(names, name)
		}
		members[name] = append(members[name], instance)
	}
	return names, members
}

func (c *conversion) addresses() {
	names, members := c.groups()
	seen := map[netip.Addr]bool{}
	var lists []string
	for _, name := range names {
		var list []string
		for _, instance := range members[name] {
			list = append(list, c.instanceAddresses(instance, seen)...)
		}
		lists = append(lists, strings.Join(list, ","))
	}
	value := lists[0]
	if len(names) > 1 {
		for i, name := range names {
			lists[i] = name + "=" + lists[i]
		}
		value = strings.Join(lists, ";")
	}
	c.set("TANDEM_VIPS", value, "from virtual_ipaddress; interfaces may have other names on other nodes")
}

func (c *conversion) instanceAddresses(instance *node, seen map[netip.Addr]bool) []string {
	iface := ""
	if n := instance.first("interface"); n != nil {
		iface = n.arg()
	}
	var list []string
	for _, kind := range []string{"virtual_ipaddress", "virtual_ipaddress_excluded"} {
		for _, block := range instance.find(kind) {
			for _, entry := range block.block {
				if one := c.address(entry, iface, seen); one != "" {
					list = append(list, one)
				}
			}
		}
	}
	return list
}

// address reads one line such as 10.0.0.100/24 brd + dev eth0 label eth0:1.
func (c *conversion) address(entry *node, iface string, seen map[netip.Addr]bool) string {
	prefix, err := netip.ParsePrefix(entry.name())
	if err != nil {
		addr, err := netip.ParseAddr(entry.name())
		if err != nil {
			c.note(entry.line, entry.name()+" is not an address", "add it to TANDEM_VIPS by hand")
			return ""
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	for i := 0; i < len(entry.words)-1; i++ {
		switch entry.words[i] {
		case "dev":
			name, alias, _ := strings.Cut(entry.words[i+1], ":")
			if iface = name; alias != "" {
				c.note(entry.line, "dev "+entry.words[i+1]+": an alias, which is a label of "+iface, "nothing, unless a script of yours looks for the label")
			}
		case "label":
			c.note(entry.line, "label "+entry.words[i+1]+": labels of addresses are not set", "nothing, unless a script of yours looks for the label")
		}
	}
	if iface == "" {
		c.note(entry.line, entry.name()+" has no interface", "write its interface in place of INTERFACE in TANDEM_VIPS")
		iface = "INTERFACE"
	}
	if seen[prefix.Addr()] {
		c.note(entry.line, entry.name()+" is there twice", "it was taken over once")
		return ""
	}
	seen[prefix.Addr()] = true
	return prefix.String() + "@" + iface
}

func (c *conversion) preference() {
	names, members := c.groups()
	var list []string
	for _, name := range names {
		preferred := c.self
		if c.backup(members[name][0]) {
			preferred = c.others[0]
		}
		if len(names) > 1 {
			preferred = name + "=" + preferred
		}
		list = append(list, preferred)
	}
	c.set("TANDEM_PREFER", strings.Join(list, ";"), "in place of state and priority; the same on every node")
}

// takeBack is offered where keepalived takes an address back at once: long
// enough that a node which fails again and again does not move it each time.
const takeBack = "60s"

func (c *conversion) failback() {
	first := c.instances[0]
	delay := first.first("preempt_delay")
	switch {
	case first.first("nopreempt") != nil:
		c.set("TANDEM_VIP_FAILBACK", "never", "nopreempt")
	case delay != nil:
		d, err := time.ParseDuration(delay.arg() + "s")
		if err != nil {
			d = time.Minute
		}
		c.set("TANDEM_VIP_FAILBACK", d.String(), "preempt_delay")
	default:
		c.set("TANDEM_VIP_FAILBACK", takeBack, "keepalived takes an address back at once; `never` saves the second move")
	}
}

// haproxy looks for scripts that ask whether HAProxy lives, which tandem does
// by itself.
func (c *conversion) haproxy() {
	c.set("TANDEM_HAPROXY_SOCKET", "/run/haproxy/admin.sock", "tandem watches HAProxy through it: `stats socket /run/haproxy/admin.sock mode 600 level admin`")
	for _, script := range c.root.find("vrrp_script") {
		command := ""
		if n := script.first("script"); n != nil {
			command = strings.Join(n.words[1:], " ")
		}
		if strings.Contains(strings.ToLower(command), "haproxy") {
			c.note(script.line, fmt.Sprintf("vrrp_script %s (%s) is not needed", script.arg(), command), "tandem sees within milliseconds that HAProxy ends, and within TANDEM_HAPROXY_TIMEOUT that it hangs")
		} else {
			c.note(script.line, fmt.Sprintf("vrrp_script %s (%s) has no counterpart", script.arg(), command), "let HAProxy check what the script checks, or call `tandem maintenance on` and `off` from it")
		}
	}
}
