package haproxytest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is what is asked of the fake and of the real one alike.
var script = []string{
	"show cli level",
	"show servers state",
	"set server be/a-1 state drain", "show servers state",
	"set server be/a-1 state drain", "show servers state",
	"set server be/a-1 state ready", "show servers state",
	"set server be/a-1 state maint", "show servers state",
	"set server be/a-1 state drain", "show servers state", // out of maintenance: the trap
	"disable server be/a-1", "show servers state",
	"enable server be/a-1", "show servers state",
	"set server be/off state ready", "show servers state", // CMAINT remains
	"set server be/off state drain", "show servers state",
	"set server be/off state maint", "show servers state",
	"set server be/off state drain", "show servers state",
	"show stat be 4 -1", "show stat -1 2 -1",
	"set server be/b-1 weight 0", "show servers state", "show stat be 4 -1", "show stat -1 2 -1",
	"set server be/b-1 weight 50%", "show servers state", // of a weight of 1: 0
	"set server be/w-1 weight 50%", "show servers state", "show stat be 4 -1", "show stat -1 2 -1",
	"set server be/w-1 weight 200%", "show servers state", "show stat -1 2 -1",
	"set server be/w-1 weight 9000%", "show servers state",
	"set server be/w-1 weight -1%", "set server be/w-1 weight 257", "set server be/w-1 weight -1",
	"set server be/w-1 weight x", "set server be/w-1 weight 5x", "set server be/w-1 weight 5%x", "set server be/w-1 weight %", "show servers state",
	"set server be/w-1 weight 0%", "show servers state", "show stat be 4 -1", "show stat -1 2 -1",
	"set server be/w-1 weight 100%", "show servers state",
	"set server be/a-1 state drain", "set server be/w-1 state drain", "show stat be 4 -1", "show stat -1 2 -1",
	"set server be/off state maint", "show stat be 4 -1", "show stat -1 2 -1",
	"set server be/a-1 state ready", "show stat be 4 -1", "show stat -1 2 -1",
	"set server be/w-1 state ready", "set server be/off state drain",
	"set server be/b-1 state drain", "set server be/b-1 state ready", "show servers state",
	"set server be/a-1 state bogus",
	"set server be/nosuch state drain",
	"set server nosuch/a-1 state drain",
	"set server nosuch state drain",
	"disable server nosuch",
	"nonsense",
	"set server be/a-1 state drain;set server be/b-1 state drain", "show servers state",
	"set severity-output number;set server be/nosuch state drain",
	"set severity-output number;show cli level;nonsense",
	"shutdown sessions server be/a-1",
	"shutdown sessions server be/nosuch",
	"show info",
	"show stat -1 2 -1",
	"show stat be 4 -1",
	"prompt;show cli level;set server be/a-1 state ready;set server be/nosuch state ready;quit",
	// Several lines in one write.
	"prompt\nset server be/a-1 state drain\nset server be/w-1 state drain\nshow cli level\nset server be/nosuch state ready\nquit",
	"show servers state",
	"prompt\nset severity-output number\nset server be/nosuch state drain\nshow cli level\nset server be/a-1 state ready\nset server be/w-1 state bogus\nquit",
	"show servers state",
}

const real = Global + `
backend be
  server a-1 127.0.0.1:9
  server b-1 127.0.0.1:9
  server w-1 127.0.0.1:9 weight 10
  server off 127.0.0.1:9 disabled
`

func startFakeLike(t *testing.T) *Fake {
	t.Helper()
	f := StartFake(t, "be/a-1", "be/b-1", "be/w-1", "be/off")
	f.Edit("be/w-1", func(s *FakeServer) { s.Weight, s.InitialWeight = 10, 10 })
	f.Edit("be/off", func(s *FakeServer) { s.Admin = 5 })
	return f
}

func TestFakeAnswersAsTheRealOneDoes(t *testing.T) {
	p, f := Start(t, real), startFakeLike(t)
	f.PromptPerLine(p.AtLeast(3, 2))
	for _, line := range script {
		want, err := p.Ask(line)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Ask(f.Socket, line)
		if err != nil {
			t.Fatal(err)
		}
		if g, w := comparable(line, got), comparable(line, want); g != w {
			t.Errorf("%s\nfake: %q\nreal: %q", line, g, w)
		}
	}
}

func TestFakeForbidsAsTheRealOneDoes(t *testing.T) {
	for _, level := range []string{"user", "operator"} {
		p, f := Start(t, strings.Replace(real, "level admin", "level "+level, 1)), startFakeLike(t)
		f.Level(level)
		f.PromptPerLine(p.AtLeast(3, 2))
		for _, line := range script {
			want, err := p.Ask(line)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Ask(f.Socket, line)
			if err != nil {
				t.Fatal(err)
			}
			if g, w := comparable(line, got), comparable(line, want); g != w {
				t.Errorf("%s: %s\nfake: %q\nreal: %q", level, line, g, w)
			}
		}
	}
}

// comparable leaves of an answer what the fake promises: all of it, except for
// tables, of which it has the columns that matter, and help texts.
func comparable(line, answer string) string {
	switch {
	case strings.HasPrefix(line, "show servers state"):
		var b strings.Builder
		for l := range strings.Lines(answer) {
			if w := strings.Fields(l); len(w) == 25 && w[0] != "#" {
				fmt.Fprintln(&b, w[1], w[3], "oper", w[5], "admin", w[6], "weight", w[7], w[8])
			}
		}
		return b.String()
	case strings.HasPrefix(line, "show info"):
		var b strings.Builder
		for l := range strings.Lines(answer) {
			for _, key := range []string{"Name", "Pid", "Stopping", "Start_time_sec", "Version"} {
				if strings.HasPrefix(l, key+": ") {
					b.WriteString(key + " ")
				}
			}
		}
		return b.String()
	case strings.HasPrefix(line, "show stat"):
		var b strings.Builder
		header, rest, _ := strings.Cut(answer, "\n")
		names := strings.Split(strings.TrimPrefix(header, "# "), ",")
		for l := range strings.Lines(rest) {
			l = strings.TrimSpace(l)
			for i, v := range strings.Split(l, ",") {
				if i < len(names) && slices.Contains([]string{"pxname", "svname", "scur", "status", "weight", "act", "bck"}, names[i]) {
					b.WriteString(v + " ")
				}
			}
			b.WriteString("\n")
		}
		return strings.TrimSpace(b.String())
	}
	if strings.HasPrefix(line, "set server be/w-1 weight") { // since 3.0 each of these answers ends its line
		return strings.TrimRight(answer, "\n")
	}
	if first, _, ok := strings.Cut(answer, "nknown command"); ok {
		return first + "nknown command"
	}
	return answer
}
