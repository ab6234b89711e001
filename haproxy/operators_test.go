package haproxy

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tandem/haproxy/haproxytest"
)

// operator is one row of docs/haproxy-operators.md: what a person did to one
// server, and what comes of it over a switch and back.
type operator struct {
	name string
	by   []string            // the commands of the person; SERVER is the server
	on   map[string]string   // its admin state, as wanted: active, standby
	held map[string]HoldKind // what status shows, as wanted: active, standby
}

var operators = []operator{
	{
		name: "maintenance", by: []string{"set server SERVER state maint"},
		on:   map[string]string{"active": "FMAINT", "standby": "FMAINT"},
		held: map[string]HoldKind{"active": HoldMaintenance, "standby": HoldMaintenance},
	},
	{
		name: "disable server", by: []string{"disable server SERVER"},
		on:   map[string]string{"active": "FMAINT", "standby": "FMAINT"},
		held: map[string]HoldKind{"active": HoldMaintenance, "standby": HoldMaintenance},
	},
	{
		name: "weight 0", by: []string{"set server SERVER weight 0"},
		on:   map[string]string{"active": "none", "standby": "FDRAIN"},
		held: map[string]HoldKind{"active": HoldWeight, "standby": HoldWeight},
	},
	{
		name: "maintenance, then ready", by: []string{"set server SERVER state maint", "set server SERVER state ready"},
		on: map[string]string{"active": "none", "standby": "FDRAIN"},
	},
}

// TestWhatAPersonDidStays does each to a server of the active and of the standby
// site, before a switch, and looks after the switch and after the way back.
func TestWhatAPersonDidStays(t *testing.T) {
	for _, o := range operators {
		for _, server := range []string{"a-1", "b-1"} {
			t.Run(o.name+" on "+server, func(t *testing.T) {
				t.Parallel()
				p := start(t, 2)
				i := run(t, Config{Socket: p.Socket})
				i.applied(toA)
				for _, command := range o.by {
					p.Do(strings.ReplaceAll(command, "SERVER", "be/"+server))
				}
				for n, d := range []Desired{{10, toA.Rules, false, nil}, {11, toB.Rules, false, nil}, {12, toA.Rules, false, nil}} {
					now := i.applied(d)
					role := "standby"
					if rule, _ := d.Rule(ServerID{"be", server}); rule.Want == Ready {
						role = "active"
					}
					if got := adminOf(t, now.Servers, server); got != o.on[role] {
						t.Fatalf("step %d, %s: %s, want %s", n, role, got, o.on[role])
					}
					if got := heldAs(now, server); got != o.held[role] {
						t.Fatalf("step %d, %s: held as %q, want %q", n, role, got, o.held[role])
					}
				}
			})
		}
	}
}

// deed is what a person does to one server at any moment of a switch.
type deed struct {
	command string
	kept    operator // what comes of it
	// lost: when it comes to nothing, as the last writer wins or a drain by hand
	// looks like ours. The words are those of moments, and a server.
	lost []string
}

// The moments of a switch from a to b at which a person acts.
const (
	beforeSwitch = "before"
	asReadyGoes  = "as ready goes out" // a is still ready, b drained by tandem
	asDrainGoes  = "as drain goes out" // b is ready
	afterSwitch  = "after"
)

var deeds = []deed{
	{"set server SERVER state maint", operators[0], []string{asReadyGoes + " b-1", asDrainGoes + " a-1"}},
	{"set server SERVER state drain", operator{
		on:   map[string]string{"active": "FDRAIN", "standby": "FDRAIN"},
		held: map[string]HoldKind{"active": HoldDrain},
	}, []string{beforeSwitch + " b-1", asReadyGoes + " b-1", asDrainGoes + " a-1", afterSwitch + " a-1"}},
	{"set server SERVER weight 0", operators[2], nil},
	{"set server SERVER weight 50%", operator{on: map[string]string{"active": "none", "standby": "FDRAIN"}}, nil},
}

