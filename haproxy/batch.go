package haproxy

import (
	"fmt"
	"strings"
)

// batchBytes is the size of one write, of which two are under way at once, so that
// HAProxy never waits for us. More than its buffer of 16 KB freezes the
// conversation with HAProxy 3.2.0 (mended in 3.3).
const batchBytes = 4 << 10

// Complaint is a command that HAProxy did not accept, and what it said.
type Complaint struct {
	Command string
	Text    string
}

// send carries out commands that answer nothing when they succeed, in order,
// some kilobytes to a write, the next under way before the last is answered.
// An error means that those not answered may or may not be carried out, now or
// later.
func (c *conversation) send(commands []string) ([]Complaint, error) {
	if err := c.skip(); err != nil {
		return nil, err
	}
	if !c.numbered {
		if _, err := c.ask("set severity-output number"); err != nil {
			return nil, err
		}
		c.numbered = true
	}
	var complaints []Complaint
	sent, answered, underWay := 0, 0, 0
	for answered < len(commands) {
		for sent < len(commands) && underWay <= batchBytes {
			batch, next := batchOf(commands, sent)
			if err := c.write(batch); err != nil {
				return complaints, fmt.Errorf("send commands %d to %d: %w", sent+1, next, err)
			}
			sent = next
			underWay += len(batch)
		}
		answer, err := c.answer("")
		if err != nil {
			return complaints, fmt.Errorf("read answer to command %d of %d: %w", answered+1, len(commands), err)
		}
		if text := strings.TrimSpace(answer); text != "" {
			complaints = append(complaints, Complaint{commands[answered], text})
		}
		underWay -= len(commands[answered]) + 1
		answered++
	}
	return complaints, nil
}

// batchOf returns the lines of the commands from one on that go out in one write,
// and the number of the next.
func batchOf(commands []string, from int) (batch string, next int) {
	var b strings.Builder
	for next = from; next < len(commands); next++ {
		if next > from && b.Len()+len(commands[next])+1 > batchBytes {
			break
		}
		b.WriteString(commands[next])
		b.WriteByte('\n')
	}
	return b.String(), next
}

// complaint finds an error in an answer: a line of severity 0 to 3, or of an
// unknown command, which HAProxy reports as mere information.
func complaint(answer string) (string, bool) {
	for line := range strings.Lines(answer) {
		if len(line) >= 4 && line[0] == '[' && line[2] == ']' && line[3] == ':' {
			if '0' <= line[1] && line[1] <= '3' || strings.Contains(line, "Unknown command") {
				return strings.TrimSpace(line), true
			}
		}
		if strings.HasPrefix(line, "Unknown command") || strings.HasPrefix(line, "Permission denied") {
			return strings.TrimSpace(line), true
		}
	}
	return "", false
}
