package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tandem/sidecar/keepalived"
)

func (p *program) importCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import KEEPALIVED.CONF", GroupID: "set", Args: cobra.ExactArgs(1),
		Short: "Turn a keepalived.conf into an environment file",
		Long: `Read a keepalived.conf and print the environment file that comes closest to it.
What has no counterpart is listed on standard error, with what to do instead, so
that this keeps both:

  tandem import /etc/keepalived/keepalived.conf > tandem.env`,
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := os.Open(filepath.Clean(args[0]))
			if err != nil {
				return err
			}
			defer file.Close()
			result, err := keepalived.Import(file)
			if err != nil {
				return err
			}
			return printImport(p.stdout, p.stderr, args[0], result)
		},
	}
}

func printImport(out, notes io.Writer, source string, r keepalived.Result) error {
	if _, err := fmt.Fprintf(out, "# from %s\n", filepath.Base(source)); err != nil {
		return err
	}
	for _, s := range r.Settings {
		value := s.Value
		if strings.ContainsAny(value, "; *#") {
			value = "'" + value + "'"
		}
		if _, err := fmt.Fprintf(out, "\n# %s\n%s=%s\n", s.Comment, s.Variable, value); err != nil {
			return err
		}
	}
	if len(r.Notes) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(notes, "not carried over:"); err != nil {
		return err
	}
	for _, n := range r.Notes {
		if _, err := fmt.Fprintf(notes, "  line %-4d %s\n            -> %s\n", n.Line, n.What, n.Instead); err != nil {
			return err
		}
	}
	return nil
}
