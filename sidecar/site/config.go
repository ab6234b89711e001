package site

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultGroup holds every backend that is not independent.
const DefaultGroup = "default"

// Site is a named set of servers.
type Site struct {
	Name     string
	Patterns []string // `backend/server` globs with * and ?
}

// MinUp is how many servers of a critical backend must be up: a count, or a
// percentage of the servers that the site has in it, rounded up. At least one
// is always needed.
type MinUp struct {
	Count   int
	Percent int // 1 to 100; when set, Count is ignored
}

// Need is the number of servers out of total that must be up.
func (m MinUp) Need(total int) int {
	n := m.Count
	if m.Percent > 0 {
		n = (total*m.Percent + 99) / 100
	}
	return max(n, 1)
}

// String is what UnmarshalText reads.
func (m MinUp) String() string {
	if m.Percent > 0 {
		return strconv.Itoa(m.Percent) + "%"
	}
	return strconv.Itoa(max(m.Count, 1))
}

// UnmarshalText reads `2` or `50%`.
func (m *MinUp) UnmarshalText(b []byte) error {
	s, percent := strings.CutSuffix(strings.TrimSpace(string(b)), "%")
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || percent && n > 100 {
		return fmt.Errorf("read minimum %q: want a count or a percentage, for example 2 or 50%%", b)
	}
	*m = MinUp{Count: n}
	if percent {
		*m = MinUp{Percent: n}
	}
	return nil
}

// Order says in which order a switch goes through its phases.
type Order string

// The two orders; the empty one is overlap.
const (
	Overlap   Order = "overlap"   // enable the new site, then drain the old one
	Exclusive Order = "exclusive" // drain the old site everywhere, then enable the new one
)

// UnmarshalText reads `overlap` or `exclusive`.
func (o *Order) UnmarshalText(b []byte) error {
	switch v := Order(b); v {
	case Overlap, Exclusive:
		*o = v
		return nil
	default:
		return fmt.Errorf("read order %q: want overlap or exclusive", b)
	}
}

// Auto limits automatic switching. The zero value is on, in every direction.
type Auto struct {
	Off bool
	To  string // only to this site
}

// String is what UnmarshalText reads.
func (a Auto) String() string {
	switch {
	case a.Off:
		return "off"
	case a.To != "":
		return "to=" + a.To
	default:
		return "on"
	}
}

// UnmarshalText reads `on`, `off` or `to=<site>`.
func (a *Auto) UnmarshalText(b []byte) error {
	s := strings.TrimSpace(string(b))
	to, one := strings.CutPrefix(s, "to=")
	switch {
	case s == "on":
		*a = Auto{}
	case s == "off":
		*a = Auto{Off: true}
	case one && validName(to, false):
		*a = Auto{To: to}
	default:
		return fmt.Errorf("read auto %q: want on, off or to=SITE, for example to=b", b)
	}
	return nil
}

// Hooks says which hooks exist; a phase without content is skipped.
type Hooks struct {
	Precheck, Takeover, Renounce, Notify bool
}

func (h Hooks) or(o Hooks) Hooks {
	return Hooks{
		Precheck: h.Precheck || o.Precheck, Takeover: h.Takeover || o.Takeover,
		Renounce: h.Renounce || o.Renounce, Notify: h.Notify || o.Notify,
	}
}

