package haproxy

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
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
	f.Fuzz(func(_ *testing.T, s string) {
		_, _ = Summary(s)
		_ = ParseSessions(s, make(map[ServerID]int))
	})
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
