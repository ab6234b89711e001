package lab

import (
	"fmt"
	"net"
	"sync"
	"time"
)

type floodArgs struct {
	Target string // host:port of a sidecar's gossip
}

// The parts of a flood: datagrams a second of each kind, and fat streams at a
// time.
const (
	floodRate    = 1000
	floodStreams = 16
)

// Flood lets a stranger on the node of site b do its worst to the sidecar of
// another node until the returned function is called: garbage of several kinds
// over UDP, and TCP connections that send megabytes of it, or nothing.
func (l *Lab) Flood(node string) (stop func(), err error) {
	cmd, env, err := childCommand("flood", floodArgs{Target: net.JoinHostPort(l.Node(node).IP.String(), "7946")})
	if err != nil {
		return nil, err
	}
	p, err := l.start(l.Node("b"), Spec{Name: "flood", Args: cmd, Env: env})
	if err != nil {
		return nil, err
	}
	return p.kill, nil
}

// flood goes on until it is killed.
func flood(args floodArgs) error {
	var group sync.WaitGroup
	for _, garbage := range garbage() {
		conn, err := net.Dial("udp", args.Target) //nolint:noctx // until it is killed
		if err != nil {
			return fmt.Errorf("flood: %w", err)
		}
		group.Go(func() {
			const burst = 20
			for {
				for range burst {
					_, _ = conn.Write(garbage) // the target may be gone for a moment
				}
				time.Sleep(burst * time.Second / floodRate)
			}
		})
	}
	for i := range floodStreams {
		group.Go(func() {
			for {
				fatStream(args.Target, i)
			}
		})
	}
	group.Wait()
	return nil
}

// garbage is what a stranger may send: nothing that makes sense, what looks like
// memberlist in clear, with the label of this cluster and of another one, short
// and long.
func garbage() [][]byte {
	labelled := func(label string, n int) []byte {
		return append(append([]byte{244, byte(len(label))}, label...), make([]byte, n)...)
	}
	return [][]byte{
		make([]byte, 100), {3, 1, 2, 3}, labelled("gossip/tandem", 100), labelled("gossip/other", 100), labelled("gossip/tandem", 60_000),
	}
}

// fatStream opens one connection and sends what it can for two seconds: one in
// four sends nothing at all.
func fatStream(target string, i int) {
	conn, err := net.DialTimeout("tcp", target, time.Second) //nolint:noctx // bounded
	if err != nil {
		time.Sleep(50 * time.Millisecond)
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if i%4 == 0 {
		_, _ = conn.Read(make([]byte, 1))
		return
	}
	fat := make([]byte, 1<<20)
	copy(fat, garbage()[i%4])
	for {
		if _, err = conn.Write(fat); err != nil {
			time.Sleep(50 * time.Millisecond)
			return
		}
	}
}
