package lab

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// look is the distance between two looks of the referee.
const look = 10 * time.Millisecond

// Sample is one look of the referee.
type Sample struct {
	At     time.Duration
	Have   []string // load balancers whose kernel has a virtual IP
	Answer []string // machines that answer for it on the wire, see answers
}

// Referee looks every 10 ms at who has the virtual IP and who answers for it.
type Referee struct {
	watch   []netip.Addr
	askers  []*asker
	nodes   map[string]string // MAC → node
	stop    chan struct{}
	stopped chan struct{}

	mu      sync.Mutex
	handles map[string]*netlink.Handle // of the load balancers that have power
	samples []Sample
}

func newReferee(l *Lab) (*Referee, error) {
	r := &Referee{
		watch: []netip.Addr{VIP()}, nodes: map[string]string{}, handles: map[string]*netlink.Handle{},
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if l.IPv6 {
		r.watch = append(r.watch, VIP6())
	}
	if l.ByIPv6 {
		slices.Reverse(r.watch)
	}
	for name, n := range l.nodes {
		r.nodes[n.MAC.String()] = name
	}
	for _, lb := range LBs() {
		if err := r.open(l.nodes[lb]); err != nil {
			return nil, err
		}
	}
	place := l.nodes["referee"]
	for _, vip := range r.watch {
		a, err := newAsker(place, vip)
		if err != nil {
			return nil, errors.Join(err, r.closeAskers())
		}
		r.askers = append(r.askers, a)
	}
	go r.run()
	return r, nil
}

// open begins to look into a load balancer's kernel.
func (r *Referee) open(n *Node) error {
	var h *netlink.Handle
	err := inside(n.NS, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("look into %s: %w", n.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handles[n.Name] = h
	return nil
}

// forget ends that: the machine has no power and so no kernel.
func (r *Referee) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.handles[node]; h != nil {
		h.Close()
	}
	delete(r.handles, node)
}

func (r *Referee) run() {
	defer close(r.stopped)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
			r.sample()
		}
	}
}

// sample asks the wire and the kernels. The answers to a question come within
// microseconds, but are read one look later, so that none is missed.
func (r *Referee) sample() {
	answer := r.answers()
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.samples); n > 0 {
		r.samples[n-1].Answer = answer
	}
	s := Sample{At: Now()}
	for _, lb := range LBs() {
		if h := r.handles[lb]; h != nil && r.has(h) {
			s.Have = append(s.Have, lb)
		}
	}
	for _, a := range r.askers {
		a.ask()
	}
	r.samples = append(r.samples, s)
}

// answers are the machines that answered for the address that the client uses;
// if two answered for the other one, those. The two addresses move one after
// the other, so that one machine for each is as it should be for an instant.
func (r *Referee) answers() (answer []string) {
	for i, a := range r.askers {
		var names []string
		for _, mac := range a.answers() {
			names = append(names, cmp.Or(r.nodes[mac], mac))
		}
		if i == 0 || len(names) > 1 && len(names) > len(answer) {
			answer = names
		}
	}
	slices.Sort(answer)
	return answer
}

func (r *Referee) has(h *netlink.Handle) bool {
	for _, vip := range r.watch {
		family := netlink.FAMILY_V4
		if vip.Is6() {
			family = netlink.FAMILY_V6
		}
		addrs, err := h.AddrList(nil, family)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == vip {
				return true
			}
		}
	}
	return false
}

// Last is the last complete look.
func (r *Referee) Last() Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.samples); n > 1 {
		return r.samples[n-2]
	}
	return Sample{}
}

// Judgement is what the referee saw over a time.
type Judgement struct {
	TwoHave   time.Duration // two machines had the address
	TwoAnswer time.Duration // two machines answered for it
	Nobody    time.Duration // nobody answered for it
	Moves     []Move
	Blind     time.Duration // the longest time between two looks: the machine's fault
}

// Move is a change of who answers.
type Move struct {
	At       time.Duration
	From, To string
}

// Judge sums up what was seen in [from, to). It waits for the look after to.
func (r *Referee) Judge(from, to time.Duration) Judgement {
	for r.Last().At < to {
		time.Sleep(look)
	}
	r.mu.Lock()
	samples := slices.Clone(r.samples)
	r.mu.Unlock()
	return judge(samples, from, to)
}

func judge(samples []Sample, from, to time.Duration) Judgement {
	var j Judgement
	holder := ""
	for i, s := range samples {
		alone := ""
		if len(s.Answer) == 1 {
			alone = s.Answer[0]
		}
		if s.At < from || s.At >= to || i+1 == len(samples) {
			if alone != "" && s.At < from {
				holder = alone
			}
			continue
		}
		length := samples[i+1].At - s.At
		j.Blind = max(j.Blind, length)
		j.add(s, length)
		if alone != "" && alone != holder {
			j.Moves = append(j.Moves, Move{s.At, holder, alone})
			holder = alone
		}
	}
	return j
}

func (j *Judgement) add(s Sample, length time.Duration) {
	if len(s.Have) > 1 {
		j.TwoHave += length
	}
	switch len(s.Answer) {
	case 0:
		j.Nobody += length
	case 1:
	default:
		j.TwoAnswer += length
	}
}

// Forget drops the looks before the given time.
func (r *Referee) Forget(before time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = slices.DeleteFunc(r.samples, func(s Sample) bool { return s.At < before })
}

func (r *Referee) closeAskers() error {
	var errs []error
	for _, a := range r.askers {
		errs = append(errs, a.close())
	}
	return errors.Join(errs...)
}

func (r *Referee) close() {
	close(r.stop)
	<-r.stopped
	_ = r.closeAskers()
	for _, lb := range LBs() {
		r.forget(lb)
	}
}
