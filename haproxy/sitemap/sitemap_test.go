package sitemap

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
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

// HAProxy says that it has set the value, and shows the old one.
func TestWhatIsNotReadBackIsNotBelieved(t *testing.T) {
	fake := haproxytest.StartFake(t)
	fake.Answer("show map", "0x1 default b\n")
	fake.Answer("set map", "")
	m := New(fake.Socket, "/x.map", zaptest.NewLogger(t), nil)
	if err := m.keepMemory(map[string]string{"default": "a"}); err == nil || !strings.Contains(err.Error(), "read back map /x.map: 0 of 1 entries of default are a") {
		t.Fatal(err)
	}
}

// answering answers each connection after a time with a text, whatever is asked,
// and keeps what was asked.
func answering(t *testing.T, after time.Duration, text string) (socket string, asked func() []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "map") //nolint:usetesting // short: the path of a socket has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			lines <- line
			time.Sleep(after)
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return socket, func() []string {
		var all []string
		for len(lines) > 0 {
			all = append(all, <-lines)
		}
		return all
	}
}

// Through client-native a HAProxy that does not answer has an empty map, after
// 30 s: then nothing must be added to it.
func TestNoAnswerIsNoEmptyMap(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		text  string
		want  string
	}{
		"late":    {300 * time.Millisecond, "\n\n", "no answer within"},
		"hung up": {0, "", "no answer, or"},
	} {
		t.Run(name, func(t *testing.T) {
			socket, asked := answering(t, c.after, c.text)
			m := New(socket, "/x.map", zap.NewNop(), nil)
			m.tooSlow = 200 * time.Millisecond
			err := m.keepMemory(map[string]string{"default": "a"})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q: %v", c.want, err)
			}
			for _, line := range asked() {
				if !strings.Contains(line, "show map") {
					t.Errorf("sent %q", line)
				}
			}
		})
	}
}

func TestAnEmptyMapIsFilled(t *testing.T) {
	k := keep(t)
	k.p.Do("clear map " + k.path)
	k.Set(map[string]string{"default": "a"})
	k.until(true)
	if got := k.memory(); !strings.Contains(got, `value="a"`) {
		t.Fatalf("memory: %s", got)
	}
}

// Two entries of a key with the right value are right: setting them again would
// never end.
func TestTwoEntriesOfAKey(t *testing.T) {
	k := keep(t)
	k.p.Do("add map " + k.path + " default b")
	k.p.Do("add map " + k.path + " default c")
	k.Set(map[string]string{"default": "a"})
	k.until(true)
	if got := strings.Count(k.p.Do("show map "+k.path), " default a\n"); got != 2 {
		t.Fatalf("%d entries are right: %s", got, k.p.Do("show map "+k.path))
	}
	fake := haproxytest.StartFake(t)
	fake.Answer("show map", "0x1 default a\n0x2 default a\n")
	fake.Answer("set map", "[3]: not to be sent\n")
	m := New(fake.Socket, "/x.map", zaptest.NewLogger(t), nil)
	if err := m.keepMemory(map[string]string{"default": "a"}); err != nil {
		t.Fatal(err)
	}
	fake.Answer("show map", "0x1 default a\n0x2 default b\n")
	if err := m.keepMemory(map[string]string{"default": "a"}); err == nil || !strings.Contains(err.Error(), "not to be sent") {
		t.Fatal(err)
	}
}

// A disk that is full must not send requests to the wrong site.
func TestMemoryIsKeptThoughTheFileCannotBe(t *testing.T) {
	k := keep(t)
	k.Set(map[string]string{"default": "a"})
	k.until(true)
	if err := os.Mkdir(k.path+".tmp", 0o700); err != nil { // where the new file is to be written
		t.Fatal(err)
	}
	k.Set(map[string]string{"default": "b"})
	if s := k.until(false); !strings.Contains(s.Detail, "write map file") {
		t.Errorf("%+v", s)
	}
	if got := k.memory(); !strings.Contains(got, `value="b"`) {
		t.Errorf("memory: %s", got)
	}
	if err := os.Remove(k.path + ".tmp"); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	k.until(true)
	if file, err := os.ReadFile(k.path); err != nil || !strings.Contains(string(file), "default b\n") {
		t.Errorf("file: %q, %v", file, err)
	}
}

func TestReloadKeepsTheValue(t *testing.T) {
	k := keep(t)
	k.Set(map[string]string{"default": "b"})
	k.until(true)
	before := k.p.PID()
	if after := k.p.Reload(); after == before {
		t.Fatal("not reloaded")
	}
	if got := k.memory(); !strings.Contains(got, `value="b"`) {
		t.Fatalf("memory of the new process: %s", got)
	}
}

// example is the configuration that the documentation gives in a section.
func example(t *testing.T, heading string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "haproxy-operators.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(b), "\n"+heading+"\n")
	_, block, begun := strings.Cut(section, "```haproxy\n")
	block, _, ended := strings.Cut(block, "```")
	if !found || !begun || !ended {
		t.Fatalf("no example under %q", heading)
	}
	return block
}

// TestExampleOfTheDocumentation asks through the rules that the documentation
// gives, while a and then b is active.
func TestExampleOfTheDocumentation(t *testing.T) {
	port := haproxytest.Ports(t, 1)[0]
	rules := strings.NewReplacer("/etc/haproxy/site.map", "{dir}/site.map", "bind :80", "bind 127.0.0.1:"+port).Replace(example(t, "## Rules that follow the decision"))
	config := haproxytest.Global + rules
	for _, site := range []string{"a", "b"} {
		config += "backend app_" + site + "\n  http-request return status 200 content-type text/plain lf-string \"" + site + " %[req.hdr(X-Active-Site)]\"\n"
	}
	p := haproxytest.New(t, config)
	path := filepath.Join(p.Dir, "site.map")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	ask := func(want string) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://127.0.0.1:" + port)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || string(body) != want {
			t.Errorf("got %q, %v; want %q", body, err, want)
		}
	}
	ask("a none") // nothing decided yet: the default of the rule
	m := New(p.Socket, path, zaptest.NewLogger(t), nil)
	for _, site := range []string{"a", "b", "a"} {
		want := map[string]string{"default": site}
		if err := errors.Join(m.keepFile(want), m.keepMemory(want)); err != nil {
			t.Fatal(err)
		}
		ask(site + " " + site)
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
