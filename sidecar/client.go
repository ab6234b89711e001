package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"tandem/sidecar/api"
	"tandem/sidecar/status"
)

// client talks to the sidecar of this machine through its control socket.
type client struct {
	socket, person string
	http           *http.Client
}

const (
	// Longer than the server allows a command to take.
	requestTimeout = 45 * time.Second
	// Enough for a sidecar that runs to say how things are.
	lookTimeout = 5 * time.Second
	// A stream brings a status every second.
	quietTimeout = 4 * time.Second
)

func newClient(socket, person string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &client{socket: socket, person: person, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// do sends a request; the caller closes the body.
func (c *client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.person != "" {
		req.Header.Set("X-Tandem-Actor", c.person)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	return resp, nil
}

// explain says what to do about a socket that cannot be used.
func (c *client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w at %s: start `tandem run`, or set TANDEM_SOCKET to the path that it uses", errNoSidecar, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("not allowed to open %s: use sudo, or the user that the sidecar runs as", c.socket)
	case errors.Is(err, context.DeadlineExceeded):
		return c.silent()
	default:
		return fmt.Errorf("ask the sidecar at %s: %w", c.socket, err)
	}
}

// silent says what it means that the kernel takes a connection and nobody answers.
func (c *client) silent() error {
	return fmt.Errorf("the sidecar at %s does not answer: its process stands still (stopped, frozen, or starved); look at it with `ps` and in its log", c.socket)
}

// maxAnswer bounds what is read of an answer: a large cluster's history has
// some megabytes.
const maxAnswer = 64 << 20

// look reads a JSON answer that takes no time to find into v.
func (c *client) look(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return c.get(ctx, path, v)
}

// get reads a JSON answer into v.
func (c *client) get(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		var problem api.Problem
		if err := json.NewDecoder(body).Decode(&problem); err != nil {
			return fmt.Errorf("ask the sidecar: %s", resp.Status)
		}
		return errors.New(problem.Message)
	}
	if err := json.NewDecoder(body).Decode(v); err != nil {
		return fmt.Errorf("read the sidecar's answer: %w", err)
	}
	return nil
}

// command asks for something. A refusal is a result that is not OK.
func (c *client) command(ctx context.Context, kind string, req api.Request) (status.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := c.do(ctx, http.MethodPost, "/v1/"+kind, req)
	if err != nil {
		return status.Result{}, err
	}
	defer resp.Body.Close()
	var result status.Result
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&result); err != nil {
		return status.Result{}, fmt.Errorf("read the sidecar's answer (%s): %w", resp.Status, err)
	}
	return result, nil
}

// watch opens the stream of statuses and calls each with every one, until each
// says that it is enough or the stream ends. What happens between two statuses is
// told to passed, if that is not nil.
func (c *client) watch(ctx context.Context, each func(status.Status) (enough bool, err error), passed func(status.Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(quietTimeout, func() { cancel(errQuiet) })
	defer quiet.Stop()
	err := c.stream(ctx, func() { quiet.Reset(quietTimeout) }, each, passed)
	if context.Cause(ctx) == errQuiet { //nolint:errorlint // our own, as it was given
		return c.silent()
	}
	return err
}

// stream does that for watch, and calls heard for each line.
func (c *client) stream(ctx context.Context, heard func(), each func(status.Status) (bool, error), passed func(status.Event) error) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/events", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("watch the sidecar: %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), maxAnswer)
	event := ""
	for lines.Scan() {
		heard()
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = name
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if ok && event == "transition" && passed != nil {
			var e status.Event
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				return fmt.Errorf("read what the sidecar tells: %w", err)
			}
			if err := passed(e); err != nil {
				return err
			}
		}
		if !ok || event != "status" {
			continue
		}
		var st status.Status
		if err := json.Unmarshal([]byte(data), &st); err != nil {
			return fmt.Errorf("read the sidecar's status: %w", err)
		}
		if enough, err := each(st); enough || err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch the sidecar: %w", err)
	}
	return errStreamEnded
}

// errNoSidecar: nobody listens at the control socket.
var errNoSidecar = errors.New("no sidecar answers")

// errQuiet: nothing came for longer than there is quiet.
var errQuiet = errors.New("nothing was heard")

// errStreamEnded: the sidecar stopped, or we were told to.
var errStreamEnded = errors.New("the sidecar stopped")
