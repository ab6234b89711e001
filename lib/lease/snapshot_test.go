package lease

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// succeeding is the same script, in which now and then a machine is replaced by
// one that is made from its snapshot: at once, or after a while in which nobody
// is there.
func (s script) succeeding(seed uint64) script {
	g := &drawer{rand: random(seed * 0x6c62272e07bb0142)}
	var out script
	for _, line := range s {
		f := strings.Fields(line)
		if f[0] == "start" && !slices.Contains(g.names, f[1]) {
			g.names = append(g.names, f[1])
		}
		out = append(out, line)
		if f[0] != "run" || len(g.names) == 0 {
			continue
		}
		switch n := g.name(); g.below(6) {
		case 0, 1:
			out = append(out, "succeed "+g.anyone())
		case 2:
			out = append(out, "freeze "+n, fmt.Sprintf("run %v", g.rand.upTo(time.Second).Round(100*time.Microsecond)), "succeed "+n)
		}
	}
	return out
}

// TestNoTwoHoldersWhereProgramsAreReplaced is the simulation with replaced
// programs.
func TestNoTwoHoldersWhereProgramsAreReplaced(t *testing.T) {
	enough := 150_000
	if os.Getenv("TANDEM_TEST_SOAK") != "" {
		enough = 10_000_000
	}
	steps, successions, first := 0, 0, firstSeed(t)
	seed := first
	for ; steps < enough && !t.Failed(); seed++ {
		s := draw(seed).succeeding(seed)
		p := s.run(nil)
		steps += p.w.steps
		for _, line := range s {
			if strings.HasPrefix(line, "succeed") {
				successions++
			}
		}
		if p.w.failed() {
			s.report(t, seed)
		}
	}
	t.Logf("seeds %d to %d: %d steps, %d times a program was replaced", first, seed-1, steps, successions)
}

// forgetful are snapshots from which one thing is missing. What it is there for
// is what must be seen to break. (That nothing at all is missing is
// TestNothingIsForgotten.)
var forgetful = []mutant{
	{name: "the lease that a voter remembers", breaks: exclusion, seeds: 300, forget: eachVoter(func(v *voterState) { v.Vote, v.Expires = Ballot{}, 0 })},
	{name: "until when a voter remembers it", breaks: exclusion, seeds: 300, forget: eachVoter(func(v *voterState) { v.Expires = 0 })},
	{name: "the value that a voter accepted", breaks: decisions, seeds: 300, forget: eachVoter(func(v *voterState) { v.Record = Record{} })},
	{name: "which ballots are released", breaks: exclusion, seeds: 300, forget: eachVoter(func(v *voterState) { v.Released = Ballot{} })},
	{name: "which life of a voter counts", breaks: oneLife, seeds: 300, forget: func(s *Snapshot) {
		for i := range s.Peers {
			s.Peers[i].Owner, s.Peers[i].Since = Owner{}, 0
		}
	}},
}

func eachVoter(change func(*voterState)) func(*Snapshot) {
	return func(s *Snapshot) {
		for i := range s.Resources {
			change(&s.Resources[i].Voter)
		}
	}
}

// TestForgetfulSnapshotsFail shows that the simulation finds a program that was
// not told everything.
func TestForgetfulSnapshotsFail(t *testing.T) {
	for i := range forgetful {
		m := &forgetful[i]
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			steps := 0
			for seed := uint64(1); seed <= m.seeds; seed++ {
				p := draw(seed).succeeding(seed).run(m)
				steps += p.w.steps
				if p.w.failed() {
					t.Logf("found with seed %d, after %d steps: %s", seed, steps, p.w.check.failure)
					return
				}
			}
			t.Errorf("not found within %d seeds, %d steps", m.seeds, steps)
		})
	}
}

// TestAReplacedMachineGoesOnAsTheSame: where every machine is replaced after each
// step, exactly the same messages pass at the same times, and the same happens.
func TestAReplacedMachineGoesOnAsTheSame(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		var told [2]string
		for i := range told {
			p := &play{}
			var b strings.Builder
			lines := draw(seed)
			for k, line := range lines[:len(lines)/12] {
				if err := p.do(line); err != nil {
					t.Fatal(err)
				}
				if k == 0 {
					p.messages, p.w.replaced = true, i == 1
				}
				b.WriteString(p.told())
			}
			told[i] = b.String()
		}
		if told[0] == told[1] {
			continue
		}
		a, b := strings.Split(told[0], "\n"), strings.Split(told[1], "\n")
		for i := range a {
			if i >= len(b) || a[i] != b[i] {
				t.Fatalf("seed %d: line %d differs:\n%s\n%s", seed, i, a[i], strings.Join(b[min(i, len(b)):min(i+1, len(b))], ""))
			}
		}
	}
}