// TestWhatAPersonDoesDuringASwitchStays lets a person act before, during and after
// a switch from a to b, and looks after it, after the way back, and after another.
func TestWhatAPersonDoesDuringASwitchStays(t *testing.T) {
	for _, d := range deeds {
		for _, moment := range []string{beforeSwitch, asReadyGoes, asDrainGoes, afterSwitch} {
			for _, server := range []string{"a-1", "b-1"} {
				name := strings.ReplaceAll(d.command, "SERVER", server) + " " + moment
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					want := d.kept
					if slices.Contains(d.lost, moment+" "+server) {
						want = operator{on: map[string]string{"active": "none", "standby": "FDRAIN"}}
					}
					actAt(t, moment, strings.ReplaceAll(d.command, "SERVER", "be/"+server), server, want)
				})
			}
		}
	}
}

// weighty is a backend like haproxytest.Backend's, of servers of weight 10: half
// of 1 is 0.
func weighty(n int) string {
	return strings.ReplaceAll(haproxytest.Backend("be", n), "127.0.0.1:9", "127.0.0.1:9 weight 10")
}

func actAt(t *testing.T, moment, command, server string, want operator) {
	t.Helper()
	p := haproxytest.Start(t, haproxytest.Global+weighty(2))
	relay := haproxytest.StartRelay(t, p.Socket)
	i := run(t, Config{Socket: relay.Socket})
	i.applied(toA)
	var acted atomic.Int32
	act := func() {
		if answer, err := p.Ask(command); err != nil || strings.TrimSpace(answer) != "" {
			t.Errorf("%s: %q %v", command, answer, err)
		}
		acted.Add(1)
	}
	during := func(what string) {
		var once sync.Once
		relay.Before(func(piece string) {
			if strings.Contains(piece, what) {
				once.Do(act)
			}
		})
	}
	switch moment {
	case beforeSwitch:
		act()
	case asReadyGoes:
		during("state ready")
	case asDrainGoes:
		during("state drain")
	}
	for n, d := range []Desired{{Epoch: 10, Rules: toB.Rules}, {Epoch: 11, Rules: toA.Rules}, {Epoch: 12, Rules: toB.Rules}} {
		now := i.applied(d)
		if n == 0 && moment == afterSwitch {
			act()
			continue // its first look is after the way back
		}
		if acted.Load() != 1 {
			t.Fatalf("step %d: the person acted %d times", n, acted.Load())
		}
		role := "standby"
		if rule, _ := d.Rule(ServerID{"be", server}); rule.Want == Ready {
			role = "active"
		}
		if got := adminOf(t, now.Servers, server); got != want.on[role] {
			t.Fatalf("step %d, %s: %s, want %s", n, role, got, want.on[role])
		}
		if got := heldAs(now, server); got != want.held[role] {
			t.Fatalf("step %d, %s: held as %q, want %q", n, role, got, want.held[role])
		}
		if got, want := weightOf(t, now.Servers, server), weightAfter(command); got != want {
			t.Fatalf("step %d, %s: weight %d, want %d", n, role, got, want)
		}
	}
}

// weightAfter is the weight of a server of weighty after the command.
func weightAfter(command string) int {
	switch {
	case strings.HasSuffix(command, "weight 0"):
		return 0
	case strings.HasSuffix(command, "weight 50%"):
		return 5
	}
	return 10
}

func weightOf(t *testing.T, servers []Server, name string) int {
	t.Helper()
	n := slices.IndexFunc(servers, func(s Server) bool { return s.Server == name })
	if n < 0 {
		t.Fatalf("no server %s", name)
	}
	return servers[n].Weight
}

