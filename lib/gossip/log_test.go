package gossip

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tandem/lib/gossip/gossiptest"
)

func TestLinesOfMemberlist(t *testing.T) {
	const stamp = "2026/11/22 16:05:00 "
	for _, c := range []struct {
		in       string
		level    zapcore.Level
		text     string
		template string
	}{
		{"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.9:1", zap.WarnLevel, "Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.9:1", "Decrypt packet failed: no installed keys could decrypt the message "},
		{"[DEBUG] memberlist: Stream connection from=10.0.0.9:1", zap.DebugLevel, "Stream connection from=10.0.0.9:1", "Stream connection "},
		{"[INFO] memberlist: Suspect lb1.0a1b2c3d has failed, no acks received", zap.DebugLevel, "Suspect lb1.0a1b2c3d has failed, no acks received", "Suspect "},
		{"[WARN] memberlist: Refuting a suspect message (from: lb2)", zap.DebugLevel, "Refuting a suspect message (from: lb2)", "Refuting a suspect message (from: "},
		{"[WARN] memberlist: handler queue full, dropping message (8) from=1.2.3.4:5", zap.WarnLevel, "handler queue full, dropping message (8) from=1.2.3.4:5", "handler queue full, dropping message "},
		{"Err: Could not set the deadline: x", zap.WarnLevel, "Err: Could not set the deadline: x", "Err: Could not set the deadline: x"},
		{"[ERR] Failed to shutdown transport: x", zap.WarnLevel, "Failed to shutdown transport: x", "Failed to shutdown transport: x"},
		{"", zap.WarnLevel, "", ""},
		{"[", zap.WarnLevel, "[", "["},
	} {
		level, text := parseLine(stamp + c.in + "\n")
		if level != c.level || text != c.text {
			t.Errorf("%q: %s %q", c.in, level, text)
		}
		if got := template(text); got != c.template {
			t.Errorf("%q: template %q, want %q", c.in, got, c.template)
		}
	}
}

func TestLogFloodIsOneLineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, seen := observer.New(zap.DebugLevel)
		l := newLogs(zap.New(core))
		for i := range 10_000 {
			_, _ = fmt.Fprintf(l, "2026/11/22 16:05:00 [ERR] memberlist: Decrypt packet failed: x from=10.0.%d.%d:%d\n", i/250%250, i%250, i)
		}
		l.flush()
		time.Sleep(logEvery)
		_, _ = fmt.Fprintf(l, "2026/11/22 16:06:00 [ERR] memberlist: Decrypt packet failed: x from=10.0.0.1:1\n")
		l.flush()
		if n := seen.Len(); n != 2 {
			t.Fatalf("%d lines", n)
		}
		if got := seen.All()[1].ContextMap()["left_out"]; got != int64(9999) {
			t.Errorf("left out %v", got)
		}
		for i := range 10_000 { // a stranger who invents kinds of lines
			_, _ = fmt.Fprintf(l, "[ERR] memberlist: %s\n", string([]byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'a' + byte(i/676%26)}))
		}
		if n := len(l.kinds); n > logTemplates+1 {
			t.Errorf("%d kinds are remembered", n)
		}
	})
}

func TestLogThatNobodyReadsStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipe := &stuckWriter{free: make(chan struct{})}
		core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), pipe, zap.DebugLevel)
		network := gossiptest.NewNetwork(1)
		nodes := []*testNode{
			start(t, network, "n1", testAddr(1), testPeers(2)),
			start(t, network, "n2", testAddr(2), testPeers(2), func(c *Config) { c.Log = zap.New(core) }),
		}
		within(t, 3*time.Second, "joined", all(nodes, sees("n1", "n2")))
		pipe.stuck.Store(true)
		for i := range 600 { // half a minute, in which memberlist has lines to write
			network.Inject("10.9.9.9:1", testAddr(2), sealed(nodes[1].label, 1, 100))
			_ = nodes[0].Send("n2", fmt.Appendf(nil, "%d", i))
			if got := string(<-nodes[1].Messages()); got != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", got, i)
			}
			time.Sleep(50 * time.Millisecond)
		}
		close(pipe.free)
		stopAll(nodes...)
	})
}

// stuckWriter is a pipe that nobody reads once it is stuck, until it is free.
type stuckWriter struct {
	stuck atomic.Bool
	free  chan struct{}
}

func (w *stuckWriter) Write(b []byte) (int, error) {
	if w.stuck.Load() {
		<-w.free
	}
	return len(b), nil
}

func (w *stuckWriter) Sync() error { return nil }

func TestLogOfAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, seen := observer.New(zap.InfoLevel)
		network := gossiptest.NewNetwork(1)
		nodes := []*testNode{
			start(t, network, "n1", testAddr(1), testPeers(2), func(c *Config) { c.Log = zap.New(core) }),
			start(t, network, "n2", testAddr(2), testPeers(2)),
		}
		time.Sleep(5 * time.Second)
		network.Cut(testAddr(1), testAddr(2))
		time.Sleep(5 * time.Minute)
		network.Heal()
		time.Sleep(5 * time.Second)
		var lines []string
		for _, e := range seen.All() {
			lines = append(lines, e.Message)
		}
		want := []string{"gossip started", "peer joined", "peer gone", "peer joined"}
		if fmt.Sprint(lines) != fmt.Sprint(want) {
			t.Errorf("log of a partition of five minutes: %q, want %q", lines, want)
		}
		stopAll(nodes...)
	})
}

func FuzzLogLine(f *testing.F) {
	f.Add("2026/11/22 16:05:00 [ERR] memberlist: Decrypt packet failed: x\n")
	f.Add("[x] ")
	f.Fuzz(func(t *testing.T, line string) {
		_, text := parseLine(line)
		if len(text) > len(line) || len(template(text)) > len(text) {
			t.Errorf("%q grows to %q", line, text)
		}
	})
}
