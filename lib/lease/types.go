package lease

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The limits of what a machine accepts. They bound memory and datagrams, not
// safety.
const (
	MaxVoters    = 7    // voters of a cluster
	MaxData      = 1024 // bytes of a value
	MaxName      = 64   // bytes of the name of a node
	MaxResource  = 96   // bytes of the name of a resource
	MaxResources = 64   // resources that one machine keeps

	minAsked = 100 * time.Millisecond
	maxAsked = 10 * time.Minute
)

// Incarnation is drawn at random at each start of a process (128 bits), so
// that a node that restarted is never taken for what it was before.
type Incarnation [16]byte

// String returns the first four bytes in hexadecimal: enough to tell two
// starts apart in a log.
func (i Incarnation) String() string { return fmt.Sprintf("%x", i[:4]) }

// Owner is who may hold a lease: one process, not one name.
type Owner struct {
	Node        string
	Incarnation Incarnation
}

// String returns node.incarnation.
func (o Owner) String() string {
	if o.Node == "" {
		return "-"
	}
	return o.Node + "." + o.Incarnation.String()
}

// Ballot orders the attempts of all nodes on one resource. Since the
// incarnation is part of it, no two attempts ever have the same ballot, and
// nothing need be on disk for that (rule P1).
type Ballot struct {
	Counter     uint64
	Incarnation Incarnation
	Node        string
}

// Compare orders ballots by counter, then incarnation, then node.
func (b Ballot) Compare(c Ballot) int {
	if d := cmp.Compare(b.Counter, c.Counter); d != 0 {
		return d
	}
	if d := slices.Compare(b.Incarnation[:], c.Incarnation[:]); d != 0 {
		return d
	}
	return cmp.Compare(b.Node, c.Node)
}

// Owner is the process whose ballot this is.
func (b Ballot) Owner() Owner { return Owner{Node: b.Node, Incarnation: b.Incarnation} }

// IsZero reports whether this is no ballot at all.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// String returns counter/node.incarnation.
func (b Ballot) String() string {
	if b.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%d/%v", b.Counter, b.Owner())
}

// Mode is how many voters must agree.
type Mode uint8

// The three modes. In ModeQuorum a majority decides. In ModePair both voters
// must agree while both are heard, and the survivor goes on alone: two holders
// are then possible. In ModeSingle there is nobody to agree with.
const (
	ModeQuorum Mode = iota
	ModePair
	ModeSingle
)

