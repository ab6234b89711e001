package status

import (
	"cmp"
	"strings"
	"time"
)

// wide is the width from which each line has its date. Below, a line for each
// day has it, so that reasons and names need not be cut.
const wide = 100

// transitions prints a table, the latest last.
func (p *page) transitions(all []Transition, now time.Time, title string) {
	rows := [][]cell{{c(title), c("what"), c("change"), c("epoch"), c("reason"), c("who")}}
	day := date(now)
	for _, t := range all {
		when := moment(t.At, now)
		if p.width < wide && !t.At.IsZero() {
			if d := date(t.At); d != day {
				day = d
				rows = append(rows, []cell{c("  "+cmp.Or(strings.TrimPrefix(d, date(now)), "today"), dim)})
			}
			when = t.At.Local().Format(clock)
		}
		event, reason := c(what(t)), c(orDash(t.Reason))
		if t.NotDone() {
			event.style, reason.style = warn, warn
		}
		rows = append(rows, []cell{c("  " + when), event, c(change(t)), epoch(t.Epoch), reason, c(orDash(cmp.Or(person(t.Actor), t.Node)))})
	}
	p.firmTable(2, rows)
}

// date names a day.
func date(at time.Time) string { return at.Local().Format("Mon 02 Jan") }

// what says what happened to which resource. A command that was not carried out
// is named by its kind; the resource says nothing more, unless it is one group
// of several.
func what(t Transition) string {
	switch {
	case t.NotDone() && (t.Resource == "site" || t.Resource == "node" || t.Resource == "vip" || t.Resource == "vip/default"):
		return t.Event
	case t.Phase != "":
		return t.Resource + " " + t.Event + " " + t.Phase
	}
	return t.Resource + " " + t.Event
}

// person is who asked, without the account that was used for it.
func person(actor string) string {
	if _, name, ok := strings.Cut(strings.TrimSuffix(actor, ")"), " ("); ok {
		return name
	}
	return actor
}

func change(t Transition) string {
	switch {
	case t.From != "" && t.To != "":
		return t.From + " → " + t.To
	case t.To != "":
		return "→ " + t.To
	case t.From != "":
		return t.From + " →"
	default:
		return orDash(t.Detail)
	}
}
