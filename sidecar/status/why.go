package status

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// RenderHistory prints transitions, the latest last.
func RenderHistory(w io.Writer, all []Transition, sc Screen) error {
	p := sc.page()
	if len(all) == 0 {
		p.line(c("no transitions are known since this node started"))
	} else {
		p.transitions(all, sc.Now, "when")
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

// RenderWhy explains the present state from its causes: for each thing that is
// so, the transition that made it so, in words.
func RenderWhy(w io.Writer, s Status, history []Transition, sc Screen) error {
	p := sc.page()
	p.text(c(""), healthSentence(s))
	for _, problem := range s.Problems {
		p.text(c("  - ", healthStyle(s.Health)), problem)
	}
	for _, l := range s.Leases {
		p.b.WriteByte('\n')
		p.whyLease(s, l, history, sc.Now)
	}
	for _, g := range s.Groups {
		p.b.WriteByte('\n')
		p.whySite(s, g, history, sc.Now)
	}
	p.whyNodes(s)
	p.whyHAProxys(s)
	if s.PausedUntil != nil {
		p.paragraph("Automatic site decisions are paused " + pausedUntil(*s.PausedUntil, sc.Now) + ": an operator asked for it.")
	}
	for _, h := range heldAlike(s.Held) {
		p.paragraph(strings.TrimSuffix(fmt.Sprintf("%s on %s is left alone: somebody holds it by hand (%s): %s", h.Server, h.Node, h.Kind, h.Detail), ": ") + ".")
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

func healthSentence(s Status) string {
	switch s.Health {
	case Healthy:
		return "All is well: one more failure would be survived."
	case Degraded:
		return "Traffic is served, but one more failure may not be survived:"
	case NotServing:
		return "Not everything is served:"
	case Unknown:
		return "This node cannot tell how the cluster is:"
	default:
		return "This node cannot tell how the cluster is:"
	}
}

func (p *page) whyLease(s Status, l Lease, history []Transition, now time.Time) {
	if l.Source == LeaseUnknown {
		p.text(c(""), fmt.Sprintf("Whether anybody holds %s is not known here: too few voters are heard. This node does not.", l.Resource))
		return
	}
	if l.Holder == "" {
		p.text(c(""), fmt.Sprintf("Nobody holds %s.", l.Resource))
		p.lastHolder(l, history, now)
		return
	}
	p.text(c(""), fmt.Sprintf("%s holds %s, for another %s unless it renews, which it does several times within each lease.",
		l.Holder, l.Resource, span(ms(l.ExpiresInMS))))
	up, stay := taken(history, l)
	p.because(up, now)
	if up != nil && up.Reason == "handed-over" {
		p.letGo(history, *up)
	}
	unfit := slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Name == l.Holder && !n.Eligible })
	if stay != nil && unfit {
		p.text(c("  "), "It stays there as a last resort, since "+moment(stay.At, now)+": nobody else can take it, although "+named(stay.Reason))
	}
}

// taken finds the transition with which the holder of a lease took it up, and
// the one after which it stays only because nobody else can have it.
func taken(history []Transition, l Lease) (up, stay *Transition) {
	for i := len(history) - 1; i >= 0; i-- {
		switch t := &history[i]; {
		case t.Resource != l.Resource || t.To != l.Holder:
		case t.Event == "take-up":
			return t, stay
		case t.Event == "last-resort" && stay == nil:
			stay = t
		}
	}
	return nil, nil
}

// lastHolder says what became of a lease that nobody holds.
func (p *page) lastHolder(l Lease, history []Transition, now time.Time) {
	for _, t := range slices.Backward(history) {
		switch {
		case t.Resource != l.Resource:
		case t.Event == "let-go":
			p.text(c("  "), fmt.Sprintf("%s let it go, %s:", cmp.Or(t.From, t.Node), moment(t.At, now)))
			p.reason(t.Reason, t.Actor)
			if t.Detail != "" {
				p.text(c("  "), t.Detail)
			}
			return
		case t.Event == "take-up":
			p.text(c("  "), fmt.Sprintf("%s held it last, since %s, and was not heard to let it go: its lease ran out.", t.To, moment(t.At, now)))
			return
		}
	}
	p.text(c("  "), "Nobody has held it since this node started.")
}

// letGo says why the former holder released a lease: that is the cause.
func (p *page) letGo(history []Transition, up Transition) {
	for _, t := range slices.Backward(history) {
		if t.Resource == up.Resource && t.Event == "let-go" && t.From == up.From && !t.At.After(up.At.Add(time.Second)) {
			p.text(c("  "), fmt.Sprintf("%s released it for this reason: %s: %s", t.From, t.Reason, cmp.Or(Explain(t.Reason), "see `tandem history`.")))
			return
		}
	}
}

func (p *page) whySite(s Status, g Site, history []Transition, now time.Time) {
	first := fmt.Sprintf("No site is active for %s.", g.Group)
	if g.Active != "" {
		first = fmt.Sprintf("Site %s is active for %s, since %s.", g.Active, g.Group, sinceWhen(g.Since, now))
	}
	if g.Stale {
		first = fmt.Sprintf("Which site is active for %s is not known here: too few voters are heard. When last heard it was %s, since %s.", g.Group, cmp.Or(g.Active, "none"), sinceWhen(g.Since, now))
	}
	p.text(c(""), first)
	p.reason(g.Reason, g.Actor)
	if g.Waiting != "" && !g.Switching() {
		p.text(c("  "), "It stays: "+named(g.Waiting))
	}
	if g.Switching() {
		p.text(c("  "), fmt.Sprintf("A switch to %s is under way, in phase %s: %s", g.Target, g.Phase, phases[g.Phase]))
		if g.Waiting != "" {
			p.text(c("  "), "It waits: "+named(g.Waiting))
		}
	}
	if g.AckNeeded {
		p.text(c("  "), "After several switches in a short time nothing switches by itself any more, until somebody has looked and says `tandem ack`.")
	}
	for _, v := range s.Views {
		if !v.Usable && !v.Stale && v.Site == g.Active && (v.Group == "" || v.Group == g.Group) {
			p.text(c("  "), fmt.Sprintf("%s does not see %s usable: %s", v.Node, v.Site, named(cmp.Or(v.Reason, "critical-down"))))
		}
	}
	if t := last(history, "site", g.Active); t != nil && t.Detail != "" {
		p.text(c("  "), t.Detail)
	}
}

// phases says what happens in each phase of a switch.
var phases = map[string]string{
	"precheck": "whether the target is usable and no hook objects.",
	"takeover": "the new site's takeover hooks run, once in the cluster.",
	"enable":   "the new site's servers become ready on every load balancer.",
	"renounce": "the old site's servers drain on every load balancer.",
	"settle":   "connections left on the old site are given time to end.",
}

func (p *page) whyNodes(s Status) {
	for _, n := range s.Nodes {
		switch {
		case !n.Alive:
			p.paragraph(fmt.Sprintf("%s is not heard (%s): %s", n.Name, lastHeard(n), named(cmp.Or(n.Reason, "not-heard"))))
		case n.Maintenance:
			p.paragraph(n.Name + " holds nothing: an operator put it in maintenance (`tandem maintenance off " + n.Name + "`).")
		case n.Role == "lb" && !n.Eligible:
			p.paragraph(fmt.Sprintf("%s must not hold anything: %s", n.Name, named(cmp.Or(n.Reason, "not-eligible"))))
		default:
			continue
		}
		if n.Detail != "" {
			p.text(c("  "), n.Detail)
		}
	}
}

func lastHeard(n Node) string {
	if n.AgeMS < 0 {
		return "never since this node started"
	}
	return "last " + ago(ms(n.AgeMS))
}

// because names the transition that led to the present state.
func (p *page) because(t *Transition, now time.Time) {
	if t == nil {
		p.text(c("  "), "Why is not known here: it was so before this node started.")
		return
	}
	number := ""
	if t.Epoch > 0 {
		number = fmt.Sprintf(", epoch %d", t.Epoch)
	}
	p.text(c("  "), fmt.Sprintf("%s%s, told by %s:", moment(t.At, now), number, t.Node))
	p.reason(t.Reason, t.Actor)
	if t.Detail != "" {
		p.text(c("  "), t.Detail)
	}
}

// paragraph writes a sentence behind an empty line.
func (p *page) paragraph(words string) {
	p.b.WriteByte('\n')
	p.text(c(""), words)
}

func (p *page) reason(reason, actor string) {
	if reason == "" {
		return
	}
	text := named(reason)
	if actor != "" {
		text += " Asked by " + actor + "."
	}
	p.text(c("  "), text)
}

// named is the reason word with its meaning, so that a reader can find the
// same word in log and metrics.
func named(reason string) string {
	if meaning := Explain(reason); meaning != "" {
		return reason + ": " + meaning
	}
	return strings.TrimSuffix(reason, ".") + "."
}

// last finds the transition that gave the resource to whoever has it now, or
// the latest of the resource when nobody has it. What a hook told of it is none,
// nor is what somebody asked for.
func last(history []Transition, resource, to string) *Transition {
	for i := len(history) - 1; i >= 0; i-- {
		if t := &history[i]; t.Resource == resource && (to == "" || t.To == to) && t.Event != "hook-notify" && !t.IsCommand() {
			return t
		}
	}
	return nil
}
