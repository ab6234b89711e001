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
	servers := make([]Server, 0, max(len(previous), 8))
	fields := make([]string, last+1)
	for line := range strings.Lines(rest) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if !split(line, fields) {
			return nil, fmt.Errorf("%w: server line of fewer than %d words: %.80q", ErrParse, last+1, line)
		}
		server, err := parseServer(fields, at)
		if err != nil {
			return nil, err
		}
		if n := len(servers); n < len(previous) && previous[n].sameText(server) {
			server.ServerID, server.Addr, server.FQDN = previous[n].ServerID, previous[n].Addr, previous[n].FQDN
		} else {
			server = ownText(server)
		}
		servers = append(servers, server)
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

// split fills fields with the first words of a line, and says whether there
// were enough.
func split(line string, fields []string) bool {
	for i := range fields {
		word, rest, _ := strings.Cut(line, " ")
		if word == "" {
			return false
		}
		fields[i], line = word, rest
	}
	return true
}

func parseServer(fields []string, at [columns]int) (Server, error) {
	var failed error
	number := func(column int) int {
		n, err := strconv.Atoi(fields[at[column]])
		if err != nil && failed == nil {
			failed = fmt.Errorf("%w: %s is %.20q, not a number", ErrParse, columnNames[column], fields[at[column]])
		}
		return n
	}
	admin, oper, agent := number(colAdmin), number(colOper), number(colAgent)
	s := Server{
		ServerID:      ServerID{Backend: fields[at[colBackend]], Server: fields[at[colServer]]},
		Weight:        number(colWeight),
		InitialWeight: number(colInitial),
		Checked:       number(colCheck)&checkConfigured != 0,
		Agent:         agent&checkConfigured != 0 && agent&checkEnabled != 0,
		Failing:       number(colResult) == checkFailed,
		Addr:          fields[at[colAddr]],
		Port:          number(colPort),
	}
	if failed != nil {
		return Server{}, failed
	}
	if admin < 0 || admin > 1<<16-1 || oper < 0 || oper > int(OperStopping) {
		return Server{}, fmt.Errorf("%w: states %d and %d of %s", ErrParse, oper, admin, s.ServerID)
	}
	s.Admin, s.Oper = Admin(admin), Oper(oper)
	s.Up = (s.Oper == OperRunning || s.Oper == OperStarting) && !s.Admin.Has(inMaintenance)
	if name := fields[at[colFQDN]]; name != "-" {
		s.FQDN = name
	}
	return s, nil
}

func (s Server) sameText(o Server) bool {
	return s.Server == o.Server && s.Backend == o.Backend && s.Addr == o.Addr && s.FQDN == o.FQDN
}

// ownText lets go of the answer that the strings were cut from.
func ownText(s Server) Server {
	s.ServerID = ServerID{strings.Clone(s.Backend), strings.Clone(s.Server)}
	s.Addr, s.FQDN = strings.Clone(s.Addr), strings.Clone(s.FQDN)
	return s
}
