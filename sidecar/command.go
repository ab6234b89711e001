package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/term"

	"tandem/sidecar/agent"
	"tandem/sidecar/config"
	"tandem/sidecar/status"
)

// program is what every command needs of the world.
type program struct {
	env            []string
	stdout, stderr io.Writer
	began          bool         // arguments and flags were right, the command itself has begun
	calm           func() error // nil: timers stay as they are
}

func (p *program) getenv(name string) string {
	for _, pair := range slices.Backward(p.env) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

func (p *program) client() *client {
	return newClient(config.SocketPath(p.env), p.getenv("SUDO_USER"))
}

// newRoot is the tree of commands.
func newRoot(p *program) *cobra.Command {
	root := &cobra.Command{
		Use:   "tandem",
		Short: "Fails a pair of HAProxys and their sites over, by quorum lease",
		Long: `tandem runs beside every HAProxy of a cluster. The sidecars agree by quorum which
load balancer carries the virtual IP and which site is active, and make every
HAProxy route so.

Start it with "tandem run", configured by environment variables ("tandem config
--table"). The other commands ask the sidecar on this machine through its
control socket (TANDEM_SOCKET).`,
		// The template of cobra's own: with one set, the linker can leave out no
		// method any more, and the binary grows by a quarter.
		Version:       strings.TrimPrefix(build().String(), "tandem "),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddGroup(&cobra.Group{ID: "see", Title: "See what is:"}, &cobra.Group{ID: "act", Title: "Change it:"}, &cobra.Group{ID: "set", Title: "Set it up:"})
	root.AddCommand(
		p.runCommand(), p.statusCommand(), p.whyCommand(), p.historyCommand(), p.planCommand(), p.keysCommand(),
		p.takeoverCommand(), p.renounceCommand(), p.moveCommand(), p.pauseCommand(), p.resumeCommand(), p.maintenanceCommand(), p.ackCommand(),
		p.restartCommand(), p.canSucceedCommand(),
		p.checkCommand(), p.healthCommand(), p.importCommand(), p.configCommand(), p.versionCommand(),
	)
	for _, c := range root.Commands() {
		inner := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			p.began = true
			return inner(cmd, args)
		}
	}
	return root
}

func (p *program) runCommand() *cobra.Command {
	return &cobra.Command{
		Use: "run", GroupID: "set", Args: cobra.NoArgs,
		Short: "Run the sidecar until it is stopped",
		Long: `Run the sidecar. It stops on SIGINT and SIGTERM, after handing over what it holds. On
SIGUSR2 it does what "tandem restart" asks for. SIGHUP has it read the keys again.

It computes on one processor, which is plenty and spares HAProxy the others; the
environment variable GOMAXPROCS allows more. It executes itself once at the start,
so that the kernel may fire its timers 1 ms late and it is woken less often.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(p.env)
			if err != nil {
				return err
			}
			log := newLogger(cfg.LogLevel, cfg.LogFormat, p.stderr).With(zapNode(cfg))
			if p.calm != nil {
				if err := p.calm(); err != nil {
					log.Debug("timers stay as they are, which costs a little processor time", zap.Error(err))
				}
			}
			defer func() { _ = log.Sync() }() // a terminal cannot be synced, and says so
			if err := raise(); err != nil {
				log.Warn("capabilities", zap.Error(err))
			}
			logStart(log, cfg, build())
			from := p.origin(cfg, log)
			if p.getenv("GOMAXPROCS") == "" {
				runtime.GOMAXPROCS(1)
			}
			if err := runSidecar(cmd.Context(), cfg, log, build(), from); err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
			log.Info("stopped")
			return nil
		},
	}
}

// Build says which build this is.
type Build struct {
	Version string // of the release, or dev
	Commit  string // of the source, shortened; empty when not known
	Go      string
}

// Both are set by the linker: -ldflags "-X main.version=1.2.3 -X main.commit=…".
// Without a commit, it is the one that Go found when it built.
var (
	version = "dev"
	commit  = ""
)

// protocol is set by the linker in tests of a rolling upgrade only: the binary
// then passes for one of a later version of the messages, which means the same
// by them.
var protocol = ""

// readsProtocol is the newest version of the messages that this build reads.
func readsProtocol() int {
	if protocol == "" {
		return agent.NewestProtocol
	}
	n, err := strconv.Atoi(protocol)
	if err != nil || n < agent.NewestProtocol || n > 255 {
		panic("built with a protocol that cannot be: " + protocol)
	}
	return n
}

func build() Build {
	b := Build{Version: version, Commit: commit[:min(12, len(commit))], Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok || commit != "" {
		return b
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Commit = s.Value[:min(12, len(s.Value))]
		}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.modified" && s.Value == "true" && b.Commit != "" {
			b.Commit += "+"
		}
	}
	return b
}

// String is what `tandem version` prints.
func (b Build) String() string {
	return fmt.Sprintf("tandem %s (commit %s, %s, %s/%s, protocol %d)",
		b.Version, cmp.Or(b.Commit, "unknown"), b.Go, runtime.GOOS, runtime.GOARCH, readsProtocol())
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", GroupID: "set", Args: cobra.NoArgs,
		Short: "Print the version",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(p.stdout, build())
			return err
		},
	}
}

func (p *program) configCommand() *cobra.Command {
	var table, markdown bool
	c := &cobra.Command{
		Use: "config", GroupID: "set", Args: cobra.NoArgs,
		Short: "Print the configuration with its present values, or what is wrong with it",
		RunE: func(*cobra.Command, []string) error {
			switch {
			case markdown:
				_, err := io.WriteString(p.stdout, config.Markdown())
				return err
			case table:
				return p.printTable()
			default:
				return p.printSettings()
			}
		},
	}
	c.Flags().BoolVar(&table, "table", false, "print every variable with default and meaning, without reading the environment")
	c.Flags().BoolVar(&markdown, "markdown", false, "print the same as the README has it")
	return c
}

func (p *program) printTable() error {
	for _, v := range config.Table() {
		name := v.Name
		if v.Secret {
			name += ", " + config.FileSuffix
		}
		_, err := fmt.Fprintf(p.stdout, "%s\n    %s\n    default: %s   example: %s\n", name,
			strings.ReplaceAll(v.Meaning, "`", ""), strings.ReplaceAll(v.DefaultText(), "`", ""), strings.ReplaceAll(v.Example, "`", ""))
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *program) printSettings() error {
	cfg, err := config.Load(p.env)
	if err != nil {
		return err
	}
	for _, s := range cfg.Settings() {
		line := fmt.Sprintf("%-24s %s", s.Name, cmp.Or(s.Value, "-"))
		if s.Origin != "default" {
			line = fmt.Sprintf("%-64s # %s", line, s.Origin)
		}
		if _, err := fmt.Fprintln(p.stdout, line); err != nil {
			return err
		}
	}
	for _, warning := range cfg.Warnings {
		if _, err := fmt.Fprintln(p.stderr, "tandem: note:", warning); err != nil {
			return err
		}
	}
	return nil
}

// terminal gives the width of the terminal that is printed on, or 0.
func (p *program) terminal() int {
	file, ok := p.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || p.getenv("TERM") == "dumb" {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return min(max(width, 60), 160)
}

// rows is how high the terminal is; 0 without.
func (p *program) rows() int {
	file, ok := p.stdout.(*os.File)
	if !ok {
		return 0
	}
	_, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return height
}

// screen says how wide the output is and whether it may have colour.
func (p *program) screen() status.Screen {
	width := p.terminal()
	return status.Screen{Width: width, Color: width > 0 && p.getenv("NO_COLOR") == ""}
}
