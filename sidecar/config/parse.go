package config

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultPort is the gossip port of a peer that names none.
const DefaultPort = "7946"

// valueError is a problem said in our own words.
type valueError string

func (b valueError) Error() string { return string(b) }

func bad(format string, args ...any) error { return valueError(fmt.Sprintf(format, args...)) }

var (
	nodeName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	groupName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
	// A pattern ends up in commands to HAProxy only through names that
	// the running HAProxy gave us; these are the characters of such names and
	// the two of a glob.
	serverGlob  = regexp.MustCompile(`^[A-Za-z0-9_.:*?-]+$`)
	ifaceName   = regexp.MustCompile(`^[^\s/:@,;=]{1,15}$`)
	hostName    = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$`)
	clusterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// items splits a list, trims each item and refuses an empty one.
func items(s, separator string) ([]string, error) {
	list := strings.Split(s, separator)
	for i := range list {
		if list[i] = strings.TrimSpace(list[i]); list[i] == "" {
			return nil, bad("an item of the list is empty")
		}
	}
	return list, nil
}

// UnmarshalText reads a role.
func (r *Role) UnmarshalText(text []byte) error {
	return oneOf(r, string(text), RoleLB, RoleWitness, RoleSite)
}

// UnmarshalText reads a mode.
func (m *Mode) UnmarshalText(text []byte) error {
	return oneOf(m, string(text), ModeQuorum, ModePair, ModeSingle)
}

// UnmarshalText reads an order of switching.
func (s *Switch) UnmarshalText(text []byte) error {
	return oneOf(s, string(text), SwitchOverlap, SwitchExclusive)
}

// UnmarshalText reads a severity.
func (l *LogLevel) UnmarshalText(text []byte) error {
	return oneOf(l, string(text), "debug", "info", "warn", "error")
}

// UnmarshalText reads a log format.
func (l *LogFormat) UnmarshalText(text []byte) error {
	return oneOf(l, string(text), LogJSON, LogConsole)
}

func oneOf[T ~string](into *T, value string, words ...T) error {
	if !slices.Contains(words, T(value)) {
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = string(w)
		}
		last := len(quoted) - 1
		return bad("neither %s nor %s", strings.Join(quoted[:last], ", "), quoted[last])
	}
	*into = T(value)
	return nil
}

// UnmarshalText reads name=host[:port],….
func (p *Peers) UnmarshalText(text []byte) error {
	list, err := items(string(text), ",")
	if err != nil {
		return err
	}
	var peers Peers
	for _, item := range list {
		name, addr, ok := strings.Cut(item, "=")
		if !ok {
			return bad("%q is not name=address", item)
		}
		name = strings.TrimSpace(name)
		if !nodeName.MatchString(name) {
			return bad("%q is not a node name: letters, digits, dot, dash and underscore, at most 63", name)
		}
		addr, err = hostPort(strings.TrimSpace(addr), DefaultPort)
		if err != nil {
			return err
		}
		for _, other := range peers {
			if other.Name == name {
				return bad("%s is listed twice", name)
			}
			if other.Addr == addr {
				return bad("%s and %s have the same address", other.Name, name)
			}
		}
		peers = append(peers, Peer{Name: name, Addr: addr})
	}
	if len(peers) > 7 {
		return bad("%d voters; at most 7 make sense, all other nodes follow without being listed", len(peers))
	}
	*p = peers
	return nil
}

// hostPort gives host:port, with the default port where there is none. An
// IPv6 address with a port needs brackets, one without may do without.
func hostPort(s, port string) (string, error) {
	if addr, err := netip.ParseAddr(unbracketed(s)); err == nil {
		if rest, ok := strings.CutSuffix(s, ":"+DefaultPort); ok && addr.Is6() {
			return "", bad("%q may be an address or one with a port: write [%s]:%s", s, rest, DefaultPort)
		}
		return hostAndPort(addr.String(), port)
	}
	host := s
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	}
	return hostAndPort(host, port)
}

// unbracketed takes a pair of brackets off.
func unbracketed(s string) string {
	inner, open := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !open || !closed {
		return s
	}
	return inner
}

func hostAndPort(host, port string) (string, error) {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", bad("%q is not a port", port)
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil && (addr.IsUnspecified() || addr.IsMulticast()):
		return "", bad("%s is not the address of a host", addr)
	case err == nil:
		host = addr.String()
	case !hostName.MatchString(host) || looksLikeIP(host):
		return "", bad("%q is neither an IP address nor a host name", host)
	}
	return net.JoinHostPort(host, port), nil
}

// looksLikeIP finds what was meant to be an IPv4 address and is not one, such
// as 10.0.0.256, before a resolver is asked for it.
func looksLikeIP(s string) bool {
	return strings.Trim(s, "0123456789.") == ""
}

// UnmarshalText reads base64 keys, comma-separated.
func (k *Keys) UnmarshalText(text []byte) error {
	list, err := items(string(text), ",")
	if err != nil {
		return err
	}
	var keys Keys
	for i, item := range list {
		key, err := base64.StdEncoding.DecodeString(item)
		if err != nil {
			key, err = base64.RawStdEncoding.DecodeString(item)
		}
		if err != nil {
			return bad("key %d is not base64", i+1)
		}
		if n := len(key); n != 16 && n != 24 && n != 32 {
			return bad("key %d has %d bytes; AES needs 16, 24 or 32", i+1, n)
		}
		keys = append(keys, key)
	}
	*k = keys
	return nil
}

// UnmarshalText reads auto or a duration within bounds.
func (l *Lease) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*l = Lease{Auto: true}
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil {
		return bad("neither auto nor a duration")
	}
	if d < MinLease || d > MaxLease {
		return bad("a lease is %v to %v long", MinLease, MaxLease)
	}
	*l = Lease{Fixed: d}
	return nil
}

// String reads as it is written.
func (l Lease) String() string {
	if l.Auto {
		return "auto"
	}
	return l.Fixed.String()
}

// UnmarshalText reads never or a duration.
func (f *Failback) UnmarshalText(text []byte) error {
	if string(text) == "never" {
		*f = Failback{}
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return bad("neither never nor a duration")
	}
	*f = Failback{Enabled: true, After: d}
	return nil
}

// String reads as it is written.
func (f Failback) String() string {
	if !f.Enabled {
		return "never"
	}
	return f.After.String()
}

// UnmarshalText reads tcp://host:port,…
func (p *Probes) UnmarshalText(text []byte) error {
	list, err := items(string(text), ",")
	if err != nil {
		return err
	}
	var probes Probes
	for _, item := range list {
		address, ok := strings.CutPrefix(item, "tcp://")
		if !ok {
			return bad("%q does not begin with tcp://", item)
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return bad("%q has no port", item)
		}
		address, err = hostAndPort(host, port)
		if err != nil {
			return err
		}
		probes = append(probes, Probe{Network: "tcp", Address: address})
	}
	*p = probes
	return nil
}

// UnmarshalText reads off or ip:port. A host name is not taken, because what
// it resolves to decides whether a token is needed.
func (l *Listen) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*l = Listen{Off: true}
		return nil
	}
	addr, err := netip.ParseAddrPort(string(text))
	if err != nil {
		return bad("neither off nor an IP address with a port")
	}
	*l = Listen{Addr: addr}
	return nil
}

// String reads as it is written.
func (l Listen) String() string {
	if l.Off {
		return "off"
	}
	return l.Addr.String()
}

// UnmarshalText reads an http or https URL.
func (u *URL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return bad("not an http or https URL")
	}
	*u = URL(text)
	return nil
}

// UnmarshalText reads commands, ;-separated.
func (c *Commands) UnmarshalText(text []byte) error {
	list, err := items(strings.TrimSuffix(strings.TrimSpace(string(text)), ";"), ";")
	if err != nil {
		return err
	}
	*c = list
	return nil
}
