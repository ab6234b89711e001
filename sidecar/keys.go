package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tandem/lib/gossip"
	"tandem/sidecar/config"
	"tandem/sidecar/status"
)

func (p *program) keysCommand() *cobra.Command {
	var asJSON, wait bool
	var timeout time.Duration
	c := &cobra.Command{
		Use: "keys [FILE]", GroupID: "see", Args: cannotTell(cobra.MaximumNArgs(1)),
		Short: "Show which keys each node holds, and whether all agree",
		Long: `Show which keys each node holds and which one encrypts. A key is named by a
hash of it; keys are never shown.

Without FILE the question is whether all nodes hold the same keys and encrypt
with the same one. With FILE, which has the form of TANDEM_KEY_FILE, it is
whether all nodes hold every key in it.

Exit code: 0 yes, 1 no, or a voter is silent, 3 cannot tell.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var wanted []string
			if len(args) == 1 {
				keys, err := config.ReadKeys(args[0])
				if err != nil {
					return exitError{exitCannotTell, err.Error()}
				}
				for _, key := range keys {
					wanted = append(wanted, gossip.KeyID(key))
				}
			}
			for end := time.Now().Add(timeout); ; {
				var st status.Status
				if err := p.client().look(cmd.Context(), "/v1/status", &st); err != nil {
					return exitError{exitCannotTell, err.Error()}
				}
				report := status.NewKeys(st, wanted)
				if wait && !report.OK && time.Now().Before(end) && pause(cmd.Context(), keysPoll) {
					continue
				}
				return p.printKeys(p.stdout, report, asJSON)
			}
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{exitCannotTell, err.Error()} })
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the answer is yes")
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return c
}

// pause waits, and says whether nobody interrupted it.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// keysPoll is how often a waiting `tandem keys` looks.
const keysPoll = 500 * time.Millisecond

func (p *program) printKeys(w io.Writer, report status.Keys, asJSON bool) error {
	if asJSON {
		if err := printJSON(w, report); err != nil {
			return err
		}
	} else if err := status.RenderKeys(w, report, p.screen()); err != nil {
		return err
	}
	if !report.OK {
		return quietly(exitFailed)
	}
	return nil
}
