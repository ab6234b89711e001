package config

import (
	"fmt"
	"strings"
)

// Variable is one row of the configuration table.
type Variable struct {
	Name    string
	Default string // what an unset variable is read as; empty: nothing
	Shown   string // the default as people read it; empty: Default, or "none"
	Example string // an acceptable value
	Meaning string
	Secret  bool // may be given as NAME_FILE, and is never shown
	Shared  bool // must be the same on every load balancer
}

// FileSuffix makes the name of the variable that holds the path of a secret.
const FileSuffix = "_FILE"

// Table is the one list of variables, in the order in which people meet them.
func Table() []Variable {
	return append(append(append(clusterTable(), addressTable()...), siteTable()...), processTable()...)
}

func clusterTable() []Variable {
	return []Variable{
		{Name: "TANDEM_NODE", Shown: "host name", Example: "lb1", Meaning: "name of this node, unique in the cluster"},
		{Name: "TANDEM_PEERS", Shown: "required", Example: "lb1=10.0.0.11,lb2=10.0.0.12,witness=10.0.0.13", Shared: true, Meaning: "the voters, 1 to 7; `:7946` unless a port is given. A node that is not listed follows without a vote"},
		{Name: "TANDEM_ROLE", Default: "lb", Example: "lb", Meaning: "`lb` (beside a HAProxy), `witness` (votes, carries nothing) or `site` (runs hooks beside a site's applications)"},
		{Name: "TANDEM_CLUSTER", Default: "tandem", Example: "shop-prod", Meaning: "name of the cluster; clusters of another name are ignored"},
		{Name: "TANDEM_BIND", Default: "0.0.0.0:7946", Example: "10.0.0.11:7946", Meaning: "gossip between the nodes, UDP and TCP"},
		{Name: "TANDEM_KEY", Shown: "required", Example: "the output of `openssl rand -base64 32`", Secret: true, Meaning: "AES keys of 16, 24 or 32 bytes in base64, comma-separated: the first encrypts, all decrypt"},
		{Name: "TANDEM_INSECURE", Default: "false", Example: "true", Meaning: "go without a key: anybody on the network can then take the cluster over"},
		{Name: "TANDEM_MODE", Shown: "by voters", Example: "quorum", Shared: true, Meaning: "`quorum` (3 voters and more), `pair` (2), `single` (1)"},
		{Name: "TANDEM_LEASE", Default: "auto", Example: "500ms", Shared: true, Meaning: "how long a silent holder is believed: `auto`, or `300ms` to `10s`"},
	}
}

func addressTable() []Variable {
	return []Variable{
		{Name: "TANDEM_VIPS", Example: "10.0.0.100/32@eth0", Shared: true, Meaning: "virtual IPs, comma-separated, IPv4 and IPv6; groups that fail over separately: `web=10.0.0.100@eth0;api=10.0.0.101@eth0`"},
		{Name: "TANDEM_PREFER", Shown: "first lb peer", Example: "lb1", Shared: true, Meaning: "the node that carries the virtual IPs when all is well; per group: `web=lb1;api=lb2`"},
		{Name: "TANDEM_VIP_FAILBACK", Default: "never", Example: "60s", Shared: true, Meaning: "`never`, or how long the preferred node must have been well before a virtual IP returns to it"},
		{Name: "TANDEM_MOVE_GRACE", Default: "30s", Example: "30s", Shared: true, Meaning: "how long connections of the old holder may go on after a planned move"},
		{Name: "TANDEM_HAPROXY_SOCKET", Default: "/run/haproxy/admin.sock", Example: "/run/haproxy/admin.sock", Meaning: "HAProxy's Runtime API, level admin; of several HAProxys on this machine, comma-separated, each `[name=]path`, and behind an `@` the groups of virtual IPs that clients reach it by, if not all: `web=/run/web.sock,mq=/run/mq.sock@none`"},
		{Name: "TANDEM_HAPROXY_TIMEOUT", Default: "300ms", Example: "300ms", Meaning: "no answer from HAProxy for this long is a failure (`50ms` to `10s`)"},
		{Name: "TANDEM_STATE_FILE", Example: "/var/lib/haproxy/server-state", Meaning: "HAProxy's server-state file to keep current, so that a reload does not forget what is drained; one for each socket"},
		{Name: "TANDEM_MAP", Example: "/etc/haproxy/tandem.map", Meaning: "HAProxy map that holds the active site of each group; one for each socket"},
		{Name: "TANDEM_HAPROXY_CFG", Example: "/etc/haproxy/haproxy.cfg", Meaning: "HAProxy's configuration, read by `check`; one for each socket"},
		{Name: "TANDEM_HOLD", Example: "127.0.0.1:5999", Meaning: "UDP address on loopback that answers the name held requests wait for"},
	}
}

