package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Setting is one variable with its present value, as it may be shown.
type Setting struct {
	Variable
	Value  string // redacted; the default where nothing is set
	Origin string // default, environment, or the path of the file it came from
}

// Settings are all variables in the order of the table.
func (c Config) Settings() []Setting { return slices.Clone(c.settings) }

func (l *loader) settings(c Config) []Setting {
	all := make([]Setting, 0, len(l.table))
	for _, v := range l.table {
		value := l.values[v.Name]
		switch {
		case v.Secret && value != "":
			value = hidden
		case v.Name == "TANDEM_WEBHOOK":
			value = c.Webhook.short()
		case v.Name == "TANDEM_NODE":
			value = c.Node
		case v.Name == "TANDEM_MODE":
			value = string(c.Mode)
		}
		all = append(all, Setting{
			Variable: v,
			Value:    cmp.Or(value, v.Default),
			Origin:   cmp.Or(l.origin[v.Name], "default"),
		})
	}
	return all
}

// Shared maps each variable that must be the same on every load balancer to a
// short digest of its meaning, so that nodes can compare and name the variable
// that differs. Interfaces are left out of TANDEM_VIPS: their names may differ
// from machine to machine.
func (c Config) Shared() map[string]string {
	shared := map[string]string{}
	for _, s := range c.settings {
		if !s.Shared {
			continue
		}
		meaning := s.Value
		switch s.Name {
		case "TANDEM_PEERS":
			meaning = fmt.Sprint([]Peer(c.Peers))
		case "TANDEM_VIPS":
			meaning = c.VIPs.withoutInterfaces()
		case "TANDEM_PREFER":
			meaning = fmt.Sprint(map[string]string(c.Prefer)) // fmt sorts the keys
		case "TANDEM_SITES":
			meaning = fmt.Sprint([]SiteDef(c.Sites))
		case "TANDEM_MOVE_GRACE":
			meaning = c.MoveGrace.String()
		case "TANDEM_VIP_FAILBACK":
			meaning = c.VIPFailback.String()
		case "TANDEM_LEASE":
			meaning = c.Lease.String()
		case "TANDEM_SITE_DOWN_AFTER":
			meaning = c.SiteDownAfter.String()
		case "TANDEM_SITE_FAILBACK":
			meaning = c.SiteFailback.String()
		case "TANDEM_DRAIN_TIMEOUT":
			meaning = c.DrainTimeout.String()
		}
		sum := sha256.Sum256([]byte(meaning))
		shared[s.Name] = hex.EncodeToString(sum[:4])
	}
	return shared
}

func (g VIPGroups) withoutInterfaces() string {
	var b strings.Builder
	for _, group := range g {
		b.WriteString(group.Name)
		for _, a := range group.Addresses {
			b.WriteString(" " + a.Prefix.String())
		}
		b.WriteByte('\n')
	}
	return b.String()
}
