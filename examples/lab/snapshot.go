package lab

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// State of a process as a picture shows it.
type State string

// The states of a process.
const (
	Runs   State = "up"
	Dead   State = "dead"
	Frozen State = "frozen"
)

// NodeView is a node as a picture shows it.
type NodeView struct {
	Name   string
	Power  bool
	Have   bool // the virtual IP, in its kernel
	Answer bool // for it, on the wire
	Procs  map[string]State
}

// Snapshot is the lab as a picture shows it.
type Snapshot struct {
	Nodes  map[string]NodeView
	Client Noticed // the last second
}

// Snapshot looks at everything at once.
func (l *Lab) Snapshot() Snapshot {
	s := Snapshot{Nodes: map[string]NodeView{}, Client: l.Client.Recent(time.Second)}
	last := l.Referee.Last()
	for _, name := range l.Names() {
		v := NodeView{Name: name, Power: l.running(name), Procs: map[string]State{}}
		for _, proc := range l.Procs(name) {
			if p := l.Proc(name, proc); p != nil {
				v.Procs[proc] = p.state()
			}
		}
		s.Nodes[name] = v
	}
	mark(s.Nodes, last.Have, func(v *NodeView) { v.Have = true })
	mark(s.Nodes, last.Answer, func(v *NodeView) { v.Answer = true })
	return s
}

func mark(nodes map[string]NodeView, names []string, set func(*NodeView)) {
	for _, name := range names {
		if v, ok := nodes[name]; ok {
			set(&v)
			nodes[name] = v
		}
	}
}

func (p *Proc) state() State {
	if !p.Alive() {
		return Dead
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/stat")
	if err != nil {
		return Dead
	}
	if _, rest, _ := strings.Cut(string(b), ") "); strings.HasPrefix(rest, "T") {
		return Frozen
	}
	return Runs
}
