package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	maxReply    = 16 << 20 // bytes of one answer; 10,000 servers make 0.7 MB
	maxIntro    = 64 << 10 // bytes of one answer of the beginning; real ones have 1.2 KB
	prompt      = "\n> "   // ends every answer
	maxPath     = 107      // bytes of the path of a unix socket
	readAtLeast = 4 << 10  // bytes of room for one read
	retryDial   = 5 * time.Millisecond
	lastChance  = 2 * time.Millisecond
)

var errTooLong = errors.New("answer too long")

// conversation is one connection to the Runtime API in prompt mode. It is used
// by one goroutine at a time and closed after the first error: what has not been
// answered may still be carried out, and what arrives belongs to nobody.
type conversation struct {
	conn    net.Conn
	silence time.Duration // no byte for so long is a hang
	until   time.Time     // and the whole may not last longer
	buf     []byte        // read and not yet taken
	room    []byte        // what buf is a part of, to be used again
	info    Info
	// numbered: complaints come with their severity. Only commands need that.
	numbered bool
	limit    int         // bytes of one answer
	ahead    ahead       // has gone out already, and nobody has read the answer
	release  func() bool // no longer ends with the context
}

// ahead is a question that goes out before its turn, to save a wake-up, with what
// was wanted (see Instance) then, and when. The zero value is none.
type ahead struct {
	question string
	edition  uint64
	at       time.Time
}

// line is the question as it goes out.
func (a ahead) line() string {
	if a.question == "" {
		return ""
	}
	return a.question + "\n"
}

// converse opens a conversation, which ends with the context. It returns only
// when HAProxy has answered: nothing but questions is ever written to one that
// does not, since what a stopped HAProxy finds in its queue it carries out when
// it wakes.
//
// The argument known is who answered last, or nil: of the same process again nothing is asked
// but whether it is that. The argument then is what will be asked next: it
// goes out with the questions that follow the prompt.
func converse(ctx context.Context, socket string, silence, whole time.Duration, known *Info, then ahead) (*conversation, error) {
	start := time.Now()
	if len(socket) > maxPath {
		return nil, &talkError{Reason: ReasonNoSocket, Detail: fmt.Sprintf("the path of the socket has %d bytes, %d are possible: %s", len(socket), maxPath, socket)}
	}
	conn, err := dial(ctx, socket, start.Add(silence))
	if err != nil {
		return nil, err
	}
	c := &conversation{conn: conn, silence: silence, until: start.Add(whole), limit: maxIntro}
	c.release = context.AfterFunc(ctx, func() { _ = conn.Close() })
	if err := c.open(known, then); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// dial connects. A full backlog (EAGAIN) is silence and not yet a failure.
func dial(ctx context.Context, socket string, until time.Time) (net.Conn, error) {
	d := net.Dialer{Deadline: until}
	for {
		conn, err := d.DialContext(ctx, "unix", socket)
		if err == nil || !errors.Is(err, syscall.EAGAIN) || time.Now().After(until) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryDial):
		}
	}
}

// The beginning. Until the prompt has come nothing else is written: who is there
// may be stopped, or no HAProxy. The questions then change nothing, so they go out
// together. A line each: since 3.2 HAProxy gives one prompt to a line and no
// longer one to a command.
const (
	greet       = "prompt\n"
	askWhoAgain = "show info\n"
	askWho      = askWhoAgain + askLevel
	askLevel    = "show cli level\nset severity-output number\n"
	askTable    = "show servers state"

	masterPrompt = "master> " // of a master process, to the same greeting
)

// open waits for the prompt, asks who is there, and of one that is not known what
// it lets us do.
func (c *conversation) open(known *Info, then ahead) error {
	if err := c.write(greet); err != nil {
		return err
	}
	answer, err := c.answer("")
	switch {
	case err != nil && bytes.HasSuffix(c.buf, []byte(masterPrompt)):
		return &talkError{Reason: ReasonBadAnswer, Detail: "what answers is a master process (haproxy -S), which has no servers: name the path of a `stats socket`"}
	case err != nil:
		return err
	case len(answer) != 0:
		return &talkError{Reason: ReasonBadAnswer, Detail: fmt.Sprintf("greeted with %.40q", answer)}
	}
	questions := askWho
	if known != nil {
		questions = askWhoAgain
	}
	if err := c.write(questions + then.line()); err != nil {
		return err
	}
	c.ahead = then
	if err := c.who(); err != nil {
		return err
	}
	c.limit = maxReply // it is a HAProxy, and may have a large table
	if known != nil && c.info.Process == known.Process {
		c.info.Level = known.Level
		return nil
	}
	if known != nil {
		if err := c.skip(); err != nil {
			return err
		}
		if err := c.write(askLevel); err != nil {
			return err
		}
	}
	return c.level()
}

// skip reads the answer to what was asked ahead, if anything was, and drops it.
func (c *conversation) skip() error {
	if c.ahead.question == "" {
		return nil
	}
	c.ahead = ahead{}
	_, err := c.answer("")
	return err
}

