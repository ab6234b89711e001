package config

import (
	"net/netip"
	"time"
)

// Config is everything that a node is told, parsed and checked. [Load] is the
// only way to make one; the zero value is not usable.
type Config struct {
	// Node is the name of this node, unique in the cluster.
	Node string `env:"TANDEM_NODE"`
	// Role says what this node does: [RoleLB], [RoleWitness] or [RoleSite].
	Role Role `env:"TANDEM_ROLE"`
	// Peers are the voters in the order given, 1 to 7 of them, with distinct
	// names and addresses. This node may be absent: then it follows without a
	// vote (see [Config.Voter]).
	Peers Peers `env:"TANDEM_PEERS"`
	// Cluster separates clusters that could hear each other.
	Cluster string `env:"TANDEM_CLUSTER"`
	// Bind is where gossip listens, UDP and TCP.
	Bind netip.AddrPort `env:"TANDEM_BIND"`
	// Keys are AES keys of 16, 24 or 32 bytes: the first encrypts, all
	// decrypt. Empty only with Insecure.
	Keys Keys `env:"TANDEM_KEY"`
	// KeyFile is the path that Keys were read from; empty: they were given in
	// the environment, and a running node does not see a change of them.
	KeyFile string `env:"-"`
	// Insecure lets gossip go unencrypted.
	Insecure bool `env:"TANDEM_INSECURE"`

	// Mode is resolved: never empty after [Load].
	Mode Mode `env:"TANDEM_MODE"`
	// Lease says how long a silent holder is believed.
	Lease Lease `env:"TANDEM_LEASE"`

	// VIPs are the groups of virtual IPs. Never empty: without TANDEM_VIPS it
	// is the one group "default" without addresses, whose lease exists all the
	// same. A group may have no addresses (clouds).
	VIPs VIPGroups `env:"TANDEM_VIPS"`
	// Prefer maps a VIP group to the node that bids first. A group that is
	// absent has no preference given: the first peer with role lb is meant,
	// and only the running cluster knows the roles.
	Prefer Prefer `env:"TANDEM_PREFER"`
	// VIPFailback says whether a virtual IP returns to the preferred node.
	VIPFailback Failback `env:"TANDEM_VIP_FAILBACK"`
	// MoveGrace is how long connections of the old holder may go on after a
	// planned move; 0 is none.
	MoveGrace time.Duration `env:"TANDEM_MOVE_GRACE"`

	// HAProxys are the HAProxy processes of this machine, at least one.
	HAProxys HAProxys `env:"TANDEM_HAPROXY_SOCKET"`
	// HAProxyTimeout is how long HAProxy may be silent.
	HAProxyTimeout time.Duration `env:"TANDEM_HAPROXY_TIMEOUT"`
	// StateFiles, Maps and HAProxyCfgs are what HAProxys has, as it was given: one
	// for each, or none.
	StateFiles  Paths `env:"TANDEM_STATE_FILE"`
	Maps        Paths `env:"TANDEM_MAP"`
	HAProxyCfgs Paths `env:"TANDEM_HAPROXY_CFG"`
	// Hold is the loopback UDP address that answers the name held requests
	// wait for; not valid: none.
	Hold netip.AddrPort `env:"TANDEM_HOLD"`

	// Sites are in order of preference; empty: no site decision.
	Sites Sites `env:"TANDEM_SITES"`
	// Site is the site this node stands in; empty: none.
	Site string `env:"TANDEM_SITE"`
	// Critical are globs of backends whose loss makes a site unusable; empty:
	// all that match a site and are not independent.
	Critical Globs `env:"TANDEM_CRITICAL"`
	// Independent are names of backends with an active site of their own.
	Independent Globs `env:"TANDEM_INDEPENDENT"`
	// MinUp is how many servers a critical backend needs.
	MinUp MinUp `env:"TANDEM_MIN_UP"`
	// Switch is the order of the phases of a site switch.
	Switch Switch `env:"TANDEM_SWITCH"`
	// SiteAuto says which automatic switches are allowed.
	SiteAuto SiteAuto `env:"TANDEM_SITE_AUTO"`
	// SiteDownAfter is how long no load balancer has seen the active site
	// usable before an automatic switch.
	SiteDownAfter time.Duration `env:"TANDEM_SITE_DOWN_AFTER"`
	// SiteFailback says whether the preferred site gets its place back.
	SiteFailback Failback `env:"TANDEM_SITE_FAILBACK"`
	// DrainTimeout is how long connections left on the old site may go on; 0
	// is for ever.
	DrainTimeout time.Duration `env:"TANDEM_DRAIN_TIMEOUT"`

	// HookTakeover, HookRenounce, HookPrecheck and HookNotify are shell
	// commands, run in the order given.
	HookTakeover Commands `env:"TANDEM_HOOK_TAKEOVER"`
	HookRenounce Commands `env:"TANDEM_HOOK_RENOUNCE"`
	HookPrecheck Commands `env:"TANDEM_HOOK_PRECHECK"`
	HookNotify   Commands `env:"TANDEM_HOOK_NOTIFY"`
	// HookTimeout is the deadline of one command.
	HookTimeout time.Duration `env:"TANDEM_HOOK_TIMEOUT"`
	// Webhook is the http or https URL that is told of every event; empty:
	// none. It may hold a credential, so it prints without its path.
	Webhook URL `env:"TANDEM_WEBHOOK"`
	// WebhookSecret signs what is sent there; empty: unsigned.
	WebhookSecret Secret `env:"TANDEM_WEBHOOK_SECRET"`

	// Probes say who answers if this node is not cut off; empty: any server
	// that HAProxy sees.
	Probes Probes `env:"TANDEM_PROBE"`

	// API is where HTTP listens.
	API Listen `env:"TANDEM_API"`
	// APIToken operates and reads, APIReadToken reads; empty: none.
	APIToken     Secret `env:"TANDEM_API_TOKEN"`
	APIReadToken Secret `env:"TANDEM_API_READ_TOKEN"`
	// APICert and APIKey are paths of PEM files, both or neither.
	APICert string `env:"TANDEM_API_CERT"`
	APIKey  string `env:"TANDEM_API_KEY"`
	// Socket is the path of the local control socket.
	Socket string `env:"TANDEM_SOCKET"`

	// StateDir keeps decision and history over a restart; empty: nothing.
	StateDir string `env:"TANDEM_STATE_DIR"`
	// Observe watches and reports what would have been done, and touches
	// nothing.
	Observe bool `env:"TANDEM_OBSERVE"`
	// LogLevel is debug, info, warn or error.
	LogLevel LogLevel `env:"TANDEM_LOG_LEVEL"`
	// LogFormat is json or console.
	LogFormat LogFormat `env:"TANDEM_LOG_FORMAT"`

	// Warnings are sentences about settings that are legal and yet deserve a
	// word in log and check.
	Warnings []string `env:"-"`

	settings []Setting
}

