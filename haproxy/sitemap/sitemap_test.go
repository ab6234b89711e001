package sitemap

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"tandem/haproxy/haproxytest"
)

const config = haproxytest.Global + `
frontend f
  bind 127.0.0.1:{port}
  http-request return status 200 content-type text/plain lf-string "%[str(default),map({dir}/site.map,none)]"
`

type kept struct {
	*Map
	t      *testing.T
	p      *haproxytest.Process
	status chan Status
}

func keep(t *testing.T) *kept {
	t.Helper()
	p := haproxytest.New(t, strings.Replace(config, "{port}", haproxytest.Ports(t, 1)[0], 1))
	path := filepath.Join(p.Dir, "site.map")
	if err := os.WriteFile(path, []byte("# by hand\nother thing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	k := &kept{t: t, p: p, status: make(chan Status, 100)}
	k.Map = New(p.Socket, path, zaptest.NewLogger(t), func(s Status) { k.status <- s })
	k.patience, k.verify = 300*time.Millisecond, 200*time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}

func (k *kept) until(current bool) Status {
	k.t.Helper()
	for end := time.After(10 * time.Second); ; {
		select {
		case s := <-k.status:
			if s.Current == current {
				return s
			}
		case <-end:
			k.t.Fatalf("waited in vain for current=%v", current)
		}
	}
}

func (k *kept) memory() string { return k.p.Do("get map " + k.path + " default") }

func TestMapIsKeptInMemoryAndOnDisk(t *testing.T) {
	k := keep(t)
	k.Set(map[string]string{"default": "a", "mq": "b"})
	k.until(true)
	if got := k.memory(); !strings.Contains(got, `value="a"`) {
		t.Fatalf("memory: %s", got)
	}
	file, err := os.ReadFile(k.path)
	if err != nil || string(file) != "# by hand\nother thing\ndefault a\nmq b\n" {
		t.Fatalf("file: %q, %v", file, err)
	}
	k.p.Do("set map " + k.path + " default elsewhere")
	k.t.Log("somebody changed it; it comes back")
	for end := time.Now().Add(5 * time.Second); !strings.Contains(k.memory(), `value="a"`); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come back")
		}
	}
}

func TestHungHAProxyHoldsUpNothing(t *testing.T) {
	k := keep(t)
	k.Set(map[string]string{"default": "a"})
	k.until(true)
	k.p.Signal(syscall.SIGSTOP)
	start := time.Now()
	k.Set(map[string]string{"default": "b"})
	k.until(false)
	t.Logf("said so after %v", time.Since(start))
	k.p.Signal(syscall.SIGCONT)
	k.until(true)
	if got := k.memory(); !strings.Contains(got, `value="b"`) {
		t.Fatalf("memory: %s", got)
	}
}

func TestMapThatHAProxyDoesNotUse(t *testing.T) {
	p := haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("be", 1))
	m := New(p.Socket, filepath.Join(p.Dir, "unused.map"), zaptest.NewLogger(t), nil)
	err := m.keepMemory(map[string]string{"default": "a"})
	if err == nil || !strings.Contains(err.Error(), "does haproxy.cfg use a map") {
		t.Fatal(err)
	}
}

func TestHalfALineIsNoPanic(t *testing.T) {
	fake := haproxytest.StartFake(t)
	fake.Answer("show map", "0x55d155c6fbf0 default\n")
	m := New(fake.Socket, "/x.map", zaptest.NewLogger(t), nil)
	if err := m.keepMemory(map[string]string{"default": "a"}); err == nil || !strings.Contains(err.Error(), "not understood") {
		t.Fatal(err)
	}
}

func TestNothingIsInjected(t *testing.T) {
	for _, want := range []map[string]string{
		{"default": "a;shutdown sessions server be/a"}, {"x y": "a"}, {"a": "b\nclear map #0"}, {"": "a"}, {"a": ""}, {"#1": "a"},
	} {
		if err := valid("/x.map", want); err == nil {
			t.Errorf("%q is let through", want)
		}
	}
	for _, path := range []string{"", "/x y", "/x;help", "/x\n", "#0"} {
		if err := valid(path, nil); err == nil {
			t.Errorf("path %q is let through", path)
		}
	}
}
