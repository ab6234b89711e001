package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// project is what the containers of the test are named after.
const project = "tandemtest"

// needDocker leaves a test out where nobody asked for it: it needs an engine and
// the images that `make test-docker` builds.
func needDocker(t *testing.T) {
	t.Helper()
	if os.Getenv("TANDEM_TEST_DOCKER") == "" {
		t.Skip("NOT TESTED: `make test-docker` runs this on a Docker engine")
	}
}

// docker runs a command and returns what it printed.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := try(t.Context(), "docker", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		said := ""
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			said = string(exit.Stderr)
		}
		return string(out), fmt.Errorf("%s %s: %w: %s%s", program, strings.Join(args, " "), err, out, said)
	}
	return string(out), nil
}

// composeTool is what this machine has: the plugin, or the program of before.
func composeTool(t *testing.T) []string {
	t.Helper()
	if _, err := try(t.Context(), "docker", "compose", "version"); err == nil {
		return []string{"docker", "compose"}
	}
	if _, err := exec.LookPath("docker-compose"); err != nil {
		t.Fatal("neither `docker compose` nor docker-compose is installed")
	}
	return []string{"docker-compose"}
}

// cluster is the example, up.
type cluster struct {
	*testing.T
	names map[string]string // service → container
	tool  []string          // compose, and the project
}

func up(t *testing.T) *cluster {
	t.Helper()
	tool := append(composeTool(t), "-p", project)
	c := &cluster{T: t, names: map[string]string{}, tool: tool}
	down := func() {
		if err := c.compose(context.Background(), "down", "--volumes", "--timeout", "1"); err != nil {
			t.Error(err)
		}
		nothingLeft(t)
	}
	if err := c.compose(t.Context(), "down", "--volumes", "--timeout", "1"); err != nil { // of a run that was killed
		t.Fatal(err)
	}
	t.Cleanup(down)
	if err := c.compose(t.Context(), "up", "--detach", "--no-build"); err != nil {
		t.Fatal(err)
	}
	const format = `{{.Names}} {{.Label "com.docker.compose.service"}}`
	for line := range strings.Lines(docker(t, "ps", "--filter", "label=com.docker.compose.project="+project, "--format", format)) {
		name, service, _ := strings.Cut(strings.TrimSpace(line), " ")
		c.names[service] = name
	}
	c.healthy()
	return c
}

func (c *cluster) compose(ctx context.Context, args ...string) error {
	_, err := try(ctx, c.tool[0], slices.Concat(c.tool[1:], args)...)
	return err
}

// nothingLeft: `down` has removed containers, networks and volumes.
func nothingLeft(t *testing.T) {
	t.Helper()
	label := "label=com.docker.compose.project=" + project
	for _, list := range [][]string{{"ps", "--all"}, {"network", "ls"}, {"volume", "ls"}} {
		out, err := try(context.Background(), "docker", append(list, "--quiet", "--filter", label)...)
		if err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("`down` left of docker %s: %s %v", strings.Join(list, " "), out, err)
		}
	}
}

// status of the cluster as the witness sees it, which nothing is done to.
type status struct {
	Health string
	Leases []struct{ Resource, Holder string }
}

func (c *cluster) status() (status, error) {
	var s status
	// The exit code tells the health; what is printed is complete all the same.
	out, err := try(c.Context(), "docker", "exec", c.names["witness"], "tandem", "status", "--json")
	if jerr := json.Unmarshal([]byte(out), &s); jerr != nil {
		return s, errors.Join(err, jerr)
	}
	return s, nil
}

func (c *cluster) holder() string {
	c.Helper()
	s, err := c.status()
	if err != nil {
		c.Fatal(err)
	}
	for _, l := range s.Leases {
		if strings.HasPrefix(l.Resource, "vip/") {
			return l.Holder
		}
	}
	c.Fatalf("nobody is known to hold the address: %+v", s)
	return ""
}

// healthy waits until the next failure would be survived.
func (c *cluster) healthy() {
	c.Helper()
	var s status
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		if s, err = c.status(); err == nil && s.Health == "healthy" && c.noticed(now()-time.Second).Failed == 0 {
			return
		}
	}
	logs, _ := try(c.Context(), "docker", "exec", c.names["witness"], "tandem", "status")
	c.Fatalf("not healthy after a minute: %+v %v\n%s", s, err, logs)
}

func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// noticed is what `play noticed` prints.
type noticed struct {
	Requests, Failed, Looks int
	Failures, LBs           map[string]int
	Outage                  float64 `json:"outage_ms"`
	Stall                   float64 `json:"stall_ms"`
	TwoAnswer               float64 `json:"two_answer_ms"`
}

func (c *cluster) noticed(from time.Duration) noticed {
	c.Helper()
	var n noticed
	out := docker(c.T, "exec", c.names["client"], "/bin/play", "noticed", fmt.Sprintf("@%d", from))
	if err := json.Unmarshal([]byte(out), &n); err != nil {
		c.Fatalf("%v: %s", err, out)
	}
	return n
}

