package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

// Tuning is how keepalived is configured.
type Tuning int

// The three ways in which keepalived is measured.
const (
	// Tutorial is what the first pages of a search show: one advertisement a
	// second, a look every two seconds whether HAProxy's process exists.
	Tutorial Tuning = iota
	// Tuned is fast without being careless: ten advertisements a second, the
	// highest priority that is not real time, and every second, the shortest interval there is, an HTTP
	// request to HAProxy.
	Tuned
	// Instant is Tuned, and in addition it is told at once (track_file) when
	// HAProxy's process ends. (track_process, which would do the same, works in
	// the machine's first network namespace only.)
	Instant
)

// Keepalived is the pair under keepalived.
type Keepalived struct{ Tuning Tuning }

// Name implements [System].
func (k Keepalived) Name() string {
	switch k.Tuning {
	case Tuned:
		return "keepalived, tuned"
	case Instant:
		return "keepalived, tuned, told of the end of HAProxy"
	case Tutorial:
	}
	return "keepalived, tutorial"
}

// Nodes implements [System]: keepalived has no witness.
func (Keepalived) Nodes() []string { return LBs() }

// Standby implements [System]: keepalived knows nothing of sites.
func (Keepalived) Standby() bool { return true }

// Daemon implements [System].
func (Keepalived) Daemon() string { return "keepalived" }

// Settle implements [System]: a master of higher priority comes back, and
// announcements are repeated after five seconds.
func (k Keepalived) Settle() time.Duration {
	if k.Tuning == Tutorial {
		return 8 * time.Second
	}
	return 6 * time.Second
}

const keepalivedConfig = `global_defs {
	router_id {{.Node.Name}}
	script_user root
	enable_script_security
{{- if .Fast}}
	vrrp_version 3
	# With vrrp_rt_priority it is killed by its own limit of real time on a slow machine.
	vrrp_priority -20
	vrrp_no_swap
	vrrp_garp_master_refresh 10
{{- end}}
}
vrrp_script haproxy {
{{- if .Fast}}
	script "{{.Dir}}/check"
	interval {{.Interval}}
	timeout 1
	fall 1
	rise 1
{{- else}}
	script "{{.Dir}}/check"
	interval 2
	weight 2
{{- end}}
}
{{- if .Track}}
track_file haproxy {
	file "{{.Dir}}/haproxy"
	weight 0
	init_file 0
}
{{- end}}
vrrp_instance VI_1 {
	interface eth0
	virtual_router_id 51
{{- if .Fast}}
	state BACKUP
	nopreempt
	priority {{.Priority}}
	advert_int 0.1
{{- else}}
	state {{.State}}
	priority {{.Priority}}
	advert_int 1
	authentication {
		auth_type PASS
		auth_pass lab
	}
{{- end}}
	virtual_ipaddress {
		{{.VIP}}
	}
{{- if .VIP6}}
	virtual_ipaddress_excluded {
		{{.VIP6}}
	}
{{- end}}
	track_script {
		haproxy
	}
{{- if .Track}}
	track_file {
		haproxy
	}
{{- end}}
}
`

// keepalivedCheck returns the health check as a script.
func (k Keepalived) check(l *Lab, n *Node) (string, error) {
	if k.Tuning == Tutorial {
		return fmt.Sprintf("#!/bin/sh\nkill -0 \"$(cat %s)\"\n", l.PIDFile(n.Name)), nil
	}
	cmd, env, err := childCommand("check", checkArgs{URL: "http://127.0.0.1/alive", Timeout: 200 * time.Millisecond})
	if err != nil {
		return "", err
	}
	for i, v := range env {
		name, value, _ := strings.Cut(v, "=")
		env[i] = name + "='" + value + "'"
	}
	return "#!/bin/sh\n" + strings.Join(env, " ") + " exec " + cmd[0] + "\n", nil
}

// Spec implements [System].
func (k Keepalived) Spec(l *Lab, n *Node) (Spec, error) {
	program, err := lookPath("keepalived")
	if err != nil {
		return Spec{}, fmt.Errorf("%w (it is needed for comparison only)", err)
	}
	dir := filepath.Join(n.Dir, "keepalived")
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return Spec{}, fmt.Errorf("make directory: %w", err)
	}
	first := n.Name == LBs()[0]
	values := map[string]any{
		"Node": n, "Dir": dir, "VIP": VIP().String() + "/32", "VIP6": "",
		"Fast": k.Tuning != Tutorial, "Track": k.Tuning == Instant, "Interval": "1",
		"State": "BACKUP", "Priority": "100",
	}
	if first {
		values["State"], values["Priority"] = "MASTER", "101"
	}
	if l.IPv6 {
		values["VIP6"] = VIP6().String() + "/128"
	}
	var cfg bytes.Buffer
	if err = template.Must(template.New("keepalived").Parse(keepalivedConfig)).Execute(&cfg, values); err != nil {
		return Spec{}, fmt.Errorf("write keepalived.conf: %w", err)
	}
	check, err := k.check(l, n)
	if err != nil {
		return Spec{}, err
	}
	path := filepath.Join(dir, "keepalived.conf")
	if err = os.WriteFile(path, cfg.Bytes(), 0o644); err != nil {
		return Spec{}, fmt.Errorf("write keepalived.conf: %w", err)
	}
	if err = os.WriteFile(filepath.Join(dir, "check"), []byte(check), 0o755); err != nil {
		return Spec{}, fmt.Errorf("write check: %w", err)
	}
	spec := Spec{Name: "keepalived", Args: []string{
		program, "--dont-fork", "--log-console", "--log-detail", "--vrrp",
		"--use-file", path, "--pid", filepath.Join(dir, "pid"), "--vrrp_pid", filepath.Join(dir, "vrrp.pid"),
	}}
	if k.Tuning != Instant {
		return spec, nil
	}
	notice, env, err := childCommand("notice", noticeArgs{PIDFile: l.PIDFile(n.Name), TrackFile: filepath.Join(dir, "haproxy")})
	if err != nil {
		return Spec{}, err
	}
	// The shell becomes keepalived, and so its child is keepalived's.
	spec.Args = []string{"sh", "-c", notice[0] + " & unset " + childEnv + "; exec " + strings.Join(spec.Args, " ")}
	spec.Env = env
	return spec, nil
}

type noticeArgs struct{ PIDFile, TrackFile string }

// watchProcess writes 0 into a file while the process runs whose number is in
// another one, and 1 at the moment when it ends. It ends with its parent.
func watchProcess(args noticeArgs) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("follow parent: %w", err)
	}
	for {
		b, err := os.ReadFile(args.PIDFile)
		if err != nil {
			return fmt.Errorf("read process number: %w", err)
		}
		pid, _ := atoi(strings.TrimSpace(string(b)))
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		_ = os.WriteFile(args.TrackFile, []byte("0\n"), 0o644)
		for {
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		_ = os.WriteFile(args.TrackFile, []byte("1\n"), 0o644)
		_ = unix.Close(fd)
	}
}
