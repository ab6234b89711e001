package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"tandem/examples/lab"
)

// order is a command of the console.
type order struct {
	name, args, does string
	nodes            int // arguments from this one on are names of nodes; -1: none
	least            int // arguments
	run              func(ctx context.Context, c *console, args []string) (string, error)
}

func quiet(f func(ctx context.Context, l *lab.Lab, args []string) error) func(context.Context, *console, []string) (string, error) {
	return func(ctx context.Context, c *console, args []string) (string, error) {
		return "", f(ctx, c.lab, args)
	}
}

func orders() []order {
	return append(append(lookOrders(), breakOrders()...), networkOrders()...)
}

func lookOrders() []order {
	return []order{
		{"show", "", "the picture", -1, 0, func(_ context.Context, c *console, _ []string) (string, error) {
			return strings.Join(picture(c.lab.Snapshot(), colours(false)), "\n") + "\n", nil
		}},
		{"noticed", "[SECONDS]", "what the client and the referee saw in the last seconds (10)", -1, 0, noticedOrder},
		{"tandem", "ARGS…", "tandem's command line on lb1, for example: tandem status", -1, 1, func(ctx context.Context, c *console, args []string) (string, error) {
			return exitCode(c.lab.Tandem(ctx, "lb1", args...))
		}},
		{"repair", "", "undo everything that was broken", -1, 0, func(ctx context.Context, c *console, _ []string) (string, error) {
			c.cool()
			return "", c.lab.Repair(ctx)
		}},
		{"down", "", "end the lab", -1, 0, func(_ context.Context, c *console, _ []string) (string, error) {
			c.down()
			return "", nil
		}},
	}
}

func breakOrders() []order {
	return []order{
		{"kill", "PROCESS NODE", "kill haproxy, tandem or a server (kill web-a-1 a)", 1, 2, quiet(func(_ context.Context, l *lab.Lab, a []string) error { return l.Kill(a[1], a[0]) })},
		{"start", "PROCESS NODE", "start it again", 1, 2, quiet(func(_ context.Context, l *lab.Lab, a []string) error {
			if a[0] == "haproxy" {
				return l.RestartHAProxy(a[1])
			}
			return l.Restart(a[1], a[0])
		})},
		{"freeze", "PROCESS NODE", "stop it without ending it", 1, 2, quiet(func(_ context.Context, l *lab.Lab, a []string) error { return l.Freeze(a[1], a[0]) })},
		{"thaw", "PROCESS NODE", "let it go on", 1, 2, quiet(func(_ context.Context, l *lab.Lab, a []string) error { return l.Thaw(a[1], a[0]) })},
		{"reload", "NODE", "reload its HAProxy", 0, 1, quiet(func(ctx context.Context, l *lab.Lab, a []string) error { return l.ReloadHAProxy(ctx, a[0]) })},
		{"poweroff", "NODE", "link down and everything killed at once", 0, 1, quiet(func(ctx context.Context, l *lab.Lab, a []string) error { return l.PowerOff(ctx, a[0]) })},
		{"poweron", "NODE", "boot it", 0, 1, quiet(func(ctx context.Context, l *lab.Lab, a []string) error { return l.PowerOn(ctx, a[0]) })},
		{"shoot", "COUNT", "kill everything on that many followers, at random (lab --followers)", -1, 1, shootOrder},
		{"killsite", "SITE", "kill all servers of site a or b", 0, 1, quiet(func(_ context.Context, l *lab.Lab, a []string) error { return l.KillSite(a[0]) })},
		{"startsite", "SITE", "start them again", 0, 1, quiet(func(_ context.Context, l *lab.Lab, a []string) error { return l.StartSite(a[0]) })},
		{"burn", "LOOPS", "keep that many cores busy; burn 0 ends it", -1, 1, burnOrder},
	}
}

