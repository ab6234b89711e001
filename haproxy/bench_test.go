package haproxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/haproxytech/client-native/v5/runtime"
	"github.com/haproxytech/client-native/v5/runtime/options"

	"tandem/haproxy/haproxytest"
)

// sizes are numbers of servers, spread over backends of 100.
var sizes = []int{10, 100, 1000, 10000}

func servers(tb testing.TB, n int) *haproxytest.Process {
	tb.Helper()
	var b strings.Builder
	b.WriteString(haproxytest.Global)
	for left, backend := n, 0; left > 0; left, backend = left-100, backend+1 {
		b.WriteString(haproxytest.Backend("be"+strconv.Itoa(backend), min(left, 100)/2))
	}
	return haproxytest.Start(tb, b.String())
}

// floor asks over a socket of its own with each batch written at once, and reads
// the answers without looking at them: as fast as it can be had.
func floor(tb testing.TB, socket string, batches ...[]string) {
	tb.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 64<<10)
	for n, commands := range batches {
		all, prompts := []byte(strings.Join(commands, "\n")+"\n"), len(commands)
		if n == 0 {
			all, prompts = append([]byte("prompt\n"), all...), prompts+1
		}
		written := make(chan struct{})
		if len(all) < 4<<10 {
			_, _ = conn.Write(all)
			close(written)
		} else {
			go func() { // HAProxy answers meanwhile, and somebody must read that
				defer close(written)
				_, _ = conn.Write(all)
			}()
		}
		var tail []byte
		for prompts > 0 {
			n, err := conn.Read(b)
			if err != nil {
				tb.Fatal(err)
			}
			piece := append(tail, b[:n]...)
			prompts -= bytes.Count(piece, []byte("\n> "))
			tail = slices.Clone(piece[max(0, len(piece)-2):])
		}
		<-written
	}
}

func lines(n int, want Want) []string {
	var out []string
	for i := range n {
		site, of := "a", min(n, 100)/2
		in := i % 100
		if in >= of {
			site, in = "b", in-of
		}
		out = append(out, fmt.Sprintf("set server be%d/%s-%d state %s", i/100, site, in+1, want))
	}
	return out
}

// timed runs each way in turn, so that they meet the same noise, and reports the
// median of each in microseconds and the ratio of the first to the second.
func timed(b *testing.B, names []string, ways ...func()) {
	b.Helper()
	took := make([][]time.Duration, len(ways))
	for b.Loop() {
		for n, way := range ways {
			start := time.Now()
			way()
			took[n] = append(took[n], time.Since(start))
		}
	}
	var medians []float64
	for n, name := range names {
		slices.Sort(took[n])
		medians = append(medians, float64(took[n][len(took[n])/2].Nanoseconds())/1000)
		b.ReportMetric(medians[n], name+"-µs")
	}
	for n := range names[1:] {
		b.ReportMetric(medians[0]/medians[n+1], "x-"+names[n+1])
	}
	b.ReportMetric(0, "ns/op")
}

func native(tb testing.TB, socket string) *runtime.SingleRuntime {
	tb.Helper()
	api := new(runtime.SingleRuntime)
	if err := api.Init(socket, 0, 0, options.RuntimeOptions{DoNotCheckRuntimeOnInit: true}); err != nil {
		tb.Fatal(err)
	}
	return api
}

// open is a conversation like the one that the watch holds.
func open(tb testing.TB, socket string) *conversation {
	tb.Helper()
	c, err := converse(context.Background(), socket, time.Second, 10*time.Minute, nil, ahead{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.close)
	return c
}

// BenchmarkObserve: who is there and the whole table, parsed, over the
// conversation that the watch holds, as is done ten times a second. The floor
// opens a connection and asks for nothing but the table.
func BenchmarkObserve(b *testing.B) {
	observe(b, func(p *haproxytest.Process) func() (*conversation, error) {
		c := open(b, p.Socket)
		return func() (*conversation, error) { return c, c.again(ahead{question: askTable}) }
	})
}

// BenchmarkObserveAfresh: the same over a connection of its own, with what that
// asks besides.
func BenchmarkObserveAfresh(b *testing.B) {
	observe(b, func(p *haproxytest.Process) func() (*conversation, error) {
		var c *conversation
		return func() (_ *conversation, err error) {
			if c != nil {
				c.close()
			}
			c, err = converse(context.Background(), p.Socket, time.Second, 10*time.Second, nil, ahead{question: askTable})
			return c, err
		}
	})
}

func observe(b *testing.B, way func(*haproxytest.Process) func() (*conversation, error)) {
	b.Helper()
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p := servers(b, n)
			var previous []Server
			ask := way(p)
			tandem := func() {
				c, err := ask()
				if err == nil {
					previous, _, err = c.servers(previous, "") // parsed each time
				}
				if err != nil || len(previous) != n {
					b.Fatal(err, len(previous))
				}
			}
			raw := func() { floor(b, p.Socket, []string{askTable}) }
			api := native(b, p.Socket)
			clientNative := func() {
				if _, err := api.GetServersState("be0"); err != nil { // one backend: it cannot tell them apart
					b.Fatal(err)
				}
			}
			timed(b, []string{"tandem", "floor", "native-one-backend"}, tandem, raw, clientNative)
		})
	}
}

