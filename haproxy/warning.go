package haproxy

import (
	"slices"
	"strings"

	"go.uber.org/zap"
)

// Warning is what should be mended at an HAProxy that may obey all the same.
type Warning struct {
	Kind   WarningKind
	Detail string // in a sentence
}

// WarningKind is a warning in a word: the same in the log, the status and the docs.
type WarningKind string

// The kinds of warnings.
const (
	WarnStateFile WarningKind = "state-file-not-written" // the disk does not take the server-state file
	WarnJournal   WarningKind = "journal-not-written"    // or not the journal
	WarnFrontend  WarningKind = "frontend-disabled"      // by a person, at the socket
	WarnRival     WarningKind = "another-tandem"         // which writes to the same HAProxy; this one does not
)

// warn shows a warning until it is called with another detail for the same kind,
// or with none.
func (i *Instance) warn(kind WarningKind, detail string) {
	i.update(func(o *Observation) {
		others := slices.DeleteFunc(slices.Clone(o.Warnings), func(w Warning) bool { return w.Kind == kind })
		if detail != "" {
			others = append(others, Warning{kind, detail})
			slices.SortFunc(others, func(a, b Warning) int { return strings.Compare(string(a.Kind), string(b.Kind)) })
		}
		o.Warnings = slices.Clip(others)
		if len(others) == 0 {
			o.Warnings = nil
		}
	})
}

// contended tells that another tandem writes to this HAProxy, or no longer does.
func (i *Instance) contended(rival string) {
	if rival == "" {
		i.log.Info("no other tandem writes to this haproxy any more")
		i.warn(WarnRival, "")
		return
	}
	i.log.Error("another tandem writes to this haproxy; this one sends nothing until that one ends", zap.String("rival", rival))
	i.warn(WarnRival, "another tandem writes to this HAProxy ("+rival+"); this one sends nothing until that one ends")
}
