package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// platform is a messaging platform's API: it takes the address to call.
type platform struct {
	stage  *stage
	server *http.Server
	mu     sync.Mutex
	known  []registration
}

type registration struct {
	at   int64
	URL  string `json:"url"`
	Site string `json:"site"`
}

func (p *platform) up(ctx context.Context) error {
	l, err := p.stage.Listen(ctx, "client", ":9000")
	if err != nil {
		return err
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(l) }()
	return nil
}

func (p *platform) down() {
	if p.server != nil {
		_ = p.server.Close()
	}
}

// ServeHTTP takes a registration.
func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reg := registration{at: time.Now().UnixNano()}
	if err := json.NewDecoder(r.Body).Decode(&reg); err != nil || r.Method != http.MethodPut {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = append(p.known, reg)
}

func (p *platform) since(from moment) []registration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []registration
	for _, r := range p.known {
		if r.at >= from.wall {
			all = append(all, r)
		}
	}
	return all
}
