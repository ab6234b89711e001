package main

import (
	"strings"
	"testing"
	"time"

	"tandem/examples/lab"
)

func TestCellSaysWhatHappened(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name  string
		ms    []measurement
		stays bool
		want  string
	}{
		{"nothing measured", nil, false, "–"},
		{"median and range", []measurement{
			{Noticed: lab.Noticed{Outage: 30 * ms}}, {Noticed: lab.Noticed{Outage: 10 * ms}}, {Noticed: lab.Noticed{Outage: 20 * ms}},
		}, false, "**20** (10–30)"},
		{"failures and two that answer", []measurement{
			{Noticed: lab.Noticed{Outage: 5 * ms, Failed: 3, Broken: 1}, Judgement: lab.Judgement{TwoAnswer: 40 * ms}},
		}, false, "**5** (5–5); failed requests: 3; broken connections: 1; two answer for 40 ms"},
		{"a move where none may be", []measurement{{Judgement: lab.Judgement{Moves: []lab.Move{{To: "lb2"}}}}}, true, "**0** (0–0); moves: 1"},
		{"a move where one must be", []measurement{{Judgement: lab.Judgement{Moves: []lab.Move{{To: "lb2"}}}}}, false, "**0** (0–0)"},
		{
			"no end",
			[]measurement{{Noticed: lab.Noticed{Outage: 13 * time.Second, To: 13 * time.Second, Open: true}}},
			false,
			"**13000** (13000–13000); did not end within 13s",
		},
		{"an error", []measurement{{Err: "no lab"}}, false, "not measured; no lab"},
	} {
		if got := cell(c.ms, c.stays); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestEveryRowHasItsOwnNameAndTitle(t *testing.T) {
	names, titles := map[string]bool{}, map[string]bool{}
	for _, r := range rows() {
		if names[r.name] || titles[r.title] || r.name == "" || r.title == "" {
			t.Errorf("row %q %q is not distinct", r.name, r.title)
		}
		names[r.name], titles[r.title] = true, true
	}
}

func TestPictureShowsWhoHoldsAndWhatIsDead(t *testing.T) {
	s := lab.Snapshot{Nodes: map[string]lab.NodeView{
		"lb1":     {Name: "lb1", Power: true, Answer: true, Procs: map[string]lab.State{"haproxy": lab.Dead, "tandem": lab.Frozen}},
		"lb2":     {Name: "lb2"},
		"witness": {Name: "witness", Power: true, Procs: map[string]lab.State{"tandem": lab.Runs}},
		"a":       {Name: "a", Power: true, Procs: map[string]lab.State{"web-a-1": lab.Runs, "web-a-2": lab.Dead}},
		"b":       {Name: "b", Power: true},
	}, Client: lab.Noticed{Requests: 200, Failed: 100, Servers: map[string]int{"a-1": 100}}}
	text := strings.Join(picture(s, palette{}), "\n")
	for _, want := range []string{
		"200 new connections", "100 failed", "lb1 answers", "lb1 ◀ holds the address", "○ haproxy dead", "◐ tandem frozen",
		"no power", "● a-1", "○ a-2 dead", "serves 100 %",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the picture lacks %q:\n%s", want, text)
		}
	}
}
