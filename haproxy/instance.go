package haproxy

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tandem/haproxy/sitemap"
)

// Config is what an Instance needs to know. Only Socket is required.
type Config struct {
	Name    string        // stands in logs and metrics; the socket's path if empty
	Socket  string        // stats socket of level admin
	Timeout time.Duration // no answer for this long is a hang; 300 ms
	Poll    time.Duration // how often the servers are looked at; 100 ms
	// StateFile is HAProxy's server-state file, to be kept current. Empty: none.
	StateFile string
	// MapFile is a map of HAProxy's that holds the active site of each group, on
	// disk and in memory. Empty: none.
	MapFile string
	// JournalFile remembers over a restart which drains are tandem's. Empty: it
	// is kept in memory only.
	JournalFile string
	Observe     bool // look and say what would be done; change nothing, on disk neither
	// Aside, in a Fleet: nobody comes to it by way of the address that this
	// machine carries, so that its death alone is no reason to give that up.
	Aside      bool
	Log        *zap.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// Observation is what is known of one HAProxy. It is a value: nobody changes
// what it points to.
type Observation struct {
	Name  string
	Aside bool // see Config
	// Each, of a Fleet: one observation of each HAProxy. Else nil.
	Each []Observation
	// Alive: the process answers. With Reason socket-unusable or not-admin it is
	// alive and there is something wrong all the same.
	Alive  bool
	Reason Reason // empty: all well
	Detail string // the reason in a sentence, with its mend

	Version string
	PID     int
	Started time.Time // zero if HAProxy does not tell (before 2.5)
	Level   string    // of the socket: admin, operator, user

	// Servers is the table as last read, at ServersAt (zero: never). It stays when
	// HAProxy is gone.
	Servers   []Server
	ServersAt time.Time
	// Applied is Desired.Epoch if all that it wants was found true by reading
	// back, apart from Held; 0 while it is not, or HAProxy is not alive.
	Applied   uint64
	Pending   []Command // what is missing; in observe mode: what would be sent
	Held      []Hold
	Unmatched []string // patterns of rules that cover no server
	Map       MapStatus
	Warnings  []Warning // in the order of their kinds; of a Fleet: in Each

	SessionsLeft   int    // on drained servers whose rule says Close, at the last look (once a second)
	SessionsClosed uint64 // of those, since the start of this process
	Changes        uint64 // commands carried out
	Failures       uint64 // conversations that failed, commands refused
	Processes      uint64 // different HAProxy processes seen
}

// same says whether nothing differs that anybody would act on.
func (o Observation) same(p Observation) bool {
	if !sameSlice(o.Servers, p.Servers) && !slices.Equal(o.Servers, p.Servers) {
		return false
	}
	o.Servers, p.Servers = nil, nil
	o.ServersAt, p.ServersAt = time.Time{}, time.Time{}
	return reflect.DeepEqual(o, p)
}

// sameSlice says whether two slices are one: usually they are, and comparing
// thousands of servers ten times a second can be saved.
func sameSlice(a, b []Server) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Instance watches one HAProxy and keeps it as it is wanted.
type Instance struct {
	cfg     Config
	log     *zap.Logger
	metrics *metrics

	changed chan struct{}   // somebody should call Observed
	also    chan<- struct{} // of the fleet; nil: none
	wake    chan struct{}   // the worker should look
	kick    chan struct{}   // the watch should look
	offers  chan *loan      // from the watch to the worker

	siteMap *sitemap.Map // nil: none is kept

	mu       sync.Mutex
	desired  Desired
	edition  uint64 // grows with each new desired
	observed Observation
	held     *held // of the watch, to be borrowed; nil: none
	waiting  bool  // the worker waits for a conversation
	tableDue time.Time
	looked   time.Time // when the watch last had its answer, or was last told to ask
}

// New returns an Instance that does nothing until Run.
func New(cfg Config) *Instance {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 300 * time.Millisecond
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 100 * time.Millisecond
	}
	if cfg.Name == "" {
		cfg.Name = cfg.Socket
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	i := &Instance{
		cfg:      cfg,
		log:      cfg.Log.With(zap.String("haproxy", cfg.Name)),
		metrics:  newMetrics(cfg.Registerer, cfg.Name),
		changed:  make(chan struct{}, 1),
		wake:     make(chan struct{}, 1),
		kick:     make(chan struct{}, 1),
		offers:   make(chan *loan),
		observed: Observation{Name: cfg.Name, Aside: cfg.Aside, Reason: ReasonStarting, Detail: mend(ReasonStarting, cfg.Socket)},
	}
	if cfg.MapFile != "" && !cfg.Observe {
		if cfg.Registerer != nil {
			cfg.Registerer.MustRegister(i.metrics.mapKept)
		}
		i.siteMap = sitemap.New(cfg.Socket, cfg.MapFile, i.log, func(s MapStatus) {
			i.metrics.mapIs(s.Current)
			i.update(func(o *Observation) { o.Map = s })
		})
		i.siteMap.Pause(true) // until the worker has looked for other tandems
	}
	return i
}

// Run watches, observes and reconciles until the context ends, then returns nil
// when all it started has ended. HAProxy being absent, hung or wrong never ends
// it. The servers are left as they are.
func (i *Instance) Run(ctx context.Context) error {
	keeper := newKeeper(i)
	w := newWorker(i, keeper)
	watch := &watch{
		socket:  i.cfg.Socket,
		timeout: i.cfg.Timeout,
		every:   i.cadence(),
		kick:    i.kick,
		report:  i.judge,
		offer:   i.offer,
		next:    i.next,
		holds:   i.holds,
	}
	parts := []func(context.Context){watch.run, w.run}
	if !i.cfg.Observe && (i.cfg.StateFile != "" || i.cfg.JournalFile != "") {
		parts = append(parts, keeper.run)
	}
	if i.siteMap != nil {
		parts = append(parts, i.siteMap.Run)
	}
	var all sync.WaitGroup
	for _, part := range parts {
		all.Go(func() { part(ctx) })
	}
	all.Wait()
	return nil
}

// cadence is how often the watch asks: a hang is to be noticed within the timeout
// and a tenth of a second.
func (i *Instance) cadence() time.Duration { return min(i.cfg.Poll, 100*time.Millisecond) * 4 / 5 }

// offer gives a conversation to the worker, if it waits for one: so that looking
// at the servers costs no connection of its own.
func (i *Instance) offer(l *loan) bool {
	select {
	case i.offers <- l:
		return true
	default:
		return false
	}
}

// waits notes that the worker waits for a conversation, and when it reads the
// whole table next.
func (i *Instance) waits(due time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waiting, i.tableDue = true, due
}

// works notes that the worker no longer waits.
func (i *Instance) works() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waiting = false
}

