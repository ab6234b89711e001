package lease

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// play is a world acted on by lines of text. The stories in testdata and the
// random simulation use the same lines, so that a failure of the simulation can
// be put into a story as it is printed.
//
//	cluster voters=(a,b,w) [seed=1] [lease=500ms] [max=1s] [mode=pair] [auto] [disk] [eager]
//	voters (a,b,c,d)                                                 (the list of those that start from now on)
//	net [loss=300] [dup=50] [slow=10] [latency=1ms] [jitter=5ms]     (loss, dup, slow in thousandths)
//	run 100ms
//	start a | start-if-down a | crash a | freeze a | thaw a | clock a ppm=10000
//	succeed a                                                        (a new program in its place, with its snapshot; ends a freeze)
//	stand a [of=vip] [rank=1] [willing=no]
//	release a [of=vip] [to=b] | propose a [of=vip] value=x | reach a [ok=no]
//	cut a->b | cut a->* | cut a b | cut a | heal …                   (without names: everything)
//	keep w->a | hand w->a                                            (messages wait in the network; they arrive now)
//	replay 20 [kind=release]                                         (old messages arrive once more)
//	messages on|off | status | expect-holder [of=vip]
//
// Instead of a name, "holder" is the node that holds the resource, if any.
type play struct {
	w        *world
	out      strings.Builder
	silent   bool // nothing is told: for the simulation
	messages bool
	mutant   *mutant
}

// told is what happened since it was last called.
func (p *play) told() string {
	if p.w.check.failure != "" {
		fmt.Fprintf(&p.out, "VIOLATION %s\n", p.w.check.failure)
	}
	s := p.out.String()
	p.out.Reset()
	if s == "" {
		return "ok"
	}
	return s
}

// words are the arguments of a line.
type words []string

func (ws words) get(key, otherwise string) string {
	for _, w := range ws {
		if v, ok := strings.CutPrefix(w, key); ok && strings.HasPrefix(v, "=") {
			return v[1:]
		}
	}
	return otherwise
}

func (ws words) duration(key string, otherwise time.Duration) time.Duration {
	d, err := time.ParseDuration(ws.get(key, otherwise.String()))
	if err != nil {
		panic(err)
	}
	return d
}

func (ws words) number(key string, otherwise int64) int64 {
	n, err := strconv.ParseInt(ws.get(key, strconv.FormatInt(otherwise, 10)), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// do does one line.
func (p *play) do(line string) error {
	f := strings.Fields(line)
	if len(f) == 0 {
		return nil
	}
	w, ws := p.w, words(f[1:])
	switch f[0] {
	case "cluster":
		p.cluster(ws)
	case "voters":
		w.setVoters(f[1])
	case "net":
		w.loss, w.dup, w.slow = uint64(ws.number("loss", 0)), uint64(ws.number("dup", 0)), uint64(ws.number("slow", 0))
		w.latency, w.jitter = ws.duration("latency", time.Millisecond), ws.duration("jitter", 0)
	case "run":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			return err
		}
		w.run(d)
	case "replay":
		n, err := strconv.Atoi(f[1])
		if err != nil {
			return err
		}
		w.replay(n, ws.get("kind", ""))
	case "messages":
		p.messages = f[1] == "on"
	case "cut", "heal":
		p.link(ws, f[0] == "cut")
	case "keep", "hand":
		from, to, _ := strings.Cut(f[1], "->")
		w.keep([2]int{w.node(from).id, w.node(to).id}, f[0] == "keep")
	case "status":
		p.status()
	case "expect-holder":
		if w.holder(ws.get("of", "vip")) == nil {
			w.check.fail(liveness, "NO HOLDER of %s", ws.get("of", "vip"))
		}
	default:
		return p.nodeLine(f[0], f[1], ws)
	}
	return nil
}

func (p *play) cluster(ws words) {
	w := &world{
		rand: random(ws.number("seed", 1)), latency: time.Millisecond, mutant: p.mutant,
		mode: map[string]Mode{"quorum": ModeQuorum, "pair": ModePair, "single": ModeSingle}[ws.get("mode", "quorum")],
		disk: slices.Contains(ws, "disk"), eager: slices.Contains(ws, "eager"),
	}
	w.tuning.Fixed = ws.duration("lease", 500*time.Millisecond)
	w.maxLease = ws.duration("max", w.tuning.Fixed)
	if slices.Contains(ws, "auto") {
		w.tuning, w.maxLease = Tuning{Auto: true}, 2*time.Second
	}
	w.check = &checker{w: w, pair: w.mode == ModePair}
	if p.mutant != nil {
		w.check.only = p.mutant.breaks
	}
	if !p.silent {
		w.tell = func(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }
		w.wire = p.wire
	}
	w.setVoters(ws.get("voters", "(a,b,w)"))
	p.w = w
}

// setVoters sets the list that nodes start with, and makes those that are new.
func (w *world) setVoters(list string) {
	w.former = w.voters
	w.voters = strings.Split(strings.Trim(strings.ReplaceAll(list, " ", ""), "()"), ",")
	for _, name := range w.voters {
		if w.find(name, "") == nil {
			w.add(name)
		}
	}
}

func (p *play) wire(at time.Duration, from, to string, msg Message) {
	if !p.messages {
		return
	}
	for i := range msg.Items {
		fmt.Fprintf(&p.out, "%8.3fs     %s → %s %s\n", at.Seconds(), from, to, describe(&msg.Items[i]))
	}
}

func (p *play) nodeLine(verb, name string, ws words) error {
	resource := ws.get("of", "vip")
	n := p.w.find(name, resource)
	switch {
	case n == nil && name == "holder":
		return nil
	case n == nil:
		return fmt.Errorf("no node %s", name)
	}
	switch verb {
	case "start":
		n.start()
	case "start-if-down":
		if n.m == nil {
			n.start()
		}
	case "crash":
		n.crash()
	case "succeed":
		n.succeed()
	case "freeze":
		n.frozen = true
	case "thaw":
		n.thaw()
	case "clock":
		n.setClock(ws.number("ppm", 0))
	case "stand":
		n.stand(Stand{Resource: resource, Willing: ws.get("willing", "yes") == "yes", Rank: int(ws.number("rank", 0))})
	case "release":
		n.step(Release{Resource: resource, Successor: ws.get("to", ""), Reason: Reason(ws.get("because", "planned"))})
	case "propose":
		n.step(Propose{Resource: resource, Data: []byte(ws.get("value", ""))})
	case "reach":
		n.reach = ws.get("ok", "yes") == "yes"
		n.test()
	default:
		return fmt.Errorf("unknown line %s", verb)
	}
	return nil
}

func (w *world) find(name, resource string) *node {
	if name == "holder" {
		return w.holder(resource)
	}
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// some are the nodes that a word stands for: * is all of them.
func (p *play) some(name string) []*node {
	if name == "*" {
		return p.w.nodes
	}
	return []*node{p.w.find(name, "vip")}
}

// link cuts or heals: nothing (everything), a (both ways with all), a->b (one
// way), a->*, a b.
func (p *play) link(names []string, down bool) {
	w := p.w
	set := func(a, b *node) {
		if a != b && a != nil && b != nil {
			w.down[a.id][b.id] = down
		}
	}
	switch {
	case len(names) == 0:
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				set(a, b)
			}
		}
	case strings.Contains(names[0], "->"):
		from, to, _ := strings.Cut(names[0], "->")
		for _, a := range p.some(from) {
			for _, b := range p.some(to) {
				set(a, b)
			}
		}
	case len(names) == 1:
		n := w.find(names[0], "vip")
		if n == nil {
			return
		}
		for _, b := range w.nodes {
			set(n, b)
			set(b, n)
		}
	default:
		set(w.node(names[0]), w.node(names[1]))
		set(w.node(names[1]), w.node(names[0]))
	}
}

