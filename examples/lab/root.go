package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// rootlessEnv marks the program that Prepare has started again.
const rootlessEnv = "TDLAB_ROOTLESS"

// ErrNoRoot says that a lab can be built neither as root nor without.
var ErrNoRoot = errors.New("the lab needs root, or a kernel that lets ordinary users make user namespaces " +
	"(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces > 0)")

// Prepare makes sure that the program may build a lab. As root it does
// nothing. Otherwise it starts the program again, with the same arguments, as
// root of a user namespace with networks and mounts of its own, waits for its
// end and exits with its code. It returns only when the lab can be built, or
// with [ErrNoRoot].
func Prepare() error {
	if os.Getenv(childEnv) == "" && os.Getenv(rootlessEnv) == "1" {
		return settle()
	}
	if os.Geteuid() == 0 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...) //nolint:noctx // signals reach it as they reach us
	cmd.Env = append(os.Environ(), rootlessEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	runtime.LockOSThread() // the parent-death signal is bound to this thread
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err = cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoRoot, err)
	}
	go func() {
		for sig := range signals {
			_ = cmd.Process.Signal(sig)
		}
	}()
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(max(exit.ExitCode(), 1))
	}
	if err != nil {
		return fmt.Errorf("wait for the lab: %w", err)
	}
	os.Exit(0)
	return nil
}

// settle gives the user namespace a /run of its own, where `ip netns` keeps
// its names.
func settle() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("%w: mount /run: %w", ErrNoRoot, err)
	}
	if err := os.Mkdir(netnsDir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", netnsDir, err)
	}
	return nil
}

// Try tells whether this kernel has what a lab needs.
func Try(ctx context.Context) error {
	if err := missing(); err != nil {
		return err
	}
	ns := fmt.Sprintf("%s%d-try-0", prefix, os.Getpid())
	if _, err := run(ctx, "", "ip", "netns", "add", ns); err != nil {
		return err
	}
	defer func() { _ = dropNS(context.WithoutCancel(ctx), ns) }()
	if err := ipBatch(ctx, ns, "link add br0 type bridge", "link add name x type veth peer name y"); err != nil {
		return err
	}
	_, err := run(ctx, "table bridge try { }\n", "ip", "netns", "exec", ns, "nft", "-f", "-")
	return err
}
