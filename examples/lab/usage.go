package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process and its children in the same group have used.
type Usage struct {
	CPU      time.Duration // since the start
	Resident int64         // bytes, now
}

// Usage reads what a process of a node uses, its children included.
func (l *Lab) Usage(node, name string) (Usage, error) {
	p := l.Proc(node, name)
	if p == nil || !p.Alive() {
		return Usage{}, fmt.Errorf("read usage of %s on %s: it does not run", name, node)
	}
	var sum Usage
	for _, pid := range pidsIn(l.Node(node).NS) {
		u, group, err := usage(pid)
		if err == nil && group == p.PID {
			sum.CPU += u.CPU
			sum.Resident += u.Resident
		}
	}
	return sum, nil
}

// usage reads /proc/<pid>/stat, see proc(5).
func usage(pid int) (u Usage, group int, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return u, 0, fmt.Errorf("read usage: %w", err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 22 {
		return u, 0, fmt.Errorf("read usage: /proc/%d/stat has %d fields", pid, len(f))
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	pages, _ := strconv.Atoi(f[21])
	group, _ = strconv.Atoi(f[2])
	return Usage{CPU: time.Duration(user+system) * tick, Resident: int64(pages * os.Getpagesize())}, group, nil
}
