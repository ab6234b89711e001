package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// judge reads the journals of all machines and tells whether two sites were sent
// to at once. In exclusive order the applications of a site are started when the
// other one has had its last request, and have their first when all of them are
// started: so, wherever the requests, in the order in which they reached the
// applications, go from one site to the other, a whole takeover of that other
// lies between. It counts those changes.
func judge(requests, scripts []entry) (changes int, err error) {
	for i := 1; i < len(requests); i++ {
		last, first := requests[i-1], requests[i]
		if last.site == first.site {
			continue
		}
		changes++
		if !takenOver(scripts, first.site, last.at-stallAllowed.Nanoseconds(), first.at) {
			return changes, fmt.Errorf("both sites were sent to at once: %s at %s, and %s at %s %v later, without a takeover of %s between",
				last.text, last.machine, first.text, first.machine, time.Duration(first.at-last.at), first.site)
		}
	}
	return changes, nil
}

// takenOver tells whether the takeover scripts of a site ran from beginning to
// end between two times.
func takenOver(scripts []entry, site string, after, before int64) bool {
	began := int64(-1)
	for _, e := range scripts {
		switch {
		case e.site != site:
		case strings.HasPrefix(e.text, "takeover.sh begin"):
			began = e.at
		case strings.HasPrefix(e.text, "takeover_reporting.sh end") && began >= after && e.at <= before:
			return true
		}
	}
	return false
}

// oneAtATime judges everything since from, but for what came through a load
// balancer whose own address alone was asked: without its sidecar HAProxy does
// there what it did before, and only the virtual addresses are fenced.
func (s *stage) oneAtATime(from moment, without string) (changes int, err error) {
	requests := slices.DeleteFunc(s.served(from, components...), func(e entry) bool {
		return without != "" && strings.HasSuffix(e.text, "/"+without)
	})
	return judge(requests, s.scripts(from))
}

// onceEach tells whether no script ran twice for the same decision.
func (s *stage) onceEach(from moment) error {
	seen := map[string]bool{}
	for _, e := range s.scripts(from) {
		f := strings.Fields(e.text)
		if len(f) < 3 || f[1] != "begin" {
			continue
		}
		key := e.machine + " " + f[0] + " " + f[2]
		if seen[key] {
			return fmt.Errorf("%s ran twice", key)
		}
		seen[key] = true
	}
	return nil
}
