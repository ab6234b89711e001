package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/sidecar/api"
	"tandem/sidecar/api/apitest"
	"tandem/sidecar/status"
)

// A window that is too low shows the head, and says that something is missing.
func TestWatchIsCutBelow(t *testing.T) {
	screen := strings.Repeat("line\n", 30)
	for rows, want := range map[int]int{0: 30, 24: 23, 30: 29, 31: 30, 60: 30} {
		got := fit(screen, rows)
		if n := strings.Count(got, "\n"); n != want {
			t.Errorf("%d rows: %d lines, want %d", rows, n, want)
		}
		if cut := want < 30; cut != strings.Contains(got, "more lines") {
			t.Errorf("%d rows: %q", rows, got)
		}
	}
}

// frozen takes connections and answers none, as a process does that stands
// still: the kernel goes on taking them.
func frozen(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return socket
}

func TestAFrozenSidecarIsNamedAsSuch(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var st status.Status
	err := newClient(frozen(t), "").get(ctx, "/v1/status", &st)
	if err == nil || !strings.Contains(err.Error(), "its process stands still") {
		t.Errorf("status: %v", err)
	}
}

// TestWatchEndsWhenNothingIsHeard: a stream that stands still must not leave the
// last picture on the screen as if it were so.
func TestWatchEndsWhenNothingIsHeard(t *testing.T) {
	t.Parallel()
	err := newClient(frozen(t), "").watch(t.Context(), func(status.Status) (bool, error) { return false, nil }, nil)
	if err == nil || !strings.Contains(err.Error(), "its process stands still") {
		t.Errorf("watch: %v", err)
	}
}

// The last picture stays when the sidecar ends, and is shown as old.
func TestWatchKeepsTheLastPictureAsOld(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	server := api.New(api.Config{Socket: socket}, apitest.New(apitest.Pair(time.Now().Add(-10*time.Second))))
	ctx, cancel := context.WithCancel(t.Context())
	if err := server.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	var out bytes.Buffer
	p := &program{env: []string{"TANDEM_SOCKET=" + socket}, stdout: &out}
	w := &watcher{p: p, inPlace: true}
	err := p.client().watch(t.Context(), func(st status.Status) (bool, error) { return true, w.picture(st) }, nil)
	cancel()
	if err != nil || <-done != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := w.lost(errStreamEnded); err != nil {
		t.Fatal(err)
	}
	wants(t, out.String(), "tandem: the sidecar stopped", "UNKNOWN", "this picture is 10", "It was HEALTHY")
}
