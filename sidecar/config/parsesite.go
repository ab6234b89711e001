package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// UnmarshalText reads address[/bits]@interface,… or group=…;group=….
func (g *VIPGroups) UnmarshalText(text []byte) error {
	list, err := items(strings.TrimSuffix(strings.TrimSpace(string(text)), ";"), ";")
	if err != nil {
		return err
	}
	var groups VIPGroups
	seen := map[netip.Addr]bool{}
	for _, item := range list {
		name, rest, named := strings.Cut(item, "=")
		if !named {
			if len(list) > 1 {
				return bad("with several groups each needs a name: group=address@interface")
			}
			name, rest = DefaultGroup, item
		}
		group := VIPGroup{Name: strings.TrimSpace(name)}
		if !groupName.MatchString(group.Name) {
			return bad("%q is not a group name: letters, digits, dot, dash and underscore, at most 32", group.Name)
		}
		if _, twice := (Config{VIPs: groups}).VIPGroup(group.Name); twice {
			return bad("group %s is listed twice", group.Name)
		}
		if group.Addresses, err = addresses(strings.TrimSpace(rest), seen); err != nil {
			return err
		}
		groups = append(groups, group)
	}
	*g = groups
	return nil
}

// addresses reads the addresses of one group; none at all is legal, for clouds
// where a hook moves the address.
func addresses(s string, seen map[netip.Addr]bool) ([]Address, error) {
	if s == "" {
		return nil, nil
	}
	list, err := items(s, ",")
	if err != nil {
		return nil, err
	}
	var all []Address
	for _, item := range list {
		a, err := address(item)
		if err != nil {
			return nil, err
		}
		if seen[a.Prefix.Addr()] {
			return nil, bad("%s is listed twice", a.Prefix.Addr())
		}
		seen[a.Prefix.Addr()] = true
		all = append(all, a)
	}
	return all, nil
}

func address(s string) (Address, error) {
	text, iface, ok := strings.Cut(s, "@")
	if !ok {
		return Address{}, bad("%q names no interface: address@interface", s)
	}
	if !ifaceName.MatchString(iface) {
		return Address{}, bad("%q is not the name of an interface", iface)
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return Address{}, bad("%q is not an IP address", text)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	addr := prefix.Addr()
	switch {
	case addr.Zone() != "" || addr.Is4In6():
		return Address{}, bad("write %s as a plain IPv4 or IPv6 address", addr)
	case addr.IsUnspecified(), addr.IsMulticast(), addr.IsLoopback(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return Address{}, bad("%s cannot be a virtual IP", addr)
	case prefix.Bits() < addr.BitLen()-1 && prefix.Masked().Addr() == addr:
		return Address{}, bad("%s is the address of the network itself", prefix)
	}
	return Address{Prefix: prefix, Interface: iface}, nil
}

// UnmarshalText reads node or group=node;group=node.
func (p *Prefer) UnmarshalText(text []byte) error {
	list, err := items(strings.TrimSuffix(strings.TrimSpace(string(text)), ";"), ";")
	if err != nil {
		return err
	}
	prefer := Prefer{}
	for _, item := range list {
		group, node, named := strings.Cut(item, "=")
		if !named {
			if len(list) > 1 {
				return bad("with several groups each needs a name: group=node")
			}
			group, node = "", item
		}
		group, node = strings.TrimSpace(group), strings.TrimSpace(node)
		if !nodeName.MatchString(node) {
			return bad("%q is not a node name", node)
		}
		if _, twice := prefer[group]; twice {
			return bad("group %s is listed twice", group)
		}
		prefer[group] = node
	}
	*p = prefer
	return nil
}

// UnmarshalText reads site=backend/server,…;site=….
func (s *Sites) UnmarshalText(text []byte) error {
	list, err := items(strings.TrimSuffix(strings.TrimSpace(string(text)), ";"), ";")
	if err != nil {
		return err
	}
	var sites Sites
	seen := map[string]string{}
	for _, item := range list {
		name, rest, ok := strings.Cut(item, "=")
		if !ok {
			return bad("%q is not site=backend/server", item)
		}
		site := SiteDef{Name: strings.TrimSpace(name)}
		if !groupName.MatchString(site.Name) {
			return bad("%q is not the name of a site: letters, digits, dot, dash and underscore, at most 32", site.Name)
		}
		if slices.Contains(sites.Names(), site.Name) {
			return bad("site %s is listed twice", site.Name)
		}
		if site.Patterns, err = items(rest, ","); err != nil {
			return bad("site %s: %s", site.Name, err.Error())
		}
		for _, p := range site.Patterns {
			if err := serverPattern(p); err != nil {
				return err
			}
			if other, twice := seen[p]; twice {
				return bad("pattern %s stands at %s and at %s", p, other, site.Name)
			}
			seen[p] = site.Name
		}
		sites = append(sites, site)
	}
	*s = sites
	return nil
}

func serverPattern(p string) error {
	backend, server, ok := strings.Cut(p, "/")
	if !ok || !serverGlob.MatchString(backend) || !serverGlob.MatchString(server) {
		return bad("%q is not a backend/server glob", p)
	}
	return nil
}

// UnmarshalText reads globs of backend names, comma-separated.
func (g *Globs) UnmarshalText(text []byte) error {
	list, err := items(string(text), ",")
	if err != nil {
		return err
	}
	for _, item := range list {
		if !serverGlob.MatchString(item) {
			return bad("%q is not the name or a glob of a backend", item)
		}
	}
	*g = list
	return nil
}

// UnmarshalText reads a number or a percentage.
func (m *MinUp) UnmarshalText(text []byte) error {
	number, percent := strings.CutSuffix(string(text), "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 1:
		return bad("neither a number of servers nor a percentage")
	case percent && n > 100:
		return bad("more than 100%%")
	case percent:
		*m = MinUp{Percent: n}
	default:
		*m = MinUp{Count: n}
	}
	return nil
}

// UnmarshalText reads on, off or to=site.
func (a *SiteAuto) UnmarshalText(text []byte) error {
	switch s := string(text); {
	case s == "on":
		*a = SiteAuto{}
	case s == "off":
		*a = SiteAuto{Off: true}
	case strings.HasPrefix(s, "to=") && len(s) > len("to="):
		*a = SiteAuto{To: strings.TrimPrefix(s, "to=")}
	default:
		return bad("neither on, off nor to=SITE")
	}
	return nil
}
