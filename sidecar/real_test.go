package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"tandem/sidecar/config"
)

// secrets are what must never be seen anywhere but in the environment.
const (
	otherKey     = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
	secretToken  = "operate-0123456789abcdef"
	secretReader = "read-0123456789abcdef00"
	secretHook   = "sign-0123456789abcdef00"
)

// output is a log that several sidecars write.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// running starts real sidecars on loopback, each with its own environment, for
// the length of a test. They are witnesses: they touch nothing.
func running(t *testing.T, log *output, envs map[string][]string) map[string]config.Config {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	all := map[string]config.Config{}
	for name, env := range envs {
		cfg, err := config.Load(env)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = cfg
		wg.Go(func() {
			logger := newLogger("debug", cfg.LogFormat, log).With(zapNode(cfg))
			logStart(logger, cfg, build())
			if err := runSidecar(ctx, cfg, logger, build(), newOrigin()); err != nil && ctx.Err() == nil {
				logger.Error("ended", zap.Error(err))
			}
		})
	}
	return all
}

// mistaken is a cluster of witnesses: one as it should be, one with another key,
// one of another cluster, one with another list of peers, one that does not
// encrypt, one that goes by another name, one that was never started, and one
// with the settings of another.
func mistaken(t *testing.T) map[string][]string {
	t.Helper()
	var peers []string
	ports := map[string]string{}
	for i, name := range []string{"good", "key", "cluster", "list", "plain", "name", "absent"} {
		ports[name] = fmt.Sprintf("127.0.0.%d:%s", i+1, freePort(t))
		peers = append(peers, name+"="+ports[name])
	}
	envs := map[string][]string{}
	delete(ports, "absent")
	ports["copy"] = "127.0.0.8:" + freePort(t)
	for name := range ports {
		env := map[string]string{
			"TANDEM_NODE": name, "TANDEM_ROLE": "witness", "TANDEM_PEERS": strings.Join(peers, ","), "TANDEM_KEY": checkKey,
			"TANDEM_BIND": ports[name], "TANDEM_API": "127.0.0.1:" + freePort(t), "TANDEM_SOCKET": filepath.Join(t.TempDir(), "s"),
			"TANDEM_API_TOKEN": secretToken, "TANDEM_API_READ_TOKEN": secretReader,
		}
		switch name {
		case "key":
			env["TANDEM_KEY"] = otherKey
		case "cluster":
			env["TANDEM_CLUSTER"] = "another"
		case "list", "copy":
			env["TANDEM_NODE"] = "list"
			env["TANDEM_PEERS"] = strings.Join(append(slices.Clone(peers[:2]), peers[3:]...), ",")
		case "plain":
			env["TANDEM_KEY"], env["TANDEM_INSECURE"] = "", "true"
		case "name":
			env["TANDEM_NODE"], env["TANDEM_PEERS"] = "other", env["TANDEM_PEERS"]+",other="+ports["name"]
			env["TANDEM_PEERS"] = strings.Replace(env["TANDEM_PEERS"], "name="+ports["name"]+",", "", 1)
		}
		for k, v := range env {
			envs[name] = append(envs[name], k+"="+v)
		}
	}
	return envs
}

// TestCheckNamesMistakesOfARunningCluster makes them for real, and wants each
// named with its mend in the line below.
func TestCheckNamesMistakesOfARunningCluster(t *testing.T) {
	log := &output{}
	envs := mistaken(t)
	good := running(t, log, envs)["good"]
	wanted := []string{
		"key is not heard: wrong-key: ", "-> give all nodes the same key (TANDEM_KEY_FILE",
		"cluster is not heard: other-cluster", "-> give all nodes the same TANDEM_CLUSTER",
		"name-clash: two processes are called list, at 127.0.0.4:", " and 127.0.0.8:", ": give each a TANDEM_NODE of its own",
		"list: settings-differ: TANDEM_PEERS", "-> make the settings the same on all nodes",
		"plain is not heard: not-encrypted", "-> give it the key",
		"name is not heard: other-name", "-> correct TANDEM_PEERS here or TANDEM_NODE there",
		"absent is not heard: refused", "-> start tandem there",
		"encrypts, as in the running sidecar", "key is silent (wrong-key: it uses a key that this node does not have: give both the same key)",
	}
	checkFinds(t, good, log, wanted)
}

