package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"tandem/examples/lab"
)

//go:embed haproxy.cfg
var haproxyConfig string

//go:embed machine-a.env
var machineA string

//go:embed machine-b.env
var machineB string

//go:embed machine-arbiter.env
var machineArbiter string

//go:embed apart-a.env
var apartA string

//go:embed apart-b.env
var apartB string

// scripts is where HAScripts stands: beside this file, or below the directory
// that the program was started in.
func scripts() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	for _, dir := range []string{filepath.Dir(file), "examples/hybrid-chat", "."} {
		dir, err := filepath.Abs(filepath.Join(dir, "HAScripts"))
		if err != nil {
			return "", err
		}
		if _, err = os.Stat(filepath.Join(dir, "takeover.sh")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("find HAScripts: run this in the root of the repository")
}

// configure puts the lab's paths into haproxy.cfg, and other addresses if the
// applications run apart.
func configure(l *lab.Lab, lb string, o options) (string, error) {
	change := []string{"/run/haproxy/tandem.sock", l.Socket(lb), "/var/lib/haproxy/server-state", l.StateFile(lb), "%H", lb}
	if o.apart {
		for _, moved := range [][2]string{{"lb1", "a"}, {"lb2", "b"}, {"a", outside(true)[0]}, {"b", outside(true)[1]}} {
			change = append(change, l.Node(moved[0]).IP.String()+":", l.Node(moved[1]).IP.String()+":")
		}
	}
	if o.noHold {
		change = append(change, "http-request do-resolve", "# http-request do-resolve")
	}
	for i := 0; i < len(change); i += 2 {
		if !strings.Contains(haproxyConfig, change[i]) {
			return "", fmt.Errorf("haproxy.cfg does not mention %s", change[i])
		}
	}
	return strings.NewReplacer(change...).Replace(haproxyConfig), nil
}

// outside are the nodes with the bot and the SQL servers.
func outside(apart bool) []string {
	if apart {
		return []string{"referee", "client"} // a and b come and go
	}
	return []string{"a", "b"}
}

// environment is a machine's file, with the lab's paths.
func environment(n *lab.Node, o options, scripts string) map[string]string {
	text := map[string]string{"lb1": machineA, "lb2": machineB, "witness": machineArbiter, "a": apartA, "b": apartB}[n.Name]
	env := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(line, "#") {
			env[name] = strings.ReplaceAll(value, "/opt/hybrid-chat/HAScripts", scripts)
		}
	}
	maps.Copy(env, o.env)
	if n.Name == "witness" {
		env["TANDEM_SITES"] = "" // the lab's default
	}
	if o.precheck && env["TANDEM_HOOK_TAKEOVER"] != "" {
		env["TANDEM_HOOK_PRECHECK"] = filepath.Join(scripts, "precheck.sh")
	}
	if o.apart && env["TANDEM_ROLE"] != "site" {
		for name := range env {
			if name == "TANDEM_SITE" || strings.HasPrefix(name, "TANDEM_HOOK_") {
				env[name] = "" // they run where the applications are
			}
		}
	}
	for name, value := range map[string]string{
		"TANDEM_KEY_FILE": "", "TANDEM_STATE_DIR": filepath.Join(n.Dir, "state"), "TANDEM_HAPROXY_SOCKET": filepath.Join(n.Dir, "haproxy.sock"),
		"TANDEM_HAPROXY_CFG": filepath.Join(n.Dir, "haproxy.cfg"), "TANDEM_STATE_FILE": filepath.Join(n.Dir, "haproxy.state"),
		"HYBRIDCHAT_DIR": n.Dir,
	} {
		if _, ok := env[name]; ok {
			env[name] = value
		}
	}
	env["HYBRIDCHAT_SERVICE"], env["HYBRIDCHAT_REGISTER"] = o.program, o.program
	return env
}

func answer(l net.Listener, name string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name+"\n") })
	_ = (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
}

func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// boot starts services of a machine, as its init system would.
func (s *stage) boot(ctx context.Context, machine string, names ...string) error {
	var group sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		group.Go(func() {
			cmd := exec.CommandContext(ctx, "ip", "netns", "exec", s.Node(machine).NS, s.program, "start", name)
			cmd.Env = append(os.Environ(), "HYBRIDCHAT_DIR="+s.Node(machine).Dir, "HYBRIDCHAT_SITE="+machines[machine])
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("boot %s: %w: %s", name, err, out)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// kill ends services of a machine at once.
func (s *stage) kill(machine string, names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, service{s.Node(machine).Dir, machines[machine], name}.end(syscall.SIGKILL))
	}
	return errors.Join(errs...)
}
