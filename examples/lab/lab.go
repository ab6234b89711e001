package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
)

// Config is what a lab is made of. The zero value of each field but System is
// usable.
type Config struct {
	System   System        // what fails the pair over
	Backends []string      // of HAProxy; default: web. The first is the default backend, /<name>/ goes to the others
	IPv6     bool          // the virtual address in both families
	ByIPv6   bool          // the client uses the IPv6 one; it is there then
	Interval time.Duration // between two new connections of the client; default 5 ms
	Timeout  time.Duration // of a request; default 1 s, the time after which TCP repeats a lost SYN
	Keep     int           // kept connections of the client; default 4, -1 for none
	Pace     time.Duration // between two requests on a kept connection; default 50 ms
	Loads    []Load        // more kept connections of the client
	Target   string        // of the client, host:port; default the virtual IP, port 80
	Paths    []string      // that the client asks for in turn; default /
	Driver   string        // program that is the client, since one built with the race detector is slow; default this one
	// Followers is how many more load balancers there are, without a vote and
	// without an address; only under tandem. See [Lab.Edge].
	Followers int
	// HAProxy writes the configuration of a load balancer's HAProxy, in place of
	// the lab's own; the lab starts no application servers then. The sockets
	// and files are those of [Lab.Socket] and [Lab.StateFile].
	HAProxy func(l *Lab, lb string) (string, error)
}

