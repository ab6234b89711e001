package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"regexp"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// level is what somebody may do.
type level int

const (
	levelOpen    level = iota // anybody: liveness, holder, the page without data
	levelRead                 // status, history, events, metrics
	levelOperate              // commands
)

func (l level) String() string {
	return [...]string{"open", "read", "operate"}[l]
}

// origin says where a connection comes from.
type origin struct {
	local bool   // by the control socket
	who   string // the local user
}

type originKey struct{}

// connContext notes the origin of a connection. For the control socket the
// kernel says which user is at the other end.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, originKey{}, origin{local: true, who: peerUser(local)})
}

func peerUser(conn *net.UnixConn) string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "unknown"
	}
	who := "unknown"
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		uid := strconv.FormatUint(uint64(cred.Uid), 10)
		who = "uid " + uid
		if u, err := user.LookupId(uid); err == nil {
			who = u.Username
		}
	})
	return who
}

// actorHeader carries the name of the person behind sudo. It is believed on
// the control socket only, where whoever can write it could do anything.
const actorHeader = "X-Tandem-Actor"

var personName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

// actor names who asks, and from where, for audit and history.
func actor(r *http.Request) string {
	from, _ := r.Context().Value(originKey{}).(origin)
	if !from.local {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		return "api from " + host
	}
	if person := r.Header.Get(actorHeader); personName.MatchString(person) && person != from.who {
		return from.who + " (" + person + ")"
	}
	return from.who
}

// granted is the level that a request has.
func (s *Server) granted(r *http.Request) level {
	if from, _ := r.Context().Value(originKey{}).(origin); from.local {
		return levelOperate
	}
	given := r.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(given, " ")
	bearer := strings.EqualFold(scheme, "Bearer") // RFC 9110: schemes are case-insensitive
	switch {
	case bearer && same(token, s.cfg.Token):
		return levelOperate
	case bearer && same(token, s.cfg.ReadToken):
		return levelRead
	case s.open && given == "" && plainHost(r.Host):
		return levelRead
	default:
		return levelOpen
	}
}

// same compares without telling by time how much of a token is right. An empty
// token is nobody's.
func same(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return want != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// plainHost says whether a request names this server by address or as
// localhost. A browser that was led here by a name that an attacker's DNS
// points at loopback names that one instead, and would otherwise read without
// a token.
func plainHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}

// guard lets a request through when its level suffices, and counts it.
func (s *Server) guard(pattern string, need level, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted := &countingWriter{ResponseWriter: w, code: http.StatusOK}
		defer func() { s.metrics.request(pattern, counted.code) }()
		if have := s.granted(r); have < need {
			s.deny(counted, r, have, need)
			return
		}
		next(counted, r)
	})
}

// deny says what is missing: 401 when a token would help, 403 when this one
// does not.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, have, need level) {
	code, problem := http.StatusUnauthorized, fmt.Sprintf("this needs a token that may %s: Authorization: Bearer …", need)
	switch {
	case need == levelOperate && s.cfg.Token == "":
		code, problem = http.StatusForbidden, "operating over HTTP is off: set TANDEM_API_TOKEN, or use the command line on this machine"
	case r.Header.Get("Authorization") != "" && have > levelOpen:
		code, problem = http.StatusForbidden, "this token may read, not operate"
	case r.Header.Get("Authorization") != "":
		problem = "this token is not known"
	case s.open && need == levelRead:
		code, problem = http.StatusMisdirectedRequest, "without a token this API answers to localhost and IP addresses only; set TANDEM_API_READ_TOKEN to use it under a name"
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="tandem"`)
	}
	if s.denied.Allow() {
		s.log.Warn("api request denied", zap.String("actor", actor(r)), zap.String("path", r.URL.Path), zap.String("needs", need.String()), zap.Int("code", code))
	}
	fail(w, code, "denied", problem)
}
