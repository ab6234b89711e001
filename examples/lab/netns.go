package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

// run executes a command and returns what it wrote; its standard error is in
// the error, and so is the command as one would type it.
func run(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// ipBatch runs the lines as `ip -batch` commands in the namespace, or in the
// caller's own one when it is empty.
func ipBatch(ctx context.Context, ns string, lines ...string) error {
	args := []string{"ip"}
	if ns != "" {
		args = append(args, "-n", ns)
	}
	_, err := run(ctx, strings.Join(lines, "\n")+"\n", append(args, "-batch", "-")...)
	return err
}

// inside calls f on a thread that has entered the namespace. Sockets that f
// opens stay in it; goroutines that f starts do not.
func inside(ns string, f func() error) error {
	target, err := os.Open(netnsDir + "/" + ns)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", ns, err)
	}
	defer func() { _ = target.Close() }()
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own namespace: %w", err)
	}
	defer func() { _ = own.Close() }()
	if err = unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", ns, err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread is in the wrong place: left locked, it ends with this
		// goroutine and is never used for anything else.
		return fmt.Errorf("leave namespace %s: %w", ns, back)
	}
	runtime.UnlockOSThread()
	return err
}

// Dial connects from a node of the lab to an IP address and port.
func (l *Lab) Dial(ctx context.Context, node, network, address string) (c net.Conn, err error) {
	err = inside(l.Node(node).NS, func() error {
		c, err = (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen opens a TCP port on a node of the lab.
func (l *Lab) Listen(ctx context.Context, node, address string) (listener net.Listener, err error) {
	err = inside(l.Node(node).NS, func() error {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		return err
	})
	return listener, err
}

// pidsIn lists the processes whose network namespace is ns.
func pidsIn(ns string) []int {
	var want unix.Stat_t
	if err := unix.Stat(netnsDir+"/"+ns, &want); err != nil {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, ok := atoi(e.Name())
		if !ok || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && st.Ino == want.Ino && st.Dev == want.Dev {
			pids = append(pids, pid)
		}
	}
	return pids
}

func atoi(s string) (int, bool) {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, s != ""
}

// dropNS kills whatever runs in the namespace and removes it.
func dropNS(ctx context.Context, ns string) error {
	for _, pid := range pidsIn(ns) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if _, err := os.Stat(netnsDir + "/" + ns); err != nil {
		return nil //nolint:nilerr // it is gone already
	}
	_, err := run(ctx, "", "ip", "netns", "del", ns)
	return err
}