// TestWhatAPersonDidSurvivesAReload starts another HAProxy process once the
// server-state file has what a person did: it stays, and so does who did it.
func TestWhatAPersonDidSurvivesAReload(t *testing.T) {
	plain := func(p *haproxytest.Process) { p.Start() }
	for name, c := range map[string]struct {
		start   func(*haproxytest.Process)
		another func(*haproxytest.Process)
	}{
		"reload -sf":         {plain, func(p *haproxytest.Process) { p.Reload() }},
		"reload of a master": {func(p *haproxytest.Process) { p.StartMaster() }, func(p *haproxytest.Process) { p.Signal(syscall.SIGUSR2) }},
		"kill and start":     {plain, func(p *haproxytest.Process) { p.Signal(syscall.SIGKILL); <-p.Exited(); p.Start() }},
	} {
		t.Run(name, func(t *testing.T) {
			p := haproxytest.New(t, haproxytest.Global+weighty(4))
			c.start(p)
			state := filepath.Join(p.Dir, "state")
			i := run(t, Config{Socket: p.Socket, StateFile: state, JournalFile: filepath.Join(p.Dir, "journal")})
			i.applied(toA)
			for _, command := range []string{
				"be/a-1 state maint", "be/a-2 state drain", "be/a-3 weight 0", "be/a-4 weight 50%",
				"be/b-1 state maint", "be/b-3 weight 0", "be/b-4 weight 50%",
			} {
				if answer := strings.TrimSpace(p.Do("set server " + command)); answer != "" {
					t.Fatalf("%s: %s", command, answer)
				}
			}
			const admins = "be/a-1=FMAINT be/a-2=FDRAIN be/a-3=none be/a-4=none be/b-1=FMAINT be/b-2=FDRAIN be/b-3=FDRAIN be/b-4=FDRAIN"
			weights := []int{10, 10, 0, 5, 10, 10, 0, 5}
			asLeft := func(servers []Server) bool {
				return states(servers) == admins && slices.EqualFunc(servers, weights, func(s Server, w int) bool { return s.Weight == w })
			}
			before, _ := i.until("seen", func(o Observation) bool { return asLeft(o.Servers) && len(o.Held) == 5 })
			fileSays(t, state, asLeft)
			c.another(p)
			after, _ := i.until("another process as wanted", func(o Observation) bool { return o.PID != before.PID && o.Applied == 1 })
			if !asLeft(after.Servers) || !slices.Equal(after.Held, before.Held) {
				t.Fatalf("%s\n%+v\nheld %+v\nwas  %+v", states(after.Servers), after.Servers, after.Held, before.Held)
			}
			// Who did it is known still: over a switch and back all of it stays.
			i.applied(toB)
			if back := i.applied(Desired{Epoch: 3, Rules: toA.Rules}); !asLeft(back.Servers) || !slices.Equal(back.Held, before.Held) {
				t.Fatalf("after a switch and back: %s\n%+v", states(back.Servers), back.Held)
			}
		})
	}
}

func adminOf(t *testing.T, servers []Server, name string) string {
	t.Helper()
	for _, s := range servers {
		if s.Server == name {
			return s.Admin.String()
		}
	}
	t.Fatalf("no server %s", name)
	return ""
}

func heldAs(o Observation, name string) HoldKind {
	for _, h := range o.Held {
		if h.Server == name {
			return h.Kind
		}
	}
	return ""
}

func TestDrainByAPersonOnTheActiveSiteStays(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	p.Do("set server be/a-1 state drain")
	i.until("held", func(o Observation) bool { return heldAs(o, "a-1") == HoldDrain })
	i.applied(toB)
	if got := i.applied(Desired{Epoch: 9, Rules: toA.Rules}); adminOf(t, got.Servers, "a-1") != "FDRAIN" || heldAs(got, "a-1") != HoldDrain {
		t.Fatalf("after the way back: %s, %+v", states(got.Servers), got.Held)
	}
	p.Do("set server be/a-1 state ready")
	i.until("given back", func(o Observation) bool { return heldAs(o, "a-1") == "" })
	i.applied(Desired{Epoch: 10, Rules: toB.Rules})
	if got := i.applied(Desired{Epoch: 11, Rules: toA.Rules}); adminOf(t, got.Servers, "a-1") != "none" {
		t.Fatalf("after it was given back: %s", states(got.Servers))
	}
}

func TestReadyByAPersonOnTheStandbySiteIsUndone(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	for _, command := range []string{"set server be/b-1 state ready", "enable server be/b-2"} {
		measured(t, func() bool {
			begin := time.Now()
			p.Do(command)
			return settled(t, p, begin, time.Second, onA)
		})
	}
}

