package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// validate checks what the parsers of single values cannot, fills in what
// follows from other variables, and collects warnings. A variable that is
// already known to be wrong is not blamed twice.
func (l *loader) validate(c *Config) {
	l.validateNode(c)
	l.validateMode(c)
	l.validateAddresses(c)
	l.validateSites(c)
	l.validatePaths(c)
	l.validateHAProxys(c)
	l.validateDurations(c)
	l.validateAPI(c)
}

func (l *loader) validateNode(c *Config) {
	if c.Node == "" {
		c.Node, _ = os.Hostname() // empty on failure, which is refused below
	}
	if !nodeName.MatchString(c.Node) {
		l.values["TANDEM_NODE"] = c.Node
		l.add("TANDEM_NODE", "not a node name: letters, digits, dot, dash and underscore, at most 63")
	}
	if !clusterName.MatchString(c.Cluster) {
		l.add("TANDEM_CLUSTER", "not a name: letters, digits, dot, dash and underscore, at most 63")
	}
	if len(c.Peers) == 0 && !l.errs.Of("TANDEM_PEERS") {
		l.add("TANDEM_PEERS", "required and not set")
	}
	if len(c.Keys) == 0 && !c.Insecure && !l.errs.Of("TANDEM_KEY") && !l.errs.Of("TANDEM_KEY"+FileSuffix) {
		l.add("TANDEM_KEY", "required and not set (TANDEM_INSECURE=true does without)")
	}
	if c.Insecure && len(c.Keys) > 0 {
		l.add("TANDEM_INSECURE", "TANDEM_KEY is set too; give one of both")
	}
	if c.Insecure {
		l.warn("gossip is not encrypted (TANDEM_INSECURE): anybody who reaches %s can take the cluster over", c.Bind)
	}
	if len(c.Peers) == 0 || l.errs.Of("TANDEM_NODE") || l.errs.Of("TANDEM_ROLE") {
		return
	}
	if self, voter := c.Peers.Find(c.Node); voter {
		l.warnPort(c, self)
		return
	}
	l.validateFollower(c)
}

// warnPort finds a node that listens where nobody looks for it. It may be right:
// something may map one port to the other.
func (l *loader) warnPort(c *Config, self Peer) {
	_, port, err := net.SplitHostPort(self.Addr)
	if err == nil && c.Bind.IsValid() && port != strconv.Itoa(int(c.Bind.Port())) {
		l.warn("the others look for this node at %s (TANDEM_PEERS), and it listens on %s (TANDEM_BIND): the same port, unless something maps one to the other", self.Addr, c.Bind)
	}
}

// validateFollower looks twice at a node that is not among the peers, because
// a slip in the name would quietly cost the cluster a voter.
func (l *loader) validateFollower(c *Config) {
	l.values["TANDEM_NODE"] = c.Node
	short, _, _ := strings.Cut(c.Node, ".")
	for _, p := range c.Peers {
		peer, _, _ := strings.Cut(p.Name, ".")
		if strings.EqualFold(peer, short) {
			l.add("TANDEM_NODE", "not among TANDEM_PEERS, but %s is: use one name in both", p.Name)
			return
		}
	}
	if c.Role == RoleWitness {
		l.add("TANDEM_NODE", "a witness must be one of TANDEM_PEERS (%s)", strings.Join(c.Peers.Names(), ", "))
		return
	}
	l.warn("%s is not among TANDEM_PEERS (%s): it follows without a vote", c.Node, strings.Join(c.Peers.Names(), ", "))
}

func (l *loader) validateMode(c *Config) {
	n := len(c.Peers)
	if n == 0 || l.errs.Of("TANDEM_MODE") {
		return
	}
	switch {
	case c.Mode == "" && n == 1:
		c.Mode = ModeSingle
	case c.Mode == "" && n == 2:
		c.Mode = ModePair
	case c.Mode == "":
		c.Mode = ModeQuorum
	case c.Mode == ModePair && n != 2:
		l.add("TANDEM_MODE", "pair needs exactly 2 voters, TANDEM_PEERS has %d", n)
	case c.Mode == ModeSingle && n != 1:
		l.add("TANDEM_MODE", "single needs exactly 1 voter, TANDEM_PEERS has %d", n)
	}
	switch {
	case c.Mode == ModePair:
		l.warn("two voters: while the link between two healthy nodes is cut, both may hold the address; a third voter (a witness) ends that")
	case c.Mode == ModeSingle:
		l.warn("one voter: nothing takes over when it fails; good for trying things out")
	case n == 2:
		l.warn("quorum of two voters: when either fails, nobody holds anything; a third voter (a witness) ends that")
	case n%2 == 0:
		l.warn("%d voters survive no more failures than %d", n, n-1)
	}
}

