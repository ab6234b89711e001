// Command play is everything in the compose example that is neither HAProxy nor
// tandem: the web servers, the client, and what keeps a network namespace open.
//
//	play hold            keep the network namespace of a load balancer
//	play web NAME        a web server on port 8080 that says its name
//	play client ADDRESS  a new connection every 5 ms, a line every second
//	play noticed SECONDS what the client beside has noticed in the last seconds
//	play noticed @NS     the same since a reading of CLOCK_MONOTONIC
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "play:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "hold":
		<-ctx.Done()
		return nil
	case len(args) == 2 && args[0] == "web":
		return serve(ctx, ":8080", web(args[1]))
	case len(args) == 2 && args[0] == "client":
		return newClient(args[1]).run(ctx)
	case len(args) == 2 && args[0] == "noticed":
		return noticed(ctx, args[1])
	default:
		return errors.New("usage: play hold | web NAME | client ADDRESS | noticed SECONDS")
	}
}

// web says who it is, in the body and in a header.
func web(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Server", name)
		_, _ = io.WriteString(w, name+"\n")
	})
}

// serve answers until ctx ends.
func serve(ctx context.Context, addr string, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// desk is where the client says what it noticed.
const desk = "127.0.0.1:8081"

// noticed asks the client of this container and prints its answer.
func noticed(ctx context.Context, since string) error {
	from, isTime := strings.CutPrefix(since, "@")
	if !isTime {
		seconds, err := strconv.ParseFloat(since, 64)
		if err != nil {
			return fmt.Errorf("%q is no number of seconds, for example 10", since)
		}
		from = strconv.FormatInt(int64(now()-time.Duration(seconds*float64(time.Second))), 10)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+desk+"/?from="+from, http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the client, which must run in this container: %w", err)
	}
	defer res.Body.Close()
	_, err = io.Copy(os.Stdout, res.Body)
	return err
}
