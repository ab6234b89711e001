package hook

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// reapEvery is how often process 1 looks for children that ended and that
// nobody waits for.
const reapEvery = time.Second

// own are the commands that a Runner waits for itself.
var own = struct {
	sync.Mutex
	pids map[int]bool
}{pids: map[int]bool{}}

// startOwn starts a command that this process will wait for. No reaper looks
// between its start and the note of its number.
func startOwn(cmd *exec.Cmd) error {
	own.Lock()
	defer own.Unlock()
	err := cmd.Start()
	if err == nil {
		own.pids[cmd.Process.Pid] = true
	}
	return err
}

// waitOwn waits for it to end.
func waitOwn(cmd *exec.Cmd) error {
	err := cmd.Wait()
	own.Lock()
	defer own.Unlock()
	delete(own.pids, cmd.Process.Pid)
	return err
}

// RunOwn runs a command to its end, without a reaper taking it away.
func RunOwn(cmd *exec.Cmd) error {
	if err := startOwn(cmd); err != nil {
		return err
	}
	return waitOwn(cmd)
}

// A Reaper collects orphans: what a hook left behind, or what somebody started
// in the container, becomes a child of process 1, which in a container is the
// sidecar, and stays a zombie until it is waited for.
type Reaper struct{ Log *zap.Logger }

// Run collects until ctx ends. Process 1 needs exactly one of it.
func (r Reaper) Run(ctx context.Context) error {
	ticker := time.NewTicker(reapEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			r.collect()
		}
	}
}

func (r Reaper) collect() {
	own.Lock()
	defer own.Unlock()
	for _, pid := range zombies(os.Getpid()) {
		if own.pids[pid] {
			continue
		}
		var status syscall.WaitStatus
		if got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); err == nil && got == pid {
			r.Log.Debug("orphan collected", zap.Int("pid", pid), zap.Int("status", int(status)))
		}
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
