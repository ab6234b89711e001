package haproxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrParse is what every error of the parsers wraps.
var ErrParse = errors.New("not understood")

// Info is what matters of `show info`, and the level of the socket.
type Info struct {
	Process
	Version   string
	Uptime    int64 // seconds
	Stopping  bool
	Level     string // admin, operator or user
	Tainted   string
	MaxCLI    int
	IdlePct   int
	NumThread int
}

// ParseInfo reads the answer to `show info`.
func ParseInfo(s string) (Info, error) {
	var info Info
	for line := range strings.Lines(s) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
		if !ok {
			continue
		}
		switch key {
		case "Pid":
			info.PID, _ = strconv.Atoi(value)
		case "Start_time_sec":
			info.Start, _ = strconv.ParseInt(value, 10, 64)
		case "Uptime_sec":
			info.Uptime, _ = strconv.ParseInt(value, 10, 64)
		case "Version":
			info.Version = value
		case "Stopping":
			info.Stopping = value != "0"
		case "Idle_pct":
			info.IdlePct, _ = strconv.Atoi(value)
		case "Nbthread":
			info.NumThread, _ = strconv.Atoi(value)
		case "Tainted":
			info.Tainted = value
		}
	}
	if info.PID <= 0 || info.Version == "" {
		return Info{}, fmt.Errorf("%w: no Pid or no Version in %d bytes of `show info`", ErrParse, len(s))
	}
	return info, nil
}

// The columns of `show servers state` that are used, by the names in its header.
const (
	colBackend = iota
	colServer
	colAddr
	colOper
	colAdmin
	colWeight
	colInitial
	colResult
	colCheck
	colAgent
	colFQDN
	colPort
	columns
)

var columnNames = [columns]string{
	"be_name", "srv_name", "srv_addr", "srv_op_state", "srv_admin_state", "srv_uweight", "srv_iweight",
	"srv_check_result", "srv_check_state", "srv_agent_state", "srv_fqdn", "srv_port",
}

// Bits of srv_check_state and srv_agent_state (include/haproxy/check-t.h).
const (
	checkConfigured = 0x02
	checkEnabled    = 0x04
)

const checkFailed = 2 // srv_check_result

// master is a backend of HAProxy's own: before 2.5 a worker lists the workers of
// its master among its servers.
const master = "MASTER"

// ParseServers reads the answer to `show servers state` of all backends. What it
// has parsed before (previous, may be nil) saves it the making of equal strings.
//
// HAProxy prints the admin state in decimal; it is not hexadecimal.
func ParseServers(s string, previous []Server) ([]Server, error) {
	version, rest, ok := strings.Cut(s, "\n")
	if !ok || strings.TrimSpace(version) != "1" {
		return nil, fmt.Errorf("%w: format %.20q of `show servers state`, only 1 is known", ErrParse, version)
	}
	header, rest, _ := strings.Cut(rest, "\n")
	at, last, err := columnsOf(header)
	if err != nil {
		return nil, err
	}
	if last >= maxColumns {
		return nil, fmt.Errorf("%w: %d columns in the header of `show servers state`, %d at most", ErrParse, last+1, maxColumns)
	}
	servers := make([]Server, 0, max(len(previous), 8))
	var words words
	for rest != "" {
		var line string
		if end := strings.IndexByte(rest, '\n'); end >= 0 {
			line, rest = rest[:end], rest[end+1:]
		} else {
			line, rest = rest, ""
		}
		line = strings.TrimRight(line, "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		if words.split(line, last+1); words.n <= last {
			return nil, fmt.Errorf("%w: server line of fewer than %d words: %.80q", ErrParse, last+1, line)
		}
		if words.word(at[colBackend]) == master {
			continue
		}
		servers = append(servers, Server{})
		server := &servers[len(servers)-1]
		if err := words.parse(server, &at); err != nil {
			return nil, err
		}
		if n := len(servers) - 1; n < len(previous) && words.named(&previous[n], &at) {
			server.ServerID, server.Addr, server.FQDN = previous[n].ServerID, previous[n].Addr, previous[n].FQDN
		} else {
			words.name(server, &at)
		}
	}
	return servers, nil
}

