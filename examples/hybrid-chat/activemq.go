package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

//go:embed activemq.xml
var activemqConfig []byte

// activemqJar is where Debian's package activemq has it.
const activemqJar = "/usr/share/activemq/bin/activemq.jar"

// store is the broker pair's shared storage, or empty for the stand-ins. In the
// lab both machines see the same directory.
func store() string { return os.Getenv("HYBRIDCHAT_STORE") }

// activemq runs a real broker in place of the stand-in; it ends with us.
func (s service) activemq() error {
	base := s.path(".broker")
	file := filepath.Join(base, "activemq.xml")
	if err := errors.Join(os.MkdirAll(base, 0o755), os.WriteFile(file, activemqConfig, 0o600)); err != nil {
		return fmt.Errorf("configure broker: %w", err)
	}
	log, err := os.Create(filepath.Join(base, "broker.log"))
	if err != nil {
		return fmt.Errorf("configure broker: %w", err)
	}
	cmd := exec.Command("java", "-Xms64M", "-Xmx192M", //nolint:noctx // it lives as long as we do
		"-Dactivemq.home=/usr/share/activemq", "-Dactivemq.base="+base, "-Dactivemq.data="+base, "-Dactivemq.conf="+base,
		"-Dhybridchat.broker="+s.name+"-"+s.site, "-Dhybridchat.store="+store(),
		"-jar", activemqJar, "start", "xbean:file:"+file)
	cmd.Stdout, cmd.Stderr = log, log
	// The kernel ends it when the thread that started it ends, and with it we.
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run broker: %w", err)
	}
	return nil
}
