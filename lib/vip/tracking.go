package vip

import (
	"os"
	"strconv"
	"strings"
)

// Tracking says how full the kernel's table of tracked connections is. This
// package does without one. But a firewall, address translation or a container's
// network may have the kernel track what comes and goes; when its table is full the
// kernel drops every new connection, whoever holds the address. The zero Tracking
// is that of a kernel that tracks nothing here, or that cannot be asked.
type Tracking struct {
	Count, Max int
}

// Full says whether new connections are dropped, or will be soon: a twentieth of the
// table is not much for an address that hundreds connect to every second.
func (t Tracking) Full() bool { return t.Max > 0 && t.Count >= t.Max-t.Max/20 }

// trackingDir has the table of this process's network namespace; the most that it
// may hold is the machine's.
const trackingDir = "/proc/sys/net/netfilter/nf_conntrack_"

// ConnectionTracking asks the kernel.
func ConnectionTracking() Tracking {
	read := func(name string) int {
		b, err := os.ReadFile(trackingDir + name)
		if err != nil {
			return 0
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(b))) // 0: no number, no table
		return n
	}
	return Tracking{Count: read("count"), Max: read("max")}
}
