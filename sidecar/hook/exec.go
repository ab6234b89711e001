package hook

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// exec runs one command in a process group of its own, with a deadline.
func (r *Runner) exec(ctx context.Context, j Job, text string, attempt int) Command {
	c := Command{Text: text, Attempt: attempt, ExitCode: -1, Started: time.Now()}
	if ctx.Err() != nil {
		c.Reason = endReason(ctx)
		return c
	}
	out := newOutput(r.cfg.Output)
	cmd := exec.Command("/bin/sh", "-c", text) //nolint:noctx // the deadline kills the whole group, not the shell alone
	cmd.Env = r.environ(j, attempt)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	read, write, err := os.Pipe()
	if err != nil {
		c.Reason, c.Output = ReasonStart, err.Error()
		return c
	}
	cmd.Stdout, cmd.Stderr = write, write
	err = startOwn(cmd)
	_ = write.Close() // our copy
	if err != nil {
		_ = read.Close()
		c.Reason, c.Output = ReasonStart, err.Error()
		return c
	}
	r.readers.follow(read, out)
	c.Reason, err = r.wait(ctx, cmd)
	out.settle()
	c.Duration, c.Output = time.Since(c.Started), out.String()
	c.ExitCode = cmd.ProcessState.ExitCode()
	if c.Reason == "" {
		c.Reason = exitReason(err)
	}
	return c
}

// wait waits for a command and kills its group when it must not go on. The
// reason is empty if the command ended by itself.
func (r *Runner) wait(ctx context.Context, cmd *exec.Cmd) (Reason, error) {
	ended := make(chan error, 1)
	go func() { ended <- waitOwn(cmd) }() // ends with the process, which is awaited below in every case
	timer := time.NewTimer(r.cfg.Timeout)
	defer timer.Stop()
	var why Reason
	select {
	case err := <-ended:
		return "", err
	case <-timer.C:
		why = ReasonTimeout
	case <-ctx.Done():
		why = endReason(ctx)
	}
	// It leads its group, whose number is not used again while a member lives. But
	// it may have left the group, for ours for example, and is meant all the same.
	group := -cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	timer.Reset(r.cfg.KillWait)
	select {
	case err := <-ended:
		_ = syscall.Kill(group, syscall.SIGKILL) // whoever of the group ignored the signal
		return why, err
	case <-timer.C:
		_ = syscall.Kill(group, syscall.SIGKILL)
		_ = cmd.Process.Kill()
		return why, <-ended
	}
}

func exitReason(err error) Reason {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return ReasonOK
	case errors.As(err, &exit) && exit.Exited():
		return ReasonExit
	default:
		return ReasonSignal
	}
}

func endReason(ctx context.Context) Reason {
	if errors.Is(context.Cause(ctx), errSuperseded) {
		return ReasonSuperseded
	}
	return ReasonStopped
}
