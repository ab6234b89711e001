package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// table is what was measured, by row and system.
type table struct {
	title   string
	rows    []row
	systems []choice
	cells   map[[2]string][]measurement
}

func newTable(title string, rows []row, systems []choice) *table {
	return &table{title: title, rows: rows, systems: systems, cells: map[[2]string][]measurement{}}
}

func (t *table) add(row, system string, m measurement) {
	key := [2]string{row, system}
	t.cells[key] = append(t.cells[key], m)
}

// heading says what is needed to repeat the measurement and to read it.
func heading(ctx context.Context, o benchOptions) string {
	return fmt.Sprintf("Measured on %s by `%s` (%d repeats; the rows that last longest once). %s.\n\n", time.Now().Format("2006-01-02"), o.command, o.repeats, versions(ctx, o)) +
		"Cells: what a client that opens a new connection every 5 ms noticed, in milliseconds: median (least–most). " +
		"What is not said did not happen: no two machines answered for the address, it did not move without need.\n"
}

// markdown prints the table.
func (t *table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s:\n\n| failure |", t.title)
	for _, s := range t.systems {
		fmt.Fprintf(&b, " %s |", s.system.Name())
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(t.systems)) + "\n")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s |", r.title)
		for _, s := range t.systems {
			fmt.Fprintf(&b, " %s |", cell(t.cells[[2]string{r.name, s.name}], stays(r)))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// stays tells whether the address must not move in this row.
func stays(r row) bool {
	return slices.Contains([]string{"witness", "reload", "loss", "busy", "rest", "flood", "site-killed", "takeover"}, r.name)
}

func cell(ms []measurement, stays bool) string {
	if len(ms) == 0 {
		return "–"
	}
	var outages, two, failed, broken, moves, leases, extra []string
	var durations []time.Duration
	for _, m := range ms {
		if m.Err != "" {
			extra = append(extra, m.Err)
			continue
		}
		durations = append(durations, m.Outage)
		if m.Open {
			outages = append(outages, "did not end within "+fmt.Sprint((m.To-m.Noticed.From).Round(time.Second)))
		}
		two = appendIf(two, m.TwoAnswer > 0, fmt.Sprint(m.TwoAnswer.Milliseconds()))
		failed = append(failed, fmt.Sprint(m.Failed))
		broken = append(broken, fmt.Sprint(m.Broken))
		moves = append(moves, fmt.Sprint(len(m.Moves)))
		leases = appendIf(leases, !stays && m.Lease > 0 && m.Outage > m.Lease/2, fmt.Sprint(m.Lease.Milliseconds()))
		extra = appendIf(extra, m.Extra != "", m.Extra)
	}
	parts := []string{spread(durations)}
	parts = appendIf(parts, len(outages) > 0, strings.Join(slices.Compact(outages), "; "))
	parts = appendIf(parts, any0(failed), "failed requests: "+strings.Join(failed, ", "))
	parts = appendIf(parts, any0(broken), "broken connections: "+strings.Join(broken, ", "))
	parts = appendIf(parts, len(two) > 0, "two answer for "+strings.Join(two, ", ")+" ms")
	parts = appendIf(parts, stays && any0(moves), "moves: "+strings.Join(moves, ", "))
	parts = appendIf(parts, len(leases) > 0, "lease: "+strings.Join(leases, ", ")+" ms")
	parts = append(parts, extra...)
	return strings.Join(parts, "; ")
}

func appendIf(list []string, yes bool, s string) []string {
	if yes {
		return append(list, s)
	}
	return list
}

func any0(numbers []string) bool {
	return slices.ContainsFunc(numbers, func(s string) bool { return s != "0" })
}

func spread(ds []time.Duration) string {
	if len(ds) == 0 {
		return "not measured"
	}
	slices.Sort(ds)
	first, last := ds[0].Milliseconds(), ds[len(ds)-1].Milliseconds()
	median := (ds[(len(ds)-1)/2] + ds[len(ds)/2]) / 2
	return fmt.Sprintf("**%d** (%d–%d)", median.Milliseconds(), first, last)
}

// versions names everything that took part.
func versions(ctx context.Context, o benchOptions) string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	parts := []string{fmt.Sprintf("Linux %s, %d cores", unix.ByteSliceToString(u.Release[:]), runtime.NumCPU())}
	for _, command := range [][]string{{o.program, "version"}, {"haproxy", "-v"}, {"keepalived", "--version"}} {
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n"); err == nil {
			parts = append(parts, strings.TrimSpace(line))
		}
	}
	return strings.Join(parts, "; ")
}
