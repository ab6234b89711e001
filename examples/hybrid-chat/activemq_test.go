package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-stomp/stomp/v3"

	"tandem/examples/lab"
)

// TestActiveMQ plays the rows B1, B2, B3 and B5 with a real pair of ActiveMQ
// brokers on a shared store, and counts every message that a producer and a
// consumer exchange through HAProxy over all of it.
func TestActiveMQ(t *testing.T) {
	if os.Getenv("HYBRIDCHAT_TEST_ACTIVEMQ") == "" {
		t.Skip("real brokers are left out: they take a minute and need Java; `make test-activemq` plays them")
	}
	if _, err := os.Stat(activemqJar); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("java"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HYBRIDCHAT_STORE", t.TempDir())
	s := openStage(t, brokers())
	talk := newTalk(t, s)
	for _, step := range []struct {
		name string
		play func(t *testing.T, s *stage)
	}{
		{"B1 amq-a dies: clients are sent to amq-b, site a stays active", realBrokerDies},
		{"B2 amq-b, which has the queue, and the whole of B stay when A dies", realSiteDies},
		{"B3 A recovers: B keeps serving", realSiteRecovers},
		{"B5 A and amq-b are down, amq-a comes back: brokers at A, applications at B", realBrokerComesBack},
	} {
		before := talk.count()
		t.Run(step.name, func(t *testing.T) { step.play(t, s) })
		if err := s.await(t.Context(), 30*time.Second, "messages again", func() error {
			if talk.count() < before+20 {
				return fmt.Errorf("%d messages since", talk.count()-before)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	talk.judge(t)
}

// at waits until a broker of the pair is the one, for tandem and through both
// load balancers.
func (s *stage) brokerAt(ctx context.Context, site string) error {
	return s.await(ctx, 40*time.Second, "broker at "+site, func() error {
		return errors.Join(s.decidedFor(ctx, "amq", site), s.isState(ctx, "amq/amq-"+site, "ready"))
	})
}

func realBrokerDies(t *testing.T, s *stage) {
	t.Helper()
	from := now()
	if err := errors.Join(s.brokerAt(t.Context(), "a"), s.kill("lb1", "amq"), s.brokerAt(t.Context(), "b")); err != nil {
		t.Fatal(err)
	}
	t.Logf("amq-b had the queue and the clients %s after the kill", ms(lab.Now()-from.lab))
	if err := errors.Join(s.quiet(t.Context(), from, "a"), s.boot(t.Context(), "lb1", "amq")); err != nil {
		t.Error(err)
	}
}

func realSiteDies(t *testing.T, s *stage) {
	t.Helper()
	if err := s.kill("lb1", append([]string{"amq"}, components...)...); err != nil {
		t.Fatal(err)
	}
	if err := s.await(t.Context(), 30*time.Second, "site b", func() error { return s.activeAt(t.Context(), "b") }); err != nil {
		t.Fatal(err)
	}
	if err := s.brokerAt(t.Context(), "b"); err != nil {
		t.Error(err)
	}
}

func realSiteRecovers(t *testing.T, s *stage) {
	t.Helper()
	from := now()
	if err := errors.Join(s.boot(t.Context(), "lb1", append([]string{"amq"}, components...)...), pause(t.Context(), 4*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.quiet(t.Context(), from, "b"), s.brokerAt(t.Context(), "b")); err != nil {
		t.Error(err)
	}
}

func realBrokerComesBack(t *testing.T, s *stage) {
	t.Helper()
	if err := errors.Join(s.kill("lb1", append([]string{"amq"}, components...)...), s.kill("lb2", "amq"), pause(t.Context(), time.Second)); err != nil {
		t.Fatal(err)
	}
	from := now()
	if err := errors.Join(s.boot(t.Context(), "lb1", "amq"), s.brokerAt(t.Context(), "a")); err != nil {
		t.Fatal(err)
	}
	t.Logf("amq-a had the clients %s after its start", ms(lab.Now()-from.lab))
	if err := errors.Join(pause(t.Context(), 2*time.Second), s.brokerAt(t.Context(), "a"), s.quiet(t.Context(), from, "b")); err != nil {
		t.Error(err)
	}
}

// talk is a producer and a consumer on one queue.
type talk struct {
	stage *stage
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu       sync.Mutex
	sent     int          // numbers below it are confirmed by a broker
	resent   map[int]bool // sent again, since the confirmation did not come
	received map[int]int
	unsure   map[int]bool // received by a connection that broke before or while it was acknowledged
}

const queue = "/queue/hybrid-chat"

func newTalk(t *testing.T, s *stage) *talk {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	k := &talk{stage: s, stop: stop, resent: map[int]bool{}, received: map[int]int{}, unsure: map[int]bool{}}
	k.ended.Go(func() { k.repeat(ctx, k.produce) })
	k.ended.Go(func() { k.repeat(ctx, k.consume) })
	t.Cleanup(func() { stop(); k.ended.Wait() })
	return k
}

// repeat connects again whenever a connection has ended.
func (k *talk) repeat(ctx context.Context, f func(context.Context, *stomp.Conn)) {
	for ctx.Err() == nil {
		k.once(ctx, f)
		_ = pause(ctx, 50*time.Millisecond)
	}
}

func (k *talk) once(ctx context.Context, f func(context.Context, *stomp.Conn)) {
	dial, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := k.stage.Dial(dial, "client", "tcp", lab.VIP().String()+":61613")
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	// A port that is open while nobody answers behind it must not hold us up.
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	c, err := stomp.Connect(conn, stomp.ConnOpt.HeartBeat(0, 0))
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	over := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer over()
	f(ctx, c)
}

func (k *talk) produce(ctx context.Context, c *stomp.Conn) {
	for ctx.Err() == nil {
		k.mu.Lock()
		n := k.sent
		k.mu.Unlock()
		err := c.Send(queue, "text/plain", []byte(strconv.Itoa(n)), stomp.SendOpt.Receipt, stomp.SendOpt.Header("persistent", "true"))
		k.mu.Lock()
		if err != nil {
			k.resent[n] = true
			k.mu.Unlock()
			return
		}
		k.sent++
		k.mu.Unlock()
		_ = pause(ctx, 10*time.Millisecond)
	}
}

func (k *talk) consume(ctx context.Context, c *stomp.Conn) {
	sub, err := c.Subscribe(queue, stomp.AckClientIndividual)
	if err != nil {
		return
	}
	var recent []int // acknowledged without confirmation: the broker may not have heard of the last ones
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, n := range recent {
			k.unsure[n] = true
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-sub.C:
			if !ok || m.Err != nil {
				return
			}
			n, _ := strconv.Atoi(string(m.Body))
			k.mu.Lock()
			k.received[n]++
			k.mu.Unlock()
			recent = append(recent, n)
			recent = recent[max(0, len(recent)-100):]
			if c.Ack(m) != nil {
				return
			}
		}
	}
}

// count is how many messages have arrived.
func (k *talk) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.received)
}

// judge waits until the queue is empty and counts: nothing that was confirmed
// may be missing; twice only what the broker does not promise to deliver once.
func (k *talk) judge(t *testing.T) {
	t.Helper()
	k.mu.Lock()
	last := k.sent
	k.mu.Unlock()
	if err := pause(t.Context(), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	k.stop()
	k.ended.Wait()
	twice, unexplained := 0, 0
	for n := range last {
		switch {
		case k.received[n] == 0:
			t.Errorf("message %d was confirmed and never arrived", n)
		case k.received[n] > 1:
			twice++
			if !k.resent[n] && !k.unsure[n] {
				unexplained++
			}
		}
	}
	t.Logf("%d messages confirmed, %d sent again, %d delivered twice", last, len(k.resent), twice)
	if unexplained > 0 {
		t.Errorf("%d messages came twice that were neither sent again nor on a connection that broke", unexplained)
	}
}
