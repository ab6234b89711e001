package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"tandem/sidecar/status"
)

// events streams server-sent events: a "transition" for each, and a "status"
// at the start, after each transition and every second. With ?only=transition
// the latter are left out; a comment then keeps the connection alive. Who comes
// back with Last-Event-ID, as browsers do, gets the transitions that it missed.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		fail(w, http.StatusServiceUnavailable, "too-many-streams", fmt.Sprintf("%d streams are open", maxStreams))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	stream := &stream{w: w, control: http.NewResponseController(w)}
	_ = stream.control.SetReadDeadline(time.Time{}) // or the request would end with the server's ReadTimeout
	withStatus := r.URL.Query().Get("only") != "transition"
	transitions := s.agent.Watch(r.Context(), r.Header.Get("Last-Event-ID"))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	look := func() status.Status { return s.agent.Outlook(r.Context()) }
	ok := stream.beat(withStatus, look)
	for ok {
		select {
		case <-r.Context().Done():
			return
		case e, more := <-transitions:
			if !more {
				return
			}
			ok = stream.send("transition", e.ID, e) && (!withStatus || stream.beat(true, s.agent.Status))
		case <-tick.C:
			ok = stream.beat(withStatus, look)
		}
	}
}

// stream writes events, each within the write timeout.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// beat sends a status. What the next failure would do is found out once a
// second at most, and not in the midst of a storm of transitions.
func (st *stream) beat(withStatus bool, look func() status.Status) bool {
	if withStatus {
		return st.send("status", "", look())
	}
	return st.write(": still here\n\n")
}

func (st *stream) send(event, id string, v any) bool {
	data, err := json.Marshal(v) // one line: JSON escapes line breaks
	if id != "" {
		id = "id: " + id + "\n"
	}
	return err == nil && st.write(fmt.Sprintf("event: %s\ndata: %s\n%s\n", event, data, id))
}

func (st *stream) write(text string) bool {
	_ = st.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := st.w.Write([]byte(text))
	return err == nil && st.control.Flush() == nil
}
