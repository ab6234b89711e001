// Package sitemap keeps a map of HAProxy's, group → active site, so that rules
// in haproxy.cfg can follow the decision:
//
//	use_backend be_%[str(default),map(/etc/haproxy/site.map,a)]
//
// It is kept on disk, for the next reload, and in memory through the map calls
// of client-native. Those wait up to half a minute for a hung HAProxy, report
// success when nothing answered, and panic on half a line; so each attempt runs
// in a goroutine that nobody waits for, one at a time, and nothing is believed
// but what is read back afterwards.
package sitemap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/haproxytech/client-native/v5/models"
	"github.com/haproxytech/client-native/v5/runtime"
	"github.com/haproxytech/client-native/v5/runtime/options"
	"go.uber.org/zap"
)

const (
	// How long an attempt may take before it is given up. It goes on
	// by itself until client-native's own deadlines (two of 30 s) have passed.
	patience = 2 * time.Second
	// How often memory and file are read again: a command that was
	// given up may run later, and a reload starts from the file.
	verify = 2 * time.Second
	// An empty answer that took so long is none: client-native returns it as a
	// success when its deadline of 30 s has passed.
	tooSlow = 10 * time.Second
)

// Map keeps one map file and its copy in HAProxy's memory.
type Map struct {
	socket, path string
	log          *zap.Logger
	changed      func(Status)
	patience     time.Duration
	verify       time.Duration
	tooSlow      time.Duration

	mu     sync.Mutex
	want   map[string]string
	paused bool
	wake   chan struct{}
	status Status
}

// Status is how the map stands.
type Status struct {
	Current bool   // file and memory are as wanted, by reading back
	Detail  string // why not
}

// New returns a Map that does nothing until Run. The path is that of the map as
// haproxy.cfg names it; changed, which may be nil, is told of every new status.
func New(socket, path string, log *zap.Logger, changed func(Status)) *Map {
	if changed == nil {
		changed = func(Status) {}
	}
	return &Map{
		socket: socket, path: path, log: log, changed: changed,
		patience: patience, verify: verify, tooSlow: tooSlow, wake: make(chan struct{}, 1),
	}
}

// Set says what the map should hold. It never blocks. Entries of other keys are
// left alone.
func (m *Map) Set(want map[string]string) {
	m.mu.Lock()
	same := m.want != nil && maps.Equal(m.want, want)
	m.want = maps.Clone(want)
	m.mu.Unlock()
	if !same {
		m.Wake()
	}
}

// Pause has nothing written, at HAProxy or on disk, until it is called again.
func (m *Map) Pause(paused bool) {
	m.mu.Lock()
	changed := m.paused != paused
	m.paused = paused
	m.mu.Unlock()
	if changed && !paused {
		m.Wake()
	}
}

// Wake has the map read again now, for example because HAProxy was reloaded.
func (m *Map) Wake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run keeps the map until the context ends. An attempt that hangs then is left
// to its own deadlines: it holds nothing but its connection.
func (m *Map) Run(ctx context.Context) {
	tick := time.NewTicker(m.verify)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-tick.C:
		}
		m.mu.Lock()
		want, paused := maps.Clone(m.want), m.paused
		m.mu.Unlock()
		if len(want) == 0 || paused {
			continue
		}
		if err := valid(m.path, want); err != nil {
			m.tell(err)
			continue
		}
		// A file that cannot be written is no reason to send requests elsewhere now.
		if !m.attempt(ctx, want, m.keepFile(want)) {
			return
		}
	}
}

// attempt brings memory up to date, and waits for that as long as patience
// allows; if it takes longer, it waits until the attempt has come to its end, so
// that there is never more than one. What came of the file is told with it. It
// returns false when the context ends.
func (m *Map) attempt(ctx context.Context, want map[string]string, file error) bool {
	done := make(chan error, 1)
	go func() { done <- m.keepMemory(want) }() // awaited below, or given up with the context
	timer := time.NewTimer(m.patience)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case err := <-done:
			m.tell(file, err)
			return true
		case <-timer.C:
			m.tell(file, errors.New("haproxy does not answer; the map is tried again when it does"))
		}
	}
}

