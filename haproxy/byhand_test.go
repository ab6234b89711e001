package haproxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

// byHand is a HAProxy with a tandem, two servers at each site, the first of them
// checked, and a person at the socket.
type byHand struct {
	*running
	p     *haproxytest.Process
	url   string
	mort  *httptest.Server // a-1: may die
	epoch uint64
}

func startByHand(t *testing.T) *byHand {
	t.Helper()
	mort := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a") }))
	t.Cleanup(mort.Close)
	port := haproxytest.Ports(t, 1)[0]
	p := haproxytest.Start(t, haproxytest.Global+"frontend f\n  bind 127.0.0.1:"+port+"\n  default_backend be\nbackend be\n"+
		"  server a-1 "+mort.Listener.Addr().String()+" check inter 100ms fall 2 rise 2 weight 10\n"+
		"  server a-2 "+serveSite(t, "a")+" weight 10\n"+
		"  server b-1 "+serveSite(t, "b")+" check inter 100ms fall 2 rise 2 weight 10\n")
	h := &byHand{running: run(t, Config{Socket: p.Socket, StateFile: filepath.Join(p.Dir, "state")}), p: p, url: "http://127.0.0.1:" + port, mort: mort, epoch: 10}
	h.applied(toA)
	return h
}

// switches goes to site b and back.
func (h *byHand) switches() Observation {
	h.t.Helper()
	var o Observation
	for _, d := range []Desired{toB, toA} {
		h.epoch++
		d.Epoch = h.epoch
		o = h.applied(d)
	}
	return o
}

// sees waits until a look that was taken after this shows a server so.
func (h *byHand) sees(what, name string, ok func(Server) bool) {
	h.t.Helper()
	begin := time.Now()
	for end := begin.Add(patience); ; time.Sleep(5 * time.Millisecond) {
		o := h.Observed()
		if o.ServersAt.After(begin) && ok(serverOf(o, name)) {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s is not %s: %+v", name, what, o)
		}
	}
}

// fileSays waits until the server-state file has a server so.
func (h *byHand) fileSays(ok func(Server) bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(filepath.Join(h.p.Dir, "state"))
		if table, err := ParseServers(string(b), nil); err == nil && slices.ContainsFunc(table, ok) {
			return
		}
		if time.Now().After(end) {
			h.t.Fatal("the server-state file does not say so")
		}
	}
}

func serverOf(o Observation, name string) Server {
	for _, s := range o.Servers {
		if s.Server == name {
			return s
		}
	}
	return Server{}
}

// ask returns who answers a request.
func (h *byHand) ask() (string, error) {
	h.t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(h.url)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(resp.Body)
	return string(b), errors.Join(err, resp.Body.Close())
}

// Health set by hand is undone by the next checks where there are any; where
// there are none it stays, and counts as HAProxy shows it.
func TestHealthSetByHand(t *testing.T) {
	h := startByHand(t)
	for _, word := range []string{"down", "stopping"} {
		oper := map[string]Oper{"down": OperStopped, "stopping": OperStopping}[word]
		made := func(s Server) bool { return s.Oper == oper && !s.Up }
		h.p.Do("set server be/a-1 health " + word)
		h.sees("up again by its checks", "a-1", func(s Server) bool { return s.Up && s.Oper == OperRunning })
		h.p.Do("set server be/a-2 health " + word)
		h.sees(word, "a-2", made)
		if o := h.switches(); !made(serverOf(o, "a-2")) || heldAs(o, "a-2") != "" {
			t.Errorf("%s: after a switch and back %+v, held as %q", word, serverOf(o, "a-2"), heldAs(o, "a-2"))
		}
		h.p.Do("set server be/a-2 health up")
		h.sees("up", "a-2", func(s Server) bool { return s.Up })
	}
}

// Without its checks a server stays as it was when they stopped, dead or not.
func TestHealthChecksDisabledByHand(t *testing.T) {
	h := startByHand(t)
	h.p.Do("disable health be/a-1")
	h.mort.Close()
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s := serverOf(h.Observed(), "a-1"); !s.Up {
			t.Fatalf("its death was noticed: %+v", s)
		}
	}
	if o := h.switches(); !serverOf(o, "a-1").Up || heldAs(o, "a-1") != "" {
		t.Errorf("%+v, held as %q", serverOf(o, "a-1"), heldAs(o, "a-1"))
	}
	h.p.Do("enable health be/a-1")
	h.sees("down", "a-1", func(s Server) bool { return !s.Up })
}

