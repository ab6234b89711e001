package cfgcheck

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	parser "github.com/haproxytech/client-native/v5/config-parser"
	"github.com/haproxytech/client-native/v5/config-parser/params"
	"github.com/haproxytech/client-native/v5/config-parser/types"
)

const (
	oneSecond    = time.Second
	defaultInter = 2 * time.Second // HAProxy's own
	defaultFall  = 3
	maxTemplate  = 1000 // slots of a server-template that are looked at
)

// config is what matters of haproxy.cfg.
type config struct {
	sockets      []socket
	statsMaxconn int64
	stateFile    string
	stateBase    string
	backends     []backend
	nameservers  []string
}

type socket struct {
	path    string
	options map[string]string
}

type backend struct {
	name       string
	loadState  string
	redispatch int64 // tries before another server; 0: no
	retries    int64
	cookie     bool
	disabled   bool
	servers    []server
}

type server struct {
	name    string
	address string            // host:port, as it stands there
	options map[string]string // with those of default-server
}

// port is that of the address; 0 if it has none, or one relative to the client's.
func (s server) port() int {
	at := strings.LastIndexByte(s.address, ':')
	if at < 0 {
		return 0
	}
	port, err := strconv.ParseUint(s.address[at+1:], 10, 16)
	if err != nil || strings.HasPrefix(s.address[at+1:], "+") {
		return 0
	}
	return int(port)
}

func (s server) has(option string) bool { _, ok := s.options[option]; return ok }

// detection is how long HAProxy takes at most to notice that an idle server died:
// inter until the first check fails, and fastinter, which applies in transition,
// for each of the others (HAProxy's manual, 5.2; measured in
// TestDetectionOfHAProxyItself).
func (s server) detection() time.Duration {
	inter, fall := defaultInter, int64(defaultFall)
	if d, ok := duration(s.options["inter"]); ok && d > 0 {
		inter = d
	}
	fast := inter
	if d, ok := duration(s.options["fastinter"]); ok && d > 0 {
		fast = d
	}
	if n, err := strconv.ParseInt(s.options["fall"], 10, 64); err == nil && n > 0 {
		fall = n
	}
	return inter + time.Duration(fall-1)*fast
}