// Voter says whether this node is one of the peers.
func (c Config) Voter() bool {
	_, ok := c.Peers.Find(c.Node)
	return ok
}

// VIPGroup gives the group of that name.
func (c Config) VIPGroup(name string) (VIPGroup, bool) {
	for _, g := range c.VIPs {
		if g.Name == name {
			return g, true
		}
	}
	return VIPGroup{}, false
}

// HasAddresses says whether any VIP group has an address.
func (c Config) HasAddresses() bool {
	for _, g := range c.VIPs {
		if len(g.Addresses) > 0 {
			return true
		}
	}
	return false
}

// Role says what a node does.
type Role string

// The roles.
const (
	RoleLB      Role = "lb"      // beside a HAProxy
	RoleWitness Role = "witness" // votes, carries nothing
	RoleSite    Role = "site"    // runs hooks beside a site's applications
)

// Mode is how many voters must agree.
type Mode string

// The modes, as in lib/lease.
const (
	ModeQuorum Mode = "quorum" // a majority decides
	ModePair   Mode = "pair"   // both while both are heard, else one alone
	ModeSingle Mode = "single" // no agreement
)

// Switch is the order of the phases of a site switch.
type Switch string

// The orders.
const (
	SwitchOverlap   Switch = "overlap"   // the new site is enabled first
	SwitchExclusive Switch = "exclusive" // the old site is drained first
)

// LogLevel is the least severity that is logged.
type LogLevel string

// LogFormat is how a log line looks.
type LogFormat string

// The log formats.
const (
	LogJSON    LogFormat = "json"
	LogConsole LogFormat = "console"
)

// Peer is one voter.
type Peer struct {
	Name string
	Addr string // host:port; the host may be a DNS name
}

// Peers are the voters.
type Peers []Peer

// Find gives the peer of that name.
func (p Peers) Find(name string) (Peer, bool) {
	for _, peer := range p {
		if peer.Name == name {
			return peer, true
		}
	}
	return Peer{}, false
}

// Names are the names of the peers in their order.
func (p Peers) Names() []string {
	names := make([]string, len(p))
	for i, peer := range p {
		names[i] = peer.Name
	}
	return names
}

// Lease says how long a silent holder is believed.
type Lease struct {
	Auto  bool          // self-tuning, DESIGN §9
	Fixed time.Duration // 300 ms to 10 s when not Auto
}

// The bounds of a fixed lease.
const (
	MinLease = 300 * time.Millisecond
	MaxLease = 10 * time.Second
)

// Address is one virtual IP on one interface.
type Address struct {
	Prefix    netip.Prefix // the address itself, not masked
	Interface string
}

// VIPGroup is what moves together.
type VIPGroup struct {
	Name      string
	Addresses []Address
}

// DefaultGroup is the name of the group that has none given.
const DefaultGroup = "default"

// VIPGroups are all groups of virtual IPs, names distinct.
type VIPGroups []VIPGroup

// Prefer maps a VIP group to a node.
type Prefer map[string]string

// Failback is never, or after some time.
type Failback struct {
	Enabled bool
	After   time.Duration
}

// SiteDef is one site: servers matched by backend/server globs.
type SiteDef struct {
	Name     string
	Patterns []string
}

// Sites are in order of preference, names distinct.
type Sites []SiteDef

// Names are the names of the sites in their order.
func (s Sites) Names() []string {
	names := make([]string, len(s))
	for i, site := range s {
		names[i] = site.Name
	}
	return names
}

// Globs are patterns of backend names.
type Globs []string

// MinUp is a number of servers or a percentage; exactly one of both is set.
type MinUp struct {
	Count   int
	Percent int // 1 to 100
}

// SiteAuto says which automatic switches are allowed.
type SiteAuto struct {
	Off bool   // none
	To  string // only to this site; empty: to any
}

// Commands are shell commands, run in order.
type Commands []string

// Probe is an address that answers a TCP connection if this node is not cut
// off.
type Probe struct {
	Network string // tcp
	Address string // host:port
}

// Probes are all of them; one that answers is enough.
type Probes []Probe

// Listen is an address for HTTP, or none.
type Listen struct {
	Off  bool
	Addr netip.AddrPort
}

// Loopback says whether nobody beyond this machine can reach it.
func (l Listen) Loopback() bool { return l.Off || l.Addr.Addr().Unmap().IsLoopback() }
