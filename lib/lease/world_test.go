package lease

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// world is a cluster in virtual time: machines, clocks that run at different
// rates, and a network that the test owns. Everything in it follows from its
// seed and from what is done to it.
type world struct {
	now   time.Duration // true time, which no node can read
	rand  random
	nodes []*node
	queue events
	order uint64
	steps int

	proposals int

	mode     Mode
	maxLease time.Duration
	tuning   Tuning
	voters   []string
	former   []string // the list before, which some may still have

	latency, jitter time.Duration // of a message: latency and up to jitter more
	loss, dup, slow uint64        // in thousandths; slow messages take up to slowest more
	down            [MaxVoters][MaxVoters]bool
	kept            map[[2]int][]event // by the network, from and to: see the line "keep"
	disk            bool
	eager           bool // who takes a lease up proposes at once, as an agent does
	mutant          *mutant
	replaced        bool // after each step every machine is replaced by one made from its snapshot

	history []event // the last messages sent, delivered or not, for replays

	check *checker
	tell  func(format string, args ...any) // events of interest, for transcripts; may be nil
	wire  func(at time.Duration, from, to string, msg Message)
}

const slowest = 3 * time.Second

// node is one machine and what surrounds it.
type node struct {
	w      *world
	id     int
	name   string
	m      *Machine // nil: not running
	starts int
	ppm    int64         // its clock runs that much fast
	offset time.Duration // of its clock
	frozen bool
	inbox  []Message // what arrived while it was frozen
	saved  []Record  // the state directory
	wakes  uint64    // the valid wake-up
	stands []Stand   // repeated after a restart
	reach  bool      // the isolation test passes, whenever it is made
	tested time.Duration
	met    [MaxVoters]int // by node: the latest of its starts from which an answer came
}

type event struct {
	at    time.Duration
	order uint64
	node  int
	wake  uint64 // 0: a message
	msg   *Message
}

type events []event

func (q events) before(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}

// push and pop keep the queue a heap; container/heap would allocate each time.
func (w *world) push(e event) {
	w.order++
	e.order = w.order
	w.queue = append(w.queue, e)
	q := w.queue
	for i := len(q) - 1; i > 0 && q.before(i, (i-1)/2); i = (i - 1) / 2 {
		q[i], q[(i-1)/2] = q[(i-1)/2], q[i]
	}
}

func (w *world) pop() event {
	q := w.queue
	first, last := q[0], len(q)-1
	q[0], q[last] = q[last], event{}
	q = q[:last]
	w.queue = q
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(q); c++ {
			if q.before(c, least) {
				least = c
			}
		}
		if least == i {
			return first
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}

// local and global convert between true time and a node's clock.
func (n *node) local(t time.Duration) time.Duration {
	return n.offset + t + time.Duration(int64(t)/1e6*n.ppm) + time.Duration(int64(t)%1e6*n.ppm/1e6)
}

// global is the first true time at which the node's clock shows at least l.
func (n *node) global(l time.Duration) time.Duration {
	if l > 1<<60 {
		return l
	}
	t := time.Duration(float64(l-n.offset) / (1 + float64(n.ppm)/1e6))
	for n.local(t) < l {
		t++
	}
	for t > 0 && n.local(t-1) >= l {
		t--
	}
	return t
}

// setClock changes the rate of the clock from now on, without a jump.
func (n *node) setClock(ppm int64) {
	before := n.local(n.w.now)
	n.ppm = ppm
	n.offset += before - n.local(n.w.now)
}

func (w *world) node(name string) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	panic("no node " + name)
}

func (w *world) add(name string) *node {
	n := &node{w: w, id: len(w.nodes), name: name, offset: time.Duration(len(w.nodes)+1) * time.Hour}
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) incarnation() Incarnation {
	inc := Incarnation{byte(n.id + 1), byte(n.starts)}
	if n.w.mutant != nil && n.w.mutant.sameIncarnation {
		inc[1] = 1
	}
	return inc
}

