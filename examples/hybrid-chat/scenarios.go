package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tandem/examples/lab"
)

func chapters() []chapter {
	return []chapter{sites(), arbitration(), brokers(), failback(), holding(), unheld()}
}

func scenariosCommand() *cobra.Command {
	var tandem string
	var only []string
	cmd := &cobra.Command{
		Use: "scenarios", Short: "Play the scenario table and print it with results", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find own program: %w", err)
			}
			if tandem, err = filepath.Abs(tandem); err != nil {
				return fmt.Errorf("find tandem: %w", err)
			}
			if _, err = os.Stat(tandem); err != nil {
				return fmt.Errorf("find tandem: %w", err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return playAll(ctx, os.Stdout, tandem, self, only)
		},
	}
	cmd.Flags().StringVar(&tandem, "tandem", "bin/tandem", "the binary to be tried")
	cmd.Flags().StringSliceVar(&only, "only", nil, "chapters: sites, arbitration, brokers, failback, holding")
	return cmd
}

// playAll plays the chapters one after the other.
func playAll(ctx context.Context, out io.Writer, tandem, self string, only []string) error {
	broken := 0
	began := time.Now()
	fmt.Fprintln(out, "| row | what | result | figures |\n|---|---|---|---|")
	for _, c := range chapters() {
		if len(only) > 0 && !slices.Contains(only, c.name) {
			continue
		}
		n, err := c.play(ctx, out, tandem, self)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		broken += n
	}
	fmt.Fprintf(out, "\nplayed in %v\n", time.Since(began).Round(time.Second))
	if broken > 0 {
		return fmt.Errorf("%d rows do not hold", broken)
	}
	return nil
}

func (c chapter) play(ctx context.Context, out io.Writer, tandem, self string) (broken int, err error) {
	c.opt.tandem, c.opt.program = tandem, self
	s, err := newStage(ctx, c.opt)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	told := &story{}
	for _, w := range c.rows {
		r := &report{story: told}
		err := w.play(ctx, s, r)
		if err != nil {
			r.broken = append(r.broken, err.Error())
		}
		result := "holds"
		if len(r.broken) > 0 {
			result = "DOES NOT HOLD: " + strings.ReplaceAll(strings.Join(r.broken, "; "), "\n", " ")
			broken++
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", w.id, w.name, result, strings.Join(r.figures, "; "))
		if err != nil {
			return broken, fmt.Errorf("%s could not be played to its end, and with it the rest: %w", w.id, err)
		}
	}
	return broken, nil
}
