package hook

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// reapEvery is how often process 1 looks for children that ended and that
// nobody waits for.
const reapEvery = time.Second

// reap collects orphans: what a hook left behind becomes a child of process 1,
// which in a container is the sidecar, and stays a zombie until it is waited
// for. Only children that are found ended twice in a row are collected: those
// that somebody in this process waits for are gone by then.
func reap(ctx context.Context, log *zap.Logger) {
	ticker := time.NewTicker(reapEvery)
	defer ticker.Stop()
	seen := map[int]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := map[int]bool{}
		for _, pid := range zombies(os.Getpid()) {
			if !seen[pid] {
				now[pid] = true
				continue
			}
			var status syscall.WaitStatus
			if got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); err == nil && got == pid {
				log.Debug("orphan collected", zap.Int("pid", pid), zap.Int("status", int(status)))
			}
		}
		seen = now
	}
}

// zombies lists the children of a process that ended and were not waited for,
// from /proc (see proc_pid_stat(5): pid (comm) state ppid …).
func zombies(parent int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // gone meanwhile
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 1 && string(fields[0]) == "Z" && string(fields[1]) == strconv.Itoa(parent) {
			out = append(out, pid)
		}
	}
	return out
}
