package haproxy

import (
	"time"

	"go.uber.org/zap"
)

// saveAgain is how often a journal is tried again that the disk does not take.
const saveAgain = time.Second

// load remembers what an earlier sidecar knew.
func (w *worker) load() {
	w.remember()
	if w.i.keepsFile() {
		raw, table, err := w.keeper.read()
		if err == nil {
			w.raw, w.table = raw, table
		} else {
			w.log.Info("no usable server-state file yet", zap.Error(err))
		}
	}
}

// remember reads the journal of an earlier sidecar.
func (w *worker) remember() {
	if w.i.cfg.JournalFile == "" {
		return
	}
	j, err := loadJournal(w.i.cfg.JournalFile)
	if err != nil {
		w.log.Error("journal not read: drains found now count as ours on the standby site and where the server-state file has them, else as an operator's", zap.Error(err))
	}
	w.journal, w.saved = j, j.clone()
}

// save writes the journal before anything is sent that it must know of.
func (w *worker) save() {
	if !w.unsaved() {
		return
	}
	w.tried = time.Now()
	if err := saveJournal(w.i.cfg.JournalFile, w.journal); err != nil {
		if w.told.journal != err.Error() {
			w.told.journal = err.Error()
			w.log.Error("journal not written: after a restart drains of ours may pass for an operator's", zap.Error(err))
			w.i.warn(WarnJournal, err.Error()+"; after a restart drains of tandem's may pass for an operator's")
		}
		return
	}
	w.saved = w.journal.clone()
	if w.told.journal != "" {
		w.told.journal = ""
		w.log.Info("journal written again", zap.String("path", w.i.cfg.JournalFile))
		w.i.warn(WarnJournal, "")
	}
	w.keeper.journalWritten()
}

// unsaved says whether the journal on disk is not the one in memory.
func (w *worker) unsaved() bool {
	return w.i.cfg.JournalFile != "" && w.writes() && !w.journal.equal(w.saved)
}

// prepare keeps the server-state file in step with what is wanted while HAProxy
// is away, so that it starts as it should be.
func (w *worker) prepare() {
	w.calm = 0
	desired, edition := w.i.wanted()
	if edition == 0 || !w.i.keepsFile() || !w.writes() || w.raw == "" {
		return
	}
	if w.prepared == edition {
		return
	}
	w.prepared = edition
	if w.journal.Blank() {
		w.journal = w.journal.Learn(desired, w.table, Process{}, w.tableFromFile(), time.Now())
	}
	missing := Diff(desired, w.table, w.journal)
	if len(missing) == 0 {
		return
	}
	w.journal = w.journal.Intend(missing, time.Now())
	w.save()
	w.file(missing)
}

// tableFromFile says which drains of the table may come from the server-state
// file: all, if no process has been looked at, for then the table is the file's.
func (w *worker) tableFromFile() func(ServerID) bool {
	if w.process == (Process{}) {
		return func(ServerID) bool { return true }
	}
	return w.fromFile
}

// file hands the table to the keeper as it will be when all is carried out.
func (w *worker) file(missing []Command) {
	if !w.i.keepsFile() || !w.writes() {
		return
	}
	raw := Patch(w.raw, missing)
	table := w.table
	if len(missing) > 0 {
		if patched, err := ParseServers(raw, w.table); err == nil {
			table = patched
		}
	}
	w.keeper.put(raw, table)
}
