package haproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Seeds are what the versions at hand printed: testdata/haproxy-*/*.txt.
func seeds(f *testing.F, names ...string) {
	f.Helper()
	for _, name := range names {
		paths, err := filepath.Glob(filepath.Join("testdata", "haproxy-*", name))
		if err != nil || len(paths) == 0 {
			f.Fatalf("no seeds %s: %v", name, err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(b))
			f.Add(string(b[:len(b)/2]))
		}
	}
}

func FuzzParseServers(f *testing.F) {
	seeds(f, "show-servers-state.txt")
	f.Fuzz(func(t *testing.T, s string) {
		servers, err := ParseServers(s, nil)
		if err != nil {
			return
		}
		again, err := ParseServers(s, servers)
		if err != nil || !reflect.DeepEqual(again, servers) {
			t.Fatalf("again, with what was parsed before: %v\n%+v\n%+v", err, again, servers)
		}
		var commands []Command
		for _, x := range servers {
			if x.Up && x.Admin.Has(inMaintenance) {
				t.Fatalf("up and in maintenance: %+v", x)
			}
			if x.Valid() && !x.Admin.Has(inMaintenance) {
				commands = append(commands, Command{x.ServerID, Drain})
			}
		}
		patched, err := ParseServers(Patch(s, commands), nil)
		if err != nil || len(patched) != len(servers) {
			t.Fatalf("after Patch: %v, %d servers instead of %d", err, len(patched), len(servers))
		}
		for _, x := range patched {
			if x.Valid() && !x.Admin.Has(inMaintenance|FDrain) {
				t.Fatalf("not drained by Patch: %+v", x)
			}
		}
	})
}

func FuzzParseInfo(f *testing.F) {
	seeds(f, "show-info.txt")
	f.Fuzz(func(t *testing.T, s string) {
		if info, err := ParseInfo(s); err == nil && (info.PID <= 0 || info.Version == "") {
			t.Fatalf("%+v", info)
		}
	})
}

func FuzzSummary(f *testing.F) {
	seeds(f, "show-stat-backends.txt", "show-stat-servers.txt")
	f.Add("# bck,act,weight,status,pxname\n0,1,1,UP,be\n")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := Summary(s); err == nil && got != plainSummary(s) {
			t.Fatalf("got\n%s\nwant\n%s", got, plainSummary(s))
		}
		once, twice := make(map[ServerID]int), make(map[ServerID]int)
		if ParseSessions(s, once) != nil {
			return
		}
		if err := errors.Join(ParseSessions(s, twice), ParseSessions(s, twice)); err != nil {
			t.Fatal(err)
		}
		for id, n := range once {
			if twice[id] != 2*n {
				t.Fatalf("%v: %d, and %d when added twice", id, n, twice[id])
			}
		}
	})
}

func FuzzParseFrontends(f *testing.F) {
	seeds(f, "show-stat-frontends.txt", "show-stat-backends.txt")
	f.Fuzz(func(t *testing.T, s string) {
		status, err := ParseFrontends(s)
		if err != nil {
			return
		}
		for name, word := range status {
			if strings.ContainsAny(name+word, ",\n") {
				t.Fatalf("%q is %q", name, word)
			}
		}
		if again, err := ParseFrontends(s + "\n"); err != nil || len(again) < len(status) {
			t.Fatalf("%v, then %v %v", status, again, err)
		}
	})
}

// plainSummary is Summary without its shortcuts.
func plainSummary(s string) string {
	header, rest, _ := strings.Cut(s, "\n")
	names := strings.Split(strings.TrimPrefix(header, "# "), ",")
	var b strings.Builder
	for line := range strings.Lines(rest) {
		words := strings.Split(line, ",")
		for n, name := range names {
			if n < len(words) && slices.Index(names, name) == n && slices.Contains([]string{"pxname", "status", "weight", "act", "bck"}, name) {
				b.WriteString(words[n] + ",")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// However the bytes arrive, the answers are the same: what stands before each
// prompt, and nothing of what stands behind the last.
func FuzzAnswers(f *testing.F) {
	seeds(f, "show-servers-state.txt", "errors.txt")
	f.Add("a\n> b\n> ")
	f.Add("\n> \n> \n\n> >\n>\n> ")
	f.Add("\n\n> \n> \n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, prompts := range []string{s, strings.ReplaceAll(s, "\n", prompt)} {
			want := strings.Split(prompts, prompt)
			want = want[:len(want)-1]
			for _, piece := range []int{1, 2, 3, 7, 4096, len(prompts) + 1} {
				if len(prompts)/piece > 2000 {
					continue // a byte at a time of what is long only takes long
				}
				if got := answers(t, prompts, piece); !slices.Equal(got, want) {
					t.Fatalf("in pieces of %d\ngot  %q\nwant %q", piece, got, want)
				}
			}
		}
	})
}

// answers are what a conversation makes of bytes that arrive in pieces, until
// they end.
func answers(t *testing.T, s string, piece int) []string {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for part := range slices.Chunk([]byte(s), piece) {
			if _, err := there.Write(part); err != nil {
				return
			}
		}
		_ = there.Close()
	}()
	defer func() {
		_ = here.Close()
		<-done
	}()
	c := &conversation{conn: here, silence: patience, until: time.Now().Add(patience), limit: maxReply}
	var got []string
	before := ""
	for {
		answer, err := c.answer(before)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got, before = append(got, answer), answer
	}
}

func FuzzComplaint(f *testing.F) {
	seeds(f, "errors.txt", "show-info.txt")
	f.Fuzz(func(t *testing.T, s string) {
		if text, bad := complaint(s); bad && (text == "" || strings.Contains(text, "\n")) {
			t.Fatalf("%q", text)
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add(`{"pid":1,"start":2,"drains":[{"server":"be/a-1","by":"tandem","seen":true,"at":"2026-01-02T03:04:05Z"}]}`)
	f.Add(`{"drains":[{"server":"a;b","by":"other"}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		var j, again Journal
		if j.UnmarshalJSON([]byte(s)) != nil {
			return
		}
		b, err := j.MarshalJSON()
		if err != nil {
			return // a time beyond year 9999
		}
		if err := again.UnmarshalJSON(b); err != nil || len(again.drains) != len(j.drains) {
			t.Fatalf("%s: %v", b, err)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("*/a-*", "be", "a-1")
	f.Add("*a*b?c*/x", "aabbcc", "x")
	f.Fuzz(func(t *testing.T, pattern, backend, server string) {
		id := ServerID{backend, server}
		if Match(pattern, id) && ValidPattern(pattern) == nil && strings.Count(pattern, "*")+strings.Count(pattern, "?") == 0 && pattern != id.String() {
			t.Fatalf("%q matches %q", pattern, id)
		}
	})
}