func networkOrders() []order {
	return []order{
		{"cut", "NODE", "cut it off, both ways", 0, 1, quiet(func(ctx context.Context, l *lab.Lab, a []string) error { return l.Cut(ctx, a[0]) })},
		{"deafen", "NODE", "nothing reaches it any more", 0, 1, quiet(func(ctx context.Context, l *lab.Lab, a []string) error { return l.Deafen(ctx, a[0]) })},
		{"mute", "NODE", "nothing comes from it any more", 0, 1, quiet(func(ctx context.Context, l *lab.Lab, a []string) error { return l.Mute(ctx, a[0]) })},
		{"cutbetween", "NODE NODE", "cut the way between two", 0, 2, quiet(func(ctx context.Context, l *lab.Lab, a []string) error { return l.CutBetween(ctx, a[0], a[1]) })},
		{"loss", "PERCENT NODE NODE…", "lose packets between these", 1, 3, quiet(func(ctx context.Context, l *lab.Lab, a []string) error {
			percent, err := strconv.Atoi(a[0])
			if err != nil || percent < 0 || percent > 100 {
				return fmt.Errorf("%q is no percentage; for example: loss 30 lb1 lb2 witness", a[0])
			}
			return l.LossBetween(ctx, percent, a[1:]...)
		})},
		{"heal", "", "mend the network", -1, 0, quiet(func(ctx context.Context, l *lab.Lab, _ []string) error { return l.Heal(ctx) })},
	}
}

func help() string {
	var lines []string
	for _, o := range orders() {
		lines = append(lines, fmt.Sprintf("  %-26s %s", o.name+" "+o.args, o.does))
	}
	return strings.Join(lines, "\n") + "\n  nodes: lb1 lb2 witness a b client, and edge1 edge2 … of lab --followers"
}

// exitCode puts the exit code of a command in the place of an error that has
// its output once more.
func exitCode(out string, err error) (string, error) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && out != "" {
		return out, fmt.Errorf("(exit code %d)", exit.ExitCode())
	}
	return out, err
}

// do carries out a line and returns what to print, and whether it was done.
func (c *console) do(ctx context.Context, line string) (text string, done bool) {
	f := strings.Fields(line)
	if len(f) == 0 {
		return "", true
	}
	i := slices.IndexFunc(orders(), func(o order) bool { return o.name == f[0] })
	if i < 0 {
		return help() + "\n", false
	}
	o, args := orders()[i], f[1:]
	if len(args) < o.least {
		return fmt.Sprintf("%s %s: %s\n", o.name, o.args, o.does), false
	}
	for n, arg := range args {
		if o.nodes >= 0 && n >= o.nodes && !slices.Contains(c.lab.Names(), arg) {
			return fmt.Sprintf("there is no node %q; there are %s\n", arg, strings.Join(c.lab.Names(), " ")), false
		}
	}
	text, err := o.run(ctx, c, args)
	if err != nil {
		return text + err.Error() + "\n", false
	}
	return or(text, "done\n"), true
}

func noticedOrder(ctx context.Context, c *console, args []string) (string, error) {
	span := 10 * time.Second
	if len(args) > 0 {
		seconds, err := strconv.Atoi(args[0])
		if err != nil || seconds <= 0 {
			return "", fmt.Errorf("%q is no number of seconds", args[0])
		}
		span = time.Duration(seconds) * time.Second
	}
	to := lab.Now()
	n, err := c.lab.Client.Noticed(ctx, to-span, to)
	if err != nil {
		return "", err
	}
	j := c.lab.Referee.Judge(to-span, to)
	return fmt.Sprintf("client: %s; by load balancer %v, by server %v; kept connections broken: %d\nreferee: %d moves, two answered for %s, nobody for %s\n",
		noticed(n, palette{}), n.LBs, n.Servers, n.Broken, len(j.Moves), millis(j.TwoAnswer), millis(j.Nobody)), nil
}

func burnOrder(_ context.Context, c *console, args []string) (string, error) {
	loops, err := strconv.Atoi(args[0])
	if err != nil || loops < 0 || loops > 64 {
		return "", errors.New("how many? 0 to 64")
	}
	c.cool()
	c.quench, err = c.lab.Burn(loops)
	return "", err
}

// shootOrder takes the power of followers that have it.
func shootOrder(ctx context.Context, c *console, args []string) (string, error) {
	s := c.lab.Snapshot()
	edge := slices.DeleteFunc(c.lab.Edge(), func(node string) bool { return !s.Nodes[node].Power })
	count, err := strconv.Atoi(args[0])
	if err != nil || count < 1 || count > len(edge) {
		return "", fmt.Errorf("how many? %d followers have power", len(edge))
	}
	rand.Shuffle(len(edge), func(i, j int) { edge[i], edge[j] = edge[j], edge[i] })
	for _, node := range edge[:count] {
		if err := c.lab.PowerOff(ctx, node); err != nil {
			return "", err
		}
	}
	return "shot: " + strings.Join(edge[:count], " ") + "\n", nil
}

func (c *console) cool() {
	if c.quench != nil {
		c.quench()
		c.quench = nil
	}
}
