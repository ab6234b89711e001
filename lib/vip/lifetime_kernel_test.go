package vip

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fenced is a holder without the gate, of addresses of its own, that is stopped
// at some instant.
type fenced struct {
	name    string
	signal  unix.Signal
	four    string
	six     string // "": IPv4 alone
	sidecar *proc
	pings   map[string]*proc
	at      time.Duration // of the signal
}

func (h *fenced) vips() string {
	if h.six == "" {
		return fmt.Sprintf("web=%s/32@eth0", h.four)
	}
	return fmt.Sprintf("web=%s/32@eth0,%s/128@eth0", h.four, h.six)
}

// fencedHolders puts up two holders for each phase: one to be frozen, one to be
// killed.
func fencedHolders(l *lab, dual bool, lease time.Duration) []*fenced {
	var out []*fenced
	for i, name := range l.nodes[1:] {
		h := &fenced{name: name, signal: unix.SIGSTOP, four: fmt.Sprintf("10.77.0.%d", 101+i), pings: map[string]*proc{}}
		if i%2 == 1 {
			h.signal = unix.SIGKILL
		}
		at := []string{h.four}
		if dual {
			h.six = fmt.Sprintf("fd77::%d", 101+i)
			at = append(at, h.six)
		}
		l.server(name, at...)
		h.sidecar = l.sidecar(name, h.vips(), "NOGATE=1", "STRICT=1")
		h.sidecar.ask("hold web %s", lease)
		h.pings["IPv4"] = l.client("c", "ping", h.four+":80", "10ms")
		if dual {
			h.pings["IPv6"] = l.client("c", "ping", "["+h.six+"]:80", "10ms")
		}
		out = append(out, h)
	}
	return out
}

// Without nftables the kernel's lifetime of the address is the fence: with the
// lease that MinLease asks for, a frozen or killed holder answers nothing after
// its deadline, in whatever phase of the kernel's second it was stopped.
func TestWithoutTheGateTheLifetimeEndsByTheLease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		dual  bool
		lease time.Duration
	}{{"IPv4 alone", false, minLease4}, {"dual stack", true, minLease6}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, "c", "h1", "h2", "h3", "h4", "h5", "h6")
			holders := fencedHolders(l, c.dual, c.lease)
			for _, h := range holders {
				if s := h.sidecar.status(); s.Fence != FenceLifetime || s.MinLease != c.lease {
					t.Fatalf("%s: fence %s, least lease %s, want %s", h.name, s.Fence, s.MinLease, c.lease)
				}
			}
			time.Sleep(500 * time.Millisecond)
			for _, h := range holders {
				h.at = h.sidecar.signal(h.signal)
				time.Sleep(170 * time.Millisecond)
			}
			over := bootTime() + c.lease + 300*time.Millisecond
			for i := range 2 { // see overrun4
				for _, h := range holders {
					h.disturb(l, i)
				}
				time.Sleep(800 * time.Millisecond)
			}
			time.Sleep(over - bootTime())
			for _, h := range holders {
				h.judge(t, l, c.lease)
			}
			for _, h := range holders {
				if h.signal == unix.SIGSTOP {
					h.sidecar.signal(unix.SIGCONT)
				}
			}
			time.Sleep(200 * time.Millisecond)
			for _, h := range holders {
				if l.has(h.name, h.four) || h.six != "" && l.has(h.name, h.six) {
					t.Errorf("%s has an address again without a lease", h.name)
				}
			}
		})
	}
}

// disturb gives the node one more address, upon which its kernel looks at the
// lifetimes of all, and not again for a second.
func (h *fenced) disturb(l *lab, i int) {
	l.t.Helper()
	l.in(h.name, "ip", "addr", "add", fmt.Sprintf("10.99.0.%d/32", i), "dev", "lo")
	l.in(h.name, "ip", "addr", "add", fmt.Sprintf("fd99::%d/128", i), "dev", "lo", "nodad")
}

func (h *fenced) judge(t *testing.T, l *lab, lease time.Duration) {
	t.Helper()
	for family, p := range h.pings {
		r := p.finish()
		after := r.LastAnswer - h.at
		t.Logf("%s, %v at %s of the second: last answer %s after it, lease %s",
			family, h.signal, h.at%time.Second, after, lease)
		if after > lease {
			t.Errorf("%s, %s, %v: answered %s after the signal, later than the lease of %s", h.name, family, h.signal, after, lease)
		}
		// A second of life was given shortly before, on a busy machine not so shortly.
		if after < 0 || r.Answered < 50 {
			t.Errorf("%s, %s, %v: silent too early: %s after the signal, %d answers", h.name, family, h.signal, after, r.Answered)
		}
	}
	if l.has(h.name, h.four) || h.six != "" && l.has(h.name, h.six) {
		t.Errorf("%s: the kernel has not removed the address", h.name)
	}
}