// checkFinds waits until the check of a node says everything that is wanted, for
// half a minute: what it goes by is learned by and by.
func checkFinds(t *testing.T, good config.Config, log *output, wanted []string) {
	t.Helper()
	var got string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		var b bytes.Buffer
		c := &checker{cfg: good}
		c.run(t.Context(), newClient(good.Socket, ""))
		_ = printFindings(&b, c.findings) // its faults are what we look for
		got = b.String()
		if !slices.ContainsFunc(wanted, func(line string) bool { return !strings.Contains(got, line) }) {
			return
		}
	}
	wants(t, got, wanted...)
	t.Log(log.text())
}

// TestCheckNamesMistakesBeforeTheStart: the same, found by the check of a node
// that does not run yet.
func TestCheckNamesMistakesBeforeTheStart(t *testing.T) {
	log := &output{}
	envs := mistaken(t)
	delete(envs, "good")
	running(t, log, envs)
	good, err := config.Load(mistakenGood(envs))
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{
		"note   sidecar        none is running here",
		"key answers at 127.0.0.2:", ": wrong-key\n", "-> give all nodes the same key",
		"cluster answers at 127.0.0.3:", ": other-cluster\n", "-> give all nodes the same TANDEM_CLUSTER",
		"ok     peers          list answers at ", "and has the same key and cluster name",
		"plain answers at 127.0.0.5:", ": not-encrypted\n", "-> give it the key",
		"absent: its machine answers, nobody listens", "-> start tandem there",
	}
	checkFinds(t, good, log, wanted)
}

// mistakenGood is the environment of the node that is as it should be, from that
// of one that differs in the key alone.
func mistakenGood(envs map[string][]string) []string {
	env := slices.Clone(envs["key"])
	at := ""
	for _, v := range env {
		if peers, ok := strings.CutPrefix(v, "TANDEM_PEERS=good="); ok {
			at, _, _ = strings.Cut(peers, ",")
		}
	}
	return append(env, "TANDEM_NODE=good", "TANDEM_KEY="+checkKey, "TANDEM_BIND="+at, "TANDEM_SOCKET=/nonexistent/s", "TANDEM_API=off")
}

// TestNoSecretIsEverPrinted lets a sidecar with every secret run, be asked with
// right and wrong tokens, be printed, checked and scraped, at level debug, and
// looks for the secrets in all that came out.
func TestNoSecretIsEverPrinted(t *testing.T) {
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	log := &output{}
	env := append(mistaken(t)["good"], "TANDEM_WEBHOOK="+strings.Replace(hook.URL, "http://", "http://user:"+secretHook+"@", 1)+"/x?token="+secretHook, "TANDEM_WEBHOOK_SECRET="+secretHook)
	cfg := running(t, log, map[string][]string{"good": env})["good"]
	var all output
	tandem := &program{env: env, stdout: &all, stderr: &all}
	for _, args := range [][]string{{"config"}, {"check"}, {"status"}, {"status", "--json"}, {"why"}, {"history", "--json"}, {"plan", "--if", "good=down"}, {"version"}} {
		for range 40 { // until it listens
			if code := tandem.run(args); code == 0 || args[0] != "status" || !strings.Contains(all.text(), "no sidecar answers") {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	for _, path := range []string{"/", "/metrics", "/v1/status", "/v1/openapi.json", "/v1/access"} {
		for _, token := range []string{"", secretToken, secretReader, secretToken + "x"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+cfg.API.String()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Write(&all)
			_ = resp.Body.Close()
		}
	}
	text := all.text() + log.text()
	if !strings.Contains(text, "tandem_health") || !strings.Contains(text, "tandem starts") || !strings.Contains(text, "(hidden)") {
		t.Fatalf("too little came out:\n%s", text)
	}
	for _, secret := range []string{checkKey, secretToken, secretReader, secretHook} {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s… stands in: %s", secret[:6], text[max(0, i-200):min(len(text), i+60)])
		}
	}
}
