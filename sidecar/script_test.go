package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tandem/sidecar/api"
	"tandem/sidecar/api/apitest"
	"tandem/sidecar/status"
)

func TestMain(m *testing.M) {
	if os.Getenv(installedAs) == os.Args[0] { // a test that replaces its program's file: see install
		os.Exit((&program{env: os.Environ(), stdout: os.Stdout, stderr: os.Stderr}).run(os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){
		"calmed": calmed,
		"tandem": func() { os.Exit((&program{env: os.Environ(), stdout: os.Stdout, stderr: os.Stderr}).run(os.Args[1:])) },
	})
}

// Each script meets a sidecar of its own: the real API and control socket in
// front of an agent without a cluster. It can be changed from the script:
//
//	cluster degraded    the health, by name
//	cluster stop        the sidecar ends
//	cluster slow        a switch takes a while and goes through phases
//	cluster veto        a switch ends without its target
//	cluster mixed       lb2 is of a later version and has a key more
//	cluster fail        commands end in an error
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup:         setup,
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"cluster": cluster},
	})
}

// sidecar is what a script talks to.
type sidecar struct {
	agent *apitest.Agent
	slow  *slowAgent
	stop  func()
}

type sidecarKey struct{}

func setup(env *testscript.Env) error {
	socket := filepath.Join(env.WorkDir, "tandem.sock")
	agent := apitest.New(apitest.Pair(time.Now()))
	slow := &slowAgent{Agent: agent}
	server := api.New(api.Config{Socket: socket, History: agent.History, IsQuestion: func(err error) bool { return errors.Is(err, apitest.ErrQuestion) }}, slow)
	ctx, cancel := context.WithCancel(context.Background())
	if err := server.Listen(ctx); err != nil {
		cancel()
		return err
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	side := &sidecar{agent: agent, slow: slow}
	side.stop = func() {
		if cancel(); ctx.Err() != nil {
			done <- <-done // wait; leave the result for the next who asks
		}
	}
	env.Values[sidecarKey{}] = side
	env.Defer(side.stop)
	env.Setenv("TANDEM_SOCKET", socket)
	env.Setenv("TZ", "UTC")
	env.Setenv("GORACE", "atexit_sleep_ms=10") // a race is told at once; the default waits a second in each process
	return nil
}

func cluster(ts *testscript.TestScript, neg bool, args []string) {
	side, ok := ts.Value(sidecarKey{}).(*sidecar)
	if !ok || neg || len(args) != 1 {
		ts.Fatalf("usage: cluster healthy|degraded|not-serving|unknown|stop|slow|fail")
	}
	switch args[0] {
	case "stop":
		side.stop()
	case "slow":
		side.slow.begin(false, "precheck", "takeover", "enable")
	case "veto":
		side.slow.begin(true, "precheck")
	case "fail":
		side.agent.Fail(errors.New("the agent stands still"))
	case "mixed":
		side.agent.Set(func(st *status.Status) {
			st.Nodes[1].Version, st.Nodes[1].Protocol, st.Nodes[1].Keys = "0.2.0", 2, []string{"5e6f7a8b", "1a2b3c4d"}
		})
	default:
		side.agent.Set(func(st *status.Status) { st.Health, st.At = status.Health(args[0]), time.Now() })
	}
}

// slowAgent lets a takeover go through phases, one for each look at the
// status, and tells a watcher one event after the other, so that nobody has to
// wait for the next look.
type slowAgent struct {
	*apitest.Agent

	mu     sync.Mutex
	phases []string
	veto   bool
	asked  *status.Command
}

func (a *slowAgent) begin(veto bool, phases ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.veto, a.phases = veto, phases
}

func (a *slowAgent) Do(ctx context.Context, c status.Command) (status.Result, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.Kind != "takeover" || len(a.phases) == 0 {
		return a.Agent.Do(ctx, c)
	}
	a.asked = &c
	return status.Result{OK: true, Message: "switch to " + c.Site + " begins"}, nil
}

func (a *slowAgent) Watch(ctx context.Context, _ string) <-chan status.Event {
	events := make(chan status.Event)
	go func() { // ends with ctx
		defer close(events)
		for {
			select {
			case events <- status.Event{}:
				time.Sleep(time.Millisecond)
			case <-ctx.Done():
				return
			}
		}
	}()
	return events
}

func (a *slowAgent) Status() status.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked == nil {
		return a.Agent.Status()
	}
	phase := ""
	if len(a.phases) > 0 {
		phase, a.phases = a.phases[0], a.phases[1:]
	}
	a.Set(func(st *status.Status) {
		g := &st.Groups[0]
		g.Epoch++
		g.Phase, g.Target = phase, a.asked.Site
		switch {
		case phase != "":
		case a.veto:
			g.Target, g.Reason = "", "precheck-veto"
		default:
			g.Target, g.Active = "", a.asked.Site
		}
	})
	if phase == "" {
		a.asked = nil
	}
	return a.Agent.Status()
}
