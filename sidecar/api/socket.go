package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// controlSocket is a unix listener that owns its path by a lock, so that of
// two sidecars started on one path the second is told, and what a killed one
// left behind is replaced.
type controlSocket struct {
	*net.UnixListener
	path string
	lock *os.File
}

// listenSocket opens the control socket with mode 0600. Its directory is made
// with mode 0700 when it is absent.
func listenSocket(ctx context.Context, path string) (*controlSocket, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of control socket (TANDEM_SOCKET): %w", err)
	}
	lock, err := lockPath(path)
	if err != nil {
		return nil, err
	}
	listener, err := bindSocket(ctx, path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on control socket %s (TANDEM_SOCKET): %w", path, err), lock.Close())
	}
	return &controlSocket{UnixListener: listener, path: path, lock: lock}, nil
}

func lockPath(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock control socket (TANDEM_SOCKET): %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket %s is in use: another tandem runs here; stop it, or give this one its own TANDEM_SOCKET", path), lock.Close())
	}
	return lock, nil
}

// bindSocket binds in a directory that only we may enter, restricts the mode
// and only then moves the socket to its name: at no time can anybody else
// connect, and a client finds either the old socket or the new one.
func bindSocket(ctx context.Context, path string) (*net.UnixListener, error) {
	if at, err := os.Lstat(path); err == nil && at.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("there is something else than a socket at this path; remove it or choose another")
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".t") // a short name: the kernel takes 107 bytes
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	fresh := filepath.Join(private, "s")
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, err
	}
	unixListener := listener.(*net.UnixListener) // what this network gives
	unixListener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return unixListener, nil
}

// Close removes the socket while the lock is still ours.
func (c *controlSocket) Close() error {
	_ = os.Remove(c.path) // gone already when Close is called again
	return errors.Join(c.UnixListener.Close(), c.lock.Close())
}
