package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tandem/sidecar/status"
)

// healthTimeout is shorter than what container engines give a health check.
const healthTimeout = 2 * time.Second

func (p *program) healthCommand() *cobra.Command {
	var ready bool
	c := &cobra.Command{
		Use: "health", GroupID: "see", Args: cobra.NoArgs,
		Short: "Say whether the sidecar of this machine lives, for health checks",
		Long: `Ask the sidecar of this machine whether it lives (/livez), or with --ready
whether it takes part (/readyz). Made for the health checks of container engines:
it needs nothing but this binary and the control socket.

Exit code: 0 when it does, 1 when not or when nobody answers within 2 s.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, word := "/livez", "alive"
			if ready {
				path, word = "/readyz", "ready"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
			defer cancel()
			var answer status.Result
			if err := p.client().get(ctx, path, &answer); err != nil {
				return err
			}
			_, err := fmt.Fprintln(p.stdout, word)
			return err
		},
	}
	c.Flags().BoolVar(&ready, "ready", false, "whether it takes part: past its silence after the start, and in touch with a majority")
	return c
}
