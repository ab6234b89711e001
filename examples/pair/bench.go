package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tandem/examples/lab"
)

type benchOptions struct {
	program string
	rows    []string
	systems []string
	repeats int
	output  string
	family  string
	command string // as it was typed
	began   time.Time
	limit   time.Duration // no measurement begins after it; 0: none
}

// systems are what is measured, by the names that the flag knows.
func systems(program string) []choice {
	return []choice{
		{"tandem", lab.Tandem{Program: program}},
		{"tandem-300ms", lab.Tandem{Label: "tandem, lease 300 ms", Program: program, Env: map[string]string{"TANDEM_LEASE": "300ms"}}},
		{"tandem-pair", lab.Tandem{Label: "tandem, pair", Program: program, Pair: true}},
		{"keepalived", lab.Keepalived{Tuning: lab.Tutorial}},
		{"keepalived-tuned", lab.Keepalived{Tuning: lab.Tuned}},
		{"keepalived-instant", lab.Keepalived{Tuning: lab.Instant}},
	}
}

type choice struct {
	name   string
	system lab.System
}

func benchCommand(program *string) *cobra.Command {
	var o benchOptions
	var rowNames, systemNames []string
	for _, r := range rows() {
		rowNames = append(rowNames, r.name)
	}
	for _, s := range systems("") {
		systemNames = append(systemNames, s.name)
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure every kind of failure, tandem and keepalived in turn, and print a table",
		Long: "Measure every kind of failure, tandem and keepalived in turn, and print a table.\n\nRows: " +
			strings.Join(rowNames, ", ") + "\nSystems: " + strings.Join(systemNames, ", "),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			o.program, o.began = *program, time.Now()
			o.command = strings.Join(append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...), " ")
			return bench(cmd.Context(), os.Stderr, o)
		},
	}
	cmd.Flags().StringSliceVar(&o.rows, "rows", nil, "rows to measure (default: all)")
	cmd.Flags().StringSliceVar(&o.systems, "systems", nil, "systems to measure (default: all)")
	cmd.Flags().IntVar(&o.repeats, "repeats", 3, "times that each is measured; rows that last long are measured once")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "write the table to this file as well, after each measurement (Markdown)")
	cmd.Flags().DurationVar(&o.limit, "limit", 0, "begin no measurement after this time; each repeat goes through all systems, so that what is left out are repeats (default: none)")
	cmd.Flags().StringVar(&o.family, "family", "4", "of the address that the client uses: 4, 6 or both, one after the other; the cluster carries 6 besides 4")
	return cmd
}

// families are those that the flag stands for; true is IPv6.
func families(flag string) ([]bool, error) {
	switch flag {
	case "4":
		return []bool{false}, nil
	case "6":
		return []bool{true}, nil
	case "both":
		return []bool{false, true}, nil
	}
	return nil, fmt.Errorf("choose family: %q is none, for example 4, 6 or both", flag)
}

// benchRun is a bench under way.
type benchRun struct {
	benchOptions
	progress io.Writer
	heading  string
	tables   []*table
	failed   int // measurements
}

func bench(ctx context.Context, progress io.Writer, o benchOptions) error {
	chosenRows, err := chooseRows(o.rows)
	if err != nil {
		return err
	}
	chosen, err := chooseSystems(o.program, o.systems)
	if err != nil {
		return err
	}
	six, err := families(o.family)
	if err != nil {
		return err
	}
	r := &benchRun{benchOptions: o, progress: progress, heading: heading(ctx, o)}
	for _, by6 := range six {
		r.tables = append(r.tables, newTable(map[bool]string{false: "By IPv4", true: "By IPv6 (dual stack)"}[by6], chosenRows, chosen))
	}
	for n := range o.repeats {
		for i, by6 := range six {
			for _, c := range chosen {
				r.system(ctx, c, by6, n, r.tables[i])
			}
		}
	}
	_, err = os.Stdout.WriteString(r.markdown())
	switch {
	case ctx.Err() != nil:
		err = errors.Join(err, fmt.Errorf("the table is not complete: %w", ctx.Err()))
	case r.over():
		fmt.Fprintf(progress, "not all repeats were made within %s\n", o.limit)
	case r.failed > 0:
		err = errors.Join(err, fmt.Errorf("%d measurements failed; the table says which", r.failed))
	}
	return errors.Join(err, r.write())
}

