package haproxy

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// journalFile is the journal on disk.
type journalFile struct {
	PID    int            `json:"pid"`
	Start  int64          `json:"start"`
	Drains []journalDrain `json:"drains"`
}

type journalDrain struct {
	Server string    `json:"server"` // backend/server
	By     string    `json:"by"`     // tandem or other
	Seen   bool      `json:"seen"`
	At     time.Time `json:"at"`
}

const (
	byTandem = "tandem"
	byOther  = "other"
)

// MarshalJSON writes the drains in order, so that equal journals are equal files.
func (j Journal) MarshalJSON() ([]byte, error) {
	f := journalFile{PID: j.Process.PID, Start: j.Process.Start, Drains: []journalDrain{}}
	for id, e := range j.drains {
		by := byOther
		if e.Origin == ours {
			by = byTandem
		}
		f.Drains = append(f.Drains, journalDrain{id.String(), by, e.Seen, e.At.UTC()})
	}
	slices.SortFunc(f.Drains, func(a, b journalDrain) int { return strings.Compare(a.Server, b.Server) })
	return json.Marshal(f)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (j *Journal) UnmarshalJSON(b []byte) error {
	var f journalFile
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	next := Journal{Process: Process{PID: f.PID, Start: f.Start}}
	for _, d := range f.Drains {
		backend, server, ok := strings.Cut(d.Server, "/")
		id := ServerID{backend, server}
		if !ok || !id.Valid() {
			return fmt.Errorf("%w: server %.80q", ErrParse, d.Server)
		}
		origin := theirs
		switch d.By {
		case byTandem:
			origin = ours
		case byOther:
		default:
			return fmt.Errorf("%w: drain of %s by %.20q, want %s or %s", ErrParse, id, d.By, byTandem, byOther)
		}
		note(&next, id, entry{Origin: origin, Seen: d.Seen, At: d.At})
	}
	*j = next
	return nil
}

// from has the time run from now for what a former process sent and did not see:
// the clock may have been set since.
func (j Journal) from(now time.Time) {
	for id, e := range j.drains { // the order does not matter
		e.At = now
		j.drains[id] = e
	}
}

// loadJournal reads the journal. A missing file is a blank journal.
func loadJournal(path string) (Journal, error) {
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return Journal{}, nil
	}
	if err != nil {
		return Journal{}, fmt.Errorf("read journal: %w", err)
	}
	var j Journal
	if err := json.Unmarshal(b, &j); err != nil {
		return Journal{}, fmt.Errorf("read journal %s: %w", path, err)
	}
	j.from(time.Now())
	return j, nil
}

// saveJournal writes the journal, whole or not at all. It survives this process
// at once, and the machine when the keeper has synced it: a switch does not wait
// for the disk. What is lost with the machine is made up for by Learn, since the
// HAProxy that starts then can have drains only out of its server-state file.
func saveJournal(path string, j Journal) error {
	b, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return replaceFile(path, append(b, '\n'), 0o600, false)
}

// settled says whether every drain that was sent has been seen.
func (j Journal) settled() bool {
	for _, e := range j.drains { // the order does not matter
		if !e.Seen {
			return false
		}
	}
	return true
}
