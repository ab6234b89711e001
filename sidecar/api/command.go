package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"go.uber.org/zap"

	"tandem/sidecar/status"
)

// Request is the body of a command. Which fields a command takes is in
// [commands]; a field that it does not take is refused, so that nobody
// believes to have said something that was not heard.
type Request struct {
	Site     string `json:"site,omitempty"`
	Group    string `json:"group,omitempty"`
	To       string `json:"to,omitempty"`
	Node     string `json:"node,omitempty"`
	On       *bool  `json:"on,omitempty"`
	Force    bool   `json:"force,omitempty"`
	Begin    bool   `json:"begin,omitempty"`    // answer as soon as it has begun
	Duration string `json:"duration,omitempty"` // as 10m; empty: until resume
}

// commands names the fields that each command takes.
var commands = map[string][]string{
	"takeover":    {"site", "group", "force", "begin"},
	"renounce":    {"site", "group", "force", "begin"},
	"move":        {"group", "to", "force"},
	"pause":       {"duration"},
	"resume":      {},
	"maintenance": {"node", "on"},
	"ack":         {"group"},
	"restart":     {},
}

// command carries out one kind of command and writes the audit line: who, from
// where, what, and what came of it.
func (s *Server) command(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, code, problem := decode(kind, r)
		c.Kind, c.Actor, c.ID = kind, actor(r), newID()
		if problem != "" {
			s.audit(c, status.Result{Reason: "bad-request", Message: problem}, nil, 0)
			fail(w, code, "bad-request", problem)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the body is read; the command may take longer
		ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
		defer cancel()
		began := time.Now()
		result, err := s.agent.Do(ctx, c)
		s.audit(c, result, err, time.Since(began))
		w.Header().Set("X-Tandem-Command", c.ID)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			fail(w, http.StatusGatewayTimeout, "no-answer", "no answer within "+commandTimeout.String()+"; the command may still take effect: look at status")
		case err != nil:
			fail(w, http.StatusServiceUnavailable, "failed", err.Error())
		case !result.OK:
			answer(w, http.StatusConflict, result)
		default:
			answer(w, http.StatusOK, result)
		}
	}
}

func (s *Server) audit(c status.Command, result status.Result, err error, took time.Duration) {
	outcome := "done"
	switch {
	case err != nil:
		outcome = "failed"
	case !result.OK:
		outcome = "refused"
	}
	s.metrics.command(c.Kind, outcome)
	s.log.Info("audit", zap.String("command", c.Kind), zap.String("command_id", c.ID), zap.String("actor", c.Actor),
		zap.String("site", c.Site), zap.String("group", c.Group), zap.String("to", c.To), zap.String("for_node", c.Node),
		zap.Bool("on", c.On), zap.Bool("force", c.Force), zap.Duration("duration", c.Duration),
		zap.String("result", outcome), zap.String("reason", result.Reason), zap.String("message", result.Message),
		zap.Uint64("epoch", result.Epoch), zap.Duration("took", took), zap.Error(err))
}

// decode reads the body of a command. JSON has to be declared: a form on
// another site's page cannot do that. No body needs no declaration.
func decode(kind string, r *http.Request) (status.Command, int, string) {
	declared := r.Header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(declared)
	if declared != "" && (err != nil || media != "application/json") {
		return status.Command{}, http.StatusUnsupportedMediaType, "the body must be application/json"
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return status.Command{}, http.StatusRequestEntityTooLarge, "the body is too large or did not arrive"
	}
	if declared == "" && len(body) > 0 {
		return status.Command{}, http.StatusUnsupportedMediaType, "the body must be declared: Content-Type: application/json"
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(body, &given); err != nil {
		return status.Command{}, http.StatusBadRequest, "the body is not a JSON object"
	}
	for _, field := range commands[kind] {
		delete(given, field)
	}
	for field := range given {
		return status.Command{}, http.StatusBadRequest, kind + " takes no " + field
	}
	var req Request
	if err := json.Unmarshal(body, &req); err != nil {
		return status.Command{}, http.StatusBadRequest, "the body has a field of the wrong type: " + err.Error()
	}
	return req.command(kind)
}

func (q Request) command(kind string) (status.Command, int, string) {
	c := status.Command{Kind: kind, Site: q.Site, Group: q.Group, To: q.To, Node: q.Node, Force: q.Force, Begin: q.Begin}
	if q.Duration != "" {
		d, err := time.ParseDuration(q.Duration)
		if err != nil || d <= 0 {
			return c, http.StatusBadRequest, "duration is for example 10m; leave it out to pause until resume"
		}
		c.Duration = d
	}
	switch {
	case kind == "move" && q.To == "":
		return c, http.StatusBadRequest, "say to which node: to"
	case kind == "maintenance" && q.On == nil:
		return c, http.StatusBadRequest, "say on: true or false"
	case q.On != nil:
		c.On = *q.On
	}
	return c, 0, ""
}

// newID names a command in events and audit.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process rather than return an error
	return hex.EncodeToString(b[:])
}
