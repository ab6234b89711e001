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
	return []chapter{
		sites(), apart(), operator(), arbitration(), brokers(), failback(), cuts(), overlapping(), holding(), unheld(),
	}
}

func chapterNames() []string {
	var names []string
	for _, c := range chapters() {
		if !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}

func scenariosCommand() *cobra.Command {
	var tandem string
	var only []string
	var every bool
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
			return playAll(ctx, os.Stdout, options{tandem: tandem, program: self, everyInstant: every}, only)
		},
	}
	cmd.Flags().StringVar(&tandem, "tandem", "bin/tandem", "the binary to be tried")
	cmd.Flags().StringSliceVar(&only, "only", nil, "chapters: "+strings.Join(chapterNames(), ", "))
	cmd.Flags().BoolVar(&every, "every-instant", false, "the faults of the chapter cuts at each instant of a switch; takes a quarter of an hour")
	return cmd
}

// playAll plays the chapters one after the other.
func playAll(ctx context.Context, out io.Writer, with options, only []string) error {
	broken := 0
	began := time.Now()
	fmt.Fprintln(out, "| row | what | result | figures |\n|---|---|---|---|")
	for _, c := range chapters() {
		if len(only) > 0 && !slices.Contains(only, c.name) {
			continue
		}
		chapterBegan := time.Now()
		n, err := c.play(ctx, out, with)
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, time.Since(chapterBegan).Round(time.Second))
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err != nil { // the other chapters have deployments of their own
			fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, err)
			n = max(n, 1)
		}
		broken += n
	}
	fmt.Fprintf(out, "\nplayed in %v\n", time.Since(began).Round(time.Second))
	if broken > 0 {
		return fmt.Errorf("%d rows do not hold", broken)
	}
	return nil
}

func (c chapter) play(ctx context.Context, out io.Writer, with options) (broken int, err error) {
	c.opt.tandem, c.opt.program, c.opt.everyInstant = with.tandem, with.program, with.everyInstant
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