// start starts a machine that remembers nothing but its disk.
func (n *node) start() {
	w := n.w
	if n.m != nil {
		n.crash()
	}
	n.starts++
	cfg := Config{
		Node: n.name, Incarnation: n.incarnation(), Voters: w.voters, Mode: w.mode,
		MaxLease: w.maxLease, Tuning: w.tuning, Seed: w.rand.next(),
	}
	if w.disk {
		cfg.Restored = slices.Clone(n.saved)
	}
	rules := soundRules(w.mode)
	if w.mutant != nil && w.mutant.change != nil {
		w.mutant.change(rules)
	}
	m, err := newMachine(cfg, n.local(w.now), rules)
	if err != nil {
		panic(err)
	}
	n.m, n.met = m, [MaxVoters]int{}
	n.step(Tick{})
	for _, s := range n.stands {
		n.step(s)
	}
}

func (n *node) crash() {
	n.m, n.frozen, n.inbox = nil, false, nil
	n.wakes++
	if w := n.w; w.check != nil {
		w.check.crashed(n)
	}
}

// succeed replaces a machine by one that is made from its snapshot, as a process
// does that executes its new program in place. What arrived while it was frozen
// is lost, since nobody listened.
func (n *node) succeed() {
	if n.m == nil {
		return
	}
	text, err := json.Marshal(n.m.Snapshot())
	if err != nil {
		panic(err)
	}
	var s Snapshot
	if err := json.Unmarshal(text, &s); err != nil {
		panic(err)
	}
	if m := n.w.mutant; m != nil && m.forget != nil {
		m.forget(&s)
	}
	w := n.w
	cfg := Config{Node: n.name, Voters: n.m.voters, Mode: w.mode, MaxLease: w.maxLease, Tuning: w.tuning}
	if n.m, err = restoreMachine(cfg, s, n.local(w.now), n.m.rules); err != nil {
		panic(err)
	}
	n.inbox = nil
	if n.frozen {
		n.frozen = false
		n.step(Tick{})
	}
}

func (n *node) stand(s Stand) {
	for i := range n.stands {
		if n.stands[i].Resource == s.Resource {
			n.stands[i] = s
			n.step(s)
			return
		}
	}
	n.stands = append(n.stands, s)
	n.step(s)
}

// step runs one step of a machine and acts on the output as an agent would.
func (n *node) step(in Input) {
	if n.m == nil || n.frozen {
		return
	}
	w := n.w
	w.steps++
	out := n.m.Step(n.local(w.now), in)
	if w.replaced {
		defer n.succeed()
	}
	for _, rec := range out.Persist {
		n.save(rec)
	}
	n.report(&out)
	for _, e := range out.Send {
		w.send(n, e)
	}
	var taken []string
	if w.eager {
		for _, t := range out.TakeUp {
			taken = append(taken, t.Resource)
		}
	}
	n.wakes++
	w.push(event{at: max(n.global(out.Wake), w.now), node: n.id, wake: n.wakes})
	for _, r := range taken {
		w.proposals++
		n.step(Propose{Resource: r, Data: fmt.Appendf(nil, "%s%d", n.name, w.proposals)})
	}
}

func (n *node) save(rec Record) {
	for i := range n.saved {
		if n.saved[i].Resource == rec.Resource {
			n.saved[i] = rec
			return
		}
	}
	n.saved = append(n.saved, rec)
}

func (w *world) send(from *node, e Envelope) {
	if w.check != nil {
		w.check.sent(&e.Message)
	}
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.name == e.To })
	if i < 0 {
		return
	}
	msg := &Message{From: e.Message.From, To: e.Message.To, Settings: e.Message.Settings, Items: slices.Clone(e.Message.Items)}
	w.remember(event{node: i, msg: msg})
	if w.down[from.id][i] || w.rand.next()%1000 < w.loss {
		return
	}
	if way := [2]int{from.id, i}; w.kept[way] != nil {
		w.kept[way] = append(w.kept[way], event{node: i, msg: msg})
		return
	}
	w.push(event{at: w.arrival(), node: i, msg: msg})
	if w.dup > 0 && w.rand.next()%1000 < w.dup {
		w.push(event{at: w.arrival(), node: i, msg: msg})
	}
}

