package hook

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Reason says how a job ended.
type Reason string

// The reasons. ReasonLost belongs to the callers of this package: a node that
// cannot give the result any more.
const (
	ReasonOK         Reason = "ok"
	ReasonExit       Reason = "exit-status" // a command exited with another status than 0
	ReasonSignal     Reason = "signal"      // a command was killed, not by us
	ReasonTimeout    Reason = "timeout"     // a command did not end in time and was killed
	ReasonStart      Reason = "not-started" // a command could not be started
	ReasonNoCommand  Reason = "no-command"
	ReasonStale      Reason = "stale-epoch" // a later decision has been seen
	ReasonSuperseded Reason = "superseded"  // by a job of a later decision
	ReasonFull       Reason = "queue-full"
	ReasonStopped    Reason = "stopped" // the sidecar ends
)

// Config of a Runner. Zero values get the default named beside them.
type Config struct {
	Node     string
	Env      []string      // the sidecar's environment, os.Environ(); TANDEM_ variables are not passed on
	Timeout  time.Duration // of one command; 60 s
	KillWait time.Duration // from SIGTERM to SIGKILL; 1 s
	Output   int           // bytes of output kept of one command; 8 KiB
	Backoff  time.Duration // before the second attempt; 1 s, then growing
	MaxWait  time.Duration // between attempts; 30 s
	Queue    int           // jobs waiting in one lane; 32

	// Sure is asked before each command of a guarded job, from several goroutines;
	// while it says no, the command waits. Nil: yes.
	Sure func() bool

	Log        *zap.Logger
	Registerer prometheus.Registerer
}

// Job is a list of commands to run for one event.
type Job struct {
	ID       string
	Lane     string // jobs of one lane run one after the other
	Epoch    uint64 // fencing token
	Commands []string
	Attempts int // of one command; 0: until it succeeds or is superseded

	Event, Group, Site, From, To, Reason, Actor string
	Planned                                     bool
	Addresses                                   []string // of Group

	// Newest has the job take the place of everything that its lane has queued or
	// running, whatever their epochs: for lanes that only one node fills.
	Newest bool
	// Guarded has Config.Sure asked before each command: this process may have
	// stood still, and by now something else be decided.
	Guarded bool
	// Quiet keeps a success out of the log, but for debugging.
	Quiet bool
}

// Result says what became of a job.
type Result struct {
	Job      Job
	OK       bool
	Reason   Reason
	Detail   string // a line for people
	Attempts int    // of the command that was run last
	Started  time.Time
	Duration time.Duration
	Commands []Command // every attempt of every command, the last maxRecorded of them
	Repeated bool      // the recorded result of an earlier job with the same ID
}

// Command is one command that was run.
type Command struct {
	Text     string
	Attempt  int
	Reason   Reason
	ExitCode int // -1 if it did not exit
	Started  time.Time
	Duration time.Duration
	Output   string // standard output and error, bounded; the middle is left out
}

const (
	maxRecorded = 16 // commands in a result
	maxHistory  = 32 // results remembered by a lane
)

// Runner runs jobs. Make one with New, then Run it.
type Runner struct {
	cfg     Config
	log     *zap.Logger
	runs    *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	results chan Result
	fresh   chan struct{} // a lane was added
	readers readers

	lock   sync.Mutex
	lanes  map[string]*lane
	idle   []*lane           // lanes that Run has not started yet
	fences map[string]uint64 // of lanes that have had no job yet
}

const (
	killWait = time.Second
	maxWait  = 30 * time.Second
)

// LongestAttempt is the longest that one attempt of a command may take, with the
// pause after it, in a Runner that has no other setting than this timeout.
func LongestAttempt(timeout time.Duration) time.Duration { return timeout + 2*killWait + maxWait*3/2 }

// New returns a Runner. Nothing runs before Run.
func New(cfg Config) *Runner {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.Timeout, time.Minute)
	def(&cfg.KillWait, killWait)
	def(&cfg.Backoff, time.Second)
	def(&cfg.MaxWait, maxWait)
	if cfg.Output <= 0 {
		cfg.Output = 8 << 10
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 32
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	r := &Runner{
		cfg: cfg, log: cfg.Log, results: make(chan Result, 64), fresh: make(chan struct{}, 1),
		lanes: map[string]*lane{}, fences: map[string]uint64{},
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_hook_runs_total", Help: "Hook commands run, by event and how they ended.",
		}, []string{"event", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tandem_hook_duration_seconds", Help: "How long hook commands ran.",
			Buckets: []float64{0.01, 0.1, 0.5, 1, 5, 15, 60, 300},
		}, []string{"event"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(r.runs, r.seconds)
	}
	return r
}

// Results gives one Result for every job submitted, also for a refused one.
// The caller must read it; lanes wait for that.
func (r *Runner) Results() <-chan Result { return r.results }

