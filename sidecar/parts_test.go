package main

import (
	"testing"
	"time"

	"tandem/sidecar/config"
)

// A list of hooks that is allowed to take long is not given up before it has.
func TestHooksHaveTheTimeThatTheyWereGiven(t *testing.T) {
	for _, c := range []struct {
		commands string
		timeout  string
		least    time.Duration
	}{
		{"one", "60s", 10 * time.Minute},
		{"one", "15m", 45 * time.Minute},
		{"one;two", "15m", 90 * time.Minute},
	} {
		cfg, err := config.Load([]string{
			"TANDEM_NODE=lb1", "TANDEM_PEERS=lb1=127.0.0.1", "TANDEM_KEY=" + checkKey, "TANDEM_SITES=a=*/a-*;b=*/b-*",
			"TANDEM_HOOK_TAKEOVER=" + c.commands, "TANDEM_HOOK_TIMEOUT=" + c.timeout,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := siteConfig(cfg).HookBudget; got < c.least {
			t.Errorf("%s, %s each: given up after %v, may take %v", c.commands, c.timeout, got, c.least)
		}
	}
}
