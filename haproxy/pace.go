package haproxy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// Reading the whole table may take one part in this many of the time.
	share = 100
	// The longest time between two readings of the whole table.
	slowest = time.Second
)

// pace decides when the whole table of servers is read. It costs HAProxy about
// 1.5 µs a server, so with many servers, or a slow HAProxy, only the backends'
// summary is read each time and the whole when that changes, or from time to
// time: health on a drained site, or something set by hand, is then seen within
// a second instead of a tenth.
type pace struct {
	poll    time.Duration
	average time.Duration // what reading the whole table takes
	next    time.Time     // when it is due; zero: now
	summary string
	// Thousands of small backends make even the summary large.
	nextSummary time.Time
}

// now makes the whole table due.
func (p *pace) now() { p.next = time.Time{} }

// every is how often the whole table is read.
func (p *pace) every() time.Duration {
	return min(max(p.poll, p.average*share), max(slowest, p.poll))
}

// cost notes what a reading took. Slowness that lasts counts, a moment does not.
func (p *pace) cost(took time.Duration) {
	if p.average == 0 || took < p.average {
		p.average = took
		return
	}
	p.average += (took - p.average) / 8
}

// dueAt says whether what is due at next, at intervals of poll, is due now.
func dueAt(next time.Time, poll time.Duration, now time.Time) bool {
	return !now.Add(poll / 4).Before(next)
}

// due says whether the whole table is to be read in this conversation. When it
// is due anyway the summary is not asked for; what has changed since it last was
// makes the table due once more than it need be.
func (p *pace) due(c *conversation, servers int, now time.Time) (bool, error) {
	every := p.every()
	due := dueAt(p.next, p.poll, now)
	if !due && every > p.poll*3/2 && servers > 0 && !now.Before(p.nextSummary) {
		start := time.Now()
		summary, err := backends(c)
		if err != nil {
			return false, err
		}
		due = summary != p.summary
		p.summary = summary
		p.nextSummary = now.Add(min(time.Since(start)*share/4, every))
	}
	if due {
		p.next = now.Add(every)
		if p.average*share <= p.poll/2 { // it costs little: a look that comes early reads it too
			p.next = now.Add(every * 3 / 4)
		}
	}
	return due, nil
}

// backends asks for what of the backends' summary tells that a server changed.
func backends(c *conversation) (string, error) {
	raw, err := c.ask("show stat -1 2 -1")
	if err != nil {
		return "", err
	}
	return Summary(raw)
}

// Summary picks name, status, weight and the numbers of active and backup
// servers of each backend out of the answer to `show stat -1 2 -1`.
func Summary(raw string) (string, error) {
	header, rest, _ := strings.Cut(raw, "\n")
	names := strings.Split(strings.TrimPrefix(header, "# "), ",")
	var wanted []int
	for _, column := range [...]string{"pxname", "status", "weight", "act", "bck"} {
		at := -1
		for n, name := range names {
			if name == column {
				at = n
				break
			}
		}
		if at < 0 {
			return "", fmt.Errorf("%w: no column %s in the header of `show stat`", ErrParse, column)
		}
		wanted = append(wanted, at)
	}
	last := slices.Max(wanted)
	var b strings.Builder
	for line := range strings.Lines(rest) {
		field := 0
		for word := range strings.SplitSeq(line, ",") {
			for _, at := range wanted {
				if at == field {
					b.WriteString(word)
					b.WriteByte(',')
				}
			}
			if field++; field > last {
				break
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
