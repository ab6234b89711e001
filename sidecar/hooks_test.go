package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"tandem/sidecar/agent"
	"tandem/sidecar/config"
	"tandem/sidecar/site"
)

// TestADecisionEndsWhatItOvertakes: takeover.sh of an earlier decision is killed
// and not tried again, a notification of the present one goes on, and what comes
// late is refused.
func TestADecisionEndsWhatItOvertakes(t *testing.T) {
	dir := t.TempDir()
	h := newHooks(config.Config{
		Node: "lb2", HookTimeout: time.Minute,
		HookTakeover: config.Commands{"echo run >>" + dir + "/takeover; sleep 300"},
		HookNotify:   config.Commands{"while ! test -e " + dir + "/go; do sleep 0.01; done"},
	}, zap.NewNop(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	for _, run := range []func(context.Context) error{h.runner.Run, h.Run} {
		go func() { _ = run(ctx); ended <- struct{}{} }()
	}
	t.Cleanup(func() { cancel(); <-ended; <-ended })
	result := func(id, reason string) {
		t.Helper()
		select {
		case r := <-h.Done():
			if r.Run.ID != id || string(r.Err) != reason {
				t.Fatalf("%s ended with %q, want %s with %q", r.Run.ID, r.Err, id, reason)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no result of %s; %+v", id, h.runner.Status())
		}
	}
	takeover := site.HookRun{ID: "takeover/5", Kind: site.HookTakeover, Group: "default", Epoch: 5}
	notify := site.HookRun{ID: "notify/4", Kind: site.HookNotify, Group: "default", Epoch: 4}
	h.Start(takeover)
	h.Start(notify)
	h.Fence("default", 5, 4)
	for range 1000 {
		if _, err := os.Stat(dir + "/takeover"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.Fence("default", 6, 4)
	result("takeover/5", "superseded")
	takeover.ID = "takeover/5/late"
	h.Start(takeover)
	result("takeover/5/late", string(site.ReasonHookStale))
	if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	result("notify/4", "")
	if b, err := os.ReadFile(dir + "/takeover"); err != nil || strings.Count(string(b), "run") != 1 {
		t.Fatalf("takeover ran %q %v, want once", b, err)
	}
}

var _ agent.Hooks = (*hooks)(nil)
