package main

import (
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tandem/haproxy"
	"tandem/sidecar/agent"
	"tandem/sidecar/config"
)

// loadBalancer is the HAProxy beside this node, or the several.
type loadBalancer interface {
	agent.LoadBalancer
	runner
}

func newLoadBalancer(cfg config.Config, log *zap.Logger, r prometheus.Registerer) loadBalancer {
	var all []haproxy.Config
	for _, h := range cfg.HAProxys {
		one := instanceConfig(cfg, h)
		one.StateFile, one.MapFile, one.Observe = h.StateFile, h.Map, cfg.Observe
		one.Log, one.Registerer = log.Named("haproxy"), r
		all = append(all, one)
	}
	if len(all) == 1 {
		return haproxy.New(all[0])
	}
	return haproxy.NewFleet(all...)
}

func instanceConfig(cfg config.Config, h config.HAProxy) haproxy.Config {
	return haproxy.Config{
		Name: h.Name, Socket: h.Socket, Timeout: cfg.HAProxyTimeout, JournalFile: journalFile(cfg, h), Aside: h.Aside(),
	}
}

// journalFile remembers which drains are tandem's own; empty without a state
// directory.
func journalFile(cfg config.Config, h config.HAProxy) string {
	if cfg.StateDir == "" {
		return ""
	}
	name := "drains.json"
	if h.Name != "" {
		name = "drains-" + h.Name + ".json"
	}
	return filepath.Join(cfg.StateDir, name)
}

// servedGroups are the groups of virtual IPs by which clients reach each of
// several HAProxys.
func servedGroups(cfg config.Config) map[string][]string {
	if len(cfg.HAProxys) < 2 {
		return nil
	}
	served := map[string][]string{}
	for _, h := range cfg.HAProxys {
		served[h.Name] = []string{}
		for _, g := range cfg.VIPs {
			if h.Serves(g.Name) {
				served[h.Name] = append(served[h.Name], g.Name)
			}
		}
	}
	return served
}
