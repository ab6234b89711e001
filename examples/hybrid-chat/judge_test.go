package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestS5TheJudgeSeesTwoSites: each story is a line of journals, a second apart:
// a request to A or B, or the beginning and end of the takeover scripts at B.
func TestS5TheJudgeSeesTwoSites(t *testing.T) {
	words := map[string]entry{
		"A":     {machine: "lb1", site: "a", text: "/ccm/"},
		"B":     {machine: "lb2", site: "b", text: "/ccm/"},
		"begin": {machine: "lb2", site: "b", text: "takeover.sh begin epoch=3"},
		"end":   {machine: "lb2", site: "b", text: "takeover_reporting.sh end epoch=3"},
	}
	for story, want := range map[string]struct {
		changes int
		both    bool
	}{
		"A A A":                 {0, false},
		"A begin end B B":       {1, false},
		"A begin A end B":       {1, true}, // A is sent to while B is started
		"A begin B end B":       {1, true}, // B before it has been started
		"A begin end B A B":     {2, true}, // one stray request
		"A A B":                 {1, true},
		"begin end A B":         {1, true}, // taken over before A had its last request
		"A begin begin end B":   {1, false},
		"A begin end A B":       {1, true},
		"A begin end begin B B": {1, false},
	} {
		t.Run(story, func(t *testing.T) {
			var requests, scripts []entry
			for i, word := range strings.Fields(story) {
				e := words[word]
				e.at = int64(i) * time.Second.Nanoseconds()
				if strings.HasPrefix(e.text, "/") {
					requests = append(requests, e)
				} else {
					scripts = append(scripts, e)
				}
			}
			changes, err := judge(requests, scripts)
			if changes != want.changes || (err != nil) != want.both {
				t.Errorf("%d changes, %v; want %d, both sites at once: %v", changes, err, want.changes, want.both)
			}
		})
	}
}

// TestWholeListsBeginningAndEnd: what the rows compare the journals with.
func TestWholeListsBeginningAndEnd(t *testing.T) {
	s := &stage{options: options{apart: true}}
	want := []string{
		"a renounce.sh begin", "a renounce.sh end", "a renounce_reporting.sh begin", "a renounce_reporting.sh end",
		"b takeover.sh begin", "b takeover.sh end", "b takeover_reporting.sh begin", "b takeover_reporting.sh end",
	}
	if got := s.switched("b"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