// Submit queues a job and returns at once. What becomes of it, a refusal too,
// comes as its Result.
func (r *Runner) Submit(j Job) {
	r.lock.Lock()
	l := r.lanes[j.Lane]
	if l == nil {
		l = &lane{r: r, name: j.Lane, wake: make(chan struct{}, 1), epoch: r.fences[j.Lane]}
		r.lanes[j.Lane] = l
		r.idle = append(r.idle, l)
	}
	r.lock.Unlock()
	l.submit(j)
	poke(r.fresh)
}

// Fence refuses jobs of a lane below an epoch from now on, also of a lane that
// has had none yet, and kills what of them is running.
func (r *Runner) Fence(name string, epoch uint64) {
	r.lock.Lock()
	l := r.lanes[name]
	if l == nil {
		r.fences[name] = max(r.fences[name], epoch)
	}
	r.lock.Unlock()
	if l != nil {
		l.mu.Lock()
		l.fence(epoch)
		l.mu.Unlock()
		poke(l.wake)
	}
}

// Forget makes a lane begin again: epochs are counted from the start, since all
// who knew them have forgotten. What of the lane is queued or running is ended.
func (r *Runner) Forget(name string) {
	r.lock.Lock()
	delete(r.fences, name)
	l := r.lanes[name]
	r.lock.Unlock()
	if l != nil {
		l.mu.Lock()
		l.fence(math.MaxUint64)
		l.epoch, l.last = 0, nil
		l.mu.Unlock()
		poke(l.wake)
	}
}

// Run runs jobs until ctx ends; then what is running is killed. It returns
// when everything that it started has ended.
func (r *Runner) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer r.readers.stop()
	defer wg.Wait() // lanes end first: they start readers
	for {
		r.lock.Lock()
		lanes := r.idle
		r.idle = nil
		r.lock.Unlock()
		for _, l := range lanes {
			wg.Go(func() { l.run(ctx) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.fresh:
		}
	}
}

// Status of a lane.
type Status struct {
	Lane    string
	Epoch   uint64 // highest seen
	Running *Job   // nil: idle
	Command string // the one that is running, or is waited for to be run again
	Attempt int
	NextTry time.Time // zero unless a failed command waits to be run again
	Waiting int       // jobs in the queue
	Last    []Result  // the latest last
}

// Status of every lane, sorted by name.
func (r *Runner) Status() []Status {
	r.lock.Lock()
	lanes := make([]*lane, 0, len(r.lanes))
	for _, l := range r.lanes {
		lanes = append(lanes, l)
	}
	r.lock.Unlock()
	slices.SortFunc(lanes, func(a, b *lane) int { return strings.Compare(a.name, b.name) })
	var out []Status
	for _, l := range lanes {
		out = append(out, l.status())
	}
	return out
}

// Split reads a `;`-separated list of commands. A `;` within quotes, or after a
// backslash, does not separate.
func Split(s string) []string {
	var out []string
	var quote byte
	start := 0
	add := func(end int) {
		if c := strings.TrimSpace(s[start:end]); c != "" {
			out = append(out, c)
		}
		start = end + 1
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quote != '\'':
			i++
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote == 0 && c == ';':
			add(i)
		}
	}
	if start < len(s) {
		add(len(s))
	}
	return out
}

// environ is the environment of a command.
func (r *Runner) environ(j Job, attempt int) []string {
	env := slices.DeleteFunc(slices.Clone(r.cfg.Env), func(v string) bool { return strings.HasPrefix(v, "TANDEM_") })
	if env == nil {
		env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	return append(env,
		"TANDEM_EVENT="+j.Event, "TANDEM_SITE="+j.Site, "TANDEM_FROM="+j.From, "TANDEM_TO="+j.To,
		"TANDEM_EPOCH="+strconv.FormatUint(j.Epoch, 10), "TANDEM_PLANNED="+strconv.FormatBool(j.Planned), "TANDEM_REASON="+j.Reason,
		"TANDEM_NODE="+r.cfg.Node, "TANDEM_GROUP="+j.Group, "TANDEM_ADDRESSES="+strings.Join(j.Addresses, " "),
		"TANDEM_ACTOR="+j.Actor, "TANDEM_ATTEMPT="+strconv.Itoa(attempt),
	)
}

func (r *Runner) newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = r.cfg.Backoff, r.cfg.MaxWait
	b.Reset()
	return b
}

// poke fills a one-slot channel without waiting.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

var errSuperseded = errors.New("superseded by a later decision")

func (c Command) sentence() string {
	after := c.Duration.Round(time.Millisecond)
	if c.Reason == ReasonExit {
		return fmt.Sprintf("%s: exit status %d after %v", c.Text, c.ExitCode, after)
	}
	return fmt.Sprintf("%s: %s after %v", c.Text, c.Reason, after)
}
