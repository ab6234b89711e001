package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tandem/lib/vip"
	"tandem/sidecar/agent"
	"tandem/sidecar/config"
)

const (
	// The environment variable that names the descriptor by which a program is handed the state of the
	// one whose place it takes. It is no setting, so it is not called TANDEM_….
	inheritFD = "_TANDEM_STATE_FD"
	// The first word of a state; its version and the hash of what follows come after.
	inheritHead = "tandem-state"
	// How old a state may be that is still of use: by then others
	// have long decided about all that this node held.
	inheritLife = time.Minute
	// How much is read of it at most.
	inheritMost = 64 << 20
)

// inheritance is what one program hands to the next in the same process.
type inheritance struct {
	PID    int
	BootID string // of the machine

	Agent      agent.Succession
	Broadcasts uint64 // gossip's

	// What must be the same for the two, so that a broken environment is found
	// while the former one still runs.
	Identity string            // see identity
	Settings map[string]string // digests of what must be the same on all nodes
	Keys     []string          // names of those in force
	Missing  []string          // capabilities that the former one lacks
}

// encode writes an inheritance with its version and hash.
func (in inheritance) encode() ([]byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return fmt.Appendf(nil, "%s %d %x\n%s", inheritHead, agent.StateVersion, sha256.Sum256(body), body), nil
}

// decodeInheritance reads what encode has written, of this version alone.
func decodeInheritance(b []byte) (in inheritance, err error) {
	head, body, _ := bytes.Cut(b, []byte("\n"))
	var version int
	var sum string
	if n, _ := fmt.Sscanf(string(head), inheritHead+" %d %s", &version, &sum); n != 2 {
		return in, errors.New("it is no state of tandem's, or cut short")
	}
	if version != agent.StateVersion {
		return in, fmt.Errorf("it is of version %d, this program reads %d", version, agent.StateVersion)
	}
	if is := sha256.Sum256(body); sum != hex.EncodeToString(is[:]) {
		return in, errors.New("it is damaged: the hash does not fit")
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return in, fmt.Errorf("decode state: %w", err)
	}
	return in, nil
}

// own says whether a state is of this very process, of a moment ago: two that
// took it for theirs would be two holders of one lease.
func (in inheritance) own(now time.Duration) error {
	boot, err := bootID()
	age := now - in.Agent.Taken
	switch {
	case err != nil:
		return err
	case in.BootID != boot:
		return errors.New("it is of another boot of the machine")
	case in.PID != os.Getpid():
		return fmt.Errorf("it is of process %d, this is %d", in.PID, os.Getpid())
	case age < 0 || age > inheritLife:
		return fmt.Errorf("it was taken %v ago, at most %v are of use", age.Round(time.Millisecond), inheritLife)
	}
	return nil
}

// fits says what of this program's surroundings is not as it was for the one
// that the state is of.
func (in inheritance) fits(cfg config.Config, keys []string) error {
	var differ []string
	shared := cfg.Shared()
	for name, digest := range in.Settings {
		if shared[name] != digest {
			differ = append(differ, name)
		}
	}
	for name := range shared {
		if _, known := in.Settings[name]; !known {
			differ = append(differ, name)
		}
	}
	slices.Sort(differ)
	switch {
	case in.Identity != identity(cfg):
		return fmt.Errorf("it is of %s, this is %s", in.Identity, identity(cfg))
	case len(differ) > 0:
		return fmt.Errorf("%s means something else to it: a restart in place changes no setting; stop and start the sidecar for that", strings.Join(differ, ", "))
	case !slices.Equal(slices.Sorted(slices.Values(in.Keys)), slices.Sorted(slices.Values(keys))):
		return errors.New("the keys are being rotated, and are not all in the file: wait for `tandem keys --wait`")
	}
	return nil
}

// identity says whose state it is, and how it is reached.
func identity(cfg config.Config) string {
	return fmt.Sprintf("%s (%s) in cluster %s at %s", cfg.Node, cfg.Role, cfg.Cluster, cfg.Bind)
}

// lacks names the capabilities that this program lacks and the former one has.
func (in inheritance) lacks() error {
	missing, err := vip.MissingCapabilities()
	if err != nil {
		return err
	}
	for _, c := range missing {
		if !slices.Contains(in.Missing, c.Name) {
			return fmt.Errorf("the program has no CAP_%s, which this one has: for one with file capabilities, setcap after replacing it", c.Name)
		}
	}
	return nil
}

func missingNames() []string {
	missing, err := vip.MissingCapabilities()
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range missing {
		names = append(names, c.Name)
	}
	return names
}

// bootID is drawn by the kernel when the machine starts.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// memoryFile holds a state in memory, in a descriptor that no other program gets.
func memoryFile(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("tandem-state", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3, which did not ask for it either
		fd, err = unix.MemfdCreate("tandem-state", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "tandem-state")
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(fmt.Errorf("write state: %w", err), f.Close())
	}
	return f, nil
}

// become executes another program in this process, and hands it the state. It
// returns only if that failed; nothing has changed then.
func become(program string, args, env []string, state *os.File) error {
	syscall.ForkLock.Lock() // what is started meanwhile must not get the descriptor
	defer syscall.ForkLock.Unlock()
	fd := int(state.Fd())
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("pass the state on: %w", err)
	}
	err := syscall.Exec(program, args, append(withoutState(env), inheritFD+"="+strconv.Itoa(fd)))
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC) // it is closed next
	return fmt.Errorf("execute %s: %w", program, err)
}

func withoutState(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, inheritFD+"=") })
}

// takeInheritance reads what the former program of this process has left, and
// takes it out of the environment. Nil: there was none. An error is why what was
// left is of no use.
func takeInheritance(p *program) (*inheritance, error) {
	text := p.getenv(inheritFD)
	if text == "" {
		return nil, nil
	}
	p.env = withoutState(p.env)
	if err := os.Unsetenv(inheritFD); err != nil { // hooks do not need to see it
		return nil, fmt.Errorf("unset %s: %w", inheritFD, err)
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%s is no descriptor", inheritFD, text)
	}
	f := os.NewFile(uintptr(fd), "tandem-state")
	defer f.Close()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return readInheritance(f, func(in inheritance) error { return in.own(bootTime()) })
}

func readInheritance(r io.Reader, check func(inheritance) error) (*inheritance, error) {
	b, err := io.ReadAll(io.LimitReader(r, inheritMost))
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	in, err := decodeInheritance(b)
	if err == nil {
		err = check(in)
	}
	if err != nil {
		return nil, err
	}
	return &in, nil
}
