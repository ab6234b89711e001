package vip

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a client prints at its end.
type report struct {
	Asked, Answered, Failed int
	Errors                  map[string]int
	By                      map[string]int  // answers by server name
	LastAnswer              time.Duration   // CLOCK_BOOTTIME
	AnsweredAt              []time.Duration // the same of each answer, for trace
	Worst                   time.Duration   // slowest answer
	EndedBy                 []string        // keep-alive: how connections ended
	FailedAt                []time.Duration // CLOCK_BOOTTIME at which what failed was begun
}

type tally struct {
	mu    sync.Mutex
	trace bool
	report
}

func newTally() *tally {
	return &tally{report: report{Errors: map[string]int{}, By: map[string]int{}}}
}

func (t *tally) note(by string, took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Asked++
	t.Worst = max(t.Worst, took)
	if err != nil {
		t.Failed++
		t.FailedAt = append(t.FailedAt, bootTime()-took)
		t.Errors[err.Error()]++
		return
	}
	t.Answered++
	t.By[by]++
	t.LastAnswer = bootTime()
}

// noteArrival notes an answer that came in at a CLOCK_BOOTTIME.
func (t *tally) noteArrival(by string, at time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Answered++
	t.By[by]++
	t.LastAnswer = at
	if t.trace {
		t.AnsweredAt = append(t.AnsweredAt, at)
	}
}

// runClient: ping ADDR EVERY | trace ADDR EVERY | dial ADDR EVERY | keep ADDR COUNT EVERY, until
// standard input ends.
func runClient(a []string) int {
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	}()
	t := newTally()
	switch a[0] {
	case "ping", "trace":
		t.trace = a[0] == "trace"
		t.ping(a[1], duration(a[2]), stop)
	case "dial":
		t.dial(a[1], duration(a[2]), stop)
	case "keep":
		t.keep(a[1], atoi(a[2]), duration(a[3]), stop)
	}
	b, err := json.Marshal(&t.report)
	if err != nil {
		return 1
	}
	fmt.Println(string(b))
	return 0
}

// ping sends datagrams and notes when the answers came in, by the kernel's word:
// a busy machine may read them much later.
func (t *tally) ping(to string, every time.Duration, stop chan struct{}) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	conn, err := d.Dial("udp", to)
	if err != nil {
		fmt.Println("err", err)
		return
	}
	c := conn.(*net.UDPConn)
	defer c.Close()
	go func() {
		buf, control := make([]byte, 512), make([]byte, 128)
		for {
			n, cn, _, _, err := c.ReadMsgUDP(buf, control)
			if err != nil && strings.Contains(err.Error(), "closed") {
				return
			}
			if err == nil {
				t.noteArrival(string(buf[:min(n, 4)]), arrival(control[:cn]))
			}
		}
	}()
	fmt.Println("ready")
	for {
		select {
		case <-stop:
			return
		case <-time.After(every):
			_, _ = c.Write([]byte("ping"))
		}
	}
}

// arrival is when the kernel received a packet, on CLOCK_BOOTTIME; now, if it
// does not say.
func arrival(control []byte) time.Duration {
	now := bootTime()
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return now
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			at := time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			return now - max(0, time.Since(at))
		}
	}
	return now
}

// dial opens a new connection each time, asks once and closes.
func (t *tally) dial(to string, every time.Duration, stop chan struct{}) {
	var wg sync.WaitGroup
	fmt.Println("ready")
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			wg.Wait()
			return
		case <-tick.C:
			wg.Go(func() {
				began := time.Now()
				by, err := askOnce(to)
				t.note(by, time.Since(began), err)
			})
		}
	}
}

func askOnce(to string) (string, error) {
	c, err := net.DialTimeout("tcp", to, 900*time.Millisecond)
	if err != nil {
		return "", fmt.Errorf("dial: %s", short(err))
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(900 * time.Millisecond))
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return "", fmt.Errorf("write: %s", short(err))
	}
	by, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read: %s", short(err))
	}
	return strings.TrimSpace(by), nil
}

func short(err error) string {
	s := err.Error()
	return s[strings.LastIndex(s, ": ")+1:]
}

// keep holds connections open and asks on each of them again and again.
func (t *tally) keep(to string, count int, every time.Duration, stop chan struct{}) {
	var wg sync.WaitGroup
	opened := make(chan struct{}, count)
	for range count {
		wg.Go(func() {
			c, err := net.DialTimeout("tcp", to, time.Second)
			opened <- struct{}{}
			if err != nil {
				t.note("", 0, err)
				return
			}
			defer c.Close()
			in := bufio.NewReader(c)
			for {
				select {
				case <-stop:
					t.ended("client")
					return
				case <-time.After(every):
				}
				began := time.Now()
				_ = c.SetDeadline(began.Add(3 * time.Second))
				_, err := fmt.Fprintln(c, "hello")
				by := ""
				if err == nil {
					by, err = in.ReadString('\n')
				}
				if err != nil {
					t.note("", time.Since(began), fmt.Errorf("keep: %s", short(err)))
					t.ended(short(err))
					return
				}
				t.note(strings.TrimSpace(by), time.Since(began), nil)
			}
		})
	}
	for range count {
		<-opened
	}
	fmt.Println("ready")
	wg.Wait()
}

// runCaller is one connection from a port of the caller's choice: what it is told
// on standard input it says, and prints the answer or what became of it.
func runCaller(to string, port int) int {
	c, err := (&net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{Port: port}}).Dial("tcp", to)
	if err != nil {
		fmt.Println("err", err)
		return 1
	}
	defer c.Close()
	fmt.Println("ready")
	from := bufio.NewReader(c)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		_, err := fmt.Fprintln(c, in.Text())
		by := ""
		if err == nil {
			by, err = from.ReadString('\n')
		}
		if err != nil {
			_ = c.Close()
			fmt.Println("over:", short(err))
			return 0
		}
		fmt.Println(strings.TrimSpace(by))
	}
	return 0
}

func (t *tally) ended(how string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.EndedBy = append(t.EndedBy, how)
}
