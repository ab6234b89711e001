package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio"

	"tandem/lib/lease"
	"tandem/sidecar/status"
)

// maxHistoryFile is when the history file is shortened to what memory keeps.
const maxHistoryFile = 1 << 20

// Directory is a Store in a directory (TANDEM_STATE_DIR). Small files are
// replaced atomically (temporary file, fsync, rename); the history is appended
// to, a JSON object a line.
type Directory struct {
	path    string
	records map[string]lease.Record
}

// OpenDirectory makes the directory if it is missing and checks that it can be
// written to.
func OpenDirectory(path string) (*Directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	probe, err := os.CreateTemp(path, ".probe-")
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	return &Directory{path: path, records: map[string]lease.Record{}}, nil
}

// Path is the name of a file in the directory.
func (d *Directory) Path(name string) string { return filepath.Join(d.path, name) }

// Records reads what this voter accepted last.
func (d *Directory) Records() ([]lease.Record, error) {
	var rs []lease.Record
	if err := d.read("votes.json", &rs); err != nil {
		return nil, err
	}
	for _, r := range rs {
		d.records[r.Resource] = r
	}
	return rs, nil
}

// SaveRecords replaces the records of the resources in rs.
func (d *Directory) SaveRecords(rs []lease.Record) error {
	for _, r := range rs {
		d.records[r.Resource] = r
	}
	all := make([]lease.Record, 0, len(d.records))
	for _, r := range d.records {
		all = append(all, r)
	}
	return d.write("votes.json", all)
}

type nodeFile struct {
	Maintenance bool `json:"maintenance"`
}

// Maintenance reads whether an operator took this node out.
func (d *Directory) Maintenance() (bool, error) {
	var n nodeFile
	err := d.read("node.json", &n)
	return n.Maintenance, err
}

// SaveMaintenance remembers it over a restart.
func (d *Directory) SaveMaintenance(on bool) error {
	return d.write("node.json", nodeFile{Maintenance: on})
}

// History reads the transitions, oldest first. A line that a crash cut short
// is left out.
func (d *Directory) History() ([]status.Transition, error) {
	f, err := os.Open(d.Path("history.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer f.Close()
	h := newHistory("", nil)
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxMessage)
	for s.Scan() {
		var t status.Transition
		if json.Unmarshal(s.Bytes(), &t) == nil && !t.At.IsZero() {
			h.add(status.Event{Transition: t}, true)
		}
	}
	// What a crash left behind (a line without end) must not keep a sidecar from
	// starting: what could be read is the history.
	return h.items, nil
}

// AppendHistory adds a transition, and shortens the file when it has grown.
func (d *Directory) AppendHistory(t status.Transition) error {
	line, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	f, err := os.OpenFile(d.Path("history.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	// The newline comes first as well: a line that a crash cut short must not
	// swallow this one.
	_, err = f.Write(slices.Concat([]byte{'\n'}, line, []byte{'\n'}))
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr, f.Close()); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if info.Size() < maxHistoryFile {
		return nil
	}
	return d.shorten()
}

func (d *Directory) shorten() error {
	items, err := d.History()
	if err != nil {
		return err
	}
	var out []byte
	for _, t := range items[len(items)/2:] {
		line, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("shorten history: %w", err)
		}
		out = append(append(out, line...), '\n')
	}
	if err := renameio.WriteFile(d.Path("history.jsonl"), out, 0o600); err != nil {
		return fmt.Errorf("shorten history: %w", err)
	}
	return nil
}

func (d *Directory) read(name string, into any) error {
	b, err := os.ReadFile(d.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return fmt.Errorf("read state %s: %w (remove the file to start without what it held)", d.Path(name), err)
	}
	return nil
}

func (d *Directory) write(name string, what any) error {
	b, err := json.Marshal(what)
	if err == nil {
		err = renameio.WriteFile(d.Path(name), b, 0o600)
	}
	if err == nil {
		err = d.sync() // the library syncs the file, not that it now has this name
	}
	if err != nil {
		return fmt.Errorf("write state %s: %w", d.Path(name), err)
	}
	return nil
}

// sync has the names in the directory written to disk.
func (d *Directory) sync() error {
	f, err := os.Open(d.Path("."))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
