package haproxy

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// What does not answer has been sent `prompt` and nothing else, however often it
// is asked: whatever waits in the queue of a stopped HAProxy is carried out when
// it wakes.
func TestNothingIsWrittenBeforeThePrompt(t *testing.T) {
	heard := make(chan string, 1000)
	socket := listen(t, func(conn net.Conn) {
		all, _ := io.ReadAll(conn) // until the other side gives up
		heard <- string(all)
	})
	i := run(t, Config{Socket: socket, Timeout: 50 * time.Millisecond})
	i.Set(toA)
	i.until("hang", func(o Observation) bool { return o.Reason == ReasonHung })
	for range 5 {
		select {
		case text := <-heard:
			if text != "prompt\n" {
				t.Fatalf("sent to one that never answered: %q", text)
			}
		case <-time.After(patience):
			t.Fatal("not asked again")
		}
	}
}

// Whoever answers the first question without an end is left after some
// kilobytes, not after the megabytes that a large table may have.
func TestEndlessIntroductionIsCutShort(t *testing.T) {
	taken := make(chan int, 1000)
	socket := listen(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		if _, err := conn.Write([]byte(prompt)); err != nil {
			return
		}
		all := 0
		for line := []byte(strings.Repeat("x", 1000) + "\n"); ; {
			n, err := conn.Write(line)
			all += n
			if err != nil {
				taken <- all
				return
			}
		}
	})
	i := run(t, Config{Socket: socket, Timeout: 2 * time.Second})
	i.until("bad answer", func(o Observation) bool { return o.Reason == ReasonBadAnswer })
	if n := <-taken; n > 2<<20 { // what was read, and what the kernel holds of a socket
		t.Fatalf("%d bytes were taken", n)
	}
}
