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

const (
	// How often sessions that are still there, or there again, are shut; less
	// often when looking for them takes a fiftieth of it.
	closeEvery = time.Second
	closeShare = 50
	// From so many backends on, all are asked for at once.
	manyBackends = 8
)

// closer shuts the sessions left on drained servers whose rule says so, for as
// long as it says so: clients come back by cookies.
type closer struct {
	next   time.Time
	epoch  uint64 // of what was wanted when it last looked
	busy   bool   // there are servers to look after
	left   int    // found when it last looked
	closed uint64
}

// due says whether it is time to look.
func (k *closer) due(desired Desired, now time.Time) bool {
	return k.busy && (k.epoch != desired.Epoch || !now.Before(k.next))
}

// run looks for sessions that are left and shuts them: only on servers that
// tandem drained itself.
func (k *closer) run(c *conversation, w *worker, desired Desired) error {
	targets := closable(desired, w.table, w.journal)
	k.busy = len(targets) > 0
	if !k.busy {
		k.left = 0
		return nil
	}
	start := time.Now()
	if !k.due(desired, start) {
		return nil
	}
	current, err := sessions(c, targets)
	if err != nil {
		return err
	}
	k.epoch, k.next = desired.Epoch, start.Add(max(closeEvery, closeShare*time.Since(start)))
	var commands []string
	k.left = 0
	for _, id := range targets {
		if n := current[id]; n > 0 {
			k.left += n
			commands = append(commands, shutdown(id))
		}
	}
	if len(commands) == 0 {
		return nil
	}
	complaints, err := c.send(commands)
	if err != nil {
		return err
	}
	shut := k.left
	for _, refused := range complaints {
		w.log.Warn("sessions not shut", zap.String("command", refused.Command), zap.String("answer", refused.Text))
		shut -= current[targets[slices.IndexFunc(targets, func(id ServerID) bool { return shutdown(id) == refused.Command })]]
	}
	k.closed += uint64(shut)
	w.i.metrics.sessions.Add(float64(shut))
	w.log.Info("sessions left on drained servers shut", zap.Int("sessions", shut), zap.Int("servers", len(commands)-len(complaints)))
	return nil
}

// shutdown is the command that cuts the sessions of a server.
func shutdown(id ServerID) string { return "shutdown sessions server " + id.String() }

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

// sessions returns how many sessions the servers have, asking each backend
// once, or all of them at once if they are many.
func sessions(c *conversation, targets []ServerID) (map[ServerID]int, error) {
	current := make(map[ServerID]int)
	var backends []string
	for _, id := range targets { // in the order of the table: a backend's stand together
		if len(backends) == 0 || backends[len(backends)-1] != id.Backend {
			backends = append(backends, id.Backend)
		}
	}
	if len(backends) >= manyBackends {
		backends = []string{"-1"}
	}
	for _, backend := range backends {
		raw, err := c.ask("show stat " + backend + " 4 -1")
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
