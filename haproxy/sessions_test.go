package haproxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
)

// long is how long a request of these tests would last if nobody cut it.
const long = 30 * time.Second

// clients ask a HAProxy whose servers of site a take long over every request.
type clients struct {
	t   *testing.T
	p   *haproxytest.Process
	url string
}

// startLong starts HAProxy with the servers a-1, a-2 (slow) and b-1, and a cookie
// for each of them: its name.
func startLong(t *testing.T) *clients {
	t.Helper()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(long):
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(slow.Close)
	port := haproxytest.Ports(t, 1)[0]
	config := strings.Replace(haproxytest.Global, "timeout server 10s", "timeout server 1m", 1) +
		"frontend f\n  bind 127.0.0.1:" + port + "\n  default_backend be\nbackend be\n  cookie SRV insert indirect nocache\n"
	for _, name := range []string{"a-1", "a-2"} {
		config += "  server " + name + " " + slow.Listener.Addr().String() + " cookie " + name + "\n"
	}
	config += "  server b-1 " + serveSite(t, "b") + " cookie b-1\n"
	return &clients{t: t, p: haproxytest.Start(t, config), url: "http://127.0.0.1:" + port + "/"}
}

// ask begins a request of a client with a cookie, waits until the server has it,
// and returns where its answer will be told: the status, or 0 if it was cut.
func (c *clients) ask(server string, sessions string) <-chan int {
	c.t.Helper()
	answer := make(chan int, 1)
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.AddCookie(&http.Cookie{Name: "SRV", Value: server})
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(r)
		if err != nil {
			answer <- 0
			return
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			answer <- 0
			return
		}
		answer <- resp.StatusCode
	}()
	c.taken(server, sessions)
	return answer
}

// taken waits until a server has taken so many sessions since HAProxy started.
func (c *clients) taken(server, sessions string) {
	c.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		lines := strings.Split(c.p.Do("show stat be 4 -1"), "\n")
		header := strings.Split(lines[0], ",")
		for _, line := range lines[1:] {
			for n, value := range strings.Split(line, ",") {
				if strings.HasPrefix(line, "be,"+server+",") && header[n] == "stot" && value == sessions {
					return
				}
			}
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s did not take session %s:\n%s", server, sessions, strings.Join(lines, "\n"))
		}
	}
}

// cut waits for the end of a request that would have lasted long.
func (c *clients) cut(answer <-chan int) {
	c.t.Helper()
	select {
	case code := <-answer:
		if code != 0 && code != http.StatusBadGateway {
			c.t.Errorf("answered with %d", code)
		}
	case <-time.After(long / 2):
		c.t.Fatal("not cut")
	}
}

func (c *clients) goesOn(answer <-chan int, d time.Duration) {
	c.t.Helper()
	select {
	case code := <-answer:
		c.t.Fatalf("ended with %d", code)
	case <-time.After(d):
	}
}

// closing is toB with what is left on a closed.
func closing(epoch uint64) Desired {
	return Desired{Epoch: epoch, Rules: []Rule{toB.Rules[0], {Pattern: "*/a-*", Want: Drain, Close: true}}}
}

// What is left after the drain timeout, here a second, is cut; and so is what
// comes back by a cookie, for as long as the rule says so.
func TestSessionsAreCutForAsLongAsTheSiteIsDrained(t *testing.T) {
	c := startLong(t)
	i := run(t, Config{Socket: c.p.Socket})
	i.applied(toA)
	first := c.ask("a-1", "1")
	i.applied(toB)
	c.goesOn(first, time.Second)
	i.Set(closing(3))
	c.cut(first)
	o, _ := i.until("counted", func(o Observation) bool { return o.SessionsClosed == 1 })
	if o.SessionsLeft != 1 {
		t.Errorf("%d sessions are said to have been left", o.SessionsLeft)
	}
	i.until("none left", func(o Observation) bool { return o.SessionsLeft == 0 && o.Applied == 3 })
	for n, took := range []string{"2", "3"} {
		c.cut(c.ask("a-1", took))
		i.until("counted too", func(o Observation) bool { return o.SessionsClosed == uint64(n+2) && o.Applied == 3 })
	}
	back := i.applied(Desired{Epoch: 4, Rules: toA.Rules})
	if back.SessionsLeft != 0 || back.SessionsClosed != 3 {
		t.Errorf("%d left, %d closed", back.SessionsLeft, back.SessionsClosed)
	}
	last := c.ask("a-1", "4")
	c.goesOn(last, 2*closeEvery)
}

