package vip

import (
	"time"

	"go.uber.org/zap"
)

// Reason is a word for why something happened. It reads the same in logs,
// metrics, the API and the documentation.
type Reason string

// The reasons of this package.
const (
	ReasonAsked          Reason = "asked"
	ReasonDeadlinePassed Reason = "deadline-passed"
	ReasonStopped        Reason = "stopped"
	ReasonLeftBehind     Reason = "left-behind"
	ReasonForeign        Reason = "foreign-announcement"
	ReasonRemoved        Reason = "address-removed"
	ReasonContested      Reason = "address-contested"
	ReasonFlags          Reason = "address-flags-mended"
	ReasonGateFlushed    Reason = "gate-flushed"
	ReasonGateLost       Reason = "gate-lost"
	ReasonGateBack       Reason = "gate-back"
	ReasonCarrierLost    Reason = "carrier-lost"
	ReasonCarrierBack    Reason = "carrier-back"
	ReasonMoveEnded      Reason = "move-ended"
)

// Event is something that happened to the virtual IPs without the caller's
// asking. Group and Address may be empty.
type Event struct {
	Kind    Reason
	Group   string
	Address string // as configured: 10.0.0.100/32@eth0
	Detail  string
	At      time.Duration // CLOCK_BOOTTIME
}

// Events is where they come out. When nobody reads them they are dropped and
// counted.
func (m *Manager) Events() <-chan Event { return m.events }

// emit is called with the lock held.
func (m *Manager) emit(e Event) {
	e.At = m.cfg.Now()
	m.metrics.events.WithLabelValues(e.Group, string(e.Kind)).Inc()
	m.log.Warn("virtual IPs: "+string(e.Kind), zap.String("reason", string(e.Kind)), zap.String("group", e.Group),
		zap.String("address", e.Address), zap.String("detail", e.Detail))
	select {
	case m.events <- e:
	default:
		m.late++
		m.metrics.lost.Inc()
	}
}

// wake has Run look at its times again.
func (m *Manager) wake() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}
