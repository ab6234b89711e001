package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tandem/lib/vip"
	"tandem/sidecar/config"
	"tandem/sidecar/status"
)

// severity of a finding.
type severity string

// The severities. Only a fault makes `tandem check` fail.
const (
	sevOK    severity = "ok"
	sevNote  severity = "note"
	sevFault severity = "FAULT"
)

// finding is one thing that was looked at.
type finding struct {
	severity severity
	subject  string // a word or two: what was looked at
	text     string
	mend     string // what to do; empty when nothing is to be done
}

// checker looks at everything that could be wrong with a node, before its
// sidecar is started as well as while it runs.
type checker struct {
	cfg      config.Config
	status   *status.Status // of the running sidecar; nil: none runs
	findings []finding

	mute bool // one runs, and does not answer
}

func (c *checker) ok(subject, format string, args ...any) {
	c.findings = append(c.findings, finding{sevOK, subject, fmt.Sprintf(format, args...), ""})
}

func (c *checker) note(subject, text, mend string) {
	c.findings = append(c.findings, finding{sevNote, subject, text, mend})
}

func (c *checker) fault(subject, text, mend string) {
	c.findings = append(c.findings, finding{sevFault, subject, text, mend})
}

func (p *program) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check", GroupID: "set", Args: cobra.NoArgs,
		Short: "Look for everything that could be wrong, and say how to mend it",
		Long: `Look for everything that could be wrong with this node: configuration,
capabilities, interfaces, addresses, ports, peers, clock, HAProxy's socket,
servers and configuration, directories. Run it with the environment of the
sidecar and as its user, before the first start or while it runs.

Nothing is changed. Exit code: 0 when there is no fault, 1 otherwise, 2 when the
configuration itself is wrong.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(p.env)
			if err != nil {
				return err
			}
			c := &checker{cfg: cfg}
			if err := vip.RaiseCapabilities(); err != nil {
				c.note("capabilities", err.Error(), "")
			}
			c.run(cmd.Context(), p.client())
			return printFindings(p.stdout, c.findings)
		},
	}
}

func (c *checker) run(ctx context.Context, cl *client) {
	c.ok("configuration", "%s, role %s, cluster %s, %d voters, mode %s", c.cfg.Node, c.cfg.Role, c.cfg.Cluster, len(c.cfg.Peers), c.cfg.Mode)
	for _, warning := range c.cfg.Warnings {
		c.note("configuration", warning, "")
	}
	c.sidecar(ctx, cl)
	c.keys()
	c.clock()
	c.ports(ctx)
	c.peers(ctx)
	c.directories()
	if c.cfg.Role == config.RoleLB {
		c.capabilities()
		c.interfaces()
		c.strangers(ctx)
		c.gate()
		c.tracking()
		c.haproxy(ctx)
		c.haproxyConfig()
	}
}

// sidecar asks the running one, which knows what cannot be seen from outside.
func (c *checker) sidecar(ctx context.Context, cl *client) {
	var st status.Status
	switch err := cl.look(ctx, "/v1/status", &st); {
	case errors.Is(err, errNoSidecar):
		c.note("sidecar", "none is running here; what only a running one can tell is left out, such as whether the others have the same settings", "start it, and check again")
		return
	case err != nil:
		c.mute = true
		text, mend, _ := strings.Cut(err.Error(), ": ")
		c.fault("sidecar", text, mend)
		return
	}
	c.status = &st
	if st.Node != c.cfg.Node {
		c.fault("sidecar", fmt.Sprintf("the one that runs here is %s, this environment is %s's", st.Node, c.cfg.Node), "use the same environment for both, or another TANDEM_SOCKET")
		return
	}
	c.ok("sidecar", "running, %s", st.Health)
	for _, problem := range st.Problems {
		c.note("sidecar", problem, "")
	}
}

func printFindings(w io.Writer, all []finding) error {
	faults := 0
	for _, f := range all {
		if f.severity == sevFault {
			faults++
		}
		line := fmt.Sprintf("%-5s  %-13s  %s\n", f.severity, f.subject, f.text)
		if f.mend != "" {
			line += fmt.Sprintf("%22s-> %s\n", "", f.mend)
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	switch {
	case faults == 1:
		return exitError{exitFailed, "1 fault"}
	case faults > 1:
		return exitError{exitFailed, fmt.Sprintf("%d faults", faults)}
	default:
		return nil
	}
}
