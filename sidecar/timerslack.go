package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late the kernel may fire a timer of the sidecar. Go's
// runtime watches itself from a thread of its own, which sleeps 20 µs at a time
// while anything runs: with the kernel's usual 50 µs of slack that is a third of
// all wake-ups of a sidecar at rest, with 1 ms it is a small part (ADR 11). The
// shortest interval that anything is decided by is 25 ms.
const timerSlack = time.Millisecond

// calm allows the kernel to fire this process's timers a little late. Each
// thread has a slack of its own, and the runtime's have started long before
// main; but a new thread inherits the slack of the one that starts it, and a
// program that of the thread that executes it (prctl(2), PR_SET_TIMERSLACK). So
// the process executes itself again, once: its id, its descriptors and its
// capabilities stay as they are. Whoever has set a longer slack already, as
// systemd's TimerSlackNSec= does, keeps it. On success it returns only if
// nothing had to be done.
func calm() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if have, err := slack(); err != nil || have >= timerSlack {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack: %w", err)
	}
	if have, err := slack(); err != nil || have < timerSlack {
		return err // a thread under a real-time policy has none, and it would not be inherited
	}
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("execute again: %w", err)
	}
	if err := syscall.Exec(path, os.Args, os.Environ()); err != nil {
		return fmt.Errorf("execute %s again: %w", path, err)
	}
	return nil
}

// slack is that of the calling thread.
func slack() (time.Duration, error) {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for the timer slack: %w", err)
	}
	return time.Duration(ns), nil
}
