package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tandem/sidecar/status"
)

// Problem is what every refusal looks like.
type Problem struct {
	OK      bool   `json:"ok"` // always false
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func fail(w http.ResponseWriter, code int, reason, message string) {
	answer(w, code, Problem{Reason: reason, Message: message})
}

// answer writes JSON. It is encoded first, so that a fault of ours is a clean
// 500 and not half an answer.
func answer(w http.ResponseWriter, code int, v any) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		http.Error(w, `{"ok":false,"reason":"encode","message":"the answer cannot be encoded"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes()) // a client that left is nobody's fault
}

// livez answers 200 unless the process should be restarted.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Live != nil {
		if err := s.cfg.Live(); err != nil {
			fail(w, http.StatusServiceUnavailable, "not-alive", err.Error())
			return
		}
	}
	answer(w, http.StatusOK, status.Result{OK: true})
}

// readyz answers 200 when this node takes part: the next node of a rolling
// upgrade may be restarted.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	st := s.agent.Status()
	switch {
	case st.QuarantineMS > 0:
		fail(w, http.StatusServiceUnavailable, "quarantine", fmt.Sprintf("silent for another %d ms after the start", st.QuarantineMS))
	case st.Health == status.Unknown || st.Health == "":
		fail(w, http.StatusServiceUnavailable, "unknown", "this node cannot tell how the cluster is")
	default:
		answer(w, http.StatusOK, status.Result{OK: true})
	}
}

// Holder is the answer of /holder.
type Holder struct {
	Group  string `json:"group"`
	Node   string `json:"node"`   // who answers
	Holder string `json:"holder"` // empty: nobody
	Epoch  uint64 `json:"epoch"`
	Holds  bool   `json:"holds"` // the node that answers is the holder
}

// holder answers 200 on the holder of a group and 503 elsewhere. The time
// since the snapshot counts against the lease: an agent that stands still must
// not go on saying that it holds. The snapshot is dated by a clock that can be set;
// the time since it was asked for counts at least.
func (s *Server) holder(w http.ResponseWriter, r *http.Request) {
	asked := time.Now()
	st := s.agent.Status()
	lease, code, problem := vipLease(st, r.URL.Query().Get("group"))
	if problem != "" {
		fail(w, code, "no-such-group", problem)
		return
	}
	left := time.Duration(lease.ExpiresInMS)*time.Millisecond - max(time.Since(asked), asked.Sub(st.At))
	h := Holder{Group: strings.TrimPrefix(lease.Resource, vipPrefix), Node: st.Node, Holder: lease.Holder, Epoch: lease.Epoch}
	h.Holds = lease.Source == "own" && lease.Holder == st.Node && left > 0
	if h.Holds {
		answer(w, http.StatusOK, h)
		return
	}
	answer(w, http.StatusServiceUnavailable, h)
}

const vipPrefix = "vip/"

// vipLease finds the lease of a group. Without a name it is the only one, or
// the one named default.
func vipLease(st status.Status, group string) (status.Lease, int, string) {
	var names []string
	var found []status.Lease
	for _, l := range st.Leases {
		name, ok := strings.CutPrefix(l.Resource, vipPrefix)
		if !ok {
			continue
		}
		names = append(names, name)
		if name == group || group == "" && name == "default" {
			return l, 0, ""
		}
		found = append(found, l)
	}
	switch {
	case len(names) == 0:
		return status.Lease{}, http.StatusServiceUnavailable, "no lease of a virtual IP is known here yet"
	case group == "" && len(found) == 1:
		return found[0], 0, ""
	case group == "":
		return status.Lease{}, http.StatusBadRequest, "say which group: ?group= " + strings.Join(names, ", ")
	default:
		return status.Lease{}, http.StatusNotFound, "the groups are " + strings.Join(names, ", ")
	}
}

// access tells the page what it may do and whether a token would help, so that
// it asks for one only then.
func (s *Server) access(w http.ResponseWriter, r *http.Request) {
	have := s.granted(r)
	answer(w, http.StatusOK, map[string]any{
		"level":         have.String(),
		"token_reads":   have < levelRead,
		"token_operate": s.cfg.Token != "",
	})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, s.agent.Outlook(r.Context()))
}

// maxFaults bounds a question: more than a cluster has parts to lose.
const maxFaults = 64

// plan says what would happen if something failed.
func (s *Server) plan(w http.ResponseWriter, r *http.Request) {
	var faults []string
	for _, text := range r.URL.Query()["if"] {
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				faults = append(faults, part)
			}
		}
	}
	if len(faults) > maxFaults {
		fail(w, http.StatusBadRequest, "bad-request", fmt.Sprintf("%d faults, at most %d can be asked for", len(faults), maxFaults))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	select {
	case s.plans <- struct{}{}:
		defer func() { <-s.plans }()
	case <-ctx.Done():
		fail(w, http.StatusServiceUnavailable, "no-answer", "other plans are being rehearsed")
		return
	}
	p, err := s.agent.Plan(ctx, faults)
	switch {
	case err != nil && s.cfg.IsQuestion != nil && s.cfg.IsQuestion(err):
		fail(w, http.StatusBadRequest, "bad-request", err.Error())
	case err != nil:
		fail(w, http.StatusServiceUnavailable, "failed", err.Error())
	default:
		answer(w, http.StatusOK, p)
	}
}

// History is the answer of /v1/history, oldest first.
type History struct {
	Transitions []status.Transition `json:"transitions"`
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	all := s.transitions()
	if text := r.URL.Query().Get("limit"); text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 1 {
			fail(w, http.StatusBadRequest, "bad-request", "limit is a positive number")
			return
		}
		all = all[max(0, len(all)-limit):]
	}
	answer(w, http.StatusOK, History{Transitions: all})
}

func (s *Server) transitions() []status.Transition {
	all := s.agent.Status().Recent
	if s.cfg.History != nil {
		all = s.cfg.History()
	}
	if all == nil {
		all = []status.Transition{}
	}
	return all
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Gatherer == nil {
		fail(w, http.StatusNotFound, "no-metrics", "this process has no metrics")
		return
	}
	promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: writeTimeout}).ServeHTTP(w, r)
}