// Config is the same on every node. Durations that are zero get the default
// named beside them, unless zero has a meaning of its own.
type Config struct {
	Sites       []Site   // in order of preference
	Critical    []string // backend names or globs; empty: every backend in which the site has servers
	Independent []string // names of backends with their own active site, each a group of its own
	MinUp       MinUp
	Order       Order
	Auto        Auto
	Hooks       Hooks

	// Cold says that the services of a standby are stopped on purpose and that
	// its takeover hooks start them. A site that no load balancer sees usable
	// may then be switched to, if a live node of that site can run hooks (see
	// World.Hookable); its servers are enabled only once a load balancer sees
	// them usable. Without takeover hooks it has no effect.
	Cold bool

	DownAfter    time.Duration // 0: at once
	Failback     time.Duration // 0: never
	DrainTimeout time.Duration // 0: connections are never closed

	StaleAfter   time.Duration // 3 s: an older view says nothing
	PathAfter    time.Duration // 500 ms: how long views must disagree before a path hint
	BootWait     time.Duration // 1 s: how long a blank cluster waits for the first views
	ApplyTimeout time.Duration // 5 s: overlap goes on without a live load balancer that does not apply

	// IsolatedAfter is how long after its last contact an unreachable load
	// balancer may still route: the longest lease, stretched for clock rates,
	// and the time to drain. Exclusive waits that long. 3 s.
	IsolatedAfter time.Duration

	HookBudget  time.Duration // 10 min: no answer to a dispatched hook for this long counts as failed
	StartWithin time.Duration // 30 s: after the takeover hooks the target must be seen usable within this
	RetryAfter  time.Duration // 1 min: before a site whose takeover failed is tried again automatically

	FlapMax    int           // 3: automatic switches of a group …
	FlapWindow time.Duration // 10 min: … within this; one more waits for ack
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.StaleAfter, 3*time.Second)
	def(&c.PathAfter, 500*time.Millisecond)
	def(&c.BootWait, time.Second)
	def(&c.ApplyTimeout, 5*time.Second)
	def(&c.IsolatedAfter, 3*time.Second)
	def(&c.HookBudget, 10*time.Minute)
	def(&c.StartWithin, 30*time.Second)
	def(&c.RetryAfter, time.Minute)
	def(&c.FlapWindow, 10*time.Minute)
	if c.FlapMax <= 0 {
		c.FlapMax = 3
	}
	if c.Order == "" {
		c.Order = Overlap
	}
	return c
}

func (c Config) exclusive() bool { return c.Order == Exclusive }

// Groups lists what fails over together: `default`, then one group for each
// independent backend, in the order of the configuration.
func (c Config) Groups() []string {
	if len(c.Sites) == 0 {
		return nil
	}
	return append([]string{DefaultGroup}, c.Independent...)
}

// groupOf names the group of a backend.
func (c Config) groupOf(backend string) string {
	if slices.Contains(c.Independent, backend) {
		return backend
	}
	return DefaultGroup
}

// siteOf names the site of a server: the first in order with a pattern that
// matches, or none.
func (c Config) siteOf(backend, server string) (string, bool) {
	for _, s := range c.Sites {
		for _, p := range s.Patterns {
			if matches(p, backend, server) {
				return s.Name, true
			}
		}
	}
	return "", false
}

func (c Config) hasSite(name string) bool {
	return slices.ContainsFunc(c.Sites, func(s Site) bool { return s.Name == name })
}

func (c Config) siteNames() []string {
	names := make([]string, 0, len(c.Sites))
	for _, s := range c.Sites {
		names = append(names, s.Name)
	}
	return names
}

// Validate reports everything that is wrong with the configuration, joined.
func (c Config) Validate() error {
	var errs []error
	seen := map[string]bool{}
	for _, s := range c.Sites {
		if !validName(s.Name, false) || seen[s.Name] {
			errs = append(errs, fmt.Errorf("read site %q: want a name of letters, digits and _.:- that is used once", s.Name))
		}
		seen[s.Name] = true
		if len(s.Patterns) == 0 {
			errs = append(errs, fmt.Errorf("read site %q: want at least one pattern, for example */%s-*", s.Name, s.Name))
		}
		for _, p := range s.Patterns {
			if err := validPattern(p); err != nil {
				errs = append(errs, err)
			}
		}
	}
	groups := map[string]bool{DefaultGroup: true}
	for _, b := range c.Independent {
		if !validName(b, false) || groups[b] {
			errs = append(errs, fmt.Errorf("read independent backend %q: want the name of a backend, once, without globs", b))
		}
		groups[b] = true
	}
	for _, b := range c.Critical {
		if !validName(b, true) {
			errs = append(errs, fmt.Errorf("read critical backend %q: want a name or a glob", b))
		}
	}
	if c.Auto.To != "" && !c.hasSite(c.Auto.To) {
		errs = append(errs, fmt.Errorf("read auto to=%s: want one of the sites %s", c.Auto.To, strings.Join(c.siteNames(), ", ")))
	}
	if n := c.worstSize(); n > MaxSize {
		errs = append(errs, fmt.Errorf("read independent backends: %d groups make decisions of up to %d bytes, %d are possible: list fewer, or use shorter names of sites and backends", len(c.Groups()), n, MaxSize))
	}
	return errors.Join(errs...)
}
