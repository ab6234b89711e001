package haproxy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// The status of a frontend in `show stat`. HAProxy 2.4.0 and 2.6.0 show one that
// was disabled at the socket as open, 2.6.12 and 2.8.0 do not.
const (
	frontendOpen    = "OPEN"
	frontendPaused  = "PAUSED" // `disable frontend`
	frontendStopped = "STOP"   // `shutdown frontend`, or `disabled` in the configuration
)

// frontends looks once a second whether somebody has closed one at the socket:
// clients are refused then, though the process is alive. It is a person's doing, so
// it is said and not undone.
type frontends struct {
	next    time.Time
	process Process
	open    map[string]bool // by this process, once
	said    string
}

// look asks, if it is time, and tells which are closed when that has changed.
func (f *frontends) look(c *conversation, tell func(closed string)) error {
	start := time.Now()
	if start.Before(f.next) {
		return nil
	}
	raw, err := c.ask("show stat -1 1 -1")
	if err != nil {
		return err
	}
	f.next = start.Add(max(closeEvery, closeShare*time.Since(start)))
	status, err := ParseFrontends(raw)
	if err != nil {
		return nil //nolint:nilerr // nothing depends on it
	}
	if f.process != c.info.Process {
		f.process, f.open = c.info.Process, map[string]bool{}
	}
	var closed []string
	for name, word := range status { // sorted below
		switch {
		case word == frontendOpen:
			f.open[name] = true
		case word == frontendPaused, word == frontendStopped && f.open[name]:
			closed = append(closed, name)
		}
	}
	slices.Sort(closed)
	if names := strings.Join(closed, ", "); names != f.said {
		f.said = names
		tell(names)
	}
	return nil
}

func (w *worker) tellFrontends(closed string) {
	if closed == "" {
		w.log.Info("no frontend is disabled any more")
		w.i.warn(WarnFrontend, "")
		return
	}
	w.log.Warn("frontends are disabled at the socket", zap.String("frontends", closed))
	w.i.warn(WarnFrontend, "clients are refused at "+closed+", disabled at HAProxy's socket; `enable frontend` gives it back")
}

// ParseFrontends returns the status of each frontend in the answer to `show stat
// -1 1 -1`.
func ParseFrontends(raw string) (map[string]string, error) {
	header, rest, _ := strings.Cut(raw, "\n")
	names := strings.Split(strings.TrimPrefix(header, "# "), ",")
	name, kind, status := slices.Index(names, "pxname"), slices.Index(names, "svname"), slices.Index(names, "status")
	if name < 0 || kind < 0 || status < 0 {
		return nil, fmt.Errorf("%w: header of `show stat` lacks pxname, svname or status", ErrParse)
	}
	out := make(map[string]string)
	for line := range strings.Lines(rest) {
		words := strings.Split(strings.TrimRight(line, "\r\n"), ",")
		if len(words) > max(name, kind, status) && words[kind] == "FRONTEND" {
			out[words[name]] = words[status]
		}
	}
	return out, nil
}
