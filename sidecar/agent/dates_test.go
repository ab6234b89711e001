package agent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/sidecar/site"
	"tandem/sidecar/status"
)

// TestTheWallClockIsReadInOnePlace: what is decided goes by Deps.Now, which nobody
// can set, and what people read by Deps.Wall, which a test can.
func TestTheWallClockIsReadInOnePlace(t *testing.T) {
	var found []string
	files, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				x, isName := s.X.(*ast.Ident)
				if isName && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, s.Sel.Name) {
					found = append(found, set.Position(n.Pos()).String())
				}
			}
			return true
		})
	}
	if len(found) != 1 || !strings.HasPrefix(found[0], "agent.go:") {
		t.Errorf("the clock is read at %v; want once, where New fills in Deps.Wall", found)
	}
}

// TestDecisionsAreDatedByThisNodesClock plays what a node learns while it runs, and
// what it finds when it starts, under clocks of nodes that differ by an hour.
func TestDecisionsAreDatedByThisNodesClock(t *testing.T) {
	wall := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	const now = 100 * time.Hour
	for name, c := range map[string]struct {
		known bool          // the node knew an earlier decision
		deaf  time.Duration // how long it has heard of no decider
		off   time.Duration // the decider's clock is ahead by
		ago   time.Duration // it decided that long ago
		want  time.Duration // how long ago this node takes it to have been
	}{
		"as it happens":                            {known: true},
		"as it happens, the decider is ahead":      {known: true, off: time.Hour},
		"as it happens, the decider is behind":     {known: true, off: -time.Hour},
		"after ten minutes alone":                  {known: true, deaf: 10 * time.Minute, ago: 4 * time.Minute, want: 4 * time.Minute},
		"after ten minutes alone, clock ahead":     {known: true, deaf: 10 * time.Minute, off: time.Hour},
		"after ten minutes alone, clock behind":    {known: true, deaf: 10 * time.Minute, off: -time.Hour, ago: 4 * time.Minute, want: 10 * time.Minute},
		"found at the start":                       {ago: 25 * time.Minute, want: 25 * time.Minute},
		"found at the start, the decider is ahead": {off: time.Hour, ago: 25 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var d dates
			if c.known {
				d.learn(time.Hour, wall, site.Decision{Groups: []site.Group{{Active: "a", SinceUnixMS: 1}}})
			}
			d.heard = now - c.deaf
			dated := wall.Add(c.off - c.ago).UnixMilli()
			paused := int64(30 * time.Minute / time.Millisecond)
			dec := site.Decision{
				Groups:        []site.Group{{Active: "b", SinceUnixMS: dated}},
				PausedUntilMS: dated + paused, PausedForMS: paused,
			}
			d.learn(now, wall, dec)
			d.learn(now+time.Minute, wall.Add(3*time.Hour), dec) // the same again, and the clock has been set
			if age := now - d.groups[site.DefaultGroup].at; age != c.want {
				t.Errorf("%v ago, want %v", age, c.want)
			}
			if left := d.pauseLeft(now+time.Minute, dec); left != 29*time.Minute-c.want {
				t.Errorf("the pause lasts another %v, want %v", left, 29*time.Minute-c.want)
			}
		})
	}
}

func TestHistoryKeepsTheOrderOverAClockThatIsSet(t *testing.T) {
	noon := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	h := newHistory("lb1", nil)
	add := func(what string, at time.Duration, old bool) {
		h.add(status.Event{Transition: status.Transition{Event: what, At: noon.Add(at)}}, old)
	}
	add("first", 0, false)
	add("third", 2*time.Second, false)
	add("second, which was on the way longer", time.Second, false)
	add("third", 2*time.Second, false) // known
	add("fourth, the clock is set back", -time.Hour, false)
	add("fifth", -time.Hour+time.Second, false)
	add("sixth, by a node that is ahead", 3*time.Hour, false)
	add("seventh", -time.Hour+3*time.Second, false)
	add("zeroth, told by a node that is back", -2*time.Hour, true)
	var got []string
	for _, x := range h.last(100) {
		word, _, _ := strings.Cut(x.Event, ",")
		got = append(got, word)
	}
	want := []string{"zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh"}
	if !slices.Equal(got, want) {
		t.Errorf("the order is %v, want %v", got, want)
	}
}
