package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tandem/haproxy"
	"tandem/haproxy/cfgcheck"
	"tandem/sidecar/config"
)

// observeFor is how long HAProxy may take to answer a check.
const observeFor = 3 * time.Second

// haproxy looks at the running HAProxys as the sidecar would, without touching
// them: the socket, its level, and which servers each site's globs match.
func (c *checker) haproxy(ctx context.Context) {
	var servers []haproxy.Server
	seen := false
	for _, h := range c.cfg.HAProxys {
		o := observe(ctx, c.cfg, h)
		if c.instance(h, o) {
			seen = true
			servers = append(servers, o.Servers...)
		}
	}
	if c.status != nil {
		c.byHandNow()
	}
	if !seen {
		return
	}
	for _, site := range c.cfg.Sites {
		for _, pattern := range site.Patterns {
			c.glob(site.Name, pattern, servers)
		}
	}
}

// instance reports on one HAProxy and says whether its servers are known.
func (c *checker) instance(h config.HAProxy, o haproxy.Observation) bool {
	subject := "haproxy"
	if h.Name != "" {
		subject += " " + h.Name
	}
	switch {
	case !o.Alive, o.Reason != "":
		text, mend, _ := strings.Cut(o.Detail, ": ")
		mend, _, _ = strings.Cut(mend, ": dial unix") // the reason says it
		c.fault(subject, fmt.Sprintf("%s (%s)", text, o.Reason), cmp.Or(haproxyMends[o.Reason], mend))
	default:
		serves := ""
		if h.Groups != nil {
			serves = ", serves " + orNone(strings.Join(h.Groups, ", "))
		}
		c.ok(subject, "version %s, pid %d, socket of level %s%s", o.Version, o.PID, o.Level, serves)
	}
	if !o.Alive || o.ServersAt.IsZero() {
		return false
	}
	if c.status == nil {
		c.byHand(o.Held)
	}
	return true
}

// byHand reports what would be left alone if the sidecar was started now. One that
// runs knows its own drains also without a journal on disk, so that it is asked
// then.
func (c *checker) byHand(all []haproxy.Hold) {
	for _, h := range all {
		text := fmt.Sprintf("%s is held by hand (%s) and will be left alone: %s", h.ServerID, h.Kind, h.Detail)
		if h.Kind == haproxy.HoldDrain && c.cfg.StateDir == "" {
			text = fmt.Sprintf("%s is drained, by a person or by a tandem that ran before: without TANDEM_STATE_DIR nobody knows. It is left alone on the active site", h.ServerID)
		}
		c.note("servers", text, "")
	}
}

// byHandNow reports what the running sidecar leaves alone here.
func (c *checker) byHandNow() {
	for _, h := range c.status.Held {
		if h.Node == c.cfg.Node {
			c.note("servers", fmt.Sprintf("%s is held by hand (%s) and left alone: %s", h.Server, h.Kind, h.Detail), "")
		}
	}
}

// haproxyMends are for those whose detail ends in what the kernel said.
var haproxyMends = map[haproxy.Reason]string{
	haproxy.ReasonRefused:   "HAProxy is not running: start it, and look at its log",
	haproxy.ReasonDied:      "look at HAProxy's log, and start it; or something else listens there (TANDEM_HAPROXY_SOCKET)",
	haproxy.ReasonHung:      "the process is busy or stopped (raise TANDEM_HAPROXY_TIMEOUT if it is often busy), or something else listens there (TANDEM_HAPROXY_SOCKET)",
	haproxy.ReasonStopping:  "wait for the new process, or start one",
	haproxy.ReasonBadAnswer: "set TANDEM_HAPROXY_SOCKET to the path of HAProxy's `stats socket`",
}

func orNone(s string) string {
	if s == "" {
		return "no virtual IP"
	}
	return s
}

