package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"go.uber.org/zap"

	"tandem/sidecar/config"
)

// The README's table of variables is the code's. `tandem config --markdown`
// prints what belongs there.
func TestREADMEHasTheConfigurationTable(t *testing.T) {
	raw, err := os.ReadFile("../README.md")
	if os.IsNotExist(err) {
		t.Skip("SKIPPED: there is no README.md to compare")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(raw), config.MarkdownBegin)
	table, _, closed := strings.Cut(rest, config.MarkdownEnd)
	if !ok || !closed {
		t.Fatalf("README.md has no table between\n%s\n%s", config.MarkdownBegin, config.MarkdownEnd)
	}
	if strings.TrimSpace(table) != strings.TrimSpace(config.Markdown()) {
		t.Errorf("README.md differs from the code; put there what `tandem config --markdown` prints:\n%s", config.Markdown())
	}
}

func TestALogLineIsJSONWithATimeThatAPersonCanRead(t *testing.T) {
	var b bytes.Buffer
	log := newLogger("info", config.LogJSON, &b)
	log.Debug("not this")
	for range 1000 { // nothing is sampled away
		log.Info("moved", zap.String("reason", "lease-expired"))
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 1000 {
		t.Fatalf("%d lines", len(lines))
	}
	var line map[string]string
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line["level"] != "info" || line["msg"] != "moved" || line["reason"] != "lease-expired" || !strings.Contains(line["time"], "T") {
		t.Errorf("line: %v", line)
	}
}

func TestTheStartIsLoggedWithoutSecrets(t *testing.T) {
	const token = "0123456789abcdef0123"
	cfg, err := config.Load([]string{
		"TANDEM_NODE=lb1", "TANDEM_PEERS=lb1=127.0.0.1", "TANDEM_KEY=" + checkKey, "TANDEM_API_TOKEN=" + token,
		"TANDEM_WEBHOOK=https://example.com/secret-path", "TANDEM_WEBHOOK_SECRET=signing",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []config.LogFormat{config.LogJSON, config.LogConsole} {
		var b bytes.Buffer
		log := newLogger("debug", format, &b)
		logStart(log, cfg, build())
		log.Info("all of it", zap.Any("config", cfg), zap.Reflect("token", cfg.APIToken), zap.Any("keys", cfg.Keys))
		for _, secret := range []string{token, checkKey, "secret-path", "signing", string(cfg.Keys[0])} {
			if strings.Contains(b.String(), secret) {
				t.Errorf("%s: %q is in the log:\n%s", format, secret, b.String())
			}
		}
		if !strings.Contains(b.String(), "one voter: nothing takes over") {
			t.Errorf("%s: the note about one voter is missing:\n%s", format, b.String())
		}
	}
}