func (r *benchRun) markdown() string {
	parts := []string{r.heading}
	for _, t := range r.tables {
		parts = append(parts, t.markdown())
	}
	return strings.Join(parts, "")
}

// write keeps what has been measured so far, whatever becomes of the rest.
func (r *benchRun) write() error {
	if r.output == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(r.output), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return os.WriteFile(r.output, []byte(r.markdown()), 0o644)
}

func (r *benchRun) over() bool { return r.limit > 0 && time.Since(r.began) > r.limit }

// system measures all rows once on one lab, which is repaired after each, and
// replaced when a measurement has failed.
func (r *benchRun) system(ctx context.Context, c choice, by6 bool, n int, t *table) {
	var l *lab.Lab
	defer func() { closeLab(l) }()
	for _, row := range t.rows {
		if !row.applies(c.system) || row.once && n > 0 {
			continue
		}
		var m measurement
		var err error
		if ctx.Err() != nil || r.over() {
			return
		}
		if l == nil {
			l, err = lab.New(ctx, lab.Config{System: c.system, ByIPv6: by6})
		}
		if err == nil {
			m, err = measure(ctx, l, row)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.Err, _, _ = strings.Cut(err.Error(), "\n")
			r.failed++
			closeLab(l)
			l = nil
		}
		t.add(row.name, c.name, m)
		fmt.Fprintf(r.progress, "%4.0f s  %s, %-32s %-16s %d/%d  %s\n", time.Since(r.began).Seconds(), t.title, c.system.Name(), row.name, n+1, r.repeats, m)
		if err = r.write(); err != nil {
			fmt.Fprintln(r.progress, "the table was not written:", err)
		}
	}
}

func closeLab(l *lab.Lab) {
	if l != nil {
		_ = l.Close() // the next one cleans up what is left
	}
}

func chooseRows(names []string) ([]row, error) {
	all := rows()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []row
	for _, name := range names {
		i := slices.IndexFunc(all, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("choose rows: there is no row %q, see --help", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func chooseSystems(program string, names []string) ([]choice, error) {
	all := systems(program)
	if len(names) == 0 {
		return all, nil
	}
	var chosen []choice
	for _, name := range names {
		i := slices.IndexFunc(all, func(c choice) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("choose systems: there is no system %q, see --help", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// beside is the path of another program in the directory of this one.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// measurement is what one failure did once.
type measurement struct {
	lab.Noticed
	lab.Judgement
	Holder string        // before
	After  string        // who answers at the end; empty: nobody or several
	Lease  time.Duration // the length of tandem's lease before the fault; 0: not known
	Extra  string        // what else there is to say
	Late   time.Duration // how much later than HAProxy's own detection; site rows
	Err    string

	Resident int64 // bytes of the daemon; flood row
	Dropped  int   // datagrams and streams, by its guard; flood row

	kept []lab.Request // on kept connections
}

func (m measurement) String() string {
	if m.Err != "" {
		return "failed: " + m.Err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "outage %s, failed %d of %d, %s → %s", millis(m.Outage), m.Failed, m.Requests, m.Holder, or(m.After, "nobody alone"))
	for _, part := range []struct {
		name string
		d    time.Duration
	}{{"two have", m.TwoHave}, {"two answer", m.TwoAnswer}, {"nobody answers", m.Nobody}} {
		if part.d > 0 {
			fmt.Fprintf(&text, ", %s %s", part.name, millis(part.d))
		}
	}
	if m.Lease > 0 {
		fmt.Fprintf(&text, ", lease %s", millis(m.Lease))
	}
	if m.Broken > 0 {
		fmt.Fprintf(&text, ", broken %d", m.Broken)
	}
	if len(m.Moves) > 0 {
		fmt.Fprintf(&text, ", moves %d", len(m.Moves))
	}
	if m.Extra != "" {
		text.WriteString(", " + m.Extra)
	}
	if m.Lag > 50*time.Millisecond || m.Blind > 50*time.Millisecond {
		fmt.Fprintf(&text, " (the machine stalled: client %s, referee %s)", millis(m.Lag), millis(m.Blind))
	}
	return text.String()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// millis prints a time in milliseconds, short.
func millis(d time.Duration) string {
	if d < 10*time.Millisecond && d > 0 {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
