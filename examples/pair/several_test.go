package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/examples/lab"
	"tandem/haproxy"
	"tandem/haproxy/haproxytest"
	"tandem/sidecar/status"
)

// inner is a second HAProxy of a load balancer, to which no virtual IP leads.
const inner = `global
  stats socket %s mode 600 level admin
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
backend mq
  server a-1 127.0.0.1:9
  server b-1 127.0.0.1:9
`

func innerSocket(n *lab.Node) string { return filepath.Join(n.Dir, "inner.sock") }

// startInner starts the second HAProxy of each load balancer.
func startInner(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, lb := range lab.LBs() {
		n := l.Node(lb)
		path := filepath.Join(n.Dir, "inner.cfg")
		if err := os.WriteFile(path, fmt.Appendf(nil, inner, innerSocket(n)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.Start(lb, lab.Spec{Name: "inner", Args: []string{haproxytest.Binary(t), "-db", "-f", path}}); err != nil {
			t.Fatal(err)
		}
	}
}

// eventually waits until there is nothing to complain about.
func eventually(t *testing.T, what string, complain func() string) {
	t.Helper()
	why := "?"
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * ms) {
		if why = complain(); why == "" {
			return
		}
	}
	t.Fatalf("waited in vain for: %s: %s", what, why)
}

// TestSeveralHAProxysOnANode: the one behind is kept as the one in front is, and
// only the one in front takes the address with it.
func TestSeveralHAProxysOnANode(t *testing.T) {
	long(t)
	l := start(t, lab.Config{System: lab.Tandem{
		Program: tandem(t),
		Env:     map[string]string{"TANDEM_STATE_FILE": "", "TANDEM_HAPROXY_CFG": ""},
		NodeEnv: func(l *lab.Lab, n *lab.Node) map[string]string {
			if n.Name == "witness" {
				return nil
			}
			return map[string]string{"TANDEM_HAPROXY_SOCKET": "front=" + l.Socket(n.Name) + ",inner=" + innerSocket(n) + "@none"}
		},
	}})
	startInner(t, l)
	if err := l.Settled(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	drained := func(lb, want string) {
		t.Helper()
		eventually(t, want+" drained on the inner HAProxy of "+lb, func() string {
			raw, err := haproxytest.Ask(innerSocket(l.Node(lb)), "show servers state")
			table, wrong := haproxy.ParseServers(strings.TrimSuffix(raw, "\n"), nil)
			if err != nil || wrong != nil {
				return fmt.Sprint(err, wrong)
			}
			for _, s := range table {
				if s.Drained() != (s.Server == want) {
					return s.String() + " is " + s.Admin.String()
				}
			}
			return ""
		})
	}
	drained("lb1", "b-1")
	drained("lb2", "b-1")
	if _, err := l.Tandem(t.Context(), "lb1", "takeover", "b"); err != nil {
		t.Fatal(err)
	}
	drained("lb1", "a-1")
	drained("lb2", "a-1")

	holder := l.Holder()
	if err := l.Kill(holder, "inner"); err != nil {
		t.Fatal(err)
	}
	from := lab.Now()
	eventually(t, "status to show it", func() string {
		text, err := l.Tandem(t.Context(), holder, "status", "--json")
		var s status.Status
		if wrong := json.Unmarshal([]byte(text), &s); wrong != nil {
			return fmt.Sprint(err, wrong)
		}
		for _, n := range s.Nodes {
			if n.Name != holder || n.HAProxy == nil || len(n.HAProxy.Each) != 2 {
				continue
			}
			if front, behind := n.HAProxy.Each[0], n.HAProxy.Each[1]; n.Eligible && front.Alive && !behind.Alive && behind.Reason != "" {
				return ""
			}
		}
		return text
	})
	if err := pause(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if got := l.Holder(); got != holder {
		t.Errorf("%s holds the address after the inner HAProxy of %s has died", got, holder)
	}
	if n, err := l.Client.Noticed(t.Context(), from, lab.Now()); err != nil || n.Failed > 0 {
		t.Errorf("%d requests failed: %v", n.Failed, err)
	}

	if err := l.Kill(holder, "haproxy"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other load balancer to hold the address", func() string {
		if got := l.Holder(); got != lab.Other(holder) {
			return "holder " + got
		}
		return ""
	})
}
