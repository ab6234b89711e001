package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// askSocket sends one line to a unix socket and reads to the end.
func askSocket(ctx context.Context, path, line string) (string, error) {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", path, err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err = io.WriteString(conn, line+"\n"); err != nil {
		return "", fmt.Errorf("ask %s: %w", path, err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", path, err)
	}
	return string(b), nil
}

// packages says which Debian package has a program that the lab needs.
func packages() map[string]string {
	return map[string]string{"ip": "iproute2", "nft": "nftables", "haproxy": "haproxy"}
}

// lookPath finds a program, also where ordinary users do not look.
func lookPath(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + program); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: not installed (Debian: apt-get install %s)", program, packages()[program])
}

// missing names the packages that the lab needs and that are not there.
func missing() error {
	var names []string
	for program, pkg := range packages() {
		if _, err := lookPath(program); err != nil {
			names = append(names, pkg)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("the lab needs programs that are not installed; as root: apt-get install %s", strings.Join(names, " "))
	}
	return nil
}

// server is one application server of a site.
type server struct{ name, site, backend, port string }

// servers are two of each backend on each site.
func (l *Lab) servers() []server {
	var all []server
	if l.HAProxy != nil {
		return nil
	}
	for i, backend := range l.Backends {
		for _, site := range Sites() {
			for n := 1; n <= 2; n++ {
				all = append(all, server{
					name: site + "-" + strconv.Itoa(n), site: site, backend: backend,
					port: strconv.Itoa(8000 + 10*i + n),
				})
			}
		}
	}
	return all
}

// startSite starts a site's servers that do not run.
func (l *Lab) startSite(site string) error {
	for _, s := range l.servers() {
		if s.site != site {
			continue
		}
		if err := l.StartServer(s.backend, s.name); err != nil {
			return err
		}
	}
	return nil
}

// StartServer starts one application server, for example "web", "a-1"; one
// that runs is left alone.
func (l *Lab) StartServer(backend, name string) error {
	for _, s := range l.servers() {
		if s.backend != backend || s.name != name {
			continue
		}
		if p := l.Proc(s.site, backend+"-"+name); p != nil && p.Alive() {
			return nil
		}
		cmd, env, err := childCommand("server", serverArgs{Name: name, Listen: s.port})
		if err != nil {
			return err
		}
		return l.Start(s.site, Spec{Name: backend + "-" + name, Args: cmd, Env: env})
	}
	return fmt.Errorf("start server %s/%s: there is none of that name", backend, name)
}