func TestMaintenanceOfADrainedServerEndsOurs(t *testing.T) {
	p := start(t, 2)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	p.Do("set server be/b-1 state maint")
	i.until("maintenance", func(o Observation) bool { return heldAs(o, "b-1") == HoldMaintenance })
	p.Do("set server be/b-1 state drain")
	i.until("drain by hand", func(o Observation) bool { return adminOf(t, o.Servers, "b-1") == "FDRAIN" })
	got := i.applied(toB)
	if adminOf(t, got.Servers, "b-1") != "FDRAIN" || heldAs(got, "b-1") != HoldDrain {
		t.Fatalf("%s %+v", states(got.Servers), got.Held)
	}
}

func TestDisabledInTheConfiguration(t *testing.T) {
	p := haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("be", 2)+"  server a-off 127.0.0.1:9 disabled\n  server b-off 127.0.0.1:9 disabled\n")
	i := run(t, Config{Socket: p.Socket})
	got := i.applied(toA)
	for _, name := range []string{"a-off", "b-off"} {
		if adminOf(t, got.Servers, name) != "FMAINT+CMAINT" || heldAs(got, name) != HoldMaintenance {
			t.Fatalf("%s: %s %+v", name, states(got.Servers), got.Held)
		}
	}
	// A person enables them; then they are like the others.
	p.Do("set server be/a-off state ready")
	p.Do("set server be/b-off state ready")
	i.until("enabled", func(o Observation) bool {
		return adminOf(t, o.Servers, "a-off") == "CMAINT" && adminOf(t, o.Servers, "b-off") == "CMAINT+FDRAIN" && o.Applied == 1
	})
	got = i.applied(toB)
	if adminOf(t, got.Servers, "a-off") != "CMAINT+FDRAIN" || adminOf(t, got.Servers, "b-off") != "CMAINT" {
		t.Fatalf("%s", states(got.Servers))
	}
}

func TestTrackedServers(t *testing.T) {
	ports := haproxytest.Ports(t, 1)
	p := haproxytest.Start(t, haproxytest.Global+`
backend control
  server a 127.0.0.1:`+ports[0]+` check inter 10s
  server b 127.0.0.1:`+ports[0]+` check inter 10s
backend be
  server a-1 127.0.0.1:9 track control/a
  server b-1 127.0.0.1:9 track control/b
`)
	control := func(epoch uint64, on, off string) Desired {
		return Desired{Epoch: epoch, Rules: []Rule{{Pattern: "*/" + on + "*", Want: Ready}, {Pattern: "*/" + off + "*", Want: Drain}}}
	}
	i := run(t, Config{Socket: p.Socket})
	got := i.applied(control(1, "a", "b"))
	if s := adminOf(t, got.Servers, "b-1"); s != "FDRAIN+IDRAIN" && s != "IDRAIN" {
		t.Fatalf("%s", states(got.Servers))
	}
	got = i.applied(control(2, "b", "a"))
	if adminOf(t, got.Servers, "b-1") != "none" || adminOf(t, got.Servers, "b") != "none" {
		t.Fatalf("%s", states(got.Servers))
	}
	// Maintenance of the tracked server is inherited, and the tracker left alone.
	p.Do("set server control/b state maint")
	got, _ = i.until("inherited", func(o Observation) bool { return heldAs(o, "b-1") == HoldTracked })
	if adminOf(t, got.Servers, "b-1") != "IMAINT" {
		t.Fatalf("%s", states(got.Servers))
	}
	got = i.applied(control(3, "a", "b"))
	if adminOf(t, got.Servers, "b") != "FMAINT" || adminOf(t, got.Servers, "b-1") != "IMAINT" {
		t.Fatalf("%s", states(got.Servers))
	}
}

