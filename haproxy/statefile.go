package haproxy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// verifyFile is how often the server-state file is compared with what it should
// be, in case somebody else wrote or removed it.
const verifyFile = 3 * time.Second

// keeper keeps HAProxy's server-state file as it should be, and has the journal
// written to disk. Disks are slow, so it has a goroutine of its own, and only the
// newest content counts.
type keeper struct {
	path    string // of the server-state file; empty: none
	journal string // path of the journal; empty: none
	log     *zap.Logger
	written func(error)
	warn    func(WarningKind, string)

	mu      sync.Mutex
	want    []byte               // nil: nothing known yet
	essence string               // what matters in want
	drained [2]map[ServerID]bool // in the file now, and in the one before
	dirty   bool                 // the journal was written and not synced
	wake    chan struct{}
	failed  string // last error, logged once
}

func newKeeper(i *Instance) *keeper {
	return &keeper{
		path: i.cfg.StateFile, journal: i.cfg.JournalFile, log: i.log, written: i.metrics.fileWritten, warn: i.warn,
		wake: make(chan struct{}, 1),
	}
}

// look has the file compared with what it should be.
func (k *keeper) look() { signal(k.wake) }

// journalWritten has the journal synced. It never blocks.
func (k *keeper) journalWritten() {
	k.mu.Lock()
	k.dirty = true
	k.mu.Unlock()
	k.look()
}

func (k *keeper) syncJournal() {
	k.mu.Lock()
	dirty := k.dirty
	k.dirty = false
	k.mu.Unlock()
	if !dirty {
		return
	}
	err := syncPath(k.journal)
	if err == nil {
		err = syncPath(filepath.Dir(k.journal))
	}
	if err != nil {
		k.log.Warn("journal not synced to disk", zap.Error(err))
	}
}

// put says what the file should contain. It never blocks.
func (k *keeper) put(raw string, table []Server) {
	essence := essenceOf(table)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.want != nil && essence == k.essence {
		return
	}
	k.want, k.essence = []byte(raw), essence
	k.drained = [2]map[ServerID]bool{drainedOf(table), k.drained[0]}
	k.look()
}

// read returns what is in the file now.
func (k *keeper) read() (raw string, table []Server, err error) {
	b, err := os.ReadFile(k.path)
	if err != nil {
		return "", nil, fmt.Errorf("read server-state file: %w", err)
	}
	table, err = ParseServers(string(b), nil)
	if err != nil {
		return "", nil, fmt.Errorf("read server-state file %s: %w", k.path, err)
	}
	return string(b), table, nil
}

// lately returns a function that says whether the server was drained in the file
// as it is, as it should be, or as it was before that.
func (k *keeper) lately() func(ServerID) bool {
	_, table, _ := k.read() // a file that cannot be read drained nothing
	inFile := drainedOf(table)
	k.mu.Lock()
	defer k.mu.Unlock()
	now, before := k.drained[0], k.drained[1]
	return func(id ServerID) bool { return inFile[id] || now[id] || before[id] }
}

// run writes whenever there is something new, and looks after the file.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(verifyFile)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.write() // the last word
			k.syncJournal()
			return
		case <-k.wake:
		case <-tick.C:
		}
		k.write()
		k.syncJournal()
	}
}

func (k *keeper) write() {
	k.mu.Lock()
	want := k.want
	k.mu.Unlock()
	if want == nil {
		return
	}
	var err error
	if b, failed := os.ReadFile(k.path); failed != nil || !bytes.Equal(b, want) {
		err = replaceFile(k.path, want, 0o644, true)
		k.written(err)
	}
	switch {
	case err != nil && err.Error() != k.failed:
		k.failed = err.Error()
		k.log.Error("server-state file not written: a reload would start with what is in it, or with every server ready", zap.Error(err))
		k.warn(WarnStateFile, err.Error()+"; HAProxy would start with what is in it, or with every server ready")
	case err == nil && k.failed != "":
		k.failed = ""
		k.log.Info("server-state file written again", zap.String("path", k.path))
		k.warn(WarnStateFile, "")
	}
}

func drainedOf(table []Server) map[ServerID]bool {
	drained := make(map[ServerID]bool)
	for _, s := range table {
		if s.Admin.Has(FDrain) {
			drained[s.ServerID] = true
		}
	}
	return drained
}

// essenceOf is what of a table must survive a restart of HAProxy.
func essenceOf(table []Server) string {
	var b strings.Builder
	for _, s := range table {
		b.WriteString(s.Backend)
		b.WriteByte('/')
		b.WriteString(s.Server)
		for _, n := range [...]int{int(s.Admin), int(s.Oper), s.Weight, s.InitialWeight, s.Port} {
			b.WriteByte(' ')
			b.WriteString(strconv.Itoa(n))
		}
		b.WriteString(s.Addr)
		b.WriteByte(' ')
		b.WriteString(s.FQDN)
		b.WriteByte('\n')
	}
	return b.String()
}

// Patch returns the answer to `show servers state` as it would be after the
// commands: what a HAProxy that starts now should start with.
func Patch(raw string, commands []Command) string {
	if len(commands) == 0 {
		return raw
	}
	want := make(map[ServerID]Want, len(commands))
	for _, c := range commands {
		want[c.ServerID] = c.Want
	}
	lines := strings.SplitAfter(raw, "\n")
	if len(lines) < 2 {
		return raw
	}
	at, _, err := columnsOf(strings.TrimRight(lines[1], "\r\n"))
	if err != nil {
		return raw
	}
	for i, line := range lines[2:] {
		words := strings.Split(line, " ")
		if len(words) <= max(at[colAdmin], at[colBackend], at[colServer]) {
			continue
		}
		w, ok := want[ServerID{words[at[colBackend]], words[at[colServer]]}]
		admin, err := strconv.Atoi(words[at[colAdmin]])
		if !ok || err != nil {
			continue
		}
		if w == Drain {
			admin |= int(FDrain)
		} else {
			admin &^= int(FDrain)
		}
		words[at[colAdmin]] = strconv.Itoa(admin)
		lines[i+2] = strings.Join(words, " ")
	}
	return strings.Join(lines, "")
}