// duration reads a time as HAProxy does: milliseconds unless a unit stands
// behind it.
func duration(s string) (time.Duration, bool) {
	digits := strings.TrimRight(s, "usmhd")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<31 {
		return 0, false
	}
	unit, ok := map[string]time.Duration{
		"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second,
		"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}[s[len(digits):]]
	return time.Duration(n) * unit, ok
}

// parse reads a configuration with client-native's parser.
func parse(text string) (c config, err error) {
	defer func() {
		if r := recover(); r != nil { // a library reads what a person wrote
			err = fmt.Errorf("parse haproxy configuration: %v", r)
		}
	}()
	p, err := parser.New()
	if err != nil {
		return c, fmt.Errorf("parse haproxy configuration: %w", err)
	}
	if err := p.Process(strings.NewReader(text)); err != nil {
		return c, fmt.Errorf("parse haproxy configuration: %w", err)
	}
	r := reader{p}
	c.statsMaxconn = 10 // HAProxy's own
	if n, ok := get[*types.Int64C](r, parser.Global, parser.GlobalSectionName, "stats maxconn"); ok {
		c.statsMaxconn = n.Value
	}
	sockets, _ := get[[]types.Socket](r, parser.Global, parser.GlobalSectionName, "stats socket")
	for _, s := range sockets {
		c.sockets = append(c.sockets, socket{s.Path, bindOptions(s.Params)})
	}
	c.stateFile = r.word(parser.Global, parser.GlobalSectionName, "server-state-file")
	c.stateBase = r.word(parser.Global, parser.GlobalSectionName, "server-state-base")
	for _, kind := range []parser.Section{parser.Backends, parser.Listen} {
		names, _ := p.SectionsGet(kind)
		slices.Sort(names)
		for _, name := range names {
			c.backends = append(c.backends, r.backend(kind, name))
		}
	}
	sections, _ := p.SectionsGet(parser.Resolvers)
	slices.Sort(sections)
	for _, name := range sections {
		servers, _ := get[[]types.Nameserver](r, parser.Resolvers, name, "nameserver")
		for _, n := range servers {
			c.nameservers = append(c.nameservers, n.Address)
		}
	}
	return c, nil
}

type reader struct{ parser.Parser }

// get returns a setting of a section, if it is there and of the type.
func get[T any](r reader, kind parser.Section, section, attribute string) (T, bool) {
	var zero T
	data, err := r.Get(kind, section, attribute)
	if err != nil {
		return zero, false
	}
	v, ok := data.(T)
	return v, ok
}

// inherited returns a setting of a section, else of its defaults.
func inherited[T any](r reader, kind parser.Section, section, attribute string) (T, bool) {
	if v, ok := get[T](r, kind, section, attribute); ok {
		return v, true
	}
	defaults, err := r.SectionsDefaultsFromGet(kind, section)
	if err != nil {
		var zero T
		return zero, false
	}
	return get[T](r, parser.Defaults, defaults, attribute)
}

func (r reader) word(kind parser.Section, section, attribute string) string {
	if w, ok := get[*types.StringC](r, kind, section, attribute); ok {
		return strings.Trim(w.Value, `"'`)
	}
	return ""
}

func (r reader) backend(kind parser.Section, name string) backend {
	b := backend{name: name, retries: 3}
	if n, ok := inherited[*types.Int64C](r, kind, name, "retries"); ok {
		b.retries = n.Value
	}
	if o, ok := inherited[*types.OptionRedispatch](r, kind, name, "option redispatch"); ok && !o.NoOption {
		b.redispatch = -1 // only on the last try
		if o.Interval != nil {
			b.redispatch = *o.Interval
		}
	}
	if l, ok := inherited[*types.LoadServerStateFromFile](r, kind, name, "load-server-state-from-file"); ok {
		b.loadState = l.Argument
	}
	_, disabled := inherited[*types.Enabled](r, kind, name, "disabled")
	_, enabled := get[*types.Enabled](r, kind, name, "enabled")
	b.disabled = disabled && !enabled
	_, b.cookie = get[*types.Cookie](r, kind, name, "cookie")
	defaults := make(map[string]string)
	if lines, ok := inherited[[]types.DefaultServer](r, kind, name, "default-server"); ok {
		for _, l := range lines {
			maps.Copy(defaults, serverOptions(l.Params))
		}
	}
	add := func(name, address string, own map[string]string) {
		options := maps.Clone(defaults)
		maps.Copy(options, own)
		for option := range own {
			if positive, ok := strings.CutPrefix(option, "no-"); ok {
				delete(options, positive)
			}
		}
		if _, ok := own["enabled"]; ok {
			delete(options, "disabled")
		}
		b.servers = append(b.servers, server{name, address, options})
	}
	servers, _ := get[[]types.Server](r, kind, name, "server")
	for _, s := range servers {
		add(s.Name, s.Address, serverOptions(s.Params))
	}
	templates, _ := get[[]types.ServerTemplate](r, kind, name, "server-template")
	for _, t := range templates {
		options := serverOptions(t.Params)
		for _, slot := range slots(t.NumOrRange) {
			add(t.Prefix+strconv.Itoa(slot), "", options)
		}
	}
	return b
}

// slots are the numbers of a server-template: "3" is 1 to 3, "2-4" is 2 to 4.
func slots(numOrRange string) []int {
	low, high, isRange := strings.Cut(numOrRange, "-")
	if !isRange {
		low, high = "1", numOrRange
	}
	first, err1 := strconv.Atoi(low)
	last, err2 := strconv.Atoi(high)
	if err1 != nil || err2 != nil {
		return nil
	}
	var out []int
	for n := first; n <= last && len(out) < maxTemplate; n++ {
		out = append(out, n)
	}
	return out
}

func serverOptions(list []params.ServerOption) map[string]string {
	out := make(map[string]string, len(list))
	for _, o := range list {
		key, value, _ := strings.Cut(o.String(), " ")
		out[key] = value
	}
	return out
}

func bindOptions(list []params.BindOption) map[string]string {
	out := make(map[string]string, len(list))
	for _, o := range list {
		key, value, _ := strings.Cut(o.String(), " ")
		out[key] = value
	}
	return out
}
