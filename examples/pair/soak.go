package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tandem/examples/lab"
)

func soakCommand(program *string) *cobra.Command {
	var length time.Duration
	var seed uint64
	cmd := &cobra.Command{
		Use: "soak", Short: "Let random failures happen, one after the other, and check that service comes back", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			if seed == 0 {
				seed = rand.Uint64()
			}
			return soak(cmd.Context(), os.Stdout, lab.Tandem{Program: *program}, length, seed)
		},
	}
	cmd.Flags().DurationVar(&length, "for", 10*time.Minute, "how long")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "the order of the failures (0: any)")
	return cmd
}

// soak breaks things at random. It ends with an error when two load balancers
// answered at once, when service did not come back, or when an outage was
// longer than any single failure may cost.
func soak(ctx context.Context, out io.Writer, system lab.System, length time.Duration, seed uint64) error {
	fmt.Fprintf(out, "seed %d\n", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	l, err := lab.New(ctx, lab.Config{System: system})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	var faults []row
	for _, r := range rows() {
		if r.applies(system) && r.name != "rest" {
			faults = append(faults, r)
		}
	}
	var failed []error
	for end, n := lab.Now()+length, 1; lab.Now() < end; n++ {
		r := faults[random.IntN(len(faults))]
		m, err := measure(ctx, l, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = verdict(m)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%d %s: %w", n, r.name, err))
		}
		fmt.Fprintf(out, "%4d %-14s %s %v\n", n, r.name, m, or(errorText(err), "ok"))
	}
	return errors.Join(failed...)
}

func verdict(m measurement) error {
	var errs []error
	if m.TwoAnswer > 0 {
		errs = append(errs, fmt.Errorf("two answered for %s", millis(m.TwoAnswer)))
	}
	if m.Open || m.Outage > 2*time.Second {
		errs = append(errs, fmt.Errorf("outage of %s", millis(m.Outage)))
	}
	return errors.Join(errs...)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// ableCommand says whether a lab can be built here.
func ableCommand() *cobra.Command {
	return &cobra.Command{
		Use: "able", Short: "Say whether a lab can be built here", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			return lab.Try(cmd.Context())
		},
	}
}
