package keepalived

import (
	"slices"
	"strings"
)

// done are the keywords that the conversion has dealt with, by block, and
// those that need no word because tandem does the same by itself.
var done = map[string][]string{
	"file":            {"vrrp_instance", "vrrp_sync_group", "vrrp_script", "global_defs"},
	"global_defs":     {"router_id", "lvs_id", "enable_script_security", "script_user", "vrrp_version", "process_names"},
	"vrrp_sync_group": {"group"},
	"vrrp_instance": {
		"state", "interface", "virtual_router_id", "priority", "authentication", "virtual_ipaddress", "virtual_ipaddress_excluded",
		"unicast_src_ip", "unicast_peer", "mcast_src_ip", "nopreempt", "preempt", "preempt_delay", "version", "track_script",
	},
}

// known are the keywords that people use and that have no counterpart of the
// same kind, with what to do instead. A keyword that ends with * is a prefix.
var known = []struct{ keyword, what, instead string }{
	{"advert_int", "the interval of advertisements", "nothing: TANDEM_LEASE is auto, and detects in about half a second"},
	{"track_interface", "an interface that is watched", "nothing for the interfaces of TANDEM_VIPS, which are watched; others are not"},
	{"notify*", "a script called when the state changes", "TANDEM_HOOK_NOTIFY, with take-up and let-go in TANDEM_EVENT for master and backup; TANDEM_WEBHOOK is told of every event; /holder answers 200 on the holder only"},
	{"smtp*", "mail", "an alert rule in Prometheus on /metrics, or TANDEM_WEBHOOK"},
	{"notification_email*", "mail", "an alert rule in Prometheus on /metrics, or TANDEM_WEBHOOK"},
	{"vrrp_garp*", "the schedule of gratuitous ARP", "nothing: tandem announces again for 10 s after a move, and then every 30 s"},
	{"garp*", "the schedule of gratuitous ARP", "nothing: tandem announces again for 10 s after a move, and then every 30 s"},
	{"vrrp_track_process", "a process that is watched", "nothing for HAProxy, which is watched; others are not"},
	{"vrrp_track_file", "a file that is watched", "call `tandem maintenance on` and `off` where the file is written"},
	{"@*", "a line for some machines only, which was not read", "take the @… off what is meant for this machine, and import again"},
	{"vrrp_strict", "strict VRRP", "nothing: tandem does not speak VRRP"},
	{"vrrp_*", "a setting of the VRRP protocol", "nothing: tandem does not speak VRRP"},
	{"virtual_routes", "routes that move with the address", "keep them on both nodes; tandem moves addresses only"},
	{"virtual_rules", "routing rules that move with the address", "keep them on both nodes; tandem moves addresses only"},
	{"use_vmac*", "a virtual MAC address", "nothing: gratuitous ARP tells the neighbours"},
	{"vmac_xmit_base", "a virtual MAC address", "nothing: gratuitous ARP tells the neighbours"},
	{"dont_track_primary", "faults of the interface are ignored", "nothing: a node without carrier cannot serve the address"},
	{"native_ipv6", "VRRP over IPv6", "nothing: TANDEM_PEERS takes IPv6 addresses"},
	{"accept", "whether packets to the address are taken", "nothing: the holder always takes them"},
	{"no_accept", "packets to the address are not taken", "a rule of your firewall"},
	{"linkbeat_use_polling", "how carrier is watched", "nothing: the kernel tells"},
	{"track_process", "a process that is watched", "nothing for HAProxy, which is watched; others are not"},
	{"track_file", "a file that is watched", "call `tandem maintenance on` and `off` where the file is written"},
	{"track_bfd", "a BFD session that is watched", "nothing of the kind"},
	{"debug", "more log", "TANDEM_LOG_LEVEL=debug"},
	{"virtual_server*", "a virtual server of the kernel (LVS)", "a frontend and a backend in haproxy.cfg; keepalived can go on doing it"},
	{"real_server", "a server of LVS", "a server in haproxy.cfg"},
	{"static_*", "addresses, routes or rules that never move", "the network configuration of the machine"},
	{"include", "another file, which was not read", "import it too"},
	{"weight", "a weight in a decision", "nothing: a node is eligible or it is not"},
	{"global_tracking", "tracking for all instances", "nothing"},
}

// leftovers names every keyword that was not dealt with.
func (c *conversion) leftovers() {
	c.block("file", c.root)
	for kind := range done {
		for _, n := range c.root.find(kind) {
			c.block(kind, n)
		}
	}
}

func (c *conversion) block(kind string, n *node) {
	said := map[string]bool{}
	for _, statement := range n.block {
		name := statement.name()
		if said[name] || slices.Contains(done[kind], name) {
			continue
		}
		said[name] = true
		what, instead := "no counterpart is known", "look whether you still need it"
		for _, k := range known {
			if name == k.keyword || strings.HasSuffix(k.keyword, "*") && strings.HasPrefix(name, strings.TrimSuffix(k.keyword, "*")) {
				what, instead = k.what, k.instead
				break
			}
		}
		c.note(statement.line, name+": "+what, instead)
	}
}