func (l *loader) validateAddresses(c *Config) {
	if len(c.VIPs) == 0 {
		c.VIPs = VIPGroups{{Name: DefaultGroup}}
	}
	for _, g := range c.VIPs {
		for _, a := range g.Addresses {
			for _, p := range c.Peers {
				host, _, _ := net.SplitHostPort(p.Addr)
				if ip, err := netip.ParseAddr(host); err == nil && ip == a.Prefix.Addr() {
					l.add("TANDEM_VIPS", "%s is the address of peer %s itself", ip, p.Name)
				}
			}
		}
	}
	if l.errs.Of("TANDEM_VIPS") {
		return
	}
	if node, all := c.Prefer[""]; all {
		delete(c.Prefer, "")
		for _, g := range c.VIPs {
			c.Prefer[g.Name] = node
		}
	}
	for _, group := range slices.Sorted(maps.Keys(c.Prefer)) {
		if _, ok := c.VIPGroup(group); !ok {
			l.add("TANDEM_PREFER", "TANDEM_VIPS has no group %s", group)
		}
	}
	l.validatePreferred(c)
	if c.Hold.IsValid() && !c.Hold.Addr().IsLoopback() {
		l.add("TANDEM_HOLD", "it must be an address on loopback")
	}
	if len(c.Bind.String()) > 0 && c.Bind.IsValid() && c.Bind.Port() == 0 {
		l.add("TANDEM_BIND", "port 0 cannot be found by the peers")
	}
}

// validatePreferred refuses a node that can hold nothing, which would quietly be
// as if none was preferred.
func (l *loader) validatePreferred(c *Config) {
	if len(c.Peers) == 0 {
		return
	}
	for _, node := range slices.Compact(slices.Sorted(maps.Values(c.Prefer))) {
		if _, ok := c.Peers.Find(node); !ok {
			l.add("TANDEM_PREFER", "%s is not among TANDEM_PEERS (%s), so it can hold nothing", node, strings.Join(c.Peers.Names(), ", "))
		}
	}
}

func (l *loader) validateSites(c *Config) {
	if l.errs.Of("TANDEM_SITES") {
		return
	}
	names := c.Sites.Names()
	list := strings.Join(names, ", ")
	if c.Site != "" && len(names) > 0 && !slices.Contains(names, c.Site) {
		l.add("TANDEM_SITE", "TANDEM_SITES has no such site, it has %s", list)
	}
	if c.Site != "" && len(names) == 0 && !groupName.MatchString(c.Site) {
		l.add("TANDEM_SITE", "not the name of a site")
	}
	if c.Role == RoleSite && c.Site == "" {
		l.add("TANDEM_SITE", "required with TANDEM_ROLE=site")
	}
	if to := c.SiteAuto.To; to != "" && len(names) > 0 && !slices.Contains(names, to) {
		l.add("TANDEM_SITE_AUTO", "TANDEM_SITES has no site %s, it has %s", to, list)
	}
	for _, b := range c.Independent {
		if strings.ContainsAny(b, "*?") {
			l.add("TANDEM_INDEPENDENT", "%s is a glob: each independent backend is a group of its own and needs its name", b)
		}
		if slices.Contains(c.Critical, b) {
			l.add("TANDEM_CRITICAL", "%s is independent too (TANDEM_INDEPENDENT), so its loss cannot make a site unusable", b)
		}
	}
	if c.Role != RoleLB || len(names) > 0 {
		return
	}
	for _, v := range []string{"TANDEM_CRITICAL", "TANDEM_INDEPENDENT", "TANDEM_MAP", "TANDEM_HOLD"} {
		if l.values[v] != "" && !l.errs.Of(v) {
			l.add(v, "it means nothing without TANDEM_SITES")
		}
	}
}

// maxSocketPath leaves room for the name under which a new socket is bound
// before it gets its own; the kernel takes 107 bytes.
const maxSocketPath = 92

