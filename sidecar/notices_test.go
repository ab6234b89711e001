package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tandem/sidecar/agent"
	"tandem/sidecar/config"
)

// TestTheNotifyHookGetsWhatMovesAnAddress: the variables of the documents, on
// the real runner; and a failure is told with the end of its output.
func TestTheNotifyHookGetsWhatMovesAnAddress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "told")
	cfg := config.Config{Node: "lb2", HookTimeout: 20 * time.Second, HookNotify: config.Commands{
		`echo "$TANDEM_EVENT $TANDEM_GROUP [$TANDEM_ADDRESSES] $TANDEM_FROM $TANDEM_TO $TANDEM_EPOCH $TANDEM_REASON $TANDEM_PLANNED $TANDEM_NODE [$TANDEM_SITE]" >>` + file +
			`; [ "$TANDEM_EVENT" != hold ] || { echo no permission; exit 4; }`,
	}}
	var with, without agent.Deps
	newHooks(config.Config{HookTakeover: config.Commands{"true"}}, zap.NewNop(), nil).join(&without)
	h := newHooks(cfg, zap.NewNop(), prometheus.NewRegistry())
	if h.join(&with); with.Notifier == nil || without.Notifier != nil || without.Hooks == nil {
		t.Fatalf("with a notify hook %v, without %v", with.Notifier, without.Notifier)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error { return h.runner.Run(ctx) })
	group.Go(func() error { return h.Run(ctx) })
	defer func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	}()
	n := agent.Notice{
		ID: "1", Event: agent.NoticeTakeUp, Group: "web", Addresses: []string{"10.0.0.100", "2001:db8::100"},
		From: "lb1", To: "lb2", Epoch: 4, Reason: "handed-over", Planned: true,
	}
	h.Notify(n)
	if r := <-h.Notified(); r.ID != "1" || r.Group != "web" || !r.OK {
		t.Fatalf("%+v", r)
	}
	n.ID, n.Event = "2", agent.NoticeHold
	h.Notify(n)
	if r := <-h.Notified(); r.ID != "2" || r.OK || r.Reason != "exit-status" || !strings.HasSuffix(r.Detail, ": no permission") {
		t.Fatalf("%+v", r)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rest := " web [10.0.0.100 2001:db8::100] lb1 lb2 4 handed-over true lb2 []\n"
	if want := "take-up" + rest + "hold" + rest; string(got) != want {
		t.Errorf("told %q, want %q", got, want)
	}
}
