package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tandem/lib/gossip"
	"tandem/sidecar/agent"
	"tandem/sidecar/api"
	"tandem/sidecar/config"
	"tandem/sidecar/hook"
	"tandem/sidecar/status"
)

const (
	// How long the trial of a new program may take.
	checkTimeout = 10 * time.Second
	// For the answer to who asked to get out: its connection ends with this program.
	answerTime = 50 * time.Millisecond
	// How long it waits for what the webhook has not been told yet, which is lost
	// otherwise.
	webhookPatience = 5 * time.Second
	// How long a restart waits for what is under way on this node.
	restartPatience = 30 * time.Second
)

// restarter replaces the program of this process by the one that stands in its
// file now: `tandem restart`, and SIGUSR2. See docs/adr/0014.
type restarter struct {
	cfg     config.Config
	node    *agent.Agent
	network *gossip.Gossip
	build   Build
	program string // the file
	count   int    // how often it was done in this process
	log     *zap.Logger
	rearm   func() // listens for signals again that were ignored
	// undelivered counts what the webhook has not been told yet.
	undelivered func() int

	usr2  chan os.Signal
	asked chan string // who asked
	busy  atomic.Bool
}

func newRestarter(cfg config.Config, p *parts, network *gossip.Gossip, build Build, count int, rearm func(), log *zap.Logger) *restarter {
	return &restarter{
		cfg: cfg, node: p.agent, network: network, build: build, undelivered: p.undelivered, program: ownProgram(os.Args[0]), count: count, log: log.Named("restart"),
		usr2: make(chan os.Signal, 1), asked: make(chan string, 1), rearm: rearm,
	}
}

// ownProgram is the file to execute: the one that this program was called by, so
// that a link to another version is followed, or else the one that it is.
func ownProgram(called string) string {
	path := called
	if !strings.Contains(called, "/") {
		path, _ = exec.LookPath(called)
	}
	if path, err := filepath.Abs(path); err == nil {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	path, _ = os.Executable() // also of a file that was removed, by its name
	return path
}

// Run waits for SIGUSR2, and carries out what was asked for, until ctx ends.
func (r *restarter) Run(ctx context.Context) error {
	signal.Notify(r.usr2, syscall.SIGUSR2)
	defer signal.Stop(r.usr2)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.usr2:
			if result := r.restart(ctx, "SIGUSR2"); !result.OK {
				r.failed(ctx, "SIGUSR2", result.Message)
			}
		case actor := <-r.asked:
			r.replace(ctx, actor)
		}
	}
}

// restart tries the new program and, if it is sound, has Run replace this one by
// it as soon as nothing is under way here.
func (r *restarter) restart(ctx context.Context, actor string) status.Result {
	refuse := func(text string) status.Result {
		return status.Result{Node: r.cfg.Node, Reason: agent.ReasonNotDone, Message: text}
	}
	if r.busy.Swap(true) {
		return refuse("a restart is under way already")
	}
	version, err := r.try(ctx)
	if err != nil {
		r.busy.Store(false)
		return refuse(fmt.Sprintf("nothing has changed, %s goes on: %v", r.build.Version, err))
	}
	r.asked <- actor
	return status.Result{OK: true, Node: r.cfg.Node, Message: version + " is sound, and takes the place of " + r.build.Version}
}

// try runs the new program as it would run in this one's place, with its
// environment and rights, and lets it read the state and the settings.
func (r *restarter) try(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	state, why, err := r.node.Replaceable(ctx)
	if err == nil && why != "" {
		err = errors.New(why)
	}
	if err != nil {
		return "", err
	}
	in, err := r.inheritance(state, "").encode()
	if err != nil {
		return "", err
	}
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, r.program, canSucceed)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = withoutState(os.Environ()), bytes.NewReader(in), &out, &problem
	cmd.WaitDelay = time.Second
	if err := hook.RunOwn(cmd); err != nil {
		return "", fmt.Errorf("%s cannot take its place: %s", r.program, complaint(err, problem.String()))
	}
	version, ok := strings.CutPrefix(strings.TrimSpace(out.String()), canSucceed+" ")
	if !ok {
		return "", fmt.Errorf("%s cannot take its place: it is no tandem that knows how to", r.program)
	}
	return version, nil
}

// complaint is why a program failed, in its own words if it has any.
func complaint(err error, said string) string {
	said = strings.TrimSpace(said)
	if strings.Contains(said, "unknown command") {
		return "it is of a version that does not know how to"
	}
	if said == "" {
		return err.Error()
	}
	if len(said) > 500 {
		said = said[:500] + "…"
	}
	return strings.ReplaceAll(strings.ReplaceAll(said, "tandem: ", ""), "\n", "; ")
}

// inheritance is what the next program needs to know.
func (r *restarter) inheritance(state agent.State, actor string) inheritance {
	boot, _ := bootID() // without one the next program begins afresh
	return inheritance{
		PID: os.Getpid(), BootID: boot, Broadcasts: r.network.Broadcasts(),
		Agent:    agent.Succession{State: state, Taken: bootTime(), Version: r.build.Version, Actor: actor, Count: r.count + 1},
		Identity: identity(r.cfg), Settings: r.cfg.Shared(), Keys: r.network.Keys(), Missing: missingNames(),
	}
}

