package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

type serverArgs struct {
	Name   string // site-number, for example a-1
	Listen string // port
}

// serve is an application server: it says who it is.
//
//	/          the name
//	/health    200
//	/slow?ms=  the name, that much later
//	/stream    a kilobyte every 10 ms for ms milliseconds
//	/endless   as much as is read
func serve(args serverArgs) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-App", args.Name)
		_, _ = io.WriteString(w, args.Name+"\n")
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		if Sleep(r.Context(), milliseconds(r)) == nil {
			_, _ = io.WriteString(w, args.Name+"\n")
		}
	})
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/endless", endless)
	s := http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", ":"+args.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return s.Serve(l)
}

func milliseconds(r *http.Request) time.Duration {
	ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
	if err != nil {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func stream(w http.ResponseWriter, r *http.Request) {
	chunk := make([]byte, 1024)
	for end := Now() + milliseconds(r); Now() < end; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		if Sleep(r.Context(), 10*time.Millisecond) != nil {
			return
		}
	}
}

func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := make([]byte, 1<<14)
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

type checkArgs struct {
	URL     string
	Timeout time.Duration
}

// checkHTTP is a health check as keepalived's scripts want it: exit code 0
// when the URL answers with 200 in time.
func checkHTTP(args checkArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), args.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args.URL, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", args.URL, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s", args.URL, res.Status)
	}
	return nil
}
