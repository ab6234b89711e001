package main

import (
	"context"
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
	ipv6    bool
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
			o.program = *program
			return bench(cmd.Context(), os.Stderr, o)
		},
	}
	cmd.Flags().StringSliceVar(&o.rows, "rows", nil, "rows to measure (default: all)")
	cmd.Flags().StringSliceVar(&o.systems, "systems", nil, "systems to measure (default: all)")
	cmd.Flags().IntVar(&o.repeats, "repeats", 3, "times that each is measured")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "write the table to this file (Markdown; default: standard output)")
	cmd.Flags().BoolVar(&o.ipv6, "ipv6", false, "the virtual address in both families")
	return cmd
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
	t := newTable(chosenRows, chosen)
	for _, c := range chosen {
		if err = benchSystem(ctx, progress, o, c, chosenRows, t); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	text := t.markdown(ctx, o)
	if o.output == "" {
		_, err = os.Stdout.WriteString(text)
		return err
	}
	if err = os.MkdirAll(filepath.Dir(o.output), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return os.WriteFile(o.output, []byte(text), 0o644)
}

// benchSystem measures all rows on one lab, which is repaired after each.
func benchSystem(ctx context.Context, progress io.Writer, o benchOptions, c choice, rows []row, t *table) error {
	l, err := lab.New(ctx, lab.Config{System: c.system, IPv6: o.ipv6})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	for n := range o.repeats {
		for _, r := range rows {
			if !r.applies(c.system) {
				continue
			}
			m, err := measure(ctx, l, r)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				m.Err = err.Error()
			}
			t.add(r.name, c.name, m)
			fmt.Fprintf(progress, "%-32s %-12s %d/%d  %s\n", c.system.Name(), r.name, n+1, o.repeats, m)
		}
	}
	return nil
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
