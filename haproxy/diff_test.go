package haproxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func genServer(t *rapid.T, label string) Server {
	return Server{
		ServerID: ServerID{
			Backend: rapid.SampledFrom([]string{"be", "mq", "x;y"}).Draw(t, label+" backend"),
			Server:  rapid.SampledFrom([]string{"a-1", "a-2", "b-1", "b-2", "z", "b 1", "#1"}).Draw(t, label+" server"),
		},
		Admin:         Admin(rapid.IntRange(0, 127).Draw(t, label+" admin")),
		Oper:          Oper(rapid.IntRange(0, 3).Draw(t, label+" oper")),
		Weight:        rapid.IntRange(0, 2).Draw(t, label+" weight"),
		InitialWeight: 1,
		Agent:         rapid.Bool().Draw(t, label+" agent"),
	}
}

func genDesired(t *rapid.T) Desired {
	rule := rapid.Custom(func(t *rapid.T) Rule {
		return Rule{
			Pattern: rapid.SampledFrom([]string{"*/a-*", "*/b-*", "be/*", "*/*", "mq/?-1", "none/*"}).Draw(t, "pattern"),
			Want:    rapid.SampledFrom([]Want{Ready, Drain}).Draw(t, "want"),
			Close:   rapid.Bool().Draw(t, "close"),
		}
	})
	return Desired{Epoch: 1, Rules: rapid.SliceOfN(rule, 0, 4).Draw(t, "rules"), DrainFirst: rapid.Bool().Draw(t, "drain first")}
}

func genJournal(t *rapid.T, servers []Server) Journal {
	var j Journal
	for _, s := range servers {
		switch rapid.IntRange(0, 2).Draw(t, "journal") {
		case 1:
			note(&j, s.ServerID, entry{Origin: ours, Seen: true})
		case 2:
			note(&j, s.ServerID, entry{Origin: theirs, Seen: true})
		}
	}
	return j
}

func genServers(t *rapid.T) []Server {
	servers := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Server { return genServer(t, "server") }), 0, 6).Draw(t, "servers")
	slices.SortFunc(servers, func(a, b Server) int { return a.Compare(b.ServerID) })
	return slices.CompactFunc(servers, func(a, b Server) bool { return a.ServerID == b.ServerID })
}

// obey does to a server what HAProxy 2.6 does: one register, the last writer wins.
func obey(a Admin, w Want) Admin {
	switch w {
	case Ready:
		return a &^ (FMaint | FDrain)
	case Drain:
		return a&^FMaint | FDrain
	}
	panic("no such want")
}

// The property of the package: whatever the admin bits, whatever is desired, the
// diff never takes a server out of what a person put it into, and never sends
// what could be read as another command.
func TestDiffNeverUndoesWhatAPersonDid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		servers, desired := genServers(t), genDesired(t)
		journal := genJournal(t, servers)
		for _, c := range Diff(desired, servers, journal) {
			at := slices.IndexFunc(servers, func(s Server) bool { return s.ServerID == c.ServerID })
			if at < 0 {
				t.Fatalf("%s: no such server", c)
			}
			s := servers[at]
			rule, ok := desired.Rule(s.ServerID)
			after := obey(s.Admin, c.Want)
			switch {
			case !ok || rule.Want != c.Want:
				t.Fatalf("%s: nobody wants that", c)
			case s.Admin.Has(FMaint | IMaint | RMaint):
				t.Fatalf("%s: it is in %s", c, s.Admin)
			case s.Agent:
				t.Fatalf("%s: it has an agent", c)
			case s.Admin.Has(FDrain) && !after.Has(FDrain) && !journal.Ours(s.ServerID):
				t.Fatalf("%s: a person drained it", c)
			case (s.Admin^after)&^FDrain != 0:
				t.Fatalf("%s: %s becomes %s", c, s.Admin, after)
			case s.Admin == after:
				t.Fatalf("%s: changes nothing", c)
			case strings.ContainsAny(c.String(), ";\n\r#\\") || len(strings.Fields(c.String())) != 5:
				t.Fatalf("%q is not one command", c)
			}
		}
	})
}

// The same for every combination there is, one server at a time.
func TestEveryCombinationOfAdminBitsAndWants(t *testing.T) {
	id := ServerID{"be", "a-1"}
	journals := map[string]Journal{
		"nothing": {}, "ours": {drains: map[ServerID]entry{id: {Origin: ours, Seen: true}}},
		"theirs": {drains: map[ServerID]entry{id: {Origin: theirs, Seen: true}}},
	}
	checked := 0
	for admin := range Admin(1 << 7) {
		for _, want := range []Want{Ready, Drain} {
			for known, journal := range journals {
				for _, agent := range []bool{false, true} {
					checked++
					s := Server{ServerID: id, Admin: admin, Agent: agent, Weight: 1, InitialWeight: 1}
					commands := Diff(Desired{Rules: []Rule{{Pattern: "*/*", Want: want}}}, []Server{s}, journal)
					may := !agent && !admin.Has(FMaint|IMaint|RMaint) &&
						(want == Drain && !admin.Has(FDrain|IDrain) || want == Ready && admin.Has(FDrain) && known == "ours")
					if may != (len(commands) == 1) {
						t.Errorf("%s, wanted %s, drained by %s, agent %v: %v", admin, want, known, agent, commands)
					}
				}
			}
		}
	}
	if checked != 128*2*3*2 {
		t.Errorf("%d combinations", checked)
	}
}

