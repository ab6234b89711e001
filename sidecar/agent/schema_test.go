package agent_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tandem/lib/lease"
	"tandem/sidecar/agent"
)

// promised is what the design promises to those who read status by machine:
// every field by its path, with its type. A type with a question mark may be
// null, where nothing is known.
var promised = map[string]string{
	"node": "string", "role": "string", "mode": "string", "health": "string", "paused_until": "string?",
	"leases[]": "object", "leases[].resource": "string", "leases[].holder": "string", "leases[].epoch": "number",
	"leases[].expires_in_ms": "number", "leases[].fence": "string",
	"site": "object", "site.active": "string", "site.phase": "string", "site.target": "string", "site.epoch": "number",
	"site.reason": "string", "site.since": "string?", "groups[]": "object", "groups[].group": "string", "groups[].active": "string",
	"nodes[]": "object", "nodes[].name": "string", "nodes[].role": "string", "nodes[].alive": "bool", "nodes[].eligible": "bool",
	"nodes[].reason": "string", "nodes[].haproxy": "object?", "nodes[].haproxy.alive": "bool", "nodes[].haproxy.version": "string",
	"nodes[].haproxy.pid": "number", "nodes[].vips[]": "string", "nodes[].applied_epoch": "number", "nodes[].age_ms": "number",
	"views[]": "object", "views[].node": "string", "views[].site": "string", "views[].usable": "bool",
	"views[].backends[]": "object", "views[].backends[].name": "string", "views[].backends[].up": "number", "views[].backends[].total": "number",
	"problems[]": "string", "next_failure[]": "string", "held[]": "object", "recent[]": "object",
}

// typeOf is the type of a JSON value as a reader sees it.
func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case float64:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}

// lacks follows a path through a value and says what is not as promised. It
// returns how often the path was there.
func lacks(v any, path, rest, want string) (faults []string, seen int) {
	name, rest, more := strings.Cut(rest, ".")
	name, list := strings.CutSuffix(name, "[]")
	object, ok := v.(map[string]any)
	if !ok {
		return []string{path + " is no object"}, 0
	}
	field, there := object[name]
	path = strings.TrimPrefix(path+"."+name, ".")
	if !there {
		return []string{path + " is missing"}, 0
	}
	items := []any{field}
	if list {
		if items, ok = field.([]any); !ok {
			return []string{path + " is " + typeOf(field) + ", no array"}, 0
		}
	}
	for _, item := range items {
		if more && item == nil && name == "haproxy" {
			continue
		}
		if more {
			f, n := lacks(item, path, rest, want)
			faults, seen = append(faults, f...), seen+n
			continue
		}
		seen++
		if got := typeOf(item); got != strings.TrimSuffix(want, "?") && (got != "null" || !strings.HasSuffix(want, "?")) {
			faults = append(faults, fmt.Sprintf("%s is %s, want %s", path, got, want))
		}
	}
	return faults, seen
}

// TestStatusJSONIsAsPromisedEverywhere: every node of every kind of cluster
// answers with all fields and the right types, before and after a failure.
func TestStatusJSONIsAsPromisedEverywhere(t *testing.T) {
	clusters := map[string]struct {
		names []string
		edit  func(string, *agent.Config)
	}{
		"quorum":       {[]string{"lb1", "lb2", "witness"}, nil},
		"pair":         {[]string{"lb1", "lb2"}, func(_ string, c *agent.Config) { c.Mode = lease.ModePair }},
		"single":       {[]string{"lb1"}, func(_ string, c *agent.Config) { c.Mode = lease.ModeSingle }},
		"no sites":     {[]string{"lb1", "lb2", "witness"}, func(_ string, c *agent.Config) { c.Sites = nil }},
		"no addresses": {[]string{"lb1", "lb2", "witness"}, func(_ string, c *agent.Config) { c.VIPs = nil }},
	}
	for name, cluster := range clusters {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, cluster.names, cluster.edit)
				seen := map[string]int{}
				look := func(when string) {
					for node, n := range c.nodes {
						raw, err := json.Marshal(n.Outlook(t.Context()))
						if err != nil {
							t.Fatal(err)
						}
						var v any
						if err := json.Unmarshal(raw, &v); err != nil {
							t.Fatal(err)
						}
						for _, path := range slices.Sorted(maps.Keys(promised)) {
							faults, times := lacks(v, "", path, promised[path])
							for _, fault := range faults {
								t.Errorf("%s, %s: %s\n%s", node, when, fault, raw)
							}
							seen[path] += times
						}
					}
				}
				look("at the start")
				time.Sleep(8 * time.Second)
				look("when all is well")
				c.net.Isolate(addresses["lb1"])
				time.Sleep(6 * time.Second)
				look("when lb1 is cut off")
				c.nodes["lb1"].cancel()
				time.Sleep(time.Second)
				look("when lb1 has stopped")
				if name == "quorum" {
					for path := range promised {
						if seen[path] == 0 && path != "held[]" {
							t.Errorf("%s never had a value", path)
						}
					}
				}
			})
		})
	}
}
