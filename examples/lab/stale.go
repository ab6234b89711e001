package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Every lab has a directory /tmp/tdlab<pid>-<n> with a lock that it holds as
// long as it lives, and namespaces tdlab<pid>-<n>-<node>. A namespace whose
// directory is gone, or whose lock is free, was left behind by a lab that
// crashed. (A pid alone would not do: pids are used again.)
const prefix = "tdlab"

// claim makes the directory of a new lab. It is complete and locked before it
// gets its name, so that nobody takes it for an abandoned one.
func claim() (dir string, lock *os.File, err error) {
	draft, err := os.MkdirTemp("/tmp", "."+prefix)
	if err != nil {
		return "", nil, fmt.Errorf("make lab directory: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(draft)
		}
	}()
	if err = os.Chmod(draft, 0o755); err != nil {
		return "", nil, fmt.Errorf("make lab directory: %w", err)
	}
	if lock, err = os.OpenFile(filepath.Join(draft, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return "", nil, fmt.Errorf("make lab lock: %w", err)
	}
	if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", nil, fmt.Errorf("lock %s: %w", draft, err)
	}
	for n := range 1000 {
		dir = filepath.Join("/tmp", fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), n))
		if err = os.Rename(draft, dir); err == nil {
			return dir, lock, nil
		}
	}
	return "", nil, fmt.Errorf("name lab directory: %w", err)
}

// abandoned tells whether the lab of this name (tdlab<pid>-<n>) has ended.
func abandoned(name string) bool {
	f, err := os.Open(filepath.Join("/tmp", name, "lock"))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer func() { _ = f.Close() }()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// CleanStale removes what labs that crashed have left: their processes, their
// namespaces, their directories. It returns the names of those labs.
func CleanStale(ctx context.Context) ([]string, error) {
	gone := map[string]bool{}
	var errs []error
	entries, _ := os.ReadDir(netnsDir)
	for _, e := range entries {
		name, ok := labOf(e.Name())
		if !ok || !abandoned(name) {
			continue
		}
		gone[name] = true
		errs = append(errs, dropNS(ctx, e.Name()))
	}
	dirs, _ := filepath.Glob("/tmp/" + prefix + "[0-9]*-[0-9]*")
	for _, dir := range dirs {
		if name := filepath.Base(dir); abandoned(name) {
			gone[name] = true
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	var names []string
	for name := range gone {
		names = append(names, name)
	}
	return names, errors.Join(errs...)
}

// labOf reads the lab's name off a namespace's: tdlab12-0-lb1 is of tdlab12-0.
func labOf(ns string) (string, bool) {
	rest, ok := strings.CutPrefix(ns, prefix)
	if !ok {
		return "", false
	}
	parts := strings.SplitN(rest, "-", 3)
	if len(parts) != 3 {
		return "", false
	}
	if _, ok = atoi(parts[0]); !ok {
		return "", false
	}
	_, ok = atoi(parts[1])
	return prefix + parts[0] + "-" + parts[1], ok
}