func (l *loader) validatePaths(c *Config) {
	written := map[string]string{}
	type variablePath struct {
		variable, path string
		writes         bool
	}
	var all []variablePath
	for _, h := range c.HAProxys {
		all = append(all, variablePath{"TANDEM_HAPROXY_SOCKET", h.Socket, false})
	}
	for _, paths := range []struct {
		variable string
		list     Paths
	}{{"TANDEM_STATE_FILE", c.StateFiles}, {"TANDEM_MAP", c.Maps}, {"TANDEM_HAPROXY_CFG", c.HAProxyCfgs}} {
		for _, path := range paths.list {
			all = append(all, variablePath{paths.variable, path, true})
		}
	}
	for _, p := range append(all, []variablePath{
		{"TANDEM_API_CERT", c.APICert, false},
		{"TANDEM_API_KEY", c.APIKey, false},
		{"TANDEM_SOCKET", c.Socket, true},
		{"TANDEM_STATE_DIR", c.StateDir, true},
	}...) {
		if p.path == "" {
			continue
		}
		if !filepath.IsAbs(p.path) {
			l.add(p.variable, "not an absolute path")
			continue
		}
		if strings.HasSuffix(p.variable, "_SOCKET") && len(p.path) > maxSocketPath {
			l.add(p.variable, "longer than %d bytes, which the kernel does not take", maxSocketPath)
		}
		clean := filepath.Clean(p.path)
		if other, twice := written[clean]; p.writes && twice {
			l.add(p.variable, "the same path as %s", other)
		}
		written[clean] = p.variable
	}
}

func (l *loader) validateDurations(c *Config) {
	for _, d := range []struct {
		variable   string
		value      time.Duration
		least, max time.Duration
	}{
		{"TANDEM_MOVE_GRACE", c.MoveGrace, 0, time.Hour},
		{"TANDEM_HAPROXY_TIMEOUT", c.HAProxyTimeout, 50 * time.Millisecond, 10 * time.Second},
		{"TANDEM_SITE_DOWN_AFTER", c.SiteDownAfter, 0, 24 * time.Hour},
		{"TANDEM_DRAIN_TIMEOUT", c.DrainTimeout, 0, 7 * 24 * time.Hour},
		{"TANDEM_HOOK_TIMEOUT", c.HookTimeout, 100 * time.Millisecond, 24 * time.Hour},
	} {
		if !l.errs.Of(d.variable) && (d.value < d.least || d.value > d.max) {
			l.add(d.variable, "out of bounds: %v to %v", d.least, d.max)
		}
	}
}

// minToken is a length that cannot be guessed over a network. What is shorter is
// good for trying things out.
const minToken = 16

func (l *loader) validateAPI(c *Config) {
	for _, t := range []struct {
		variable string
		token    Secret
	}{{"TANDEM_API_TOKEN", c.APIToken}, {"TANDEM_API_READ_TOKEN", c.APIReadToken}} {
		switch {
		case strings.ContainsFunc(t.token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }):
			l.add(t.variable, "a token consists of visible ASCII characters, without blanks: it is sent in a header")
		case t.token != "" && len(t.token) < minToken:
			l.warn("%s has fewer than %d characters and can be guessed", t.variable, minToken)
		}
	}
	if c.APIToken != "" && c.APIToken == c.APIReadToken {
		l.add("TANDEM_API_READ_TOKEN", "the same as TANDEM_API_TOKEN; whoever may read could operate")
	}
	if l.errs.Of("TANDEM_API") {
		return
	}
	tokens := l.values["TANDEM_API_TOKEN"] + l.values["TANDEM_API_READ_TOKEN"]
	secretBroken := l.errs.Of("TANDEM_API_TOKEN"+FileSuffix) || l.errs.Of("TANDEM_API_READ_TOKEN"+FileSuffix)
	if !c.API.Loopback() && tokens == "" && !secretBroken {
		l.add("TANDEM_API", "it listens beyond loopback, so TANDEM_API_TOKEN (or TANDEM_API_READ_TOKEN) must be set")
	}
	if (c.APICert == "") != (c.APIKey == "") {
		variable := "TANDEM_API_CERT"
		if c.APIKey == "" {
			variable = "TANDEM_API_KEY"
		}
		l.add(variable, "TANDEM_API_CERT and TANDEM_API_KEY are needed both, or neither")
	}
	if !c.API.Loopback() && c.APICert == "" {
		l.warn("the API listens on %s without TLS: tokens can be read on the way (TANDEM_API_CERT, TANDEM_API_KEY)", c.API)
	}
}

func (l *loader) warn(format string, args ...any) {
	l.warnings = append(l.warnings, fmt.Sprintf(format, args...))
}