// BenchmarkParse: the table alone, with nothing to be told from before but names.
func BenchmarkParse(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			raw := strings.TrimSuffix(servers(b, n).Do("show servers state"), "\n")
			previous, err := ParseServers(raw, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if previous, err = ParseServers(raw, previous); err != nil || len(previous) != n {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkApply: all servers drained, then made ready, as a switch does it: over
// the conversation that the watch holds, when HAProxy has answered who it is. The
// floor opens a connection, writes the same two batches and reads the answers.
func BenchmarkApply(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p := servers(b, n)
			drain, ready := lines(n, Drain), lines(n, Ready)
			c := open(b, p.Socket)
			tandem := func() {
				if err := c.again(ahead{}); err != nil {
					b.Fatal(err)
				}
				for _, commands := range [][]string{drain, ready} {
					if complaints, err := c.send(commands); err != nil || len(complaints) > 0 {
						b.Fatal(err, complaints)
					}
				}
			}
			raw := func() { floor(b, p.Socket, drain, ready) }
			names, ways := []string{"tandem", "floor"}, []func(){tandem, raw}
			if n <= 1000 { // 3.5 s each time with 10,000
				api := native(b, p.Socket)
				names = append(names, "native")
				ways = append(ways, func() {
					for _, want := range []string{"drain", "ready"} {
						for _, line := range drain {
							backend, server, _ := strings.Cut(strings.Fields(line)[2], "/")
							if err := api.SetServerState(backend, server, want); err != nil {
								b.Fatal(err)
							}
						}
					}
				})
			}
			timed(b, names, ways...)
		})
	}
}

// BenchmarkSwitch: from Set to Applied, with all that an Instance does between.
func BenchmarkSwitch(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p := servers(b, n)
			i := New(Config{Socket: p.Socket, StateFile: p.Dir + "/state", JournalFile: p.Dir + "/journal"})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- i.Run(ctx) }()
			epoch := uint64(0)
			toggle := func() {
				d := toA
				if epoch%2 == 0 {
					d = toB
				}
				epoch++
				d.Epoch = epoch
				i.Set(d)
				for i.Observed().Applied != epoch {
					<-i.Changed()
				}
			}
			toggle()
			timed(b, []string{"switch"}, toggle)
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkAtRest watches for ten seconds and reports the share of one core that
// HAProxy and this process used.
func BenchmarkAtRest(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p := servers(b, n)
			i := New(Config{Socket: p.Socket})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- i.Run(ctx) }()
			i.Set(Desired{Epoch: 1, Rules: toA.Rules})
			for i.Observed().Applied != 1 {
				<-i.Changed()
			}
			for b.Loop() {
				const span = 10 * time.Second
				ours, its := cpu(b, os.Getpid()), cpu(b, p.PID())
				time.Sleep(span)
				ours, its = cpu(b, os.Getpid())-ours, cpu(b, p.PID())-its
				b.ReportMetric(100*ours.Seconds()/span.Seconds(), "%sidecar")
				b.ReportMetric(100*its.Seconds()/span.Seconds(), "%haproxy")
			}
			b.ReportMetric(0, "ns/op")
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}

// cpu is the processor time that a process has used.
func cpu(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	total := time.Duration(0)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for _, task := range tasks {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, task.Name()))
		if err != nil {
			continue
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(line))[0], 10, 64)
		total += time.Duration(ns)
	}
	return total
}
