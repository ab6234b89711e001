package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"tandem/examples/lab"
)

// stage shows what goes on: in place on a terminal, otherwise as plain lines
// with a new one whenever the picture changes.
type stage struct {
	out      io.Writer
	terminal bool
	palette  palette
	start    time.Duration

	mu    sync.Mutex
	lab   *lab.Lab
	last  string // the last plain line
	drawn int    // lines of the picture on the screen
}

func newStage(out io.Writer, terminal bool) *stage {
	return &stage{out: out, terminal: terminal, palette: colours(terminal), start: lab.Now()}
}

// say adds a line to the story.
func (s *stage) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if !s.terminal {
		fmt.Fprintf(s.out, "%s  %s\n", s.clock(), line)
		return
	}
	s.wipe()
	fmt.Fprintln(s.out, s.palette.faint+s.clock()+s.palette.reset+"  "+line)
	s.draw()
}

func (s *stage) clock() string { return fmt.Sprintf("%5.1f s", (lab.Now() - s.start).Seconds()) }

// show repeats the picture until ctx ends.
func (s *stage) show(ctx context.Context) {
	for pause(ctx, 200*time.Millisecond) == nil {
		s.mu.Lock()
		if s.terminal {
			s.wipe()
			s.draw()
		} else {
			s.change()
		}
		s.mu.Unlock()
	}
}

// set says which lab is to be shown; nil ends the picture.
func (s *stage) set(l *lab.Lab) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	s.lab = l
}

// wipe takes the picture off the screen, so that the story can go on there.
func (s *stage) wipe() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *stage) draw() {
	if s.lab == nil {
		return
	}
	lines := append([]string{""}, picture(s.lab.Snapshot(), s.palette)...)
	_, _ = io.WriteString(s.out, strings.Join(lines, "\n")+"\n")
	s.drawn = len(lines)
}

// change prints a line when something but the numbers differs.
func (s *stage) change() {
	if s.lab == nil {
		return
	}
	if line := brief(s.lab.Snapshot()); line != s.last {
		fmt.Fprintf(s.out, "%s    [%s]\n", s.clock(), line)
		s.last = line
	}
}

// brief is the picture in one line, without numbers.
func brief(s lab.Snapshot) string {
	parts := []string{"address: " + holders(s, palette{})}
	var served []string
	for _, site := range lab.Sites() {
		if s.Client.Sites()[site] > 0 {
			served = append(served, site)
		}
	}
	parts = append(parts, "served by site "+or(strings.Join(served, " and "), "none"))
	for _, name := range []string{"lb1", "lb2", "witness", "a", "b"} {
		parts = append(parts, troubles(s.Nodes[name])...)
	}
	return strings.Join(parts, "; ")
}

func troubles(v lab.NodeView) []string {
	if !v.Power {
		return []string{v.Name + " has no power"}
	}
	down := 0
	var list []string
	for proc, state := range v.Procs {
		switch {
		case state == lab.Runs:
		case v.Name == "a" || v.Name == "b":
			down++
		default:
			list = append(list, fmt.Sprintf("%s on %s is %s", proc, v.Name, state))
		}
	}
	if down > 0 {
		list = append(list, fmt.Sprintf("%d of %d servers of site %s are dead", down, len(v.Procs), v.Name))
	}
	return list
}
