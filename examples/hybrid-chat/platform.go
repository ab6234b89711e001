package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// platform is a messaging platform's API: it takes the address to call.
type platform struct {
	stage   *stage
	server  *http.Server
	mu      sync.Mutex
	known   []registration
	tried   []int64 // when somebody asked, whatever came of it
	refused int     // how many more are refused
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

// cut loses whatever is sent to the platform; heal ends that.
func (p *platform) cut(ctx context.Context) error {
	return p.nft(ctx, "table inet away {\n chain in {\n type filter hook input priority 0\n tcp dport 9000 drop\n }\n}\n")
}

func (p *platform) heal(ctx context.Context) error { return p.nft(ctx, "delete table inet away\n") }

func (p *platform) nft(ctx context.Context, text string) error {
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", p.stage.Node("client").NS, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("change the way to the platform: %w: %s", err, out)
	}
	return nil
}

// refuse has the next n registrations refused.
func (p *platform) refuse(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = n
}

// ServeHTTP takes a registration, or refuses it.
func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reg := registration{at: time.Now().UnixNano()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = append(p.tried, reg.at)
	if p.refused > 0 {
		p.refused--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&reg); err != nil || r.Method != http.MethodPut {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.known = append(p.known, reg)
}

// attempts lists when somebody asked since from.
func (p *platform) attempts(from moment) []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []int64
	for _, at := range p.tried {
		if at >= from.wall {
			all = append(all, at)
		}
	}
	return all
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