// columnsOf finds where each column stands, and the last of them.
func columnsOf(header string) (at [columns]int, last int, err error) {
	names := strings.Fields(strings.TrimPrefix(header, "#"))
	for c, want := range columnNames {
		at[c] = -1
		for i, name := range names {
			if name == want {
				at[c], last = i, max(last, i)
			}
		}
		if at[c] < 0 {
			return at, 0, fmt.Errorf("%w: no column %s in the header of `show servers state`", ErrParse, want)
		}
	}
	return at, last, nil
}

// maxColumns bounds how many columns are looked at; HAProxy 3.4 has 25.
const maxColumns = 64

// words are where the words of a line end. They are no slice of strings: storing
// ten thousand times twenty of those costs more than all else.
type words struct {
	line string
	n    int // how many were found
	end  [maxColumns]int
}

// split finds the first words of a line, up to most of them, with one blank
// between them.
func (w *words) split(line string, most int) {
	w.line, w.n = line, 0
	start := 0
	for at := range len(line) {
		if line[at] != ' ' {
			continue
		}
		if at == start {
			return
		}
		w.end[w.n] = at
		if w.n++; w.n == most {
			return
		}
		start = at + 1
	}
	if start < len(line) {
		w.end[w.n] = len(line)
		w.n++
	}
}

func (w *words) word(n int) string {
	if n == 0 {
		return w.line[:w.end[0]]
	}
	return w.line[w.end[n-1]+1 : w.end[n]]
}

// number reads a decimal number of a column, nearly always one digit.
func (w *words) number(at *[columns]int, column int, failed *error) int {
	word := w.word(at[column])
	if len(word) == 1 && '0' <= word[0] && word[0] <= '9' {
		return int(word[0] - '0')
	}
	n, err := strconv.Atoi(word)
	if err != nil && *failed == nil {
		*failed = fmt.Errorf("%w: %s is %.20q, not a number", ErrParse, columnNames[column], word)
	}
	return n
}

// parse fills in everything but the names.
func (w *words) parse(s *Server, at *[columns]int) error {
	var failed error
	admin, oper := w.number(at, colAdmin, &failed), w.number(at, colOper, &failed)
	agent := w.number(at, colAgent, &failed)
	s.Weight, s.InitialWeight = w.number(at, colWeight, &failed), w.number(at, colInitial, &failed)
	s.Checked = w.number(at, colCheck, &failed)&checkConfigured != 0
	s.Agent = agent&checkConfigured != 0 && agent&checkEnabled != 0
	s.Failing = w.number(at, colResult, &failed) == checkFailed
	s.Port = w.number(at, colPort, &failed)
	if failed != nil {
		return failed
	}
	if admin < 0 || admin > 1<<16-1 || oper < 0 || oper > int(OperStopping) {
		return fmt.Errorf("%w: states %d and %d of %s", ErrParse, oper, admin, w.word(at[colServer]))
	}
	s.Admin, s.Oper = Admin(admin), Oper(oper)
	s.Up = (s.Oper == OperRunning || s.Oper == OperStarting) && !s.Admin.Has(inMaintenance)
	return nil
}

func fqdn(word string) string {
	if word == "-" {
		return ""
	}
	return word
}

// named says whether the names of a server are those of the line.
func (w *words) named(s *Server, at *[columns]int) bool {
	return s.Server == w.word(at[colServer]) && s.Backend == w.word(at[colBackend]) &&
		s.Addr == w.word(at[colAddr]) && s.FQDN == fqdn(w.word(at[colFQDN]))
}

// name copies the names out of the line, so that the whole answer can be let go.
func (w *words) name(s *Server, at *[columns]int) {
	s.ServerID = ServerID{strings.Clone(w.word(at[colBackend])), strings.Clone(w.word(at[colServer]))}
	s.Addr, s.FQDN = strings.Clone(w.word(at[colAddr])), strings.Clone(fqdn(w.word(at[colFQDN])))
}
