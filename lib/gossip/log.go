package gossip

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	logEvery     = time.Minute // a line of one template is written this often
	logTemplates = 128
)

// logs is where memberlist writes its log. It takes the level from the prefix,
// makes quiet what is no news for an operator (a peer that is away is in
// Health, not in ten lines a second), and writes each kind of line once a
// minute with the number of those left out. It never waits for the log itself:
// memberlist writes while it holds its lock, and a log that nobody reads would
// stop every message.
type logs struct {
	log   *zap.Logger
	lines chan logLine

	mu    sync.Mutex
	kinds map[string]*logKind
}

type logLine struct {
	level zapcore.Level
	text  string
	left  int
}

type logKind struct {
	last time.Time
	left int
}

func newLogs(l *zap.Logger) *logs {
	return &logs{log: l, lines: make(chan logLine, logTemplates), kinds: map[string]*logKind{}}
}

// run passes lines on until ctx ends, and then those that are left.
func (l *logs) run(ctx context.Context) {
	for {
		select {
		case line := <-l.lines:
			l.print(line)
		case <-ctx.Done():
			l.flush()
			return
		}
	}
}

func (l *logs) flush() {
	for {
		select {
		case line := <-l.lines:
			l.print(line)
		default:
			return
		}
	}
}

func (l *logs) print(line logLine) {
	fields := []zap.Field{zap.String("source", "memberlist")}
	if line.left > 0 {
		fields = append(fields, zap.Int("left_out", line.left))
	}
	l.log.Log(line.level, line.text, fields...)
}

// Write takes one line of memberlist's. It never fails.
func (l *logs) Write(p []byte) (int, error) {
	level, text := parseLine(string(p))
	if !l.log.Core().Enabled(level) {
		return len(p), nil
	}
	left, ok := l.admit(template(text))
	if !ok {
		return len(p), nil
	}
	select {
	case l.lines <- logLine{level, text, left}:
	default: // nobody reads the log
	}
	return len(p), nil
}

// admit says whether a line of this kind is due, and how many were left out
// before it.
func (l *logs) admit(kind string) (left int, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		if len(l.kinds) >= logTemplates { // nobody outside can make the table grow
			kind = "other"
			k = l.kinds[kind]
		}
		if k == nil {
			k = &logKind{}
			l.kinds[kind] = k
		}
	}
	if !k.last.IsZero() && now.Sub(k.last) < logEvery {
		k.left++
		return 0, false
	}
	left, k.left, k.last = k.left, 0, now
	return left, true
}

// quiet are beginnings of lines that come with ordinary trouble: a peer that is
// away, a probe that was lost, a refutation.
var quiet = []string{
	"Suspect ",
	"Marking ",
	"Refuting ",
	"Failed fallback TCP ping",
	"Failed to send UDP ping",
	"Failed to send UDP compound ping",
	"Failed to send indirect UDP ping",
	"Failed to send gossip",
	"Failed to send ack",
	"Failed to forward ack",
	"Failed to send nack",
	"Failed to send indirect ping",
	"Failed to send error",
	"Failed to push local state",
	"Push/Pull with ",
	"Got ping for unexpected node",
	"Updating address for left or failed node",
}

// parseLine takes "2006/01/02 15:04:05 [LEVEL] memberlist: text" apart. An
// error of memberlist's is a warning of ours: nothing in it ends our work.
func parseLine(line string) (zapcore.Level, string) {
	line = strings.TrimRight(line, "\n")
	const stamp = len("2006/01/02 15:04:05 ")
	if len(line) >= stamp && line[4] == '/' && line[stamp-1] == ' ' {
		line = line[stamp:]
	}
	level := zapcore.WarnLevel
	if strings.HasPrefix(line, "[") {
		if word, rest, ok := strings.Cut(line[1:], "] "); ok {
			line = rest
			switch word {
			case "DEBUG":
				level = zapcore.DebugLevel
			case "INFO":
				level = zapcore.InfoLevel
			}
		}
	}
	line = strings.TrimPrefix(line, "memberlist: ")
	for _, q := range quiet {
		if strings.HasPrefix(line, q) {
			return zapcore.DebugLevel, line
		}
	}
	return level, line
}

// template is the beginning of a line up to the first word that looks like a
// value: what all lines of one kind have in common.
func template(line string) string {
	end := 0
	for word := range strings.SplitSeq(line, " ") {
		if strings.ContainsAny(strings.TrimRight(word, ".:,"), `0123456789"'=.:%`) {
			break
		}
		end += len(word) + 1
		if end > 60 {
			break
		}
	}
	return line[:min(end, len(line))]
}
