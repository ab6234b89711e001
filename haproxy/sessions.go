package haproxy

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// closeEvery is how often sessions that are still there are shut.
const closeEvery = time.Second

// closer shuts the sessions left on drained servers whose rule says so.
type closer struct {
	next   time.Time
	busy   bool // there are servers to look after
	left   int
	closed uint64
}

// run looks for sessions that are left and shuts them: only on servers that
// tandem drained itself.
func (k *closer) run(c *conversation, w *worker, desired Desired) error {
	targets := closable(desired, w.table, w.journal)
	k.busy = len(targets) > 0
	if len(targets) == 0 {
		k.left, k.next = 0, time.Time{}
		return nil
	}
	if time.Now().Before(k.next) {
		return nil
	}
	k.next = time.Now().Add(closeEvery)
	current, err := sessions(c, targets)
	if err != nil {
		return err
	}
	var commands []string
	k.left = 0
	for _, id := range targets {
		if n := current[id]; n > 0 {
			k.left += n
			commands = append(commands, "shutdown sessions server "+id.String())
		}
	}
	if len(commands) == 0 {
		return nil
	}
	complaints, err := c.send(commands)
	if err != nil {
		return err
	}
	if len(complaints) > 0 {
		w.log.Warn("sessions not shut", zap.String("command", complaints[0].Command), zap.String("answer", complaints[0].Text))
		return nil
	}
	k.closed += uint64(k.left)
	w.i.metrics.sessions.Add(float64(k.left))
	w.log.Info("sessions left on drained servers shut", zap.Int("sessions", k.left), zap.Int("servers", len(commands)))
	return nil
}

// closable are the servers that are drained, by tandem, under a rule that says
// Close.
func closable(desired Desired, table []Server, journal Journal) []ServerID {
	var out []ServerID
	for _, s := range table {
		rule, ok := desired.Rule(s.ServerID)
		if ok && rule.Close && rule.Want == Drain && s.Admin.Has(FDrain) && journal.Ours(s.ServerID) && writable(s) {
			out = append(out, s.ServerID)
		}
	}
	return out
}

// sessions returns how many sessions the servers have, asking each backend once.
func sessions(c *conversation, targets []ServerID) (map[ServerID]int, error) {
	current := make(map[ServerID]int)
	var asked []string
	for _, id := range targets {
		if slices.Contains(asked, id.Backend) {
			continue
		}
		asked = append(asked, id.Backend)
		raw, err := c.ask("show stat " + id.Backend + " 4 -1")
		if err != nil {
			return nil, err
		}
		if err := ParseSessions(raw, current); err != nil {
			return nil, err
		}
	}
	return current, nil
}

// ParseSessions adds the current sessions of each server in the answer to
// `show stat <backend> 4 -1`.
func ParseSessions(raw string, into map[ServerID]int) error {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(raw, "# ")))
	r.FieldsPerRecord = -1
	r.LazyQuotes = true
	rows, err := r.ReadAll()
	if err != nil {
		return fmt.Errorf("%w: `show stat` of %d bytes: %w", ErrParse, len(raw), err)
	}
	if len(rows) == 0 {
		return fmt.Errorf("%w: empty `show stat`", ErrParse)
	}
	backend, server, current := slices.Index(rows[0], "pxname"), slices.Index(rows[0], "svname"), slices.Index(rows[0], "scur")
	if backend < 0 || server < 0 || current < 0 {
		return fmt.Errorf("%w: header of `show stat` lacks pxname, svname or scur", ErrParse)
	}
	for _, row := range rows[1:] {
		if len(row) <= max(backend, server, current) {
			continue
		}
		if n, err := strconv.Atoi(row[current]); err == nil {
			into[ServerID{row[backend], row[server]}] += n
		}
	}
	return nil
}
