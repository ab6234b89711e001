package haproxy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"tandem/haproxy/haproxytest"
)

// runningFleet is a Fleet under test.
type runningFleet struct {
	*Fleet
	t *testing.T
}

func runFleet(t *testing.T, configs ...Config) *runningFleet {
	t.Helper()
	for n := range configs {
		configs[n].Log = zaptest.NewLogger(t)
	}
	f := NewFleet(configs...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &runningFleet{f, t}
}

func (f *runningFleet) until(what string, ok func([]Observation) bool) {
	f.t.Helper()
	for end := time.After(patience); !ok(f.Each()); {
		select {
		case <-f.Changed():
		case <-end:
			f.t.Fatalf("waited in vain for: %s\n%+v", what, f.Each())
		}
	}
}

func TestOneSickHAProxyHoldsUpNoOther(t *testing.T) {
	one, two := start(t, 2), start(t, 2)
	f := runFleet(t, Config{Name: "one", Socket: one.Socket}, Config{Name: "two", Socket: two.Socket})
	f.Set(toA)
	f.until("both", func(o []Observation) bool { return o[0].Applied == 1 && o[1].Applied == 1 })
	one.Signal(syscall.SIGSTOP)
	f.Set(toB)
	f.until("the other", func(o []Observation) bool {
		return !o[0].Alive && o[0].Reason == ReasonHung && o[1].Applied == 2
	})
	if got := f.Observed(); got.Applied != 2 || !got.Alive || got.Reason != ReasonHung || got.PID != two.PID() {
		t.Errorf("the whole: %+v", got)
	}
	careful := toB
	careful.Epoch, careful.DrainFirst = 3, true
	f.Set(careful)
	f.until("the other", func(o []Observation) bool { return o[1].Applied == 3 })
	if got := f.Observed(); got.Applied != 0 {
		t.Errorf("applied %d, and one that hangs may wake and route as before", got.Applied)
	}
	one.Signal(syscall.SIGCONT)
	f.until("both again", func(o []Observation) bool { return o[0].Applied == 3 && o[1].Applied == 3 })
	if got := f.Observed(); got.Applied != 3 || got.Reason != "" {
		t.Errorf("the whole: %+v", got)
	}
}

// Two HAProxys with backends of their own and one in common, a state file and a
// map each; one is killed and comes back.
func TestEachOfSeveralHasItsOwnFiles(t *testing.T) {
	config := func(backend string) string {
		return haproxytest.Global + haproxytest.Backend("shared", 1) + haproxytest.Backend(backend, 1) +
			"  http-request set-header X-Site %[str(default),map({dir}/site.map,none)]\n"
	}
	processes := map[string]*haproxytest.Process{}
	var configs []Config
	for _, name := range []string{"web", "mq"} {
		p := haproxytest.New(t, config(name))
		if err := os.WriteFile(filepath.Join(p.Dir, "site.map"), []byte("default none\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Start()
		processes[name] = p
		configs = append(configs, Config{
			Name: name, Socket: p.Socket, Aside: name == "mq", StateFile: filepath.Join(p.Dir, "state"),
			MapFile: filepath.Join(p.Dir, "site.map"), JournalFile: filepath.Join(p.Dir, "journal"),
		})
	}
	registry := prometheus.NewRegistry()
	configs[0].Registerer, configs[1].Registerer = registry, registry
	f := runFleet(t, configs...)
	d := Desired{Epoch: 1, Map: map[string]string{"default": "a"}, Rules: append(toA.Rules, Rule{Pattern: "nowhere/*", Want: Ready})}
	f.Set(d)
	f.until("both, with their maps", func(o []Observation) bool {
		return o[0].Applied == 1 && o[1].Applied == 1 && o[0].Map.Current && o[1].Map.Current
	})
	whole := f.Observed()
	if want := "shared/a-1=none shared/b-1=FDRAIN web/a-1=none web/b-1=FDRAIN mq/a-1=none mq/b-1=FDRAIN"; states(whole.Servers) != want {
		t.Errorf("servers of both: %s", states(whole.Servers))
	}
	if len(whole.Unmatched) != 1 || whole.Unmatched[0] != "nowhere/*" || !whole.Map.Current || whole.Applied != 1 {
		t.Errorf("the whole: %+v", whole)
	}
	mq := processes["mq"]
	mq.Signal(syscall.SIGKILL)
	f.until("its death", func(o []Observation) bool { return !o[1].Alive })
	if whole = f.Observed(); !whole.Alive || whole.Reason != "" || strings.Contains(states(whole.Servers), "mq/") || whole.Applied != 1 {
		t.Errorf("one aside has died, and the whole is: %+v", whole)
	}
	d.Epoch, d.Rules = 2, toB.Rules
	f.Set(d)
	f.until("the other", func(o []Observation) bool { return o[0].Applied == 2 })
	mq.Start()
	f.until("both again", func(o []Observation) bool { return o[1].Applied == 2 })
	for name, p := range processes {
		if got := really(t, p); got != "shared/a-1=FDRAIN shared/b-1=none "+name+"/a-1=FDRAIN "+name+"/b-1=none" {
			t.Errorf("%s: %s", name, got)
		}
		fileSays(t, filepath.Join(p.Dir, "state"), func(table []Server) bool {
			return states(table) == really(t, p) && strings.Contains(states(table), name+"/")
		})
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "tandem_haproxy_up" && len(family.GetMetric()) != 2 {
			t.Errorf("%d metrics %s", len(family.GetMetric()), family.GetName())
		}
	}
}

// A server that two route to is as the worse of them has it.
func TestServersInCommonAreAsTheWorseHasThem(t *testing.T) {
	s := Server{ServerID: ServerID{"be", "a-1"}, Up: true, Oper: OperRunning, Weight: 1}
	down, drained := s, s
	down.Up, down.Oper = false, OperStopped
	drained.Admin = FDrain
	var m mergedServers
	all := m.of([]Observation{{Servers: []Server{s, {ServerID: ServerID{"be", "b-1"}, Up: true}}}, {Servers: []Server{down}}, {Servers: []Server{drained}}})
	if len(all) != 2 || all[0].Up || all[0].Oper != OperStopped || all[0].Admin != FDrain || !all[1].Up {
		t.Errorf("%+v", all)
	}
}