// tests are what is broken, and what the client may notice of it, in
// milliseconds.
var tests = []struct {
	claim         string
	limit         float64
	breaks, mends [][]string // docker's arguments; HOLDER, NETWORK and IP are replaced
}{
	{"when HAProxy is killed the other load balancer takes over at once", 100, [][]string{{"kill", "HOLDER-haproxy"}}, [][]string{{"start", "HOLDER-haproxy"}}},
	{"when the sidecar is killed the other takes over", 1000, [][]string{{"kill", "HOLDER-tandem"}}, [][]string{{"start", "HOLDER-tandem"}}},
	{
		"when both are killed the other takes over", 1000,
		[][]string{{"kill", "HOLDER-tandem", "HOLDER-haproxy"}},
		[][]string{{"start", "HOLDER-haproxy", "HOLDER-tandem"}},
	},
	{"when HAProxy is paused the other takes over", 1000, [][]string{{"pause", "HOLDER-haproxy"}}, [][]string{{"unpause", "HOLDER-haproxy"}}},
	{"when the sidecar is paused the other takes over", 1000, [][]string{{"pause", "HOLDER-tandem"}}, [][]string{{"unpause", "HOLDER-tandem"}}},
	{
		"when the network is disconnected the other takes over", 1000,
		[][]string{{"network", "disconnect", "NETWORK", "HOLDER"}},
		// The interface that comes back has another name: the namespace is made anew.
		[][]string{
			{"network", "connect", "--ip", "IP", "NETWORK", "HOLDER"},
			{"restart", "--time", "1", "HOLDER"},
			{"restart", "--time", "1", "HOLDER-haproxy", "HOLDER-tandem"},
		},
	},
}

const (
	attempts = 4    // of one row, when the machine stood still meanwhile
	stalled  = 40.0 // ms that the client stood still: the figure says nothing
)

func TestCompose(t *testing.T) {
	needDocker(t)
	c := up(t)
	for _, row := range tests {
		t.Run(row.claim, func(t *testing.T) {
			c := &cluster{T: t, names: c.names, tool: c.tool}
			var n noticed
			for i := range attempts {
				n = c.play(row.breaks, row.mends)
				t.Logf("attempt %d: outage %.0f ms of %.0f, %d of %d failed %v, client stood still %.0f ms", i+1, n.Outage, row.limit, n.Failed, n.Requests, n.Failures, n.Stall)
				if n.TwoAnswer > 0 {
					t.Fatalf("two machines answered for the address for %.0f ms", n.TwoAnswer)
				}
				if n.Outage <= row.limit {
					return
				}
				if n.Stall < stalled && i > 0 {
					break
				}
			}
			t.Errorf("the client noticed %.0f ms, more than %.0f", n.Outage, row.limit)
		})
	}
	t.Run("when a load balancer is stopped in order nobody notices", func(t *testing.T) {
		(&cluster{T: t, names: c.names, tool: c.tool}).stopInOrder()
	})
}

// stopInOrder stops the holder as a person would, the sidecar before HAProxy,
// because it depends on it: it hands over, and no connection fails.
func (c *cluster) stopInOrder() {
	c.Helper()
	holder := c.holder()
	services := []string{holder + "-tandem", holder + "-haproxy"}
	from := now()
	if err := c.compose(c.Context(), append([]string{"stop"}, services...)...); err != nil {
		c.Fatal(err)
	}
	n := c.noticed(from)
	c.Logf("longest without an answer %.0f ms, %d of %d failed %v, client stood still %.0f ms", n.Outage, n.Failed, n.Requests, n.Failures, n.Stall)
	if n.Failed > 0 || n.TwoAnswer > 0 {
		c.Errorf("%d of %d failed: %v; two answered for %.0f ms", n.Failed, n.Requests, n.Failures, n.TwoAnswer)
	}
	if err := c.compose(c.Context(), append([]string{"start"}, services...)...); err != nil {
		c.Fatal(err)
	}
	c.healthy()
	if other := c.holder(); other == holder {
		c.Errorf("%s still holds the address", holder)
	}
}

// play breaks the present holder, looks for 3 s, and repairs it.
func (c *cluster) play(breaks, mends [][]string) noticed {
	c.Helper()
	holder := c.holder()
	run := func(commands [][]string) {
		c.Helper()
		for _, command := range commands {
			args := slices.Clone(command)
			for i, a := range args {
				service := strings.ReplaceAll(a, "HOLDER", holder)
				switch {
				case a == "NETWORK":
					args[i] = project + "_net"
				case a == "IP":
					args[i] = map[string]string{"lb1": "10.78.0.11", "lb2": "10.78.0.12"}[holder]
				case service != a:
					args[i] = c.names[service]
				}
			}
			docker(c.T, args...)
		}
	}
	from := now()
	run(breaks)
	time.Sleep(3 * time.Second)
	n := c.noticed(from)
	run(mends)
	c.healthy()
	if other := c.holder(); other == holder {
		c.Errorf("%s still holds the address", holder)
	}
	if n.Looks < 100 || n.Requests < 200 {
		c.Errorf("the client saw too little: %+v", n)
	}
	return n
}