func TestAgentCheckedServerIsLeftAlone(t *testing.T) {
	ports := haproxytest.Ports(t, 1)
	p := haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("be", 1)+"  server b-agent 127.0.0.1:9 agent-check agent-inter 10s agent-port "+ports[0]+"\n")
	i := run(t, Config{Socket: p.Socket})
	got := i.applied(toA)
	if adminOf(t, got.Servers, "b-agent") != "none" || heldAs(got, "b-agent") != HoldAgent {
		t.Fatalf("%s %+v", states(got.Servers), got.Held)
	}
	p.Do("disable agent be/b-agent")
	i.until("given to tandem", func(o Observation) bool { return adminOf(t, o.Servers, "b-agent") == "FDRAIN" })
}

// agent is an agent-check's other side: it says one word to whoever connects.
func agent(t *testing.T) (port string, asked func() int32, say func(word string)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var word atomic.Value
	word.Store("up")
	var times atomic.Int32
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			times.Add(1)
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = c.Write([]byte(word.Load().(string) + "\n"))
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, times.Load, func(s string) { word.Store(s) }
}

// An agent that drains and readies is obeyed by HAProxy alone: tandem sends that
// server nothing on either site, whatever it says, and status names the agent.
func TestAnAgentThatSpeaksIsNotFought(t *testing.T) {
	port, asked, say := agent(t)
	config := haproxytest.Backend("be", 1)
	for _, name := range []string{"a-agent", "b-agent"} {
		config += "  server " + name + " 127.0.0.1:9 agent-check agent-inter 50ms agent-port " + port + "\n"
	}
	p := haproxytest.Start(t, haproxytest.Global+config)
	relay := haproxytest.StartRelay(t, p.Socket)
	var toAgents atomic.Int32
	relay.Before(func(piece string) {
		if strings.Contains(piece, "-agent") {
			toAgents.Add(1)
		}
	})
	i := run(t, Config{Socket: relay.Socket})
	i.applied(toA)
	for end := time.Now().Add(3 * time.Second); asked() == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	if asked() == 0 && !p.AtLeast(2, 8) {
		t.Skip("SKIPPED, NOT TESTED: this HAProxy never asks its agents, as 2.4.0 and 2.6.0 do not")
	}
	epoch := uint64(10)
	for _, to := range []Desired{toA, toB} {
		for _, c := range []struct{ word, admin string }{{"drain", "FDRAIN"}, {"up", "FDRAIN"}, {"ready", "none"}, {"up", "none"}} {
			epoch++
			i.applied(Desired{Epoch: epoch, Rules: to.Rules})
			say(c.word)
			asSaid := func(o Observation) bool {
				return adminOf(t, o.Servers, "a-agent") == c.admin && adminOf(t, o.Servers, "b-agent") == c.admin
			}
			i.until("what the agent says: "+c.word, asSaid)
			time.Sleep(250 * time.Millisecond) // some checks and some looks
			o := i.Observed()
			if !asSaid(o) || o.Applied != epoch || o.Reason != "" {
				t.Fatalf("%s: %s, applied %d of %d, %s", c.word, states(o.Servers), o.Applied, epoch, o.Reason)
			}
			if heldAs(o, "a-agent") != HoldAgent || heldAs(o, "b-agent") != HoldAgent || len(o.Held) != 2 {
				t.Fatalf("%s: %+v", c.word, o.Held)
			}
		}
	}
	if n := toAgents.Load(); n != 0 {
		t.Fatalf("%d commands to servers with an agent", n)
	}
	// b is active. The agent drains both and is disabled: on the standby site a
	// drain is as it should be, on the active one it is not tandem's to undo.
	say("drain")
	i.until("drained by the agent", func(o Observation) bool {
		return adminOf(t, o.Servers, "a-agent") == "FDRAIN" && adminOf(t, o.Servers, "b-agent") == "FDRAIN"
	})
	p.Do("disable agent be/a-agent")
	p.Do("disable agent be/b-agent")
	i.until("left as a person's", func(o Observation) bool {
		return heldAs(o, "b-agent") == HoldDrain && heldAs(o, "a-agent") == "" && adminOf(t, o.Servers, "b-agent") == "FDRAIN"
	})
	p.Do("set server be/b-agent state ready")
	p.Do("set server be/a-agent state ready")
	i.until("like any other", func(o Observation) bool {
		return heldAs(o, "b-agent") == "" && adminOf(t, o.Servers, "b-agent") == "none" && adminOf(t, o.Servers, "a-agent") == "FDRAIN"
	})
}

