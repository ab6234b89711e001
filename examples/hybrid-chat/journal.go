package main

import (
	"bufio"
	_ "embed"
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
	at   int64
	site string
	text string
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
			all = append(all, entry{n, machines[machine], text})
		}
	}
	return all
}

// scriptsRun lists the scripts that ran to their end on a machine, in order.
func (s *stage) scriptsRun(machine string, from moment) []string {
	var names []string
	for _, e := range s.journal(machine, "ha.log", from) {
		f := strings.Fields(e.text)
		if len(f) > 1 && f[1] == "end" && f[0] != "register_webhooks.sh" {
			names = append(names, f[0])
		}
	}
	return names
}

// served lists every request that reached a component of a site, oldest first.
func (s *stage) served(from moment, names ...string) []entry {
	var all []entry
	for machine := range machines {
		for _, name := range names {
			all = append(all, s.journal(machine, name+".requests", from)...)
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return int(a.at - b.at) })
	return all
}