// String returns quorum, pair or single.
func (m Mode) String() string {
	switch m {
	case ModeQuorum:
		return "quorum"
	case ModePair:
		return "pair"
	case ModeSingle:
		return "single"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// Value is what travels with a lease. Epoch grows by one with each new
// decision; epoch 0 is the blank value. Data is opaque, at most MaxData bytes,
// and belongs to the machine once handed over: nobody may write to it.
type Value struct {
	Epoch uint64
	Data  []byte
}

func (v Value) equal(w Value) bool { return v.Epoch == w.Epoch && slices.Equal(v.Data, w.Data) }

// Record is what a voter keeps of a resource, also after the lease has ended,
// and what a caller with a state directory writes to disk. Ballot and Seq say
// under which proposal the value was accepted: Seq is the number of the request
// that first carried this value under this ballot. Promised is the highest
// ballot that the voter has promised: with a disk, a restarted voter keeps its
// word, so that no decision can ever be made under a lower ballot and be hidden
// by what others accepted under a higher one.
type Record struct {
	Resource string
	Value    Value
	Ballot   Ballot
	Seq      uint64
	Promised Ballot
}

// newer reports whether r was accepted under a later proposal than s.
func (r Record) newer(s Record) bool {
	d := r.Ballot.Compare(s.Ballot)
	return d > 0 || d == 0 && r.Seq > s.Seq
}

// Tuning is the lease length that a node asks for. With Auto it is tuned
// between Min and Max (see Tuner), else it is Fixed.
type Tuning struct {
	Auto  bool
	Fixed time.Duration
	Min   time.Duration // 300 ms if zero
	Max   time.Duration // 2 s if zero
}

// Config is what a machine is made from. All nodes of a cluster must have the
// same Voters, Mode and MaxLease; see Machine.Differing.
type Config struct {
	Node        string
	Incarnation Incarnation // 128 random bits, new at each start
	Voters      []string    // distinct, 1 to 7. If Node is not among them, it only listens
	Mode        Mode
	// MaxLease is the longest lease that anybody may ask for. A voter refuses a
	// longer one, and keeps silent for Remember(MaxLease) after its start.
	MaxLease time.Duration
	Tuning   Tuning
	Restored []Record // what the state directory holds, at most one of each resource
	Seed     uint64   // of the random part of bid delays
	// SkipQuarantine is for ModeSingle only, where nobody else can hold.
	SkipQuarantine bool
}

func (c *Config) applyDefaults() {
	if c.Tuning.Auto {
		if c.Tuning.Min == 0 {
			c.Tuning.Min = 300 * time.Millisecond
		}
		if c.Tuning.Max == 0 {
			c.Tuning.Max = 2 * time.Second
		}
	}
}

func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !validName(c.Node, MaxName) {
		bad("node %q: want a name of 1 to %d bytes", c.Node, MaxName)
	}
	if c.Incarnation == (Incarnation{}) {
		bad("incarnation is zero: want 128 random bits")
	}
	if n := len(c.Voters); n < 1 || n > MaxVoters {
		bad("%d voters: want 1 to %d", n, MaxVoters)
	}
	voters := slices.Sorted(slices.Values(c.Voters))
	for i, v := range voters {
		if !validName(v, MaxName) {
			bad("voter %q: want a name of 1 to %d bytes", v, MaxName)
		}
		if i > 0 && v == voters[i-1] {
			bad("voter %q is listed twice", v)
		}
	}
	errs = append(errs, c.validateMode(), c.validateLease())
	for _, r := range c.Restored {
		if !validName(r.Resource, MaxResource) || len(r.Value.Data) > MaxData {
			bad("restored record of %q: name or value too long", r.Resource)
		}
		if max(r.Ballot.Counter, r.Promised.Counter) > maxCounter {
			bad("restored record of %q: ballot %v is higher than any can be", r.Resource, max(r.Ballot.Counter, r.Promised.Counter))
		}
		if r.Value.Epoch > maxCounter {
			bad("restored record of %q: epoch %d is higher than any can be", r.Resource, r.Value.Epoch)
		}
	}
	return errors.Join(errs...)
}

func (c *Config) validateMode() error {
	switch {
	case c.Mode > ModeSingle:
		return fmt.Errorf("%v: want quorum, pair or single", c.Mode)
	case c.Mode == ModePair && len(c.Voters) != 2:
		return fmt.Errorf("mode pair with %d voters: want 2", len(c.Voters))
	case c.Mode == ModeSingle && len(c.Voters) != 1:
		return fmt.Errorf("mode single with %d voters: want 1", len(c.Voters))
	case c.SkipQuarantine && c.Mode != ModeSingle:
		return fmt.Errorf("mode %v cannot skip the quarantine: only single can", c.Mode)
	}
	return nil
}

func (c *Config) validateLease() error {
	if c.MaxLease < minAsked || c.MaxLease > maxAsked {
		return fmt.Errorf("longest lease %v: want %v to %v", c.MaxLease, minAsked, maxAsked)
	}
	t := c.Tuning
	if t.Auto {
		if t.Min < minAsked || t.Max < t.Min || t.Max > c.MaxLease {
			return fmt.Errorf("lease tuned from %v to %v: want %v ≤ min ≤ max ≤ %v", t.Min, t.Max, minAsked, c.MaxLease)
		}
		return nil
	}
	if t.Fixed < minAsked || t.Fixed > c.MaxLease {
		return fmt.Errorf("lease %v: want %v to %v", t.Fixed, minAsked, c.MaxLease)
	}
	return nil
}

func validName(s string, limit int) bool { return s != "" && len(s) <= limit }

// Remember is A of rule T2: how long, by its own clock, a voter must remember a
// lease of length d so that the holder, by its own clock, has let go before.
// Both clocks may be wrong by 1 %.
func Remember(d time.Duration) time.Duration {
	const fast, slow = 101, 99 // 1+ρ and 1−ρ in hundredths, ρ = 1 %
	return (d*fast + slow - 1) / slow
}