func siteTable() []Variable {
	return []Variable{
		{Name: "TANDEM_SITES", Example: "a=*/a-*;b=*/b-*", Shared: true, Meaning: "sites in order of preference, each with comma-separated `backend/server` globs"},
		{Name: "TANDEM_SITE", Example: "a", Meaning: "the site this node stands in"},
		{Name: "TANDEM_CRITICAL", Shown: "all matched", Example: "app,chat-*", Shared: true, Meaning: "backends (globs) whose loss makes a site unusable"},
		{Name: "TANDEM_INDEPENDENT", Example: "broker", Shared: true, Meaning: "names of backends that have an active site of their own"},
		{Name: "TANDEM_MIN_UP", Default: "1", Example: "50%", Shared: true, Meaning: "servers that a critical backend needs, as a number or a percentage"},
		{Name: "TANDEM_SWITCH", Default: "overlap", Example: "exclusive", Shared: true, Meaning: "`overlap`: enable the new site, then drain the old one; `exclusive`: never both"},
		{Name: "TANDEM_SITE_AUTO", Default: "on", Example: "to=b", Shared: true, Meaning: "automatic site switches: `on`, `off`, or only `to=SITE`"},
		{Name: "TANDEM_SITE_DOWN_AFTER", Default: "0s", Example: "5s", Shared: true, Meaning: "how long no load balancer has seen the active site usable before it is left"},
		{Name: "TANDEM_SITE_FAILBACK", Default: "never", Example: "10m", Shared: true, Meaning: "`never`, or how long the preferred site must have been usable before it is active again"},
		{Name: "TANDEM_DRAIN_TIMEOUT", Default: "0s", Shown: "`0s` (never)", Example: "30s", Shared: true, Meaning: "when to close connections left on the old site"},
		{Name: "TANDEM_HOOK_TAKEOVER", Example: "/opt/app/takeover.sh;/opt/app/takeover_reporting.sh", Meaning: "commands that make a site active, `;`-separated, run in order"},
		{Name: "TANDEM_HOOK_RENOUNCE", Example: "/opt/app/renounce.sh", Meaning: "commands that give a site up"},
		{Name: "TANDEM_HOOK_PRECHECK", Example: "/opt/app/may-i.sh", Meaning: "commands that may veto a switch"},
		{Name: "TANDEM_HOOK_NOTIFY", Example: "/opt/app/register-webhooks.sh", Meaning: "commands told of each switch of sites, and when this node takes a group of virtual IPs up, lets it go, or still holds it after another 10 s (`TANDEM_EVENT` says which); retried until they succeed"},
		{Name: "TANDEM_HOOK_TIMEOUT", Default: "60s", Example: "60s", Meaning: "deadline of one hook command"},
	}
}

func processTable() []Variable {
	return []Variable{
		{Name: "TANDEM_WEBHOOK", Example: "https://events.example.com/tandem", Meaning: "URL that is told of every event"},
		{Name: "TANDEM_WEBHOOK_SECRET", Example: "the output of `openssl rand -hex 32`", Secret: true, Meaning: "signs what is sent there (HMAC-SHA256)"},
		{Name: "TANDEM_PROBE", Shown: "servers seen by HAProxy", Example: "tcp://10.0.0.1:80", Meaning: "who answers if this node is not cut off, comma-separated"},
		{Name: "TANDEM_API", Default: "127.0.0.1:8405", Example: "127.0.0.1:8405", Meaning: "HTTP: status page, API, metrics; `off` for none"},
		{Name: "TANDEM_API_TOKEN", Example: "the output of `openssl rand -hex 32`", Secret: true, Meaning: "allows to operate over HTTP; a token is required when the API listens beyond loopback"},
		{Name: "TANDEM_API_READ_TOKEN", Example: "the output of `openssl rand -hex 32`", Secret: true, Meaning: "allows to read over HTTP"},
		{Name: "TANDEM_API_CERT", Example: "/etc/tandem/tls.crt", Meaning: "certificate of the API, PEM; read again when it changes"},
		{Name: "TANDEM_API_KEY", Example: "/etc/tandem/tls.key", Meaning: "path of the certificate's key, PEM"},
		{Name: "TANDEM_SOCKET", Default: "/run/tandem/tandem.sock", Example: "/run/tandem/tandem.sock", Meaning: "control socket of the command line"},
		{Name: "TANDEM_STATE_DIR", Example: "/var/lib/tandem", Meaning: "directory where decision and history survive a restart of everything"},
		{Name: "TANDEM_OBSERVE", Default: "false", Example: "true", Meaning: "watch and report what would have been done; touch nothing"},
		{Name: "TANDEM_LOG_LEVEL", Default: "info", Example: "info", Meaning: "`debug`, `info`, `warn` or `error`"},
		{Name: "TANDEM_LOG_FORMAT", Default: "json", Example: "console", Meaning: "`json`, or `console` for people"},
	}
}

// DefaultText is the default as people read it.
func (v Variable) DefaultText() string {
	switch {
	case v.Shown != "":
		return v.Shown
	case v.Default != "":
		return "`" + v.Default + "`"
	default:
		return "none"
	}
}

// The lines between which the README holds the table.
const (
	MarkdownBegin = "<!-- configuration: made by `tandem config --markdown`, compared by a test -->"
	MarkdownEnd   = "<!-- end of configuration -->"
)

// Markdown is the table as the README has it.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | example | meaning |\n|---|---|---|---|\n")
	for _, v := range Table() {
		name := "`" + v.Name + "`"
		if v.Secret {
			name += ", `" + FileSuffix + "`"
		}
		example := v.Example
		if !strings.Contains(example, "`") {
			example = "`" + example + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, v.DefaultText(), escapeCell(example), escapeCell(v.Meaning))
	}
	return b.String()
}

func escapeCell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
