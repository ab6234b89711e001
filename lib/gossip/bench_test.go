package gossip

import (
	"context"
	"testing"
	"time"
)

// BenchmarkSend is a lease's message from the caller to the kernel, encrypted.
func BenchmarkSend(b *testing.B) {
	g, err := New(Config{
		Node: "n1", Boot: "00000001", Cluster: "test", Bind: "127.0.0.1:0", Keys: [][]byte{testKey},
		Peers: []Peer{{Name: "n2", Addr: "127.0.0.2:9"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	for !g.Health().Running {
		time.Sleep(time.Millisecond)
	}
	message := make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Send("n2", message); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkGuard is what a stranger's datagram costs after it was received.
func BenchmarkGuard(b *testing.B) {
	garbage := sealed("gossip/test", 0, 100)
	b.ReportAllocs()
	for b.Loop() {
		if testHeader.packet(garbage) == ReasonNone {
			b.Fatal("let in")
		}
	}
}