// tell notes the new status, unless it is the old one.
func (m *Map) tell(faults ...error) {
	err := errors.Join(faults...)
	s := Status{Current: err == nil}
	if err != nil {
		s.Detail = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if s == m.status {
		return
	}
	m.status = s
	if err != nil {
		m.log.Warn("active-site map is not current", zap.String("map", m.path), zap.Error(err))
	} else {
		m.log.Info("active-site map is current", zap.String("map", m.path))
	}
	m.changed(s)
}

// keepMemory sets what differs and reads back.
func (m *Map) keepMemory(want map[string]string) (err error) {
	defer func() {
		if r := recover(); r != nil { // client-native, on half a line
			err = fmt.Errorf("read map %s: answer not understood: %v", m.path, r)
		}
	}()
	var api runtime.SingleRuntime // a fresh one: it holds a lock while it hangs
	if err := api.Init(m.socket, 0, 0, options.RuntimeOptions{DoNotCheckRuntimeOnInit: true}); err != nil {
		return err
	}
	have, err := m.entries(&api)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if err := m.set(&api, have, key, want[key]); err != nil {
			return fmt.Errorf("set %s in map %s: %w", key, m.path, err)
		}
	}
	have, err = m.entries(&api)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if n, right := count(have, key, want[key]); n == 0 || right != n {
			return fmt.Errorf("read back map %s: %d of %d entries of %s are %s", m.path, right, n, key, want[key])
		}
	}
	return nil
}

// set gives every entry of the key the value, or adds one. Several are set one by
// one, by what HAProxy calls them: `set map` with their key changes all of them,
// but in HAProxy 3.4.0 only the last, and the first is used.
func (m *Map) set(api *runtime.SingleRuntime, have models.MapEntries, key, value string) error {
	n, right := count(have, key, value)
	switch {
	case n == 0: // not AddMapEntry: it asks first whether the key is there
		return api.AddMapPayload(m.path, key+" "+value)
	case right == n:
		return nil
	case n == 1:
		return api.SetMapEntry(m.path, key, value)
	}
	for _, e := range have {
		if e.Key != key || e.Value == value {
			continue
		}
		if _, err := strconv.ParseUint(strings.TrimPrefix(e.ID, "0x"), 16, 64); err != nil {
			return fmt.Errorf("entry %.40q has no reference", e.ID)
		}
		if err := api.SetMapEntry(m.path, "#"+e.ID, value); err != nil {
			return err
		}
	}
	return nil
}

// entries reads the map. One that is empty is believed only if HAProxy answered
// at all: nothing and no answer look the same through client-native.
func (m *Map) entries(api *runtime.SingleRuntime) (models.MapEntries, error) {
	start := time.Now()
	have, err := api.ShowMapEntries(m.path)
	if err != nil {
		return nil, fmt.Errorf("read map %s: %w (does haproxy.cfg use a map of exactly this path?)", m.path, err)
	}
	if len(have) > 0 {
		return have, nil
	}
	if took := time.Since(start); took >= m.tooSlow {
		return nil, fmt.Errorf("read map %s: no answer within %s", m.path, took.Round(time.Millisecond))
	}
	if _, err := api.GetMap(m.path); err != nil {
		return nil, fmt.Errorf("read map %s: no answer, or haproxy.cfg uses no map of exactly this path: %w", m.path, err)
	}
	return nil, nil
}

// count returns how many entries a key has, and how many of them have the value.
// HAProxy uses the first.
func count(entries models.MapEntries, key, value string) (n, right int) {
	for _, e := range entries {
		if e.Key == key {
			n++
			if e.Value == value {
				right++
			}
		}
	}
	return n, right
}

// keepFile writes the file if it differs, and keeps its other lines.
func (m *Map) keepFile(want map[string]string) error {
	have, err := os.ReadFile(m.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read map file: %w", err)
	}
	content := Merge(string(have), want)
	if err == nil && content == string(have) {
		return nil
	}
	return replace(m.path, content)
}

// Merge returns the text of a map file with the entries that are wanted in the
// place of those of the same key, and all other lines as they were.
func Merge(have string, want map[string]string) string {
	var b strings.Builder
	seen := make(map[string]bool)
	for line := range strings.Lines(have) {
		line = strings.TrimRight(line, "\r\n")
		words := strings.Fields(line)
		if len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			if value, ok := want[words[0]]; ok {
				if seen[words[0]] {
					continue
				}
				seen[words[0]] = true
				line = words[0] + " " + value
			}
		}
		b.WriteString(line + "\n")
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if !seen[key] {
			b.WriteString(key + " " + want[key] + "\n")
		}
	}
	return b.String()
}

// valid refuses what would end a command or begin another.
func valid(path string, want map[string]string) error {
	if path == "" || strings.ContainsAny(path, " \t\r\n;\\#<>\"'") {
		return fmt.Errorf("map path %q: blanks, quotes and any of ; \\ # < > cannot stand in a command", path)
	}
	for key, value := range want {
		for _, word := range []string{key, value} {
			if word == "" || len(word) > 512 || strings.ContainsFunc(word, notInName) {
				return fmt.Errorf("map entry %q %q: letters, digits and _ . : - are allowed", key, value)
			}
		}
	}
	return nil
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_.:-", r)
}

// replace puts a whole file in the place of another.
func replace(path, content string) (err error) {
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return fmt.Errorf("write map file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
			err = fmt.Errorf("write map file: %w", err)
		}
	}()
	if _, err = f.WriteString(content); err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if err = os.Rename(temporary, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}
