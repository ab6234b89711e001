package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tandem/examples/lab"
)

// moment is a point in time, by both clocks in use.
type moment struct {
	lab  time.Duration // of the client and the referee
	wall int64         // of the journals, in nanoseconds
}

func now() moment { return moment{lab.Now(), time.Now().UnixNano()} }

// entry is a line of a journal.
type entry struct {
	at      int64
	machine string
	site    string
	text    string
}

// journal reads a machine's journal after a moment: ha.log, or a service's.
func (s *stage) journal(machine, file string, from moment) []entry {
	f, err := os.Open(filepath.Join(s.Node(machine).Dir, file))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	var all []entry
	for lines := bufio.NewScanner(f); lines.Scan(); {
		at, text, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseInt(at, 10, 64); err == nil && n >= from.wall {
			all = append(all, entry{n, machine, machines[machine], text})
		}
	}
	return all
}

// scripts lists the beginnings and ends of the scripts in the whole cluster, in
// order, without those that tell the messaging platform.
func (s *stage) scripts(from moment) []entry {
	var all []entry
	for machine := range machines {
		for _, e := range s.journal(machine, "ha.log", from) {
			if !strings.HasPrefix(e.text, "register_webhooks.sh") {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, earlier)
	return all
}

// begun counts how often a script began on a machine.
func (s *stage) begun(from moment, machine, script string) int {
	n := 0
	for _, e := range s.journal(machine, "ha.log", from) {
		if strings.HasPrefix(e.text, script+" begin") {
			n++
		}
	}
	return n
}

func earlier(a, b entry) int { return cmp.Compare(a.at, b.at) }

// what is the script and whether it begins or ends: "lb2 takeover.sh begin".
func (e entry) what() string {
	f := strings.Fields(e.text)
	return e.machine + " " + strings.Join(f[:min(2, len(f))], " ")
}

// whole lists the lines of scripts that a machine runs one after the other.
func whole(machine string, names ...string) []string {
	var lines []string
	for _, name := range names {
		lines = append(lines, machine+" "+name+".sh begin", machine+" "+name+".sh end")
	}
	return lines
}

// switched are the scripts of one whole switch, in the order of exclusive.
func (s *stage) switched(to string) []string {
	var first []string
	if s.precheck {
		first = whole(s.machineOf(to), "precheck")
	}
	return slices.Concat(first, whole(s.machineOf(other(to)), "renounce", "renounce_reporting"), whole(s.machineOf(to), "takeover", "takeover_reporting"))
}

// ran tells whether just these scripts ran in the whole cluster since from, each
// once and in this order.
func (s *stage) ran(from moment, want ...string) error {
	var got []string
	for _, e := range s.scripts(from) {
		got = append(got, e.what())
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("ran: %s; want %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	return nil
}

// moved tells whether the applications went to a site as one switch in exclusive
// order has it: the scripts of the whole switch ran, once and in order; the site
// that was left had its last request before the takeover began, and the other
// its first one after the takeover had ended.
func (s *stage) moved(from moment, to string) error {
	if err := s.ran(from, s.switched(to)...); err != nil {
		return err
	}
	scripts := s.scripts(from)
	began, ended := scripts[len(scripts)-4].at, scripts[len(scripts)-1].at
	first := false
	for _, e := range s.served(from, components...) {
		switch {
		case e.site != to && e.at > began+stallAllowed.Nanoseconds():
			return fmt.Errorf("a request reached %s at %s %v after the takeover at %s had begun", e.text, e.machine, time.Duration(e.at-began), to)
		case e.site == to && e.at < ended:
			return fmt.Errorf("a request reached %s at %s %v before the scripts had ended", e.text, e.machine, time.Duration(ended-e.at))
		}
		first = first || e.site == to
	}
	if !first {
		return fmt.Errorf("no request reached site %s", to)
	}
	return nil
}

// stallAllowed is how late an application may write a request down, because the
// machine let it wait; a takeover takes several times as long.
const stallAllowed = 100 * time.Millisecond

// served lists every request that reached a component of a site, oldest first.
func (s *stage) served(from moment, names ...string) []entry {
	var all []entry
	for machine := range machines {
		for _, name := range names {
			all = append(all, s.journal(machine, name+".requests", from)...)
		}
	}
	slices.SortFunc(all, earlier)
	return all
}
