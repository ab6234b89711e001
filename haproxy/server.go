package haproxy

import (
	"cmp"
	"strings"
)

// ServerID names a server of a backend.
type ServerID struct {
	Backend string
	Server  string
}

// String is the name as HAProxy's commands take it: backend/server.
func (id ServerID) String() string { return id.Backend + "/" + id.Server }

// Compare orders by backend, then by server.
func (id ServerID) Compare(other ServerID) int {
	return cmp.Or(strings.Compare(id.Backend, other.Backend), strings.Compare(id.Server, other.Server))
}

// Valid says whether the name can stand in a command. What HAProxy's own
// configuration parser accepts is accepted; what would inject a command (; and
// newline), add a word (blank) or address by number (#) is not.
func (id ServerID) Valid() bool { return validName(id.Backend) && validName(id.Server) }

// maxName bounds a name: HAProxy hangs on a command of more than about 16,300
// bytes, and no real name comes near this.
const maxName = 512

func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if !nameByte(s[i]) {
			return false
		}
	}
	return true
}

func nameByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '_' || c == '.' || c == ':' || c == '-'
}

// Admin is the mask srv_admin_state of `show servers state`, which HAProxy
// prints in decimal (include/haproxy/server-t.h, enum srv_admin).
type Admin uint16

// The bits of Admin.
const (
	FMaint Admin = 1 << iota // maintenance, set by a command
	IMaint                   // maintenance, inherited from the server that is tracked
	CMaint                   // was `disabled` in the configuration
	FDrain                   // drain, set by a command: the only bit that tandem writes
	IDrain                   // drain, inherited from the server that is tracked
	RMaint                   // maintenance, because its name does not resolve
	FQDN                     // its host name was set by a command: a mark, and no maintenance
)

// inMaintenance are the bits under which a server is out of service
// (SRV_ADMF_MAINT). CMaint is not among them: alone it means that somebody enabled
// the server since.
const inMaintenance = FMaint | IMaint | RMaint

// Has says whether any bit of mask is set.
func (a Admin) Has(mask Admin) bool { return a&mask != 0 }

// String prints the bits as words, the way HAProxy's source names them.
func (a Admin) String() string {
	if a == 0 {
		return "none"
	}
	var words []string
	for i, word := range [...]string{"FMAINT", "IMAINT", "CMAINT", "FDRAIN", "IDRAIN", "RMAINT", "FQDN"} {
		if a.Has(1 << i) {
			words = append(words, word)
		}
	}
	if rest := a &^ (1<<7 - 1); rest != 0 {
		words = append(words, "unknown")
	}
	return strings.Join(words, "+")
}

// Oper is the operational state, srv_op_state of `show servers state`.
type Oper uint8

// The operational states.
const (
	OperStopped  Oper = iota // down
	OperStarting             // up, in slow start
	OperRunning              // up
	OperStopping             // asked by its check to take nothing new (http-check disable-on-404)
)

// String is HAProxy's word.
func (o Oper) String() string {
	switch o {
	case OperStopped:
		return "down"
	case OperStarting:
		return "starting"
	case OperRunning:
		return "up"
	case OperStopping:
		return "stopping"
	}
	return "unknown"
}

// Server is one line of `show servers state`: what HAProxy thinks of it.
// Servers are comparable with ==.
type Server struct {
	ServerID
	Admin Admin
	Oper  Oper
	// Up says that the server could take requests if it were ready: its checks
	// pass, or it has none, and it is not in maintenance. A server that is
	// healthy and drained is up.
	Up bool
	// Failing says that the last check failed, which is seen before HAProxy
	// takes the server down (it waits for `fall` of them).
	Failing bool
	// Weight is the weight now, InitialWeight the one of the configuration.
	Weight        int
	InitialWeight int
	Checked       bool // health checks are configured
	Agent         bool // an agent-check is configured and enabled
	Off           bool // its backend is disabled in the configuration: HAProxy refuses to set it
	Addr          string
	Port          int
	FQDN          string // the name the address was resolved from, if any
}

// Drained says that the server takes nothing new because of a drain, its own
// or that of the server it tracks.
func (s Server) Drained() bool { return s.Admin.Has(FDrain | IDrain) }

// Routed says that HAProxy may send new requests to the server now.
func (s Server) Routed() bool {
	return s.Up && !s.Drained() && !s.Off && s.Weight > 0
}