// next is what the worker will ask first in a conversation that it is offered now.
func (i *Instance) next() ahead {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.waiting || !dueAt(i.tableDue, i.cfg.Poll, time.Now()) {
		return ahead{}
	}
	return ahead{askTable, i.edition, time.Now()}
}

func (i *Instance) keepsFile() bool { return i.cfg.StateFile != "" && !i.cfg.Observe }

// Set says what is wanted. It returns at once; the latest counts, and the same
// may be given again. What is given must not be changed afterwards.
func (i *Instance) Set(d Desired) {
	i.mu.Lock()
	same := i.edition > 0 && reflect.DeepEqual(i.desired, d)
	if !same {
		i.desired = d
		i.edition++
	}
	i.mu.Unlock()
	if i.siteMap != nil {
		i.siteMap.Set(d.Map)
	}
	if !same {
		signal(i.wake)
	}
}

// Awake says that this process is awake for something else. If HAProxy is to be
// asked soon anyway it is asked now: the question goes out, and often the answer
// comes in, with what else there is, and not by wake-ups of their own.
func (i *Instance) Awake() {
	now := time.Now()
	i.mu.Lock()
	soon := i.observed.Alive && now.Sub(i.looked) >= i.cadence()*5/8
	if soon {
		i.looked = now
	}
	i.mu.Unlock()
	if soon {
		signal(i.kick)
	}
}

