package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tandem/examples/lab"
)

// row is a row of the scenario table. Rows of a chapter share a deployment and
// are played in order: one row's end is the next one's beginning.
type row struct {
	id   string
	name string // what happens, and what must hold
	play func(ctx context.Context, s *stage, r *report) error
}

// chapter is a deployment and what is played on it.
type chapter struct {
	name string
	opt  options
	rows []row
}

// report is what came of a row.
type report struct {
	figures []string
	broken  []string // what did not hold
	story   *story
}

func (r *report) say(format string, args ...any) {
	r.figures = append(r.figures, fmt.Sprintf(format, args...))
}

func (r *report) want(ok bool, format string, args ...any) {
	if !ok {
		r.broken = append(r.broken, fmt.Sprintf(format, args...))
	}
}

// hold records an error as a broken promise.
func (r *report) hold(err error) { r.want(err == nil, "%v", err) }

// story is what a chapter's rows tell each other.
type story struct {
	began    moment // before the first fault
	failure  moment // of S1
	command  moment // of S3
	switches int    // of the applications, since began
}

// noticed says what the client had of the time since from, apart from the
// paths named: how many requests failed and how long the longest one took.
func (s *stage) noticed(ctx context.Context, from moment) (lab.Noticed, error) {
	return s.Client.Noticed(ctx, from.lab, lab.Now())
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

// firstFrom is how long after a moment the client was served by a site for the
// first time.
func (s *stage) firstFrom(site string, from moment) time.Duration {
	for _, q := range s.Client.Requests(from.lab) {
		if q.Start >= from.lab && q.OK() && strings.HasSuffix(q.Server, "-"+site) {
			return q.Start + q.Took - from.lab
		}
	}
	return -1
}

// inTurn counts how often the requests, in the order in which they reached the
// applications, changed from one site to the other.
func inTurn(all []entry) (changes int) {
	for i := 1; i < len(all); i++ {
		if all[i].site != all[i-1].site {
			changes++
		}
	}
	return changes
}

// problem waits until the status of lb1 names a word among its problems.
func (s *stage) problem(ctx context.Context, word string) error {
	const node = "lb1"
	return s.await(ctx, 10*time.Second, "a problem in the status of "+node, func() error {
		st, err := s.status(ctx, node)
		if err != nil {
			return err
		}
		if st.Health == "degraded" && strings.Contains(strings.Join(st.Problems, "\n"), word) {
			return nil
		}
		return fmt.Errorf("%s: %q, looked for %q", st.Health, st.Problems, word)
	})
}

// quiet tells whether nothing moved since from: the address stayed at lb1, and the
// applications stayed at the site.
func (s *stage) quiet(ctx context.Context, from moment, site string) error {
	j := s.Referee.Judge(from.lab, lab.Now())
	if len(j.Moves) > 0 || s.Holder() != "lb1" {
		return fmt.Errorf("the address moved: %v, holder %s", j.Moves, s.Holder())
	}
	if j.TwoAnswer > 0 {
		return fmt.Errorf("two answered for %v", j.TwoAnswer)
	}
	return s.decidedFor(ctx, "default", site)
}

// takeover makes a site active by command and waits until it is so.
func (s *stage) takeover(ctx context.Context, site string) error {
	if _, err := s.Tandem(ctx, "lb1", "takeover", site); err != nil {
		return err
	}
	return s.await(ctx, 30*time.Second, "site "+site+" active", func() error { return s.activeAt(ctx, site) })
}
