package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ports of the components on the machines of both sites, as in haproxy.cfg.
var ports = map[string]int{"ccm": 8081, "comm": 8082, "mre": 8083, "chat": 8084, "reporting": 8085, "amq": 61614}

// service is a stand-in for a component: it says who it is, and writes down
// every request with the time at which it came.
type service struct{ dir, site, name string }

func newService(dir, site, name string) (service, error) {
	if ports[name] == 0 {
		return service{}, fmt.Errorf("no service %q", name)
	}
	if dir == "" || site == "" {
		return service{}, errors.New("set HYBRIDCHAT_DIR and HYBRIDCHAT_SITE")
	}
	return service{dir, site, name}, nil
}

func (s service) path(suffix string) string { return filepath.Join(s.dir, s.name+suffix) }

// startDelay is how long an application takes until it serves.
const startDelay = 200 * time.Millisecond

// start starts the service and waits until it serves; one that runs is left
// alone.
func (s service) start() error {
	if err := s.misbehave(); err != nil {
		return err
	}
	if s.pid() != 0 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(self, "serve", s.name) //nolint:noctx // it outlives us
	cmd.Env = append(os.Environ(), "HYBRIDCHAT_DIR="+s.dir, "HYBRIDCHAT_SITE="+s.site)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	if s.name == "amq" && store() != "" {
		return nil // it serves when it gets the lock
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(ports[s.name])) //nolint:noctx // loopback
		if err == nil {
			return c.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("start %s: it ended: %w", s.name, err)
		default:
		}
	}
	return fmt.Errorf("start %s: it does not serve", s.name)
}

// misbehave takes the next word of the file `trouble` and acts on it: that is
// how the scenarios let a takeover fail.
func (s service) misbehave() error {
	file := s.path(".trouble")
	b, err := os.ReadFile(file)
	if err != nil {
		return nil //nolint:nilerr // no trouble
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if err = os.WriteFile(file, []byte(rest), 0o600); err != nil {
		return err
	}
	switch word {
	case "fail":
		return errors.New("no licence server")
	case "hang":
		time.Sleep(time.Hour)
	case "slow":
		time.Sleep(3 * time.Second)
	}
	return nil
}

// pid is the service's process, or 0. A process that has ended holds no lock.
func (s service) pid() int {
	f, err := os.Open(s.path(".pid"))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0
	}
	b, _ := io.ReadAll(f)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

func (s service) stop() error { return s.end(syscall.SIGTERM) }

// end signals the service and waits until it is gone.
func (s service) end(sig syscall.Signal) error {
	pid := s.pid()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if s.pid() == 0 {
			return nil
		}
	}
	return fmt.Errorf("stop %s: it goes on", s.name)
}

// serve is the service itself.
func (s service) serve() error {
	lock, err := os.OpenFile(s.path(".pid"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("write process number: %w", err)
	}
	defer func() { _ = lock.Close() }() // kept as long as we live: collected as garbage, it would be closed and unlocked
	if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s runs already", s.name)
	}
	if err = errors.Join(lock.Truncate(0), write(lock, strconv.Itoa(os.Getpid()))); err != nil {
		return fmt.Errorf("write process number: %w", err)
	}
	journal, err := os.OpenFile(s.path(".requests"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	if s.name == "amq" && store() != "" {
		return s.activemq()
	}
	time.Sleep(startDelay)
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", ":"+strconv.Itoa(ports[s.name]))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if s.name == "amq" {
		return s.broker(l)
	}
	return s.web(l, journal)
}

func write(f *os.File, text string) error {
	_, err := f.WriteString(text + "\n")
	return err
}

func (s service) web(l net.Listener, journal io.Writer) error {
	var mu sync.Mutex
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		_, _ = fmt.Fprintln(journal, time.Now().UnixNano(), r.URL.Path)
		mu.Unlock()
		_, _ = io.WriteString(w, s.name+"-"+s.site+"\n")
	})
	return (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
}

// broker answers CONNECT as a STOMP broker does, and says which one it is.
func (s service) broker(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			in := bufio.NewReader(c)
			for {
				frame, err := in.ReadString(0)
				if err != nil {
					return
				}
				if strings.HasPrefix(strings.TrimSpace(frame), "CONNECT") {
					_, _ = io.WriteString(c, "CONNECTED\nversion:1.2\nserver:"+s.name+"-"+s.site+"\n\n\x00")
				}
			}
		}()
	}
}
