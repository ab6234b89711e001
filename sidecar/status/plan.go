package status

import (
	"cmp"
	"io"
	"strings"
)

// Plan is what would happen if something failed, found by rehearsing it: see
// `tandem plan`.
type Plan struct {
	Node   string   `json:"node"` // from whose picture
	Faults []string `json:"faults"`
	// Sentence says it all in one.
	Sentence string `json:"sentence"`
	// Health and Problems are those that status would show once all is quiet.
	Health   Health   `json:"health"`
	Problems []string `json:"problems"`
	// Moves are what would be another than now; empty: nothing moves.
	Moves   []PlanMove   `json:"moves"`
	Holders []PlanHolder `json:"holders"`
	Sites   []PlanSite   `json:"sites"`
	Steps   []PlanStep   `json:"steps"` // how it would come to that
	Notes   []string     `json:"notes"` // what was taken for granted
}

// PlanMove is one thing that would change hands.
type PlanMove struct {
	What    string `json:"what"` // vip/<group>, site, or "site of <group>"
	From    string `json:"from"` // empty: nobody, none
	To      string `json:"to"`
	AfterMS int64  `json:"after_ms"` // since the failure; no promise
	Reason  string `json:"reason"`
}

// PlanHolder is who would hold a lease; empty: nobody.
type PlanHolder struct {
	Resource string `json:"resource"`
	Holder   string `json:"holder"`
}

// PlanSite is which site would be active for a group of backends.
type PlanSite struct {
	Group   string `json:"group"`
	Active  string `json:"active"`
	Reason  string `json:"reason"`
	Waiting string `json:"waiting,omitempty"`
}

// PlanStep is a transition, by the time since the failure.
type PlanStep struct {
	AfterMS int64 `json:"after_ms"`
	Transition
}

// RenderPlan prints what would happen: the sentence, what would move and when,
// how it would come to that, and how the cluster would be then.
func RenderPlan(w io.Writer, plan Plan, sc Screen) error {
	p := sc.page()
	p.text(c("", bold), plan.Sentence)
	p.b.WriteByte('\n')
	if len(plan.Moves) > 0 {
		rows := [][]cell{{c("moves"), c("from"), c("to"), c("after"), c("reason")}}
		for _, m := range plan.Moves {
			to := c(orDash(m.To), good)
			if m.To == "" {
				to.style = bad
			}
			rows = append(rows, []cell{c("  " + m.What), c(orDash(m.From)), to, c("about " + span(ms(m.AfterMS))), c(orDash(m.Reason))})
		}
		p.table(rows...)
		p.b.WriteByte('\n')
	}
	if len(plan.Steps) > 0 {
		rows := [][]cell{{c("steps"), c("what"), c("change"), c("reason"), c("who")}}
		for _, s := range plan.Steps {
			rows = append(rows, []cell{c("  " + span(ms(s.AfterMS))), c(what(s.Transition)), c(change(s.Transition)), c(orDash(s.Reason)), c(orDash(s.Node))})
		}
		p.table(rows...)
		p.b.WriteByte('\n')
	}
	p.line(c("then: "), c(strings.ToUpper(string(cmp.Or(plan.Health, Unknown))), healthStyle(plan.Health)))
	for _, problem := range plan.Problems {
		p.text(c("! ", healthStyle(plan.Health)), problem)
	}
	for _, note := range plan.Notes {
		p.text(c("o ", dim), note)
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}
