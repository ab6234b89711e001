package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tandem/sidecar/api"
	"tandem/sidecar/status"
)

// exitCannotTell is the exit code of status when nothing is known.
const exitCannotTell = 3

func healthCode(h status.Health) int {
	switch h {
	case status.Healthy:
		return 0
	case status.Degraded:
		return 1
	case status.NotServing:
		return 2
	case status.Unknown:
		return exitCannotTell
	default:
		return exitCannotTell
	}
}

func (p *program) statusCommand() *cobra.Command {
	var asJSON, watch bool
	c := &cobra.Command{
		Use: "status", GroupID: "see", Args: cannotTell(cobra.NoArgs),
		Short: "Show who holds what, the sites, the nodes and what the next failure would do",
		Long: `Show the whole picture as the sidecar of this machine sees it, on one screen.

Exit code: 0 healthy, 1 degraded (no further failure is tolerated), 2 not
serving, 3 cannot tell.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return p.watchStatus(cmd.Context(), asJSON)
			}
			var st status.Status
			if err := p.client().look(cmd.Context(), "/v1/status", &st); err != nil {
				return exitError{exitCannotTell, err.Error()}
			}
			if err := p.printStatus(p.stdout, st, asJSON); err != nil {
				return err
			}
			return quietly(healthCode(st.Health))
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{exitCannotTell, err.Error()} })
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, the schema of /v1/status")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "follow, until interrupted")
	return c
}

// cannotTell has a wrong command line end with the code that means so, for
// commands whose other codes mean something else.
func cannotTell(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return exitError{exitCannotTell, err.Error()}
		}
		return nil
	}
}

// quietly ends with a code and says nothing more.
func quietly(code int) error {
	if code == exitOK {
		return nil
	}
	return exitError{code: code}
}

func (p *program) printStatus(w io.Writer, st status.Status, asJSON bool) error {
	if asJSON {
		return printJSON(w, st)
	}
	sc := p.screen()
	sc.Now = time.Now()
	return status.Render(w, st, sc)
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// rewatch is how long to wait before a sidecar that stopped is asked again.
const rewatch = time.Second

// watchStatus follows the sidecar until it is interrupted, also over restarts
// of the sidecar. On a terminal the screen is written over in place, else one
// picture follows the other. When the sidecar says nothing, the last picture
// stays, shown as old, below the word why.
func (p *program) watchStatus(ctx context.Context, asJSON bool) error {
	w := &watcher{p: p, inPlace: p.terminal() > 0 && !asJSON}
	for {
		err := p.client().watch(ctx, func(st status.Status) (bool, error) {
			if asJSON {
				return false, json.NewEncoder(p.stdout).Encode(st)
			}
			return false, w.picture(st)
		}, nil)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // interrupted by the one who watched
		}
		if !w.inPlace {
			return exitError{exitCannotTell, err.Error()}
		}
		if err := w.lost(err); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rewatch):
		}
	}
}

// watcher shows one picture after the other.
type watcher struct {
	p       *program
	inPlace bool
	last    *status.Status
}

func (w *watcher) picture(st status.Status) error {
	w.last = &st
	return w.draw("")
}

// lost says why there is no picture, above the last one.
func (w *watcher) lost(why error) error {
	return w.draw(status.Wrap("tandem: "+why.Error(), w.p.screen().Width))
}

func (w *watcher) draw(above string) error {
	screen := bytes.NewBufferString(above)
	if w.last != nil {
		if err := w.p.printStatus(screen, *w.last, false); err != nil {
			return err
		}
	}
	return w.p.show(screen.String(), w.inPlace)
}

// show writes a screen. In place means: from the top, each line to its end
// cleared, and what is left of a longer screen below cleared too. What does not
// fit is cut below, so that health and holders never scroll away.
func (p *program) show(screen string, inPlace bool) error {
	if inPlace {
		screen = fit(screen, p.rows())
		screen = "\x1b[H" + strings.ReplaceAll(screen, "\n", "\x1b[K\n") + "\x1b[J"
	} else {
		screen += "\n"
	}
	_, err := io.WriteString(p.stdout, screen)
	return err
}

// fit cuts a screen to so many rows, the last of them empty, and says what is
// missing.
func fit(screen string, rows int) string {
	lines := strings.SplitAfter(strings.TrimSuffix(screen, "\n"), "\n")
	keep := rows - 2
	if keep < 1 || len(lines) <= rows-1 {
		return screen
	}
	return strings.Join(lines[:keep], "") + fmt.Sprintf("… %d more lines in a taller window\n", len(lines)-keep)
}

func (p *program) historyCommand() *cobra.Command {
	var asJSON bool
	var limit int
	c := &cobra.Command{
		Use: "history", GroupID: "see", Args: cobra.NoArgs,
		Short: "Show what changed, why, and who asked for it",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return exitError{exitUsage, fmt.Sprintf("--limit %d: a positive number is needed", limit)}
			}
			var h api.History
			if err := p.client().look(cmd.Context(), fmt.Sprintf("/v1/history?limit=%d", limit), &h); err != nil {
				return err
			}
			if asJSON {
				return printJSON(p.stdout, h)
			}
			sc := p.screen()
			sc.Now = time.Now()
			if sc.Width == 0 {
				sc.Width = piped // whoever filters it wants all of it
			}
			return status.RenderHistory(p.stdout, h.Transitions, sc)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, the schema of /v1/history")
	c.Flags().IntVarP(&limit, "limit", "n", 50, "how many, the latest")
	return c
}

func (p *program) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "why", GroupID: "see", Args: cobra.NoArgs,
		Short: "Explain the present state from its causes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st status.Status
			var h api.History
			if err := p.client().look(cmd.Context(), "/v1/status", &st); err != nil {
				return err
			}
			if err := p.client().look(cmd.Context(), "/v1/history", &h); err != nil {
				return err
			}
			sc := p.screen()
			sc.Now = time.Now()
			return status.RenderWhy(p.stdout, st, h.Transitions, sc)
		},
	}
}

// piped is how wide a table is that no terminal shows: nothing is cut.
const piped = 400
