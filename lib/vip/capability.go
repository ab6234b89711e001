package vip

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capability is a kernel capability that this process lacks.
type Capability struct {
	Name string // NET_ADMIN
	For  string // what cannot be done without it
}

// Mend is the line to add so that the process has it.
func (c Capability) Mend() string {
	return fmt.Sprintf("container: `cap_add: [%s]` (docker run --cap-add %s; Kubernetes: securityContext.capabilities.add: [%q]); systemd unit: `AmbientCapabilities=CAP_%s`",
		c.Name, c.Name, c.Name, c.Name)
}

// CapabilityError names what is missing and how to have it.
type CapabilityError struct {
	Missing []Capability
	Err     error // what the kernel said
}

func (e *CapabilityError) Error() string {
	var b strings.Builder
	if e.Err != nil {
		fmt.Fprintf(&b, "%v; ", e.Err)
	}
	for i, c := range e.Missing {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "missing capability %s (%s): add it, %s", c.Name, c.For, c.Mend())
	}
	return b.String()
}

func (e *CapabilityError) Unwrap() error { return e.Err }

var needed = []struct {
	bit uint
	Capability
}{
	{unix.CAP_NET_ADMIN, Capability{"NET_ADMIN", "to put virtual IPs on interfaces and to keep the gate"}},
	{unix.CAP_NET_RAW, Capability{"NET_RAW", "to announce virtual IPs by ARP and neighbour discovery"}},
}

// MissingCapabilities lists which of NET_ADMIN and NET_RAW this process lacks.
func MissingCapabilities() ([]Capability, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if hex, ok := strings.CutPrefix(s.Text(), "CapEff:"); ok {
			return missing(strings.TrimSpace(hex))
		}
	}
	return nil, errors.New("read capabilities: no CapEff line in /proc/self/status")
}

// RaiseCapabilities makes effective what of NET_ADMIN and NET_RAW this process is
// only permitted: file capabilities without the effective bit, as the container
// image has them, let a node without any rights run the same binary.
func RaiseCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var want uint32
	for _, n := range needed {
		want |= 1 << n.bit
	}
	want &= sets[0].Permitted &^ sets[0].Effective
	if want == 0 {
		return nil
	}
	sets[0].Effective |= want
	// A capability belongs to a thread: all of them need it.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	if errno != 0 {
		return fmt.Errorf("raise capabilities: %w", errno)
	}
	return nil
}

func missing(hex string) ([]Capability, error) {
	have, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	var out []Capability
	for _, n := range needed {
		if have&(1<<n.bit) == 0 {
			out = append(out, n.Capability)
		}
	}
	return out, nil
}

// named adds the missing capability to an error of the kernel that says no more
// than "operation not permitted".
func named(err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	lack, lerr := MissingCapabilities()
	if lerr != nil || len(lack) == 0 {
		return err
	}
	return &CapabilityError{Missing: lack, Err: err}
}
