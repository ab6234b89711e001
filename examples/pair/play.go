package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tandem/examples/lab"
)

func labCommand(program *string) *cobra.Command {
	var ipv6 bool
	var name string
	var followers int
	cmd := &cobra.Command{
		Use: "lab", Short: "Leave a lab up to be played with, until Ctrl-C or `pair do down`", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			chosen, err := chooseSystems(*program, []string{name})
			if err != nil {
				return err
			}
			return keep(cmd.Context(), os.Stdout, lab.Config{System: chosen[0].system, IPv6: ipv6, Followers: followers})
		},
	}
	cmd.Flags().BoolVar(&ipv6, "ipv6", false, "the virtual address in both families")
	cmd.Flags().IntVar(&followers, "followers", 0, "more load balancers, without a vote: edge1, edge2 …")
	systemFlag(cmd, &name)
	return cmd
}

// socketName is where a lab that is up listens for `pair do`.
const socketName = "do.sock"

// keep leaves a lab up until somebody ends it.
func keep(ctx context.Context, out io.Writer, cfg lab.Config) (err error) {
	ctx, down := context.WithCancel(ctx)
	defer down()
	fmt.Fprintln(out, "building the lab …")
	l, err := lab.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, l.Close())
		fmt.Fprintln(out, "the lab is gone")
	}()
	if err = l.Steady(ctx, 30*time.Second); err != nil {
		fmt.Fprintln(out, err) // there is something to be looked at all the same
	}
	c := &console{lab: l, down: down}
	listener, err := listen(ctx, l)
	if err != nil {
		return err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.serve(ctx, listener)
	}()
	if err = greet(out, l); err != nil {
		return err
	}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		go c.prompt(ctx, os.Stdin, out) // ends with the process: a terminal cannot be read with a deadline
	}
	<-ctx.Done()
	_ = listener.Close()
	<-served
	return nil
}

func listen(ctx context.Context, l *lab.Lab) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(l.Dir, socketName))
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	return listener, nil
}

// greet prints what can be done.
func greet(out io.Writer, l *lab.Lab) error {
	var scripts []string
	for _, node := range l.Names() {
		script, err := l.Wrapper(node)
		if err != nil {
			return err
		}
		scripts = append(scripts, script)
	}
	fmt.Fprintln(out, strings.Join(picture(l.Snapshot(), colours(false)), "\n"))
	fmt.Fprintf(out, `
Look at it, from another terminal:

  %[1]s tandem status --watch
  %[1]s tandem history
  %[1]s ip addr show eth0
  tail -f %[2]s/lb1/tandem.log
  %[3]s curl -s http://%[4]s/

Ask tandem for something:

  %[1]s tandem takeover b
  %[1]s tandem move --to lb2

Break it, here or with "bin/pair do …":

`, scripts[0], l.Dir, scripts[5], lab.VIP())
	fmt.Fprintln(out, help())
	return nil
}

// console carries out commands on a lab that is up.
type console struct {
	lab    *lab.Lab
	down   func()
	quench func()
}

// serve answers one line per connection: with a line that says whether it was
// done, and what to print.
func (c *console) serve(ctx context.Context, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil {
			text, done := c.do(ctx, line)
			_, _ = fmt.Fprintf(conn, "%t\n%s", done, text)
		}
		_ = conn.Close()
	}
}

func (c *console) prompt(ctx context.Context, in io.Reader, out io.Writer) {
	lines := bufio.NewScanner(in)
	for fmt.Fprint(out, "lab> "); ctx.Err() == nil && lines.Scan(); fmt.Fprint(out, "lab> ") {
		if line := strings.TrimSpace(lines.Text()); line != "" {
			text, _ := c.do(ctx, line)
			fmt.Fprint(out, text)
		}
	}
	c.down() // end of input: Ctrl-D
}

func doCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "do COMMAND…", Short: "Break or mend something in a lab that is up", Long: help(),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := findLab(name)
			if err != nil {
				return err
			}
			conn, err := (&net.Dialer{}).DialContext(cmd.Context(), "unix", socket)
			if err != nil {
				return fmt.Errorf("reach the lab: %w", err)
			}
			defer func() { _ = conn.Close() }()
			if _, err = fmt.Fprintln(conn, strings.Join(args, " ")); err != nil {
				return fmt.Errorf("reach the lab: %w", err)
			}
			answer := bufio.NewReader(conn)
			done, err := answer.ReadString('\n')
			if err != nil {
				return fmt.Errorf("hear from the lab: %w", err)
			}
			if _, err = io.Copy(os.Stdout, answer); err == nil && done != "true\n" {
				err = errNotDone
			}
			return err
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows is the command's, flags and all
	cmd.Flags().StringVar(&name, "lab", "", "which lab, for example tdlab123-0 (needed when there are several)")
	return cmd
}

// errNotDone ends the program; what was wrong has been printed.
var errNotDone = errors.New("not done")

func findLab(name string) (string, error) {
	sockets, _ := filepath.Glob(filepath.Join("/tmp", or(name, "tdlab*"), socketName))
	switch len(sockets) {
	case 0:
		return "", errors.New("find lab: there is none; make lab builds one")
	case 1:
		return sockets[0], nil
	default:
		return "", fmt.Errorf("find lab: there are several, choose with --lab: %s", strings.Join(sockets, " "))
	}
}