// nameServer answers every question for an address with three, once told to.
func nameServer(t *testing.T) (address string, resolve func()) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var known atomic.Bool
	server := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA && known.Load() {
			for last := range byte(3) { // one each: HAProxy gives no address to two slots
				answer.Answer = append(answer.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1+last),
				})
			}
		} else {
			answer.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(answer)
	})}
	done := make(chan struct{})
	go func() { _ = server.ActivateAndServe(); close(done) }()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return c.LocalAddr().String(), func() { known.Store(true) }
}

func TestUnresolvedServersAreLeftAloneUntilTheyResolve(t *testing.T) {
	address, resolve := nameServer(t)
	p := haproxytest.Start(t, haproxytest.Global+`
resolvers r
  nameserver n `+address+`
  timeout resolve 100ms
  timeout retry 100ms
  hold nx 0s
  hold valid 100ms
backend be
  server a-1 127.0.0.1:9
  server b-dns server.example:80 resolvers r init-addr none
  server-template a-slot 2 server.example:80 resolvers r init-addr none
`)
	i := run(t, Config{Socket: p.Socket})
	got := i.applied(toA)
	for _, name := range []string{"b-dns", "a-slot1", "a-slot2"} {
		if adminOf(t, got.Servers, name) != "RMAINT" || heldAs(got, name) != HoldUnresolved {
			t.Fatalf("%s %+v", states(got.Servers), got.Held)
		}
	}
	if got.Changes != 0 {
		t.Fatalf("%d commands sent", got.Changes)
	}
	resolve()
	got, d := i.until("resolved: a slot of the active site serves, the standby server is drained", func(o Observation) bool {
		return adminOf(t, o.Servers, "b-dns") == "FDRAIN" && adminOf(t, o.Servers, "a-slot1") == "none" && o.Applied == 1
	})
	t.Logf("after %v: %s", d, states(got.Servers))
}

func TestServersAddedAndRemovedAtRunTime(t *testing.T) {
	p := start(t, 1)
	i := run(t, Config{Socket: p.Socket})
	i.applied(toA)
	experimental := ""
	if !p.AtLeast(2, 5) { // until then these commands were hidden
		experimental = "experimental-mode on;"
	}
	if answer := p.Do(experimental + "add server be/b-new 127.0.0.1:9"); !strings.Contains(answer, "New server registered") {
		t.Fatal(answer)
	}
	got, _ := i.until("added", func(o Observation) bool { return len(o.Servers) == 3 })
	if heldAs(got, "b-new") != HoldMaintenance { // as HAProxy adds them
		t.Fatalf("%s %+v", states(got.Servers), got.Held)
	}
	p.Do("set server be/b-new state ready")
	i.until("drained", func(o Observation) bool { return adminOf(t, o.Servers, "b-new") == "FDRAIN" })
	p.Do("set server be/b-new state maint")
	if answer := p.Do(experimental + "del server be/b-new"); !strings.Contains(answer, "Server deleted") {
		t.Fatal(answer)
	}
	i.until("removed", func(o Observation) bool { return len(o.Servers) == 2 && o.Applied == 1 })
	i.applied(toB)
}

