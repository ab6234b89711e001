package haproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	// A test process that finds a name in it takes that claim and keeps it until
	// its input ends.
	claimVariable = "TANDEM_TEST_CLAIM"
	// A test process that finds a socket in it keeps that HAProxy, for site a until
	// its input says otherwise, and prints what it sees.
	keepVariable = "TANDEM_TEST_KEEP"
	// A test that finds itself named in it is alone in a mount namespace.
	mountsVariable = "TANDEM_TEST_MOUNTS"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(claimVariable); name != "" {
		takeClaim(name)
		return
	}
	if socket := os.Getenv(keepVariable); socket != "" {
		keepHAProxy(socket)
		return
	}
	goleak.VerifyTestMain(m)
}

func takeClaim(name string) {
	l, err := net.Listen("unix", name)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go introduce(l) // until the process ends
	fmt.Println("taken")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

func keepHAProxy(socket string) {
	i := New(Config{Socket: socket})
	i.Set(toA)
	go func() {
		if n, _ := os.Stdin.Read(make([]byte, 1)); n == 1 {
			i.Set(toB)
		}
	}()
	go func() { _ = i.Run(context.Background()) }() // until the process is killed
	for range i.Changed() {
		o := i.Observed()
		fmt.Printf("alive=%v applied=%d %s: %s\n", o.Alive, o.Applied, o.Reason, o.Detail)
	}
}

// asUser starts this test program as somebody else, with a variable set, and
// returns its process, and its input and output. It ends with the test.
func asUser(t *testing.T, user uint32, variable, value string) (process *os.Process, input io.WriteCloser, output *bufio.Reader) {
	t.Helper()
	dir, err := os.MkdirTemp("", "user") //nolint:usetesting // where everybody may go
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if err := errors.Join(os.WriteFile(program, b, 0o700), os.Chmod(program, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	other := exec.CommandContext(t.Context(), program)
	other.Env = append(os.Environ(), variable+"="+value)
	other.Dir, other.Stderr = "/", os.Stderr
	other.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if user != 0 {
		other.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
	}
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(2*patience, func() { _ = other.Process.Kill() }) // so that nobody waits for its output
	t.Cleanup(func() {
		late.Stop()
		_ = in.Close()
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	return other.Process, in, bufio.NewReader(out)
}

// inMountNamespace runs the test once more, in a process with mounts of its own,
// and says whether this is that process.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mountsVariable) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: needs root, to mount")
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), mountsVariable+"="+t.Name())
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := again.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return false
}
