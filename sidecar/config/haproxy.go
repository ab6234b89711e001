package config

import (
	"path/filepath"
	"slices"
	"strings"
)

// HAProxy is one HAProxy process of this machine.
type HAProxy struct {
	Name   string // unique; empty if it is the only one and was given none
	Socket string // path of its Runtime API
	// Groups are the groups of virtual IPs that clients reach it by; nil: all.
	// Empty and not nil: none, it stands behind another.
	Groups []string

	StateFile string // its server-state file; empty: none
	Map       string // its map of active sites; empty: none
	Cfg       string // its configuration, for check; empty: none
}

// Serves says whether clients reach it by the addresses of the group.
func (h HAProxy) Serves(group string) bool {
	return h.Groups == nil || slices.Contains(h.Groups, group)
}

// Aside says whether clients reach it by no address.
func (h HAProxy) Aside() bool { return h.Groups != nil && len(h.Groups) == 0 }

// HAProxys are the HAProxy processes of this machine, at least one.
type HAProxys []HAProxy

// noGroup stands behind the @ of one that serves no address.
const noGroup = "none"

// UnmarshalText reads [name=]/path[@group+group],….
func (h *HAProxys) UnmarshalText(text []byte) error {
	list, err := items(string(text), ",")
	if err != nil {
		return err
	}
	var all HAProxys
	for _, item := range list {
		one, err := haproxyItem(item, len(list) > 1)
		if err != nil {
			return err
		}
		for _, other := range all {
			if filepath.Clean(other.Socket) == filepath.Clean(one.Socket) {
				return bad("%s is listed twice", one.Socket)
			}
			if other.Name == one.Name {
				return bad("two are called %s; name them: a=%s,b=%s", one.Name, other.Socket, one.Socket)
			}
		}
		all = append(all, one)
	}
	*h = all
	return nil
}

// haproxyItem reads one; among several it is called as its socket is, unless it
// has a name.
func haproxyItem(item string, several bool) (HAProxy, error) {
	path, groups, marked := strings.Cut(item, "@")
	var one HAProxy
	if name, rest, named := strings.Cut(path, "="); named {
		one.Name, path = strings.TrimSpace(name), rest
		if !groupName.MatchString(one.Name) {
			return one, bad("%q is not a name: letters, digits, dot, dash and underscore, at most 32", one.Name)
		}
	}
	one.Socket = strings.TrimSpace(path)
	if one.Name == "" && several {
		base := filepath.Base(one.Socket)
		one.Name = strings.TrimSuffix(base, filepath.Ext(base))
		if !groupName.MatchString(one.Name) {
			return one, bad("%q needs a name: name=%s", item, path)
		}
	}
	if !marked {
		return one, nil
	}
	one.Groups = []string{}
	if groups = strings.TrimSpace(groups); groups == noGroup {
		return one, nil
	}
	for group := range strings.SplitSeq(groups, "+") {
		if !groupName.MatchString(group) || group == noGroup {
			return one, bad("behind @ stand groups of TANDEM_VIPS with + between them, or none: %q", groups)
		}
		one.Groups = append(one.Groups, group)
	}
	return one, nil
}

// Paths are one path for each HAProxy, in the order of TANDEM_HAPROXY_SOCKET.
type Paths []string

// UnmarshalText reads path,path.
func (p *Paths) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	list, err := items(string(text), ",")
	*p = list
	return err
}

// validateHAProxys gives each HAProxy its files, and looks that every address
// has one that serves it.
func (l *loader) validateHAProxys(c *Config) {
	if c.Role != RoleLB || l.errs.Of("TANDEM_HAPROXY_SOCKET") {
		return
	}
	for _, f := range []struct {
		variable string
		paths    Paths
		into     func(*HAProxy) *string
	}{
		{"TANDEM_STATE_FILE", c.StateFiles, func(h *HAProxy) *string { return &h.StateFile }},
		{"TANDEM_MAP", c.Maps, func(h *HAProxy) *string { return &h.Map }},
		{"TANDEM_HAPROXY_CFG", c.HAProxyCfgs, func(h *HAProxy) *string { return &h.Cfg }},
	} {
		if l.errs.Of(f.variable) || len(f.paths) == 0 {
			continue
		}
		if len(f.paths) != len(c.HAProxys) {
			l.add(f.variable, "%d paths for the %d sockets of TANDEM_HAPROXY_SOCKET; one each, in the same order", len(f.paths), len(c.HAProxys))
			continue
		}
		for n := range c.HAProxys {
			*f.into(&c.HAProxys[n]) = f.paths[n]
		}
	}
	if l.errs.Of("TANDEM_VIPS") {
		return
	}
	for _, h := range c.HAProxys {
		for _, group := range h.Groups {
			if _, ok := c.VIPGroup(group); !ok {
				l.add("TANDEM_HAPROXY_SOCKET", "TANDEM_VIPS has no group %s", group)
				return
			}
		}
	}
	for _, g := range c.VIPs {
		if !slices.ContainsFunc(c.HAProxys, func(h HAProxy) bool { return h.Serves(g.Name) }) {
			l.add("TANDEM_HAPROXY_SOCKET", "none of them serves the addresses of group %s", g.Name)
		}
	}
}