// After the commands are carried out there is nothing left to do, and whatever is
// not as the rule wants it is reported as held.
func TestDiffConvergesInOneRoundAndNamesTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		servers, desired := genServers(t), genDesired(t)
		journal := genJournal(t, servers)
		commands := Diff(desired, servers, journal)
		journal = journal.Intend(commands, time.Time{})
		for _, c := range commands {
			for n := range servers {
				if servers[n].ServerID == c.ServerID {
					servers[n].Admin = obey(servers[n].Admin, c.Want)
				}
			}
		}
		if rest := Diff(desired, servers, journal); len(rest) > 0 {
			t.Fatalf("left: %v", rest)
		}
		held := Holds(desired, servers, journal)
		for _, s := range servers {
			rule, ok := desired.Rule(s.ServerID)
			as := slices.ContainsFunc(held, func(h Hold) bool { return h.ServerID == s.ServerID })
			if right := s.Drained() == (rule.Want == Drain) && !s.Admin.Has(inMaintenance); ok && !right && !as {
				t.Fatalf("%s is %s, wanted %s, and held by nobody", s.ServerID, s.Admin, rule.Want)
			}
			if as && !ok {
				t.Fatalf("%s is held, and no rule covers it", s.ServerID)
			}
		}
	})
}

// Against a second implementation, as dumb as can be.
func TestDiffAgainstTheObvious(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		servers, desired := genServers(t), genDesired(t)
		journal := genJournal(t, servers)
		var want []string
		for _, pass := range []Want{Ready, Drain} {
			if desired.DrainFirst {
				pass = Drain - pass
			}
			for _, s := range servers {
				wanted, found := Ready, false
				for _, r := range slices.Backward(desired.Rules) {
					if Match(r.Pattern, s.ServerID) {
						wanted, found = r.Want, true
					}
				}
				if !found || wanted != pass || s.Agent || s.Admin&0b100011 != 0 || !s.Valid() {
					continue
				}
				if wanted == Drain && s.Admin&0b11000 == 0 || wanted == Ready && s.Admin&0b1000 != 0 && journal.Ours(s.ServerID) {
					want = append(want, "set server "+s.Backend+"/"+s.Server+" state "+wanted.String())
				}
			}
		}
		var got []string
		for _, c := range Diff(desired, servers, journal) {
			got = append(got, c.String())
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
	})
}

func TestAdminStateIsDecimal(t *testing.T) {
	for value, want := range map[Admin]string{
		0: "none", 1: "FMAINT", 2: "IMAINT", 4: "CMAINT", 5: "FMAINT+CMAINT", 8: "FDRAIN", 10: "IMAINT+FDRAIN",
		12: "CMAINT+FDRAIN", 16: "IDRAIN", 24: "FDRAIN+IDRAIN", 32: "RMAINT", 64: "FQDN", 128: "unknown",
	} {
		if got := value.String(); got != want {
			t.Errorf("%d is %s, want %s", value, got, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, backend, server string
		want                     bool
	}{
		{"*/a-*", "be", "a-1", true},
		{"*/a-*", "be", "a-", true},
		{"*/a-*", "be", "ba-1", false},
		{"be/*", "be", "x", true},
		{"be/*", "bee", "x", false},
		{"b?/a-1", "be", "a-1", true},
		{"b?/a-1", "b", "a-1", false},
		{"*/*", "x", "y", true},
		{"*a*b*/x", "xaxxbx", "x", true},
		{"*a*b*/x", "xbxxax", "x", false},
		{"be/a.1:2_3-4", "be", "a.1:2_3-4", true},
		{"a-1", "be", "a-1", false},
	} {
		if got := Match(c.pattern, ServerID{c.backend, c.server}); got != c.want {
			t.Errorf("%s on %s/%s: %v", c.pattern, c.backend, c.server, got)
		}
	}
	for _, bad := range []string{"", "a", "/", "a/", "/a", "a/b/c", "a;b/c", "a b/c", "a/b\n", "#1/a", "a/[ab]", "a/ä", strings.Repeat("a", 600) + "/b"} {
		if err := ValidPattern(bad); err == nil {
			t.Errorf("%q is let through", bad)
		}
	}
	for _, good := range []string{"*/a-*", "be/s1", "b.e_x:1/?"} {
		if err := ValidPattern(good); err != nil {
			t.Error(err)
		}
	}
}

// No goroutine, channel, select or ranging over a map in what is pure.
func TestDiffAndJournalArePure(t *testing.T) {
	for _, name := range []string{"diff.go", "journal.go", "pattern.go", "server.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if !slices.Contains([]string{`"cmp"`, `"errors"`, `"fmt"`, `"maps"`, `"slices"`, `"strings"`, `"time"`}, i.Path.Value) {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType, *ast.SendStmt:
				t.Errorf("%s: %T", name, n)
			case *ast.RangeStmt:
				if x, ok := n.X.(*ast.SelectorExpr); ok && x.Sel.Name == "drains" {
					t.Errorf("%s ranges over a map", name)
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && (n.Sel.Name == "Now" || n.Sel.Name == "Since") {
					t.Errorf("%s reads the clock", name)
				}
			}
			return true
		})
	}
}