func TestWeightSetByHandStays(t *testing.T) {
	h := startByHand(t)
	h.p.Do("set server be/a-1 weight 5")
	h.p.Do("set server be/b-1 weight 50%")
	h.p.Do("set server be/a-2 weight 3%") // of 10: 0
	h.sees("of weight 0", "a-2", func(s Server) bool { return s.Weight == 0 })
	o := h.switches()
	for name, weight := range map[string]int{"a-1": 5, "b-1": 5, "a-2": 0} {
		if s := serverOf(o, name); s.Weight != weight || s.InitialWeight != 10 {
			t.Errorf("%+v", s)
		}
	}
	if heldAs(o, "a-1") != "" || heldAs(o, "b-1") != "" || heldAs(o, "a-2") != HoldWeight {
		t.Errorf("held: %+v", o.Held)
	}
}

// An address set at the socket stays through switches. Of a reload, HAProxy's own
// way with the server-state file decides: the address is that of the configuration
// again, and the port is the one that was set.
func TestAddressSetByHandStays(t *testing.T) {
	h := startByHand(t)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(serveAt(t, l, "elsewhere"))
	if err != nil {
		t.Fatal(err)
	}
	moved := func(s Server) bool { return s.Addr == host && strconv.Itoa(s.Port) == port }
	h.p.Do("set server be/a-1 addr " + host + " port " + port)
	h.sees("moved", "a-1", moved)
	if o := h.switches(); !moved(serverOf(o, "a-1")) || len(o.Held) > 0 {
		t.Errorf("after a switch and back: %+v, held %+v", serverOf(o, "a-1"), o.Held)
	}
	h.p.Do("set server be/a-2 state maint")
	if got, err := h.ask(); got != "elsewhere" {
		t.Errorf("answered by %q, %v", got, err)
	}
	h.fileSays(func(s Server) bool { return s.Server == "a-2" && s.Admin.Has(FMaint) })
	h.p.Reload()
	h.until("the new process", func(o Observation) bool { return o.PID == h.p.PID() && o.Applied == h.epoch })
	if s := serverOf(h.Observed(), "a-1"); s.Addr != "127.0.0.1" || strconv.Itoa(s.Port) != port {
		t.Errorf("after a reload at %s:%d: the documentation says otherwise", s.Addr, s.Port)
	}
}

// What a person does to a frontend or to sessions is none of tandem's business.
func TestFrontendDisabledByHand(t *testing.T) {
	h := startByHand(t)
	h.p.Do("disable frontend f")
	if got, err := h.ask(); err == nil {
		t.Errorf("answered by %q", got)
	}
	named := func(o Observation) bool {
		return len(o.Warnings) == 1 && o.Warnings[0].Kind == WarnFrontend && strings.Contains(o.Warnings[0].Detail, " f, disabled")
	}
	shown := strings.Contains(h.p.Do("show stat -1 1 -1"), ","+frontendPaused+",")
	if shown {
		h.until("said", named)
	} else if h.p.AtLeast(2, 8) { // 2.4.0 and 2.6.0 say that it is open
		t.Fatal(h.p.Do("show stat -1 1 -1"))
	}
	if o := h.switches(); !o.Alive || o.Reason != "" || len(o.Held) > 0 || shown && !named(o) {
		t.Errorf("%+v", o)
	}
	if got, err := h.ask(); err == nil {
		t.Errorf("it was enabled by tandem: answered by %q", got)
	}
	h.p.Do("enable frontend f")
	if got, err := h.ask(); got != "a" {
		t.Errorf("answered by %q, %v", got, err)
	}
	h.until("no longer said", func(o Observation) bool { return len(o.Warnings) == 0 })
	h.p.Do("shutdown frontend f")
	if shown {
		h.until("said", named)
	}
	h.p.Reload()
	h.until("a new process has it", func(o Observation) bool { return o.PID == h.p.PID() && len(o.Warnings) == 0 })
}

func TestSessionsShutByHand(t *testing.T) {
	c := startLong(t)
	i := run(t, Config{Socket: c.p.Socket})
	before := i.applied(toA)
	answer := c.ask("a-1", "1")
	c.p.Do("shutdown sessions server be/a-1")
	c.cut(answer)
	c.goesOn(c.ask("a-1", "2"), closeEvery)
	if o := i.Observed(); o.SessionsClosed != 0 || o.Changes != before.Changes || states(o.Servers) != states(before.Servers) {
		t.Errorf("%+v", o)
	}
}