// TestNothingIsForgotten compares every field of a machine with that of its
// successor, at many moments of some runs, and sees that each field of a snapshot
// had something in it at some time.
func TestNothingIsForgotten(t *testing.T) {
	used := map[string]bool{}
	for seed := uint64(1); seed <= 8 && !t.Failed(); seed++ {
		p := &play{silent: true}
		for k, line := range draw(seed) {
			if err := p.do(line); err != nil {
				t.Fatal(err)
			}
			for _, n := range p.w.nodes {
				if n.m != nil && k%9 == 0 {
					compare(t, n, used)
				}
			}
		}
	}
	pairs := &play{silent: true} // going on alone
	for _, line := range []string{"cluster voters=(a,b) mode=pair", "start a", "start b", "stand a", "reach a", "run 5s", "cut a b", "run 1s", "run 1s"} {
		if err := pairs.do(line); err != nil {
			t.Fatal(err)
		}
		for _, n := range pairs.w.nodes {
			if n.m != nil {
				compare(t, n, used)
			}
		}
	}
	// What a simulated node does seldom or never: a fence that needs a longer lease,
	// a candidate that bids at once, a holder that is outbid, nodes without a vote.
	n := pairs.w.node("a")
	n.m.floor, n.m.resources[0].immediate, n.m.resources[0].rebid = time.Second, true, true
	n.m.strangers = []stranger{{name: "x", at: time.Hour, settings: 7}}
	compare(t, n, used)
	for _, path := range paths(reflect.TypeFor[Snapshot](), "") {
		if !used[path] {
			t.Errorf("%s was empty all the time: that it is passed on was not seen", path)
		}
	}
}

func compare(t *testing.T, n *node, used map[string]bool) {
	t.Helper()
	text, err := json.Marshal(n.m.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	fill(reflect.ValueOf(s), "", used)
	cfg := n.m.cfg
	cfg.Incarnation = Incarnation{0xff} // the snapshot's counts
	next, err := Restore(cfg, s, n.m.now)
	if err != nil {
		t.Fatal(err)
	}
	was, is := reflect.ValueOf(*n.m), reflect.ValueOf(*next)
	for i := range was.NumField() {
		switch name := was.Type().Field(i).Name; name {
		case "cfg", "rules", "from", "out", "outbox", "others": // configuration, and what lasts a step
		default:
			if a, b := dump(was.Field(i)), dump(is.Field(i)); a != b {
				t.Fatalf("%s at %v: %s was\n%s\nand is\n%s", n.name, n.m.now, name, a, b)
			}
		}
	}
}

// dump prints a value with all that it points to; empty slices and nil alike,
// except where nil means something.
func dump(v reflect.Value) string {
	var b strings.Builder
	if kind := v.Kind(); kind == reflect.Pointer {
		return dump(v.Elem())
	} else if kind == reflect.Slice || kind == reflect.Array {
		for i := range v.Len() {
			b.WriteString(dump(v.Index(i)) + " ")
		}
		return "[" + b.String() + "]"
	} else if kind != reflect.Struct {
		return fmt.Sprint(v)
	}
	for i := range v.NumField() {
		fmt.Fprintf(&b, "%s:%s ", v.Type().Field(i).Name, dump(v.Field(i)))
		if v.Type().Field(i).Name == "pending" {
			fmt.Fprintf(&b, "(nil %v) ", v.Field(i).IsNil())
		}
	}
	return "{" + b.String() + "}"
}

// paths lists the fields of a snapshot that have no fields of their own.
func paths(typ reflect.Type, at string) []string {
	switch kind := typ.Kind(); {
	case (kind == reflect.Slice || kind == reflect.Array) && typ.Elem().Kind() == reflect.Struct:
		return paths(typ.Elem(), at)
	case kind != reflect.Struct:
		return []string{at}
	}
	if typ == reflect.TypeFor[Ballot]() || typ == reflect.TypeFor[Owner]() || typ == reflect.TypeFor[Record]() || typ == reflect.TypeFor[Item]() || typ == reflect.TypeFor[Value]() {
		return []string{at}
	}
	var out []string
	for f := range typ.Fields() {
		out = append(out, paths(f.Type, strings.TrimPrefix(at+"."+f.Name, "."))...)
	}
	return out
}

func fill(v reflect.Value, at string, used map[string]bool) {
	leaf := paths(v.Type(), at)
	switch {
	case len(leaf) == 1 && leaf[0] == at:
		used[at] = used[at] || !v.IsZero()
	case v.Kind() == reflect.Slice || v.Kind() == reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), at, used)
		}
	default:
		for i := range v.NumField() {
			fill(v.Field(i), strings.TrimPrefix(at+"."+v.Type().Field(i).Name, "."), used)
		}
	}
}