// A server that is deleted and added anew, drained by a person, was not drained by
// tandem, whatever the one before was. On the site that is standby its drain shows
// whose it is at the next switch.
func TestADeletedServerIsForgotten(t *testing.T) {
	for _, c := range []struct {
		server string
		to     Desired // where it is active
	}{{"b-1", toB}, {"a-1", Desired{Epoch: 4, Rules: toA.Rules}}} {
		t.Run(c.server, func(t *testing.T) {
			p := start(t, 2)
			if !p.AtLeast(2, 5) {
				t.Skip("SKIPPED, NOT TESTED: HAProxy 2.4 deletes only what was added at run time; see TestServersAddedAndRemovedAtRunTime")
			}
			i := run(t, Config{Socket: p.Socket})
			i.applied(toA)
			id := "be/" + c.server
			if c.server == "a-1" {
				i.applied(toB) // so that tandem has drained it
			}
			if answer := p.Do("set server " + id + " state maint;del server " + id); !strings.Contains(answer, "Server deleted") {
				t.Fatal(answer)
			}
			i.until("deleted", func(o Observation) bool { return len(o.Servers) == 3 && o.Applied != 0 })
			if answer := p.Do("add server " + id + " 127.0.0.1:9;set server " + id + " state drain"); !strings.Contains(answer, "New server registered") {
				t.Fatal(answer)
			}
			i.until("added", func(o Observation) bool { return len(o.Servers) == 4 && adminOf(t, o.Servers, c.server) == "FDRAIN" })
			got := i.applied(c.to)
			if adminOf(t, got.Servers, c.server) != "FDRAIN" || heldAs(got, c.server) != HoldDrain {
				t.Fatalf("%s %+v", states(got.Servers), got.Held)
			}
			p.Do("set server " + id + " state ready")
			i.until("given back", func(o Observation) bool {
				return adminOf(t, o.Servers, c.server) == "none" && heldAs(o, c.server) == ""
			})
		})
	}
}

func TestReadyIsReadBackBeforeAnyDrain(t *testing.T) {
	for _, drainFirst := range []bool{false, true} {
		f := haproxytest.StartFake(t, "be/a-1", "be/a-2", "be/b-1", "be/b-2")
		i := run(t, Config{Socket: f.Socket})
		i.applied(toA)
		before := len(f.Log())
		d := toB
		d.DrainFirst = drainFirst
		i.applied(d)
		want := []string{
			"set server be/b-1 state ready", "set server be/b-2 state ready",
			"set server be/a-1 state drain", "set server be/a-2 state drain",
		}
		if drainFirst {
			want = append(want[2:], want[:2]...)
		}
		if got := f.Log()[before:]; !slices.Equal(got, want) {
			t.Errorf("drain first %v: %q", drainFirst, got)
		}
		i.stop()
	}
}

// Whose drain it was survives a restart of the sidecar.
func TestJournalSurvivesTheSidecar(t *testing.T) {
	p := start(t, 2)
	cfg := Config{Socket: p.Socket, JournalFile: filepath.Join(p.Dir, "journal")}
	i := run(t, cfg)
	i.applied(toA)
	p.Do("set server be/a-2 state drain") // a person
	i.until("held", func(o Observation) bool { return heldAs(o, "a-2") == HoldDrain })
	i.stop()
	p.Do("set server be/a-1 state drain") // a person, while nobody looks
	i = run(t, cfg)
	got := i.applied(toB) // the decision changed meanwhile
	if want := "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=none be/b-2=none"; states(got.Servers) != want {
		t.Fatalf("%s", states(got.Servers))
	}
	got = i.applied(Desired{Epoch: 5, Rules: toA.Rules})
	if want := "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=FDRAIN be/b-2=FDRAIN"; states(got.Servers) != want || len(got.Held) != 2 {
		t.Fatalf("%s %+v", states(got.Servers), got.Held)
	}
}

// With nothing remembered, a drain is ours on the standby site and a person's on
// the active one.
func TestFirstStartWithoutAJournal(t *testing.T) {
	p := start(t, 2)
	p.Do("set server be/a-1 state drain")
	p.Do("set server be/b-1 state drain")
	i := run(t, Config{Socket: p.Socket})
	got := i.applied(toA)
	if heldAs(got, "a-1") != HoldDrain || heldAs(got, "b-1") != "" {
		t.Fatalf("%+v", got.Held)
	}
	got = i.applied(toB)
	if want := "be/a-1=FDRAIN be/a-2=FDRAIN be/b-1=none be/b-2=none"; states(got.Servers) != want {
		t.Fatalf("%s", states(got.Servers))
	}
}
