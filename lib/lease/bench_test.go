package lease

import (
	"fmt"
	"testing"
	"time"
)

// atRest is a cluster in which a holds a lease and nothing happens.
func atRest(voters int) *world {
	p := &play{silent: true}
	names := "a,b,c,d,e,f,g"[:2*voters-1]
	for _, line := range []string{"cluster lease=300ms voters=(" + names + ")", "net latency=200us"} {
		if err := p.do(line); err != nil {
			panic(err)
		}
	}
	for _, n := range p.w.nodes {
		n.start()
	}
	p.w.nodes[0].stand(Stand{Resource: "vip/default", Willing: true})
	p.w.run(2 * time.Second)
	p.w.nodes[0].step(Propose{Resource: "vip/default", Data: make([]byte, 300)})
	p.w.run(time.Second)
	return p.w
}

// BenchmarkRenewal is one whole renewal on the holder of three voters: the tick
// that sends it and the two answers.
func BenchmarkRenewal(b *testing.B) {
	w := atRest(3)
	holder, voter := w.nodes[0].m, w.nodes[1].m
	now, voterNow := holder.now, voter.now
	var msg Message
	b.ReportAllocs()
	for b.Loop() {
		now += 60 * time.Millisecond
		voterNow += 60 * time.Millisecond
		out := holder.Step(now, Tick{})
		for _, e := range out.Send {
			if e.To == "b" {
				msg = e.Message
			}
		}
		back := voter.Step(voterNow, Receive{msg})
		out = holder.Step(now+time.Millisecond, Receive{back.Send[0].Message})
		if len(out.LetGo) > 0 {
			b.Fatal("lost the lease")
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	m := fullMessage()
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		buf = Encode(buf[:0], m)
	}
	b.ReportMetric(float64(len(buf)), "bytes")
}

func BenchmarkDecode(b *testing.B) {
	buf := Encode(nil, fullMessage())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAtRest tells what a cluster sends in a second, with one lease of
// 300 ms that carries 300 bytes.
func BenchmarkAtRest(b *testing.B) {
	for _, voters := range []int{3, 5, 7} {
		b.Run(fmt.Sprintf("voters=%d", voters), func(b *testing.B) {
			w := atRest(voters)
			var messages, size int
			w.wire = func(_ time.Duration, _, _ string, m Message) {
				messages++
				size += len(Encode(nil, m))
			}
			begin, seconds := w.steps, 0
			for b.Loop() {
				w.run(time.Second)
				seconds++
			}
			b.ReportMetric(float64(messages)/float64(seconds), "messages/s")
			b.ReportMetric(float64(size)/float64(seconds), "bytes/s")
			b.ReportMetric(float64(w.steps-begin)/float64(seconds), "steps/s")
		})
	}
}

// TestRenewalAllocatesNothing: what a holder and a voter do several times a
// second for as long as they live leaves no garbage behind.
func TestRenewalAllocatesNothing(t *testing.T) {
	w := atRest(3)
	holder, voter := w.nodes[0].m, w.nodes[1].m
	now, voterNow := holder.now, voter.now
	buf := make([]byte, 0, 2048)
	allocs := testing.AllocsPerRun(200, func() {
		now += 60 * time.Millisecond
		voterNow += 60 * time.Millisecond
		var ask Message
		for _, e := range holder.Step(now, Tick{}).Send {
			buf = Encode(buf[:0], e.Message)
			if e.To == "b" {
				ask = e.Message
			}
		}
		back := voter.Step(voterNow, Receive{ask})
		if out := holder.Step(now+time.Millisecond, Receive{back.Send[0].Message}); len(out.Renewed) == 0 {
			t.Fatal("not renewed")
		}
	})
	// The three inputs are the caller's: an interface and, of a message, a copy.
	if allocs > 2 {
		t.Errorf("%v allocations in a renewal, want none but the two messages that are passed in", allocs)
	}
}
