package site

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestTranscripts plays the stories of testdata/stories. Each line of output carries
// the time since the command before it, in milliseconds.
//
// Commands: cluster, see, lb, hooks, hook, adopt, kill, run, takeover,
// renounce, pause, resume, ack, rules, routes, status, decision.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		t.Helper()
		p := &player{t: t}
		datadriven.RunTest(t, path, p.play)
	})
}

type player struct {
	t   *testing.T
	s   *sim
	out strings.Builder
	ids int
}

func (p *player) play(t *testing.T, td *datadriven.TestData) string {
	t.Helper()
	p.out.Reset()
	if td.Cmd == "cluster" {
		p.cluster(td)
		return "ok\n"
	}
	start := p.s.now
	p.s.print = func(format string, args ...any) {
		fmt.Fprintf(&p.out, "%5d  %s\n", (p.s.now - start).Milliseconds(), fmt.Sprintf(format, args...))
	}
	p.do(td)
	if p.out.Len() == 0 {
		return "nothing\n"
	}
	return p.out.String()
}

func (p *player) do(td *datadriven.TestData) {
	s := p.s
	switch td.Cmd {
	case "adopt":
		s.start(td.HasArg("blank"))
		s.run(p.span(td, "for", 0))
	case "kill":
		s.kill(td.HasArg("accepted"))
	case "run":
		s.run(p.span(td, "for", time.Second))
	case "see":
		p.see(td)
	case "lb":
		p.lb(td)
	case "hooks":
		for _, a := range td.CmdArgs {
			s.policy[HookKind(a.Key)] = a.Vals[0]
		}
	case "hook":
		for _, h := range append([]HookRun(nil), s.hooks...) {
			if string(h.Kind) == td.CmdArgs[0].Key {
				s.answer(h, td.CmdArgs[1].Key)
			}
		}
		s.run(p.span(td, "for", time.Second))
	case "rules":
		for _, r := range Rules(s.cfg, s.cur, !td.HasArg("isolated")) {
			text := ""
			if r.Close {
				text = ", close"
			}
			fmt.Fprintf(&p.out, "%s: %s%s\n", r.Pattern, r.Want, text)
		}
	case "routes":
		for _, g := range s.cfg.Groups() {
			fmt.Fprintf(&p.out, "%s: %s\n", g, strings.Join(s.routes(g), " and "))
		}
	case "status":
		for _, g := range s.d.Status() {
			fmt.Fprintf(&p.out, "%s: active %q, target %q, phase %q, %s; %s (%s) %v\n", g.Decision.In(), g.Decision.Active,
				g.Decision.Target, g.Decision.Phase, g.Decision.Reason, g.Stay, g.Detail, g.Waiting)
		}
	case "decision":
		b, err := Encode(s.cur)
		fmt.Fprintf(&p.out, "epoch %d: %s %v\n", s.epoch, b, err)
	default:
		p.command(td)
	}
}

// span reads a duration argument.
func (p *player) span(td *datadriven.TestData, key string, d time.Duration) time.Duration {
	if !td.HasArg(key) {
		return d
	}
	var v string
	td.ScanArgs(p.t, key, &v)
	d, err := time.ParseDuration(v)
	if err != nil {
		td.Fatalf(p.t, "%v", err)
	}
	return d
}

// cluster builds one: order=, lbs=(…), independent=(…), hooks=(…), auto=,
// downafter=, failback=, drain=, cold.
func (p *player) cluster(td *datadriven.TestData) {
	cfg := Config{IsolatedAfter: simIsolated}
	lbs := []string{"lb1", "lb2"}
	sites := []string{"a", "b"}
	for _, a := range td.CmdArgs {
		switch a.Key {
		case "order":
			cfg.Order = Order(a.Vals[0])
		case "lbs":
			lbs = a.Vals
		case "sites":
			sites = a.Vals
		case "independent":
			cfg.Independent = a.Vals
		case "hooks":
			for _, v := range a.Vals {
				cfg.Hooks.Precheck = cfg.Hooks.Precheck || v == "precheck"
				cfg.Hooks.Takeover = cfg.Hooks.Takeover || v == "takeover"
				cfg.Hooks.Renounce = cfg.Hooks.Renounce || v == "renounce"
				cfg.Hooks.Notify = cfg.Hooks.Notify || v == "notify"
			}
		case "auto":
			if err := cfg.Auto.UnmarshalText([]byte(strings.ReplaceAll(a.Vals[0], ":", "="))); err != nil {
				td.Fatalf(p.t, "%v", err)
			}
		case "downafter":
			cfg.DownAfter = p.span(td, a.Key, 0)
		case "failback":
			cfg.Failback = p.span(td, a.Key, 0)
		case "drain":
			cfg.DrainTimeout = p.span(td, a.Key, 0)
		case "cold":
			cfg.Cold = true
		default:
			td.Fatalf(p.t, "unknown argument %s", a.Key)
		}
	}
	for _, name := range sites {
		cfg.Sites = append(cfg.Sites, Site{Name: name, Patterns: []string{"*/" + name + "-*"}})
	}
	p.s = newSim(p.t, cfg, lbs...)
}

// see changes what load balancers see: `see * a=down`, `see lb1 amq/b=up`.
func (p *player) see(td *datadriven.TestData) {
	for _, a := range td.CmdArgs[1:] {
		if a.Key == "for" {
			continue
		}
		group, site, ok := strings.Cut(a.Key, "/")
		if !ok {
			group, site = DefaultGroup, a.Key
		}
		p.s.set(td.CmdArgs[0].Key, group, site, a.Vals[0] == "up")
	}
	p.s.tell()
	p.s.run(p.span(td, "for", time.Second))
}

// lb changes load balancers: `lb lb2 off`; on, cut, heal, mute, stale, fresh,
// hang, answer, barred, free.
func (p *player) lb(td *datadriven.TestData) {
	s, l := p.s, p.s.lb(td.CmdArgs[0].Key)
	switch what := td.CmdArgs[1].Key; what {
	case "off":
		s.powerOff(l)
	case "on":
		s.powerOn(l)
	case "cut":
		s.sever(l)
	case "heal":
		s.heal(l)
	case "mute":
		l.mute = true
	case "stale", "fresh":
		l.stale = what == "stale"
	case "hang", "answer":
		s.hang(l, what == "hang")
	case "stuck", "loose":
		l.stuck = what == "stuck"
		s.inform(l)
	case "barred", "free":
		l.barred = what == "barred"
	case "drained":
		for _, v := range td.CmdArgs[1].Vals {
			l.ready[DefaultGroup+"/"+v] = false
		}
		s.look(l)
	default:
		td.Fatalf(p.t, "unknown state %s", what)
	}
	s.tell()
	s.run(p.span(td, "for", 0))
}

func (p *player) command(td *datadriven.TestData) {
	p.ids++
	c := Command{ID: fmt.Sprint(p.ids), Kind: CommandKind(td.Cmd), Actor: "ann", Duration: p.span(td, "length", 0)}
	for _, a := range td.CmdArgs {
		switch a.Key {
		case "group":
			c.Group = a.Vals[0]
		case "force":
			c.Force = true
		case "for", "length":
		default:
			c.Site = a.Key
		}
	}
	p.s.step(c)
	p.s.run(p.span(td, "for", time.Second))
}
