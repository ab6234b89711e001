package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"tandem/sidecar/status"
)

// notifier tells a service manager that speaks sd_notify how the sidecar is:
// that it is up, a line about it, that it is on its way out, and, as long as
// the agent's loop answers, that it need not be restarted. Without such a
// service manager (NOTIFY_SOCKET is not set) it does nothing.
type notifier struct {
	node  notified
	stop  <-chan struct{} // the sidecar has been told to stop
	log   *zap.Logger
	every time.Duration

	ready bool
	line  string
}

type notified interface {
	Live() error
	Status() status.Status
}

// notifyEvery is how often the line is looked at when there is no watchdog, or
// a slow one.
const notifyEvery = time.Second

func newNotifier(stop <-chan struct{}, node notified, log *zap.Logger) *notifier {
	n := &notifier{node: node, stop: stop, log: log.Named("systemd"), every: notifyEvery}
	if watchdog, err := daemon.SdWatchdogEnabled(false); err == nil && watchdog > 0 {
		n.every = min(n.every, watchdog/3)
	}
	return n
}

// Run tells until ctx ends.
func (n *notifier) Run(ctx context.Context) error {
	if told, err := n.say("STATUS=starts"); !told || err != nil {
		return nil // nobody listens, or said so in the log
	}
	tick := time.NewTicker(min(n.every, firstLook))
	defer tick.Stop()
	stop := n.stop
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-stop:
			stop = nil
			_, _ = n.say(daemon.SdNotifyStopping + "\nSTATUS=hands over what it holds")
		case <-tick.C:
			n.look(stop == nil)
			if n.ready {
				tick.Reset(n.every)
			}
		}
	}
}

// firstLook is how often a start is looked at: it is complete within seconds.
const firstLook = 100 * time.Millisecond

// look pats the watchdog if the loop answers, and tells what has changed.
func (n *notifier) look(stopping bool) {
	if err := n.node.Live(); err != nil {
		n.log.Warn("the watchdog is not told that all is well", zap.Error(err))
		return
	}
	var words []string
	if st := n.node.Status(); !stopping {
		if !n.ready && st.QuarantineMS == 0 {
			n.ready = true
			words = append(words, daemon.SdNotifyReady)
		}
		if line := statusLine(st); line != n.line {
			n.line = line
			words = append(words, "STATUS="+line)
		}
	}
	_, _ = n.say(strings.Join(append(words, daemon.SdNotifyWatchdog), "\n"))
}

func (n *notifier) say(text string) (told bool, err error) {
	if told, err = daemon.SdNotify(false, text); err != nil {
		n.log.Warn("service manager not told", zap.Error(err))
	}
	return told, err
}

// statusLine is the picture in one line, as `systemctl status` shows it.
func statusLine(st status.Status) string {
	if st.QuarantineMS > 0 {
		return "just started, keeps silent until no lease from before can be alive"
	}
	var holds []string
	for _, l := range st.Leases {
		if l.Holder == st.Node {
			holds = append(holds, l.Resource)
		}
	}
	parts := []string{string(st.Health)}
	if len(holds) > 0 {
		parts = append(parts, "holds "+strings.Join(holds, " and "))
	}
	for _, g := range st.Groups {
		if g.Group == defaultGroup && g.Active != "" {
			parts = append(parts, "site "+g.Active)
		}
	}
	if i := slices.IndexFunc(st.Nodes, func(n status.Node) bool { return n.Name == st.Node }); i >= 0 && len(holds) == 0 {
		if node := st.Nodes[i]; node.Role == "lb" && !node.Eligible && node.Reason != "" {
			parts = append(parts, node.Reason)
		}
	}
	line := strings.Join(parts, ", ")
	if len(st.Problems) > 0 {
		line += ": " + st.Problems[0]
	}
	if more := len(st.Problems) - 1; more > 0 {
		line += fmt.Sprintf(" (and %d more)", more)
	}
	return strings.ReplaceAll(line, "\n", " ")
}