// remember keeps a message for replay: the network may deliver it again at any
// time, whatever cuts there are.
func (w *world) remember(e event) {
	const limit = 400
	if len(w.history) < limit {
		w.history = append(w.history, e)
		return
	}
	w.history[w.steps%limit] = e
}

// replay delivers n messages of the past once more, in any order: of one kind,
// or of any.
func (w *world) replay(n int, kind string) {
	for range n * 20 {
		if len(w.history) == 0 || n == 0 {
			return
		}
		e := w.history[w.rand.next()%uint64(len(w.history))]
		if kind != "" && e.msg.Items[0].Kind.String() != kind {
			continue
		}
		e.at = w.now + w.rand.upTo(20*time.Millisecond)
		w.push(e)
		n--
	}
}

func (w *world) arrival() time.Duration {
	at := w.now + w.latency
	if w.jitter > 0 {
		at += w.rand.upTo(w.jitter)
	}
	if w.slow > 0 && w.rand.next()%1000 < w.slow {
		at += w.rand.upTo([]time.Duration{slowest, slowest / 6}[w.rand.next()%2])
	}
	return at
}

// runUntil lets everything happen that happens before t.
func (w *world) runUntil(t time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= t && !w.failed() {
		e := w.pop()
		w.now = max(w.now, e.at)
		n := w.nodes[e.node]
		switch {
		case e.wake != 0:
			if e.wake == n.wakes {
				n.step(Tick{})
				n.test()
			}
		case n.m == nil:
		case n.frozen:
			n.inbox = append(n.inbox, *e.msg)
		default:
			n.deliver(*e.msg)
		}
	}
	w.now = max(w.now, t)
}

func (w *world) run(d time.Duration) { w.runUntil(w.now + d) }

func (w *world) failed() bool { return w.check != nil && w.check.failure != "" }

func (n *node) deliver(msg Message) {
	if n.w.wire != nil {
		n.w.wire(n.w.now, msg.From.Node, n.name, msg)
	}
	if c := n.w.check; c != nil {
		defer c.lives(n, &msg)()
	}
	n.step(Receive{msg})
}

// test makes the isolation test, as an agent does all the time in a pair.
func (n *node) test() {
	if n.w.mode == ModePair && n.w.now >= n.tested+50*time.Millisecond {
		n.tested = n.w.now
		n.step(Reach{OK: n.reach})
	}
}

// thaw ends a freeze: what was queued is delivered at once, the last first
// (memberlist delivers in that order).
func (n *node) thaw() {
	if !n.frozen {
		return
	}
	n.frozen = false
	inbox := n.inbox
	n.inbox = nil
	n.step(Tick{})
	for _, msg := range slices.Backward(inbox) {
		n.deliver(msg)
	}
}

// report checks an output and tells of it.
func (n *node) report(out *Output) {
	if c := n.w.check; c != nil {
		c.output(n, out)
	}
	if n.w.tell == nil {
		return
	}
	tell := func(format string, args ...any) {
		n.w.tell("%8.3fs %-3s %s", n.w.now.Seconds(), n.name, fmt.Sprintf(format, args...))
	}
	for _, l := range out.LetGo {
		to := ""
		if l.Successor != "" {
			to = ", names " + l.Successor
		}
		tell("lets go of %s: %s%s (%v before its deadline)", l.Resource, l.Reason, to, rounded(l.Deadline-n.local(n.w.now)))
	}
	for _, t := range out.TakeUp {
		from := ""
		if t.Predecessor != "" {
			from = " from " + t.Predecessor
		}
		tell("takes up %s%s: %s, for %v, %s", t.Resource, from, t.Reason, rounded(t.Deadline-n.local(n.w.now)), show(t.Value))
	}
	for _, d := range out.Decided {
		tell("knows decided: %s, %s", d.Record.Resource, show(d.Record.Value))
	}
}