// replace executes the new program as soon as nothing is under way here. It
// returns only if that could not be done.
func (r *restarter) replace(ctx context.Context, actor string) {
	defer r.busy.Store(false)
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(answerTime):
		}
		if r.undelivered() == 0 || time.Since(began) > webhookPatience {
			break
		}
	}
	wait, cancel := context.WithTimeout(ctx, restartPatience)
	defer cancel()
	err := r.node.Replace(wait, func(s agent.State) error { return r.pass(s, actor) })
	if err != nil && ctx.Err() == nil {
		r.failed(ctx, actor, fmt.Sprintf("%s goes on: %v", r.build.Version, err))
	}
}

// pass is called in the agent's loop: nothing is said any more after the state
// was taken. On success it does not return.
func (r *restarter) pass(state agent.State, actor string) error {
	in := r.inheritance(state, actor)
	b, err := in.encode()
	if err != nil {
		return err
	}
	file, err := memoryFile(b)
	if err != nil {
		return err
	}
	defer file.Close()
	r.log.Info("the program is replaced", zap.String("program", r.program), zap.String("actor", actor), zap.Int("bytes", len(b)))
	_ = r.log.Sync() // a terminal cannot be synced
	_, _ = daemon.SdNotify(false, fmt.Sprintf("%s\nMONOTONIC_USEC=%d\nSTATUS=replaces its program", daemon.SdNotifyReloading, monotonic().Microseconds()))
	// The next program is not listening yet when it begins, and these would end it.
	signal.Ignore(syscall.SIGUSR2, syscall.SIGHUP)
	err = become(r.program, os.Args, os.Environ(), file)
	signal.Notify(r.usr2, syscall.SIGUSR2)
	r.rearm()
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	return err
}

// failed says that this program goes on.
func (r *restarter) failed(ctx context.Context, actor, text string) {
	r.log.Warn("the program was not replaced", zap.String("actor", actor), zap.String("detail", text))
	if err := r.node.NoteFailedSuccession(ctx, actor, text); err != nil {
		r.log.Debug("not told", zap.Error(err))
	}
}

// operated is the agent as the API sees it: what concerns the process is not the
// agent's.
type operated struct {
	*agent.Agent

	restart func(ctx context.Context, actor string) status.Result
}

// Do carries a command out.
func (o operated) Do(ctx context.Context, c status.Command) (status.Result, error) {
	if c.Kind == "restart" {
		return o.restart(ctx, c.Actor), nil
	}
	return o.Agent.Do(ctx, c)
}

// canSucceed is the command by which a program is tried before it takes another
// one's place. It reads the state of the one that runs.
const canSucceed = "can-succeed"

func (p *program) canSucceedCommand() *cobra.Command {
	return &cobra.Command{
		Use: canSucceed, Hidden: true, Args: cobra.NoArgs,
		Short: "Say whether this program could take the place of the one that runs",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(p.env)
			if err != nil {
				return err
			}
			if err := raise(); err != nil {
				return err
			}
			keys := make([]string, len(cfg.Keys))
			for i, k := range cfg.Keys {
				keys[i] = gossip.KeyID(k)
			}
			in, err := readInheritance(cmd.InOrStdin(), func(in inheritance) error {
				return errors.Join(in.fits(cfg, keys), in.lacks())
			})
			if err != nil {
				return err
			}
			if err := agent.CheckSuccession(agentConfig(cfg, build(), newIncarnation(), nil), in.Agent.State, bootTime()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(p.stdout, canSucceed, build().Version)
			return err
		},
	}
}

const (
	restartTimeout = restartPatience + 15*time.Second
	restartLook    = 50 * time.Millisecond
)

func (p *program) restartCommand() *cobra.Command {
	return &cobra.Command{
		Use: "restart", GroupID: "act", Args: cobra.NoArgs,
		Short: "Replace the running program by the one in its file, and keep what the node holds",
		Long: `Have the sidecar execute the program that stands in its file now, in the same
process: an upgrade that does not move the address. The new program is tried
first, with the settings and rights that it will have; one that is broken changes
nothing. Then it is handed everything that the node has said and promised, and
goes on with its leases. Settings are not read again: they take a stop and start.

Exit code: 0 when it went on in place, 1 when it was refused or something moved.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), restartTimeout)
			defer cancel()
			var before status.Status
			if err := p.client().get(ctx, "/v1/status", &before); err != nil {
				return err
			}
			if _, err := p.act(ctx, "restart", api.Request{}); err != nil {
				return err
			}
			return p.followRestart(ctx, before.Process)
		},
	}
}

// followRestart waits for the outcome and tells it.
func (p *program) followRestart(ctx context.Context, before status.Process) error {
	tick := time.NewTicker(restartLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return exitError{exitFailed, "the outcome is not known: look at `tandem history`"}
		case <-tick.C:
		}
		var st status.Status
		if err := p.client().get(ctx, "/v1/status", &st); err != nil {
			continue // between two programs nobody answers
		}
		now := st.Process
		switch {
		case now.Outcome == "" || now.Boot == before.Boot && now.Started.Equal(before.Started) && now.Outcome != agent.ReasonNotDone:
		case now.Outcome == agent.ReasonInPlace:
			_, err := fmt.Fprintf(p.stdout, "%s runs %s: %s\n", st.Node, st.Version, now.Detail)
			return err
		default:
			return exitError{exitFailed, now.Outcome + ": " + now.Detail}
		}
	}
}