func (c *Config) defaults() {
	if len(c.Backends) == 0 {
		c.Backends = []string{"web"}
	}
	if c.Interval == 0 {
		c.Interval = 5 * time.Millisecond
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	if c.Keep == 0 {
		c.Keep = 4
	}
	if c.Pace == 0 {
		c.Pace = 50 * time.Millisecond
	}
	if len(c.Paths) == 0 {
		c.Paths = []string{"/"}
	}
	c.IPv6 = c.IPv6 || c.ByIPv6
	if c.Target == "" {
		ip := VIP()
		if c.ByIPv6 {
			ip = VIP6()
		}
		c.Target = netip.AddrPortFrom(ip, 80).String()
	}
}

// Load is connections that the client keeps, and replaces when they end.
type Load struct {
	Kind  string // of the requests on them
	Count int
	Pace  time.Duration // between two requests, or two pieces of an answer
	Path  string        // what is asked for
	To    string        // host:port; default the client's target
	Piece int           // bytes that are read at once of one answer that does not end; 0: whole answers
}

// System is what fails the pair over: tandem or keepalived.
type System interface {
	// Name for tables.
	Name() string
	// Nodes on which it runs, in the order in which they are started.
	Nodes() []string
	// Spec is how it is started on a node of the lab.
	Spec(l *Lab, n *Node) (Spec, error)
	// Standby: HAProxy itself keeps site b in reserve (`backup`), because the
	// system knows nothing of sites.
	Standby() bool
	// Daemon is the name of the process that Spec starts.
	Daemon() string
	// Settle is how long after a repair it may still change its mind.
	Settle() time.Duration
}

// Lab is a running laboratory.
type Lab struct {
	Config
	Dir     string
	Referee *Referee
	Client  *Client

	name    string // tdlab<pid>-<n>
	lock    *os.File
	bridge  string // the bridge's namespace
	link    *netlink.Handle
	spawner *spawner
	nodes   map[string]*Node
	mu      sync.Mutex // processes and filters
	filters []Filter
	health  *healthLog
}

// New builds a lab and starts everything in it. On error nothing is left.
// Close it whatever happens.
func New(ctx context.Context, cfg Config) (*Lab, error) {
	cfg.defaults()
	if err := missing(); err != nil {
		return nil, err
	}
	if err := cfg.checkFollowers(); err != nil {
		return nil, err
	}
	if _, err := CleanStale(ctx); err != nil {
		return nil, fmt.Errorf("clean up after a lab that crashed: %w", err)
	}
	dir, lock, err := claim()
	if err != nil {
		return nil, err
	}
	l := &Lab{
		Config: cfg, Dir: dir, name: dir[len("/tmp/"):], lock: lock,
		spawner: newSpawner(), nodes: map[string]*Node{}, health: newHealthLog(),
	}
	l.bridge = l.name + "-br"
	if err = l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	if err := l.cable(ctx); err != nil {
		return err
	}
	for _, s := range Sites() {
		if err := l.startSite(s); err != nil {
			return err
		}
	}
	for _, lb := range l.Balancers() {
		if err := l.startHAProxy(ctx, lb); err != nil {
			return err
		}
	}
	for _, node := range slices.Concat(l.System.Nodes(), l.Edge()) {
		if err := l.StartSystem(node); err != nil {
			return err
		}
	}
	var err error
	if l.Referee, err = newReferee(l); err != nil {
		return err
	}
	l.Client, err = newClient(l)
	return err
}

// cable makes the namespaces and what connects them.
func (l *Lab) cable(ctx context.Context) error {
	if _, err := run(ctx, "", "ip", "netns", "add", l.bridge); err != nil {
		return err
	}
	if err := ipBatch(ctx, l.bridge, "link add br0 type bridge", "link set br0 up"); err != nil {
		return err
	}
	err := inside(l.bridge, func() (err error) {
		l.link, err = netlink.NewHandle()
		return err
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, place := range l.layout() {
		n, err := l.newNode(place.name, place.host)
		if err != nil {
			return err
		}
		l.nodes[n.Name] = n
		group.Go(func() error { return l.connect(ctx, n) })
	}
	return group.Wait()
}

// StartSystem starts what fails the pair over on one node.
func (l *Lab) StartSystem(node string) error {
	spec, err := l.System.Spec(l, l.nodes[node])
	if err != nil {
		return fmt.Errorf("configure %s on %s: %w", l.System.Name(), node, err)
	}
	return l.Start(node, spec)
}

// Node is a machine of the lab by its name; it panics for a name that is none.
func (l *Lab) Node(name string) *Node {
	n := l.nodes[name]
	if n == nil {
		panic("lab: no node " + name)
	}
	return n
}

// Names lists the nodes in the order of the layout.
func (l *Lab) Names() []string {
	var names []string
	for _, place := range l.layout() {
		names = append(names, place.name)
	}
	return names
}

// Close ends everything and leaves nothing behind. It may be called again.
func (l *Lab) Close() error {
	if l.lock == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if l.Referee != nil {
		l.Referee.close()
	}
	for _, n := range l.nodes {
		l.killAll(n)
	}
	if l.link != nil {
		l.link.Close()
	}
	var errs []error
	for _, n := range l.nodes {
		errs = append(errs, dropNS(ctx, n.NS))
	}
	errs = append(errs, dropNS(ctx, l.bridge))
	l.spawner.close()
	if os.Getenv("TDLAB_KEEP") == "" { // set it to read the logs afterwards
		errs = append(errs, os.RemoveAll(l.Dir))
	}
	errs = append(errs, l.lock.Close())
	l.lock = nil
	return errors.Join(errs...)
}

// running tells whether the node has power.
func (l *Lab) running(node string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.nodes[node].off
}

// steadyFor is how long everything must have been in order before a fault.
const steadyFor = 300 * time.Millisecond

// Steady waits until one load balancer has the address and answers for it,
// every process runs and every request is answered, and that for a while.
func (l *Lab) Steady(ctx context.Context, limit time.Duration) error {
	since := Now()
	var dead error
	err := waitFor(ctx, limit, "steady service", func() bool {
		if !l.inOrder() {
			since = Now()
		}
		dead = l.deadDaemon()
		return Now()-since >= steadyFor || dead != nil
	})
	if dead != nil {
		return dead
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, l.Describe())
	}
	return nil
}

// deadDaemon says which daemon has ended, and its last words.
func (l *Lab) deadDaemon() error {
	for _, node := range l.System.Nodes() {
		name := l.System.Daemon()
		if p := l.Proc(node, name); p != nil && l.running(node) && !p.Alive() {
			log := strings.Split(l.Log(node, name), "\n")
			return fmt.Errorf("%s on %s has ended (%s); it said: %s", name, node, p.How(), strings.Join(log[max(0, len(log)-2):], "\n"))
		}
	}
	return nil
}

func (l *Lab) inOrder() bool {
	s := l.Referee.Last()
	if len(s.Have) != 1 || !slices.Equal(s.Have, s.Answer) {
		return false
	}
	n := l.Client.Recent(100 * time.Millisecond)
	return n.Requests > 5 && n.Failed == 0
}

// Settled waits until service has been steady, and the address at the same
// place, for as long as the system may still change its mind after a repair.
func (l *Lab) Settled(ctx context.Context, limit time.Duration) error {
	for end := Now() + limit; ; {
		if err := l.Steady(ctx, max(end-Now(), 0)); err != nil {
			return err
		}
		from := Now()
		if err := Sleep(ctx, l.System.Settle()); err != nil {
			return err
		}
		if j := l.Referee.Judge(from, Now()); len(j.Moves) == 0 && j.Nobody+j.TwoAnswer < 5*look {
			return l.Steady(ctx, max(end-Now(), time.Second))
		}
	}
}

// Holder is the node that answers for the address, "" if none or several do. A
// single look of the referee may miss an answer on a busy machine, so what is
// not clear is looked at for a fifth of a second.
func (l *Lab) Holder() string {
	for end := time.Now().Add(200 * time.Millisecond); ; time.Sleep(5 * time.Millisecond) {
		if s := l.Referee.Last(); len(s.Answer) == 1 {
			return s.Answer[0]
		}
		if time.Now().After(end) {
			return ""
		}
	}
}

// Describe is the state of the lab in one line.
func (l *Lab) Describe() string {
	s := l.Referee.Last()
	n := l.Client.Recent(time.Second)
	var text strings.Builder
	fmt.Fprintf(&text, "have the address: %v, answer for it: %v, client in the last second: %d requests, %d failed %v",
		s.Have, s.Answer, n.Requests, n.Failed, n.Errors)
	for _, name := range l.Names() {
		for _, p := range l.Procs(name) {
			if proc := l.Proc(name, p); !proc.Alive() {
				fmt.Fprintf(&text, "; %s on %s ended (%s)", p, name, proc.How())
			}
		}
	}
	return text.String()
}