// A person who drains a server means to let its sessions end by themselves.
func TestSessionsOnAPersonsDrainAreNotCut(t *testing.T) {
	c := startLong(t)
	i := run(t, Config{Socket: c.p.Socket})
	i.applied(toA)
	c.p.Do("set server be/a-2 state drain")
	i.until("known as a person's", func(o Observation) bool { return heldAs(o, "a-2") == HoldDrain })
	theirs, ours := c.ask("a-2", "1"), c.ask("a-1", "1")
	i.Set(closing(3))
	c.cut(ours)
	c.goesOn(theirs, 3*closeEvery)
	if o := i.Observed(); o.SessionsClosed != 1 || o.SessionsLeft != 0 {
		t.Errorf("%d closed, %d left: only one of them is tandem's to close", o.SessionsClosed, o.SessionsLeft)
	}
}

// A decision whose sessions could not be looked for is not yet carried out.
func TestNothingIsAppliedWhileReconcilingFails(t *testing.T) {
	fake := haproxytest.StartFake(t, "be/a-1", "be/b-1")
	fake.Answer("show stat be", "no table\n")
	i := run(t, Config{Socket: fake.Socket})
	i.applied(toB)
	i.Set(closing(3))
	i.until("failures", func(o Observation) bool {
		if o.Applied == 3 {
			t.Fatal("applied, though the sessions were not looked for")
		}
		return o.Failures >= 3
	})
	fake.Answer("show stat be", "# pxname,svname,scur\nbe,a-1,0\nbe,b-1,0\n")
	i.until("applied", func(o Observation) bool { return o.Applied == 3 })
}

// One server that cannot be cut, since it was deleted a moment ago, takes nothing
// from the others.
func TestSessionsThatCouldNotBeCutAreNotCounted(t *testing.T) {
	fake := haproxytest.StartFake(t, "be/a-1", "be/a-2", "be/b-1")
	fake.Answer("show stat be", "# pxname,svname,scur\nbe,a-1,5\nbe,a-2,2\nbe,b-1,9\n")
	fake.Answer("shutdown sessions server be/a-1", "[3]: No such server.\n")
	i := run(t, Config{Socket: fake.Socket})
	i.applied(toB)
	i.Set(closing(3))
	o, _ := i.until("counted", func(o Observation) bool { return o.SessionsClosed > 0 })
	if o.SessionsClosed != 2 || o.SessionsLeft != 7 || o.Applied != 3 {
		t.Errorf("%d closed, %d left, epoch %d applied", o.SessionsClosed, o.SessionsLeft, o.Applied)
	}
	for _, line := range fake.Log() {
		if line == shutdown(ServerID{"be", "b-1"}) {
			t.Error("sessions of the active site were cut")
		}
	}
}

// Of many backends all are asked for at once.
func TestSessionsOfManyBackends(t *testing.T) {
	config := haproxytest.Global
	var servers []string
	for n := range manyBackends + 1 {
		name := "be" + strconv.Itoa(n)
		config += haproxytest.Backend(name, 1)
		servers = append(servers, name)
	}
	p := haproxytest.Start(t, config)
	c := open(t, p.Socket)
	var targets []ServerID
	for _, name := range servers {
		targets = append(targets, ServerID{name, "a-1"})
	}
	current, err := sessions(c, targets)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range targets {
		if n, ok := current[id]; !ok || n != 0 {
			t.Errorf("%s: %d sessions, found %v", id, n, ok)
		}
	}
}

// BenchmarkSessions: looking for sessions on the drained half of the servers, as
// is done once a second under TANDEM_DRAIN_TIMEOUT.
func BenchmarkSessions(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p := servers(b, n)
			c := open(b, p.Socket)
			c.silence = patience
			table, _, err := c.servers(nil, "")
			if err != nil {
				b.Fatal(err)
			}
			var targets []ServerID
			for _, s := range table {
				if Match("*/b-*", s.ServerID) {
					targets = append(targets, s.ServerID)
				}
			}
			before := cpu(b, p.PID())
			for b.Loop() {
				if _, err := sessions(c, targets); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b, p.PID())-before).Microseconds())/float64(b.N)/1000, "haproxy-ms/op")
		})
	}
}
