// Command tandem runs beside HAProxy and fails a cluster of load balancers
// over: it carries virtual IPs under a quorum lease and drains and enables the
// servers of two or more sites together on every load balancer.
//
// `tandem run` is the sidecar; the other commands talk to it through its
// control socket. Configuration is environment variables: `tandem config`
// prints them all.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"tandem/sidecar/config"
)

// Exit codes. `tandem status` has its own: 0 healthy, 1 degraded, 2 not
// serving, 3 cannot tell.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // wrong configuration or command line
)

func main() {
	p := &program{env: os.Environ(), stdout: os.Stdout, stderr: os.Stderr, calm: calm}
	os.Exit(p.run(os.Args[1:]))
}

// exitError ends a command with a code. An empty message prints nothing: all
// was said already.
type exitError struct {
	code    int
	message string
}

func (e exitError) Error() string { return e.message }

// run is the whole program; the result is the exit code.
func (p *program) run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := newRoot(p)
	root.SetArgs(args)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !p.began {
		_, exits := errors.AsType[exitError](err)
		if !exits {
			err = exitError{exitUsage, err.Error() + "\nsee `tandem --help`"}
		}
	}
	return exitCode(err, p.stderr)
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	code, lines := exitFailed, err.Error()
	if exit, ok := errors.AsType[exitError](err); ok {
		code = exit.code
	}
	if _, ok := errors.AsType[config.Errors](err); ok {
		code = exitUsage
	}
	if lines == "" {
		return code
	}
	for line := range strings.Lines(lines) {
		fmt.Fprintf(stderr, "tandem: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return code
}
