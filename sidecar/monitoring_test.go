package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tandem/sidecar/agent"
	"tandem/sidecar/api"
	"tandem/sidecar/api/apitest"
	"tandem/sidecar/config"
)

const monitoring = root + "/examples/monitoring"

// recorder is a registry that only remembers what was registered: a counter
// that nothing has counted yet is in no scrape.
type recorder struct{ labels map[string][]string }

var description = regexp.MustCompile(`fqName: "([^"]*)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)

// Register implements prometheus.Registerer.
func (r *recorder) Register(c prometheus.Collector) error {
	all := make(chan *prometheus.Desc, 256)
	c.Describe(all)
	close(all)
	for d := range all {
		m := description.FindStringSubmatch(d.String())
		var labels []string
		for pair := range strings.SplitSeq(m[2], ",") {
			name, _, _ := strings.Cut(pair, "=")
			labels = append(labels, name)
		}
		r.labels[m[1]] = append(labels, strings.Split(m[3], ",")...)
	}
	return nil
}

// MustRegister implements prometheus.Registerer.
func (r *recorder) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = r.Register(c)
	}
}

// Unregister implements prometheus.Registerer.
func (r *recorder) Unregister(prometheus.Collector) bool { return false }

// registered are all metrics of a sidecar that has every part, with their labels.
func registered(t *testing.T) map[string][]string {
	t.Helper()
	cfg, err := config.Load([]string{
		"TANDEM_NODE=lb1", "TANDEM_PEERS=lb1=127.0.0.1:" + freePort(t), "TANDEM_KEY=" + checkKey, "TANDEM_VIPS=10.99.0.1@lo",
		"TANDEM_SITES=a=*/a-*;b=*/b-*", "TANDEM_HOOK_NOTIFY=true", "TANDEM_WEBHOOK=http://127.0.0.1:9/", "TANDEM_HOLD=127.0.0.1:" + freePort(t), "TANDEM_MAP=/nowhere/site.map",
	})
	if err != nil {
		t.Fatal(err)
	}
	r, log := &recorder{labels: map[string][]string{}}, zap.NewNop()
	network, err := newNetwork(cfg, newIncarnation(), 0, log, r)
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := newAddresses(cfg, log, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newHold(cfg, log, r); err != nil {
		t.Fatal(err)
	}
	newHooks(cfg, log, r)
	deps := agent.Deps{Now: bootTime, Log: log, Registerer: r, Network: network, Addresses: addresses, LB: newLoadBalancer(cfg, log, r)}
	node, err := newAgent(cfg, Build{}, newOrigin(), deps, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newWebhook(cfg, node, log, r); err != nil {
		t.Fatal(err)
	}
	api.New(api.Config{Registerer: r}, apitest.New(apitest.Pair(time.Now())))
	if len(r.labels) < 40 {
		t.Fatalf("only %d metrics", len(r.labels))
	}
	return r.labels
}

// expressions are all queries of the rules and of the dashboard.
func expressions(t *testing.T) []string {
	t.Helper()
	var all []string
	rules := readText(t, "examples/monitoring/tandem.rules.yml")
	for _, m := range regexp.MustCompile(`(?m)^        expr: (?:>-\n((?:          .*\n)+)|(.*))`).FindAllStringSubmatch(rules, -1) {
		all = append(all, m[1]+m[2])
	}
	if n := strings.Count(rules, "- alert:"); n < 15 || n != len(all) {
		t.Fatalf("%d alerts, %d expressions", n, len(all))
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
		Annotations struct{ List []struct{ Expr string } }
		Templating  struct{ List []struct{ Query string } }
	}
	if err := json.Unmarshal([]byte(readText(t, "examples/monitoring/grafana-dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) < 10 {
		t.Fatalf("%d panels", len(dashboard.Panels))
	}
	for _, p := range dashboard.Panels {
		for _, x := range p.Targets {
			all = append(all, x.Expr)
		}
	}
	for _, x := range dashboard.Annotations.List {
		all = append(all, x.Expr)
	}
	for _, x := range dashboard.Templating.List {
		all = append(all, x.Query)
	}
	return all
}

// family is the metric that a series of a histogram belongs to.
func family(known map[string][]string, series string) (string, bool) {
	for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
		if name, ok := strings.CutSuffix(series, suffix); ok && known[name] != nil {
			return name, true
		}
	}
	return "", false
}

// scraped are labels that come from Prometheus, not from us.
var scraped = []string{"job", "instance", "le", "alertstate"}

// TestRulesAndDashboardNameMetricsThatExist needs no Prometheus: every metric in
// a query, in the tests of the rules and in the documents is registered by some
// part of the program, with every label that is asked of it.
func TestRulesAndDashboardNameMetricsThatExist(t *testing.T) {
	known := registered(t)
	selector := regexp.MustCompile(`(tandem_[a-z_]+)(?:\{([^}]*)\})?`)
	label := regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	used := map[string]bool{}
	texts := append(expressions(t), readText(t, "examples/monitoring/tandem.rules.test.yml"))
	for _, page := range pages(t) {
		texts = append(texts, page)
	}
	for _, text := range texts {
		for _, m := range selector.FindAllStringSubmatch(text, -1) {
			name, ok := family(known, m[1])
			if !ok {
				t.Errorf("there is no metric %s: %s", m[1], text[:min(len(text), 120)])
				continue
			}
			used[name] = true
			for _, l := range label.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(known[name], l[1]) && !slices.Contains(scraped, l[1]) {
					t.Errorf("%s has no label %s", name, l[1])
				}
			}
		}
	}
	if len(used) < 20 {
		t.Errorf("only %d metrics are used", len(used))
	}
	for name := range known {
		if !strings.HasPrefix(name, "tandem_") {
			t.Errorf("%s is not named after the program", name)
		}
	}
}

// grouping is where labels are named without a value.
var grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)

func TestRulesAndDashboardGroupByLabelsThatExist(t *testing.T) {
	known := registered(t)
	labels := slices.Clone(scraped)
	for _, l := range known {
		labels = append(labels, l...)
	}
	for _, text := range expressions(t) {
		for _, m := range grouping.FindAllStringSubmatch(text, -1) {
			for name := range strings.SplitSeq(m[1], ",") {
				if !slices.Contains(labels, strings.TrimSpace(name)) {
					t.Errorf("no metric has the label %s: %s", name, text)
				}
			}
		}
	}
}

func TestRulesWithPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("SKIPPED: THE ALERT RULES ARE NOT TRIED: there is no promtool (apt-get install prometheus)")
	}
	for _, args := range [][]string{{"check", "rules", "tandem.rules.yml"}, {"test", "rules", "tandem.rules.test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		if cmd.Dir, err = filepath.Abs(monitoring); err != nil {
			t.Fatal(err)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
