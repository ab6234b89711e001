package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tandem/examples/lab"
	"tandem/sidecar/status"
)

// tuneOptions say how the lengths of the lease are compared.
type tuneOptions struct {
	program string
	lengths []string // values of TANDEM_LEASE
	trials  []string
	repeats int           // power losses
	rest    time.Duration // without trouble before each trial
	span    time.Duration // of loss, and of busy loops
	output  string
}

// trials are what each length goes through.
func trials(span time.Duration) []row {
	all := rows()
	power := all[slices.IndexFunc(all, func(r row) bool { return r.name == "power" })]
	return []row{power, lossRow(span), busyRow(span)}
}

func tuneCommand(program *string) *cobra.Command {
	var o tuneOptions
	cmd := &cobra.Command{
		Use: "tune", Short: "Compare the lease that tunes itself with fixed ones: power loss, packet loss, busy loops", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(); err != nil {
				return err
			}
			o.program = *program
			return tune(cmd.Context(), os.Stderr, o)
		},
	}
	cmd.Flags().StringSliceVar(&o.lengths, "leases", []string{"auto", "300ms", "500ms", "1s"}, "values of TANDEM_LEASE")
	cmd.Flags().StringSliceVar(&o.trials, "trials", []string{"power", "loss", "busy"}, "what they go through")
	cmd.Flags().IntVar(&o.repeats, "repeats", 3, "power losses of each")
	cmd.Flags().DurationVar(&o.rest, "rest", 65*time.Second, "quiet time before each trial")
	cmd.Flags().DurationVar(&o.span, "for", 10*time.Minute, "how long the loss and the busy loops last")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "write the table to this file (Markdown; default: standard output)")
	return cmd
}

func tune(ctx context.Context, progress io.Writer, o tuneOptions) error {
	var chosen []row
	for _, r := range trials(o.span) {
		if slices.Contains(o.trials, r.name) {
			chosen = append(chosen, r)
		}
	}
	var systems []choice
	for _, length := range o.lengths {
		systems = append(systems, choice{length, lab.Tandem{
			Label: "`" + length + "`", Program: o.program, Env: map[string]string{"TANDEM_LEASE": length},
		}})
	}
	cells := map[[2]string][]tuneResult{}
	for _, c := range systems {
		if err := tuneOne(ctx, progress, o, c, chosen, cells); err != nil {
			return fmt.Errorf("lease %s: %w", c.name, err)
		}
	}
	text := tuneTable(chosen, systems, cells, o)
	if o.output != "" {
		return os.WriteFile(o.output, []byte(text), 0o644)
	}
	_, err := io.WriteString(os.Stdout, text)
	return err
}

// tuneResult is a measurement and what the lease did meanwhile.
type tuneResult struct {
	measurement
	lengths []time.Duration // that the holder asked for: before the trouble, then twice a second
	load    string          // of the machine, before
}

// tuneOne takes one length through all trials, on one lab.
func tuneOne(ctx context.Context, progress io.Writer, o tuneOptions, c choice, chosen []row, cells map[[2]string][]tuneResult) error {
	l, err := lab.New(ctx, lab.Config{System: c.system})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	for _, r := range chosen {
		times := 1
		if r.name == "power" {
			times = o.repeats
		}
		for range times {
			res, err := tuneTrial(ctx, l, r, o.rest)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				res.Err = err.Error()
			}
			key := [2]string{r.name, c.name}
			cells[key] = append(cells[key], res)
			fmt.Fprintf(progress, "%-6s %-6s load %s, %s: %s\n", c.name, r.name, res.load, res.span(), res.measurement)
		}
	}
	return nil
}

// tuneTrial waits for the quiet time, then measures one failure and looks at
// the lease all the while.
func tuneTrial(ctx context.Context, l *lab.Lab, r row, rest time.Duration) (tuneResult, error) {
	var res tuneResult
	if err := l.Repair(ctx); err != nil {
		return res, err
	}
	if err := l.Settled(ctx, time.Minute); err != nil {
		return res, err
	}
	if err := pause(ctx, rest); err != nil {
		return res, err
	}
	res.load = machineLoad()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var watch sync.WaitGroup
	watch.Go(func() { res.lengths = watchLength(watching, l, l.Holder()) })
	m, err := measure(ctx, l, r)
	stop()
	watch.Wait()
	res.measurement = m
	return res, err
}

// machineLoad is the load average of the last minute.
func machineLoad() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// watchLength notes the length that a holder asks for until ctx ends or the
// holder no longer answers. It asks the control socket, which costs next to
// nothing.
func watchLength(ctx context.Context, l *lab.Lab, holder string) []time.Duration {
	if holder == "" {
		return nil
	}
	client := socketClient(l, holder)
	defer client.CloseIdleConnections()
	var lengths []time.Duration
	for {
		if d := askLength(ctx, client); d > 0 {
			lengths = append(lengths, d)
		}
		if pause(ctx, 500*time.Millisecond) != nil {
			return lengths
		}
	}
}

// socketClient talks to a node's sidecar through its control socket.
func socketClient(l *lab.Lab, node string) *http.Client {
	socket := lab.ControlSocket(l.Node(node))
	return &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

func askLength(ctx context.Context, client *http.Client) time.Duration {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/status", nil)
	if err != nil {
		return 0
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	var s status.Status
	if json.NewDecoder(resp.Body).Decode(&s) != nil {
		return 0
	}
	return vipLength(s)
}

// span says from which length to which the lease went.
func (r tuneResult) span() string {
	if len(r.lengths) == 0 {
		return "lease not known"
	}
	first, longest := r.lengths[0], slices.Max(r.lengths)
	if first == longest {
		return "lease " + millis(first)
	}
	return fmt.Sprintf("lease %d to %s", first.Milliseconds(), millis(longest))
}

func tuneTable(chosen []row, systems []choice, cells map[[2]string][]tuneResult, o tuneOptions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| `TANDEM_LEASE` |")
	for _, r := range chosen {
		fmt.Fprintf(&b, " %s |", r.title)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(chosen)) + "\n")
	for _, s := range systems {
		fmt.Fprintf(&b, "| %s |", s.system.Name())
		for _, r := range chosen {
			fmt.Fprintf(&b, " %s |", tuneCell(cells[[2]string{r.name, s.name}], stays(r)))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\nMeasured on %s by `pair tune`, %v without trouble before each trial. %s.\n",
		time.Now().Format("2006-01-02"), o.rest, versions(context.Background(), benchOptions{program: o.program}))
	return b.String()
}

// tuneCell tells what the client noticed, for which lease, and under which load.
func tuneCell(results []tuneResult, stays bool) string {
	var parts []string
	for _, r := range results {
		var text string
		switch {
		case r.Err != "":
			text = r.Err
		case stays:
			text = fmt.Sprintf("%d moves, nobody answered for %s, longest outage %s", len(r.Moves), millis(r.Nobody), millis(r.Outage))
		default:
			text = millis(r.Outage)
		}
		parts = append(parts, fmt.Sprintf("%s (%s; load %s)", text, r.span(), r.load))
	}
	return strings.Join(parts, "; ")
}