// observe runs an instance that only looks until it has seen the servers.
func observe(ctx context.Context, cfg config.Config, h config.HAProxy) haproxy.Observation {
	ctx, cancel := context.WithTimeout(ctx, observeFor)
	defer cancel()
	look := instanceConfig(cfg, h)
	look.Observe, look.Log = true, zap.NewNop()
	instance := haproxy.New(look)
	desired := haproxy.Desired{Epoch: 1}
	for _, site := range cfg.Sites {
		for _, pattern := range site.Patterns {
			desired.Rules = append(desired.Rules, haproxy.Rule{Pattern: pattern, Want: haproxy.Ready})
		}
	}
	instance.Set(desired)
	var group errgroup.Group
	group.Go(func() error { return instance.Run(ctx) })
	for {
		o := instance.Observed()
		settled := o.Alive && !o.ServersAt.IsZero() || !o.Alive && o.Reason != haproxy.ReasonStarting && o.Reason != ""
		if settled || ctx.Err() != nil {
			cancel()
			_ = group.Wait() // it ends because it was told to
			return o
		}
		select {
		case <-instance.Changed():
		case <-ctx.Done():
		}
	}
}

func (c *checker) glob(site, pattern string, servers []haproxy.Server) {
	matched := 0
	for _, s := range servers {
		if haproxy.Match(pattern, s.ServerID) {
			matched++
		}
	}
	if matched == 0 {
		c.fault("servers", fmt.Sprintf("site %s: %s matches no server of HAProxy", site, pattern), "compare TANDEM_SITES with `show servers state`; the pattern is backend/server, with * and ?")
		return
	}
	c.ok("servers", "site %s: %s matches %d of %d", site, pattern, matched, len(servers))
}

// haproxyConfig reads haproxy.cfg for what would keep tandem from its work.
func (c *checker) haproxyConfig() {
	if len(c.cfg.HAProxyCfgs) == 0 {
		c.note("haproxy.cfg", "not read", "set TANDEM_HAPROXY_CFG to its path")
		return
	}
	for _, h := range c.cfg.HAProxys {
		c.oneConfig(h)
	}
}

func (c *checker) oneConfig(h config.HAProxy) {
	expect := cfgcheck.Expect{Socket: h.Socket, StateFile: h.StateFile, MapFile: h.Map, Some: len(c.cfg.HAProxys) > 1}
	if c.cfg.Hold.IsValid() && !h.Aside() {
		expect.Hold = c.cfg.Hold.String()
	}
	for _, site := range c.cfg.Sites {
		expect.Patterns = append(expect.Patterns, site.Patterns...)
	}
	found, err := cfgcheck.File(h.Cfg, expect)
	if err != nil {
		c.fault("haproxy.cfg", err.Error(), "see TANDEM_HAPROXY_CFG")
		return
	}
	for _, f := range found {
		what := f.What
		if h.Name != "" {
			what = h.Name + ": " + what
		}
		if f.Severity == cfgcheck.Error {
			c.fault("haproxy.cfg", what, f.Mend)
		} else {
			c.note("haproxy.cfg", what, f.Mend)
		}
	}
	if len(found) == 0 {
		c.ok("haproxy.cfg", "nothing to say about %s", h.Cfg)
	}
}

// directories looks whether what has to be written can be.
func (c *checker) directories() {
	if c.cfg.StateDir != "" { // the sidecar makes it
		c.writable("TANDEM_STATE_DIR", c.cfg.StateDir, true)
	}
	c.writable("TANDEM_SOCKET", filepath.Dir(c.cfg.Socket), true)
	for _, path := range c.cfg.StateFiles {
		c.writable("TANDEM_STATE_FILE", filepath.Dir(path), filepath.Clean(filepath.Dir(path)) == filepath.Clean(c.cfg.StateDir))
	}
	for _, path := range c.cfg.Maps {
		c.writable("TANDEM_MAP", filepath.Dir(path), false)
	}
}

func (c *checker) writable(variable, dir string, made bool) {
	info, err := os.Stat(dir)
	if made && errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		c.writable(variable, filepath.Dir(dir), true)
		return
	}
	switch {
	case err != nil:
		c.fault("directory", fmt.Sprintf("%s cannot be used: %v (%s)", dir, err, variable), "make it: mkdir -p "+dir)
		return
	case !info.IsDir():
		c.fault("directory", fmt.Sprintf("%s is not a directory (%s)", dir, variable), "choose another path")
		return
	}
	probe, err := os.CreateTemp(dir, ".tandem-check-*")
	if err != nil {
		c.fault("directory", fmt.Sprintf("nothing can be written in %s (%s)", dir, variable), "let the user of the sidecar write there")
		return
	}
	_ = errors.Join(probe.Close(), os.Remove(probe.Name())) // it was only tried
	c.ok("directory", "%s can be written (%s)", dir, variable)
}