// Changed gives a signal when Observed would say something new. Signals that
// nobody has taken yet become one.
func (i *Instance) Changed() <-chan struct{} { return i.changed }

// Observed returns what is known now.
func (i *Instance) Observed() Observation {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.observed
}

// wanted returns what Set said, and its edition: 0 before it was called.
func (i *Instance) wanted() (Desired, uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.desired, i.edition
}

// seen notes that the servers were looked at and nothing changed.
func (i *Instance) seen(at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.observed.ServersAt = at
}

// update changes the observation and tells whoever waits for it.
func (i *Instance) update(change func(*Observation)) {
	i.mu.Lock()
	before := i.observed
	change(&i.observed)
	differs := !i.observed.same(before)
	i.mu.Unlock()
	if differs {
		signal(i.changed)
		signal(i.also)
	}
}

// steady says whether the verdict is what is known already: nearly always.
func (i *Instance) steady(v verdict) bool {
	if !v.alive || v.fault != nil || v.held != nil {
		return false // and what is wrong is looked at by the clock
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.looked = time.Now()
	o := &i.observed
	return o.Alive && o.Reason == "" && o.PID == v.info.PID && o.Started.Equal(v.info.started()) &&
		o.Version == v.info.Version && o.Level == v.info.Level
}

// judge takes the verdict of the watch.
func (i *Instance) judge(v verdict) {
	if i.steady(v) {
		return
	}
	var before Observation
	i.update(func(o *Observation) {
		before = *o
		o.Alive, o.Reason, o.Detail = v.alive, "", ""
		if v.fault != nil {
			o.Reason, o.Detail = v.fault.Reason, v.fault.Error()
			if !v.alive && before.Reason == ReasonDied && v.fault.Reason == ReasonHung {
				o.Reason, o.Detail = before.Reason, before.Detail // it did not get better by being silent
			}
		}
		if !v.alive {
			o.Applied = 0
			i.metrics.applied.Set(0)
			return
		}
		if o.PID != v.info.PID || !o.Started.Equal(v.info.started()) {
			o.Processes++
			o.Applied = 0
		}
		o.Version, o.PID, o.Started, o.Level = v.info.Version, v.info.PID, v.info.started(), v.info.Level
	})
	after := i.Observed()
	i.logTransition(before, after, v)
	if v.held != nil {
		signal(i.wake) // no conversation can be offered
	}
	if before.Alive != after.Alive || before.PID != after.PID || before.Reason != after.Reason {
		i.metrics.alive(after.Alive)
		signal(i.wake)
		if i.siteMap != nil {
			i.siteMap.Wake()
		}
	}
}

func (i *Instance) logTransition(before, after Observation, v verdict) {
	fields := []zap.Field{zap.Int("pid", after.PID), zap.String("version", after.Version)}
	if after.Reason != "" {
		fields = append(fields, zap.String("reason", string(after.Reason)), zap.String("detail", after.Detail))
	}
	switch {
	case before.Alive && !after.Alive, !after.Alive && before.Reason != after.Reason:
		i.metrics.failed(v.fault.Reason)
		i.log.Warn("haproxy is not alive", fields...)
	case !after.Alive:
	case !before.Alive:
		i.log.Info("haproxy is alive", fields...)
	case before.PID != after.PID || !before.Started.Equal(after.Started):
		i.log.Info("haproxy was reloaded or restarted", append(fields, zap.Int("pid_before", before.PID))...)
	case before.Reason != after.Reason:
		i.log.Warn("haproxy is alive", fields...)
	}
}

// holds notes the connection that the watch holds.
func (i *Instance) holds(h *held) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.held = h
}

// spare returns the connection that is held, and whether only it answers.
func (i *Instance) spare() (h *held, only bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.held, i.observed.Reason == ReasonSocketGone
}

func (i Info) started() time.Time {
	if i.Start == 0 {
		return time.Time{}
	}
	return time.Unix(i.Start, 0)
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// MapStatus is how the active-site map stands.
type MapStatus = sitemap.Status
