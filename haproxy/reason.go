package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// Reason is why HAProxy cannot be used, or not wholly. The same word stands in
// the log, the metrics and the status.
type Reason string

// The reasons. With the last two HAProxy is alive all the same.
const (
	ReasonStarting   Reason = "starting"          // not yet asked
	ReasonNoSocket   Reason = "no-socket"         // the path does not exist
	ReasonPermission Reason = "permission-denied" // the socket may not be opened
	ReasonRefused    Reason = "refused"           // nobody listens at the socket
	ReasonDied       Reason = "died"              // the connection that was held has ended
	ReasonHung       Reason = "hung"              // no answer for the timeout
	ReasonStopping   Reason = "haproxy-stopping"  // the process is on its way out
	ReasonBadAnswer  Reason = "bad-answer"        // what answers is no HAProxy Runtime API
	ReasonSocketGone Reason = "socket-unusable"   // alive, but only a connection held from before answers
	ReasonNotAdmin   Reason = "not-admin"         // alive, but the socket's level forbids changes
)

// A talkError is an error with its reason.
type talkError struct {
	Reason Reason
	Detail string
	Err    error // may be nil
}

// Error is the detail and the cause.
func (f *talkError) Error() string {
	if f.Err == nil {
		return f.Detail
	}
	return f.Detail + ": " + f.Err.Error()
}

// Unwrap returns the cause.
func (f *talkError) Unwrap() error { return f.Err }

// mend is the detail of a reason: what is wrong and what to do, in a line.
func mend(reason Reason, socket string) string {
	switch reason {
	case ReasonNoSocket:
		return fmt.Sprintf("no socket at %s: is HAProxy running, and does its configuration say `stats socket %s mode 600 level admin`?", socket, socket)
	case ReasonPermission:
		return fmt.Sprintf("not allowed to open %s: run as a user that may, or set mode, user or group of the stats socket", socket)
	case ReasonRefused:
		return fmt.Sprintf("nobody listens at %s: HAProxy is not running, or its configuration names another stats socket", socket)
	case ReasonNotAdmin:
		return fmt.Sprintf("%s is not of level admin: say `stats socket %s mode 600 level admin`", socket, socket)
	case ReasonHung:
		return fmt.Sprintf("no answer at %s", socket)
	case ReasonDied:
		return fmt.Sprintf("HAProxy at %s ended", socket)
	case ReasonStopping:
		return fmt.Sprintf("HAProxy at %s is stopping", socket)
	case ReasonBadAnswer:
		return fmt.Sprintf("what answers at %s is no HAProxy Runtime API", socket)
	case ReasonSocketGone:
		return fmt.Sprintf("%s takes no new connection, one from before still answers: somebody has all of its connections; raise `stats maxconn`", socket)
	case ReasonStarting:
		return "not yet asked"
	}
	return string(reason)
}

// mendSocket is mend for a socket that takes no new connection, for that reason,
// while one from before still answers.
func mendSocket(why Reason, socket string) string {
	const still = ", a connection from before still answers: "
	texts := map[Reason]string{
		ReasonPermission: "not allowed to open " + socket + " any more" + still + "set its mode, user or group as they were",
		ReasonNoSocket:   socket + " was removed" + still + "reload HAProxy",
		ReasonRefused:    socket + " was replaced" + still + "reload HAProxy",
		ReasonBadAnswer:  socket + " was replaced" + still + "reload HAProxy",
	}
	if text, ok := texts[why]; ok {
		return text
	}
	return mend(ReasonSocketGone, socket)
}

// classify turns an error of a conversation into a fault.
func classify(socket string, err error) *talkError {
	if f, ok := errors.AsType[*talkError](err); ok {
		return f
	}
	reason := ReasonBadAnswer
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = ReasonNoSocket
	case errors.Is(err, fs.ErrPermission):
		reason = ReasonPermission
	case errors.Is(err, syscall.ECONNREFUSED):
		reason = ReasonRefused
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.EAGAIN):
		reason = ReasonHung
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
		reason = ReasonDied
	}
	return &talkError{Reason: reason, Detail: mend(reason, socket), Err: err}
}