func (p *play) status() {
	for _, n := range p.w.nodes {
		if n.m == nil {
			fmt.Fprintf(&p.out, "%-3s down\n", n.name)
			continue
		}
		now := n.local(p.w.now)
		if until, yes := n.m.Quarantined(now); yes {
			fmt.Fprintf(&p.out, "%-3s quarantine for another %v\n", n.name, rounded(until-now))
		}
		for _, st := range n.m.Status(now) {
			line := fmt.Sprintf("%-3s %s %s", n.name, st.Resource, st.State)
			switch {
			case st.Self:
				line += fmt.Sprintf(", %v left", rounded(st.Deadline-now))
			case st.Holder != "":
				line += fmt.Sprintf(", believes %s holds it for another %v", st.Holder, rounded(st.Expires-now))
			}
			if st.Alone {
				line += ", alone (unsafe)"
			}
			fmt.Fprintf(&p.out, "%s, %s\n", line, show(st.Value))
		}
	}
}

func describe(it *Item) string {
	line := fmt.Sprintf("%s %s ballot %d/%s", it.Kind, it.Resource, it.Ballot.Counter, it.Ballot.Node)
	switch it.Kind {
	case KindPromise:
		line += ", knows " + show(it.Value)
	case KindPropose:
		line += fmt.Sprintf(" #%d for %v, %s", it.Seq, it.Lease, show(it.Value))
		if it.Held {
			line += ", held"
		}
	case KindAccept:
		line += fmt.Sprintf(" #%d", it.Echo)
	case KindRefuse:
		line += ": " + string(it.Reason)
		if it.Holder.Node != "" {
			line += fmt.Sprintf(" (of %s, for another %v)", it.Holder.Node, rounded(it.Remaining))
		}
	case KindRelease:
		if it.Successor != "" {
			line += ", to " + it.Successor
		}
	case KindPrepare, KindReleased, KindInform:
	}
	return line
}

func show(v Value) string {
	if v.Epoch == 0 {
		return "blank"
	}
	return fmt.Sprintf("epoch %d %q", v.Epoch, v.Data)
}

func rounded(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// holder is who holds a resource now by its own reckoning.
func (w *world) holder(resource string) *node {
	for _, n := range w.nodes {
		if n.m == nil || n.frozen {
			continue
		}
		for _, s := range n.m.Status(n.local(w.now)) {
			if s.Resource == resource && s.Self {
				return n
			}
		}
	}
	return nil
}
