package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Tandem is the pair under tandem: a sidecar beside each HAProxy and, unless
// Pair, a witness. Followers ([Config]) have a HAProxy and a sidecar too.
type Tandem struct {
	Label   string            // for tables; default "tandem"
	Program string            // path of the binary
	Pair    bool              // two voters and no witness
	Apps    []string          // machines with applications, whose sidecars run hooks and have no vote
	Env     map[string]string // in addition to, or instead of, what the lab sets; an empty value unsets
	// NodeEnv is the same for one node, and comes last. It may hold variables of
	// the hooks as well.
	NodeEnv func(l *Lab, n *Node) map[string]string
}

// Name implements [System].
func (t Tandem) Name() string {
	if t.Label == "" {
		return "tandem"
	}
	return t.Label
}

// Nodes implements [System].
func (t Tandem) Nodes() []string { return append(t.voters(), t.Apps...) }

func (t Tandem) voters() []string {
	if t.Pair {
		return LBs()
	}
	return []string{"lb1", "lb2", "witness"}
}

// Standby implements [System]: tandem drains the standby site itself.
func (Tandem) Standby() bool { return false }

// Daemon implements [System].
func (Tandem) Daemon() string { return "tandem" }

// Settle implements [System]: a voter that was started is silent for two
// seconds.
func (Tandem) Settle() time.Duration { return 2500 * time.Millisecond }

// labKey encrypts the gossip of a lab. A lab has no secrets.
const labKey = "dGFuZGVtIGxhYm9yYXRvcnkga2V5LCBub3Qgc2VjcmU="

// Spec implements [System].
func (t Tandem) Spec(l *Lab, n *Node) (Spec, error) {
	env := t.environment(l, n)
	var text bytes.Buffer
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&text, "export %s='%s'\n", name, value)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "tandem.env"), text.Bytes(), 0o600); err != nil {
		return Spec{}, fmt.Errorf("write environment: %w", err)
	}
	return Spec{Name: "tandem", Args: []string{t.Program, "run"}, Env: env}, nil
}

func (t Tandem) environment(l *Lab, n *Node) []string {
	var peers []string
	for _, name := range t.voters() {
		peers = append(peers, name+"="+l.Node(name).IP.String())
	}
	env := map[string]string{
		"TANDEM_NODE":      n.Name,
		"TANDEM_PEERS":     strings.Join(peers, ","),
		"TANDEM_KEY":       labKey,
		"TANDEM_SOCKET":    ControlSocket(n),
		"TANDEM_STATE_DIR": filepath.Join(n.Dir, "state"),
		"TANDEM_API":       "127.0.0.1:8405",
		"TANDEM_SITES":     "a=*/a-*;b=*/b-*",
	}
	if slices.Contains(LBs(), n.Name) {
		env["TANDEM_VIPS"] = VIP().String() + "/32@eth0"
		if l.IPv6 {
			env["TANDEM_VIPS"] += "," + VIP6().String() + "/128@eth0"
		}
		env["TANDEM_SITE"] = map[string]string{"lb1": "a", "lb2": "b"}[n.Name]
	}
	switch {
	case slices.Contains(l.Balancers(), n.Name):
		env["TANDEM_HAPROXY_SOCKET"] = l.Socket(n.Name)
		env["TANDEM_STATE_FILE"] = l.StateFile(n.Name)
		env["TANDEM_HAPROXY_CFG"] = filepath.Join(n.Dir, "haproxy.cfg")
	case slices.Contains(t.Apps, n.Name):
		env["TANDEM_ROLE"] = "site"
	default:
		env["TANDEM_ROLE"] = "witness"
	}
	maps.Copy(env, t.Env)
	if t.NodeEnv != nil {
		maps.Copy(env, t.NodeEnv(l, n))
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if env[name] != "" {
			list = append(list, name+"="+env[name])
		}
	}
	return list
}

// ControlSocket is where a node's sidecar listens for its command line.
func ControlSocket(n *Node) string { return filepath.Join(n.Dir, "tandem.sock") }

// Tandem runs a command of tandem's command line on a node, for example
// Tandem(ctx, "lb1", "status", "--json"), and returns what it printed. The
// exit code is in the error ([exec.ExitError]).
func (l *Lab) Tandem(ctx context.Context, node string, args ...string) (string, error) {
	t, ok := l.System.(Tandem)
	if !ok {
		return "", errors.New("this lab does not run tandem")
	}
	n := l.Node(node)
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.NS, t.Program}, args...)...)
	cmd.Env = append(environ(), t.environment(l, n)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("tandem %s on %s: %w: %s%s", strings.Join(args, " "), node, err, out.String(), errs.String())
	}
	return out.String(), nil
}