// again asks over a conversation that has rested who is there, one that it has
// asked before, and what will be asked next, if anything, in the same write.
func (c *conversation) again(then ahead) error {
	if err := c.write("show info\n" + then.line()); err != nil {
		return err
	}
	c.ahead = then
	level := c.info.Level
	err := c.who()
	c.info.Level = level
	return err
}

// who reads the answer to `show info`.
func (c *conversation) who() error {
	raw, err := c.answer("")
	if err != nil {
		return err
	}
	if c.info, err = ParseInfo(raw); err != nil {
		return &talkError{Reason: ReasonBadAnswer, Detail: "`show info` not understood", Err: err}
	}
	return nil
}

// level reads the answers to askLevel.
func (c *conversation) level() error {
	raw, err := c.answer("")
	if err != nil {
		return err
	}
	if _, err = c.answer(""); err != nil {
		return err
	}
	c.info.Level = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(raw), "[6]:"))
	c.numbered = true
	return nil
}

// ask sends one command that changes nothing and returns its answer.
func (c *conversation) ask(command string) (string, error) { return c.askLike(command, "") }

// askLike is ask, for an answer that is likely to be as it was before: then it
// is that very string.
func (c *conversation) askLike(command, before string) (string, error) {
	if c.ahead.question != command {
		if err := c.skip(); err != nil {
			return "", err
		}
		if err := c.write(command + "\n"); err != nil {
			return "", err
		}
	}
	c.ahead = ahead{}
	answer, err := c.answer(before)
	if err != nil {
		return "", fmt.Errorf("ask %q: %w", command, err)
	}
	if answer == before || strings.HasPrefix(answer, tableStart) {
		return answer, nil // long, and no complaint
	}
	if text, bad := complaint(answer); bad {
		return "", fmt.Errorf("ask %q: %s", command, text)
	}
	return answer, nil
}

// tableStart begins the answer to `show servers state`.
const tableStart = "1\n# be_id be_name "

// servers asks for the table of all servers. The table from before and what it
// was parsed from, if any, save the work of parsing what has not changed.
func (c *conversation) servers(previous []Server, before string) ([]Server, string, error) {
	raw, err := c.askLike(askTable, before)
	if err != nil {
		return nil, "", err
	}
	if raw == before && len(previous) > 0 {
		return previous, raw, nil
	}
	table, err := ParseServers(raw, previous)
	if err != nil {
		return nil, "", &talkError{Reason: ReasonBadAnswer, Detail: "`show servers state` not understood", Err: err}
	}
	return table, raw, nil
}

func (c *conversation) write(s string) error {
	if err := c.conn.SetWriteDeadline(c.deadline()); err != nil {
		return err
	}
	_, err := io.WriteString(c.conn, s)
	return err
}

// deadline is when silence becomes a hang, or the whole has lasted too long.
func (c *conversation) deadline() time.Time {
	if t := time.Now().Add(c.silence); t.Before(c.until) {
		return t
	}
	return c.until
}

// answer reads up to the next prompt and returns what stands before it; the very
// string from before if it is the same.
func (c *conversation) answer(before string) (string, error) {
	searched := 0
	for {
		if i := bytes.Index(c.buf[searched:], []byte(prompt)); i >= 0 {
			end := searched + i
			answer := before
			if string(c.buf[:end]) != before {
				answer = string(c.buf[:end])
			}
			c.buf = c.buf[end+len(prompt):]
			if len(c.buf) == 0 {
				c.buf = c.room[:0]
			}
			return answer, nil
		}
		searched = max(0, len(c.buf)-len(prompt)+1)
		if len(c.buf) > c.limit {
			return "", fmt.Errorf("%w: over %d bytes", errTooLong, c.limit)
		}
		if err := c.fill(); err != nil {
			return "", err
		}
	}
}

// fill reads once. What arrived while this process was not running counts as
// arrived: after a timeout it looks once more.
func (c *conversation) fill() error {
	if grown := growBy(c.buf, readAtLeast); cap(grown) != cap(c.buf) {
		c.buf, c.room = grown, grown
	}
	err := c.conn.SetReadDeadline(c.deadline())
	if err != nil {
		return err
	}
	n, err := c.conn.Read(c.buf[len(c.buf):cap(c.buf)])
	if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
		if err := c.conn.SetReadDeadline(time.Now().Add(lastChance)); err != nil {
			return err
		}
		n, err = c.conn.Read(c.buf[len(c.buf):cap(c.buf)])
	}
	c.buf = c.buf[:len(c.buf)+n]
	if n > 0 {
		return nil
	}
	return err
}

// growBy makes room for at least n bytes more.
func growBy(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	grown := make([]byte, len(b), 2*len(b)+n)
	copy(grown, b)
	return grown
}

// close ends the conversation.
func (c *conversation) close() {
	c.release()
	_ = c.conn.Close()
}
