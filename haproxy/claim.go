package haproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// verifyClaim is how often the claim on HAProxy is looked after.
const verifyClaim = time.Second

// claim keeps two tandems from writing to one HAProxy, which neither would notice:
// each takes the other's drains for a person's, and where they are of two minds
// both sites end up drained.
//
// It is an abstract unix socket, so it needs no directory that both may write to,
// and it goes with its process, however that ends. Its name is made of the
// directory that HAProxy's socket lies in, by device and inode, and the socket's
// name there: the same by whatever path that is reached, another in another
// container.
type claim struct {
	socket   string // HAProxy's
	name     string // of what is held; empty: nothing
	listener net.Listener
	greeter  sync.WaitGroup
	rival    string // who had it when that was last asked
}

// hold takes the claim, or goes on having it, and returns what another says who
// has it. Where there is no such directory nobody can be there, and nothing is held.
func (c *claim) hold() (rival string) {
	name, owner, err := claimName(c.socket)
	if err != nil || name == c.name {
		return ""
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", name)
	switch {
	case err == nil:
		c.release()
		c.name, c.listener = name, l
		c.greeter.Go(func() { introduce(l) })
	case errors.Is(err, syscall.EADDRINUSE):
		rival, err := holder(name, owner)
		if !errors.Is(err, syscall.EAGAIN) { // it has it still, and is stopped
			c.rival = rival
		}
		return c.rival
	}
	return "" // where there are no such sockets there is no claim
}

// release gives the claim up.
func (c *claim) release() {
	if c.listener == nil {
		return
	}
	_ = c.listener.Close()
	c.greeter.Wait()
	c.name, c.listener = "", nil
}

// introduce lets others in who want to know who is here: the kernel tells them.
func introduce(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// claimName is the name of the claim on what listens at a path, and the user that
// HAProxy's socket belongs to, or its directory while there is none.
func claimName(socket string) (name string, owner uint32, err error) {
	directory, err := os.Stat(filepath.Dir(socket))
	if err != nil {
		return "", 0, err
	}
	at, ok := directory.Sys().(*syscall.Stat_t)
	if !ok {
		return "", 0, fmt.Errorf("stat %s: no inode", filepath.Dir(socket))
	}
	owner = at.Uid
	if file, err := os.Stat(socket); err == nil {
		if of, ok := file.Sys().(*syscall.Stat_t); ok {
			owner = of.Uid
		}
	}
	return "@tandem-haproxy/" + strconv.FormatUint(at.Dev, 16) + "/" + strconv.FormatUint(at.Ino, 16) + "/" + shorten(filepath.Base(socket)), owner, nil
}

// shorten keeps a name within what the address of a socket can have.
func shorten(base string) string {
	const most = 48
	return base[max(0, len(base)-most):]
}

// holder says who has a claim. Anybody on the machine can take a name, so only a
// process of root, of our own user or of the one that HAProxy's socket belongs to
// is believed.
func holder(name string, owner uint32) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "unix", name)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return "", err
	}
	var credentials *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	switch err = errors.Join(err, failed); {
	case err != nil:
		return "", err
	case credentials.Uid != 0 && credentials.Uid != owner && int(credentials.Uid) != os.Geteuid():
		return "", nil
	case int(credentials.Pid) == os.Getpid():
		return "this sidecar itself writes to it by another path of the same socket", nil
	}
	return fmt.Sprintf("pid %d of user %d", credentials.Pid, credentials.Uid), nil
}

// contend has the claim on HAProxy taken, once a second, or at each look while
// another has it.
func (w *worker) contend() {
	if w.i.cfg.Observe || w.rival == "" && time.Since(w.claimed) < verifyClaim {
		return
	}
	w.claimed = time.Now()
	rival := w.claim.hold()
	if rival != w.rival {
		if w.rival != "" && rival == "" {
			w.remember() // what the other one drained meanwhile, if the journal is the same
		}
		w.rival = rival
		w.calm, w.prepared = 0, 0
		w.pace.now()
		w.i.contended(rival)
	}
	if w.i.siteMap != nil {
		w.i.siteMap.Pause(rival != "")
	}
}

// writes says whether this worker may change anything, at HAProxy or on disk.
func (w *worker) writes() bool { return !w.i.cfg.Observe && w.rival == "" }