// TestSnapshotsAreNotMistaken: what is of another node, of another configuration
// or of a later time is refused.
func TestSnapshotsAreNotMistaken(t *testing.T) {
	cfg := Config{Node: "a", Incarnation: Incarnation{1}, Voters: []string{"a", "b", "w"}, MaxLease: 2 * time.Second, Tuning: Tuning{Fixed: time.Second}}
	m, err := New(cfg, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	m.Step(time.Hour, Stand{Resource: "vip", Willing: true})
	good := m.Snapshot()
	if _, err := Restore(cfg, good, time.Hour+time.Minute); err != nil {
		t.Errorf("a sound snapshot: %v", err)
	}
	for name, change := range map[string]func(*Config, *Snapshot, *time.Duration){
		"another node":          func(c *Config, _ *Snapshot, _ *time.Duration) { c.Node = "b" },
		"other voters":          func(c *Config, _ *Snapshot, _ *time.Duration) { c.Voters = []string{"a", "b", "c"} },
		"another longest lease": func(c *Config, _ *Snapshot, _ *time.Duration) { c.MaxLease = 3 * time.Second },
		"a later time":          func(_ *Config, _ *Snapshot, now *time.Duration) { *now = time.Hour - 1 },
		"no incarnation":        func(_ *Config, s *Snapshot, _ *time.Duration) { s.Incarnation = Incarnation{} },
		"an impossible phase":   func(_ *Config, s *Snapshot, _ *time.Duration) { s.Resources[0].Phase = 9 },
	} {
		c, s, now := cfg, good, time.Hour
		s.Resources = slices.Clone(good.Resources)
		change(&c, &s, &now)
		if _, err := Restore(c, s, now); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestAReplacementDoesNotMakeTheLeaseLonger: that nobody answered while there was
// nobody is no gap that the lease must allow for.
func TestAReplacementDoesNotMakeTheLeaseLonger(t *testing.T) {
	p := &play{silent: true}
	do := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			if err := p.do(line); err != nil {
				t.Fatal(err)
			}
		}
	}
	do("cluster voters=(a,b,w) auto", "net latency=1ms", "start a", "start b", "start w", "stand a", "run 90s")
	asked := func() time.Duration { return p.w.node("a").m.Status(p.w.node("a").local(p.w.now))[0].Asked }
	before := asked()
	do("freeze a", "run 200ms", "succeed a", "run 1s", "expect-holder")
	if h := p.w.holder("vip"); h == nil || h.name != "a" || p.w.failed() {
		t.Fatalf("holder %v after a replacement that took less than the lease: %s", h, p.w.check.failure)
	}
	if after := asked(); after != before {
		t.Errorf("asks for %v after the replacement, %v before", after, before)
	}
}

// shape writes out what a machine consists of.
func shape(typ reflect.Type, seen map[reflect.Type]bool) string {
	switch kind := typ.Kind(); {
	case kind == reflect.Pointer || kind == reflect.Slice || kind == reflect.Array:
		return kind.String() + " of " + shape(typ.Elem(), seen)
	case kind != reflect.Struct:
		return kind.String()
	}
	if seen[typ] {
		return typ.Name()
	}
	seen[typ] = true
	var b strings.Builder
	for f := range typ.Fields() {
		fmt.Fprintf(&b, "%s %s; ", f.Name, shape(f.Type, seen))
	}
	return typ.Name() + "{" + b.String() + "}"
}

// TestTheVersionOfASnapshotFollowsTheMachine: who changes what a machine knows
// has to think of its snapshot, and to give that a new version.
func TestTheVersionOfASnapshotFollowsTheMachine(t *testing.T) {
	const known = "1: 3a19dae3f302d756"
	h := uint64(14695981039346656037)
	for _, b := range []byte(shape(reflect.TypeFor[Machine](), map[reflect.Type]bool{}) + shape(reflect.TypeFor[Snapshot](), map[reflect.Type]bool{})) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	if is := fmt.Sprintf("%d: %x", SnapshotVersion, h); is != known {
		t.Errorf("the machine or its snapshot consists of something else than before: pass it on in snapshot.go, raise SnapshotVersion, and write %q here (it was %q)", is, known)
	}
}
