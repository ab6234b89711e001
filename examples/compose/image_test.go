package compose

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"
)

const mebibytes = 1 << 20

// box starts a container of the image that ends with the test.
func box(t *testing.T, args ...string) string {
	t.Helper()
	id := strings.TrimSpace(docker(t, append([]string{"run", "--detach", "--network", "none", "--read-only", "--cap-drop", "ALL"}, args...)...))
	t.Cleanup(func() { _, _ = try(context.Background(), "docker", "rm", "--force", "--volumes", id) })
	return id
}

// alone are the settings of a node without a cluster.
func alone(more ...string) []string {
	args := []string{"--env", "TANDEM_NODE=lb1", "--env", "TANDEM_PEERS=lb1=127.0.0.1", "--env", "TANDEM_INSECURE=true"}
	return append(args, more...)
}

func TestMinimalImageIsSmall(t *testing.T) {
	needDocker(t)
	size, err := strconv.ParseFloat(strings.TrimSpace(docker(t, "image", "inspect", "--format", "{{.Size}}", "tandem:minimal")), 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("tandem:minimal has %.1f MiB", size/mebibytes)
	if size > 22*mebibytes {
		t.Errorf("%.1f MiB, more than 22", size/mebibytes)
	}
}

// Without capabilities the binary starts; with them an ordinary user has them,
// on a root that cannot be written.
func TestOrdinaryUserHasTheCapabilitiesThatTheContainerHas(t *testing.T) {
	needDocker(t)
	if out := docker(t, "run", "--rm", "--cap-drop", "ALL", "tandem:minimal", "version"); !strings.HasPrefix(out, "tandem ") || strings.Contains(out, "unknown") {
		t.Errorf("version: %s", out)
	}
	id := box(t, alone("--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "tandem:minimal")...)
	waitFor(t, "the health check", func() bool {
		_, err := try(t.Context(), "docker", "exec", id, "tandem", "health")
		return err == nil
	})
	out, _ := try(t.Context(), "docker", "exec", id, "tandem", "check") // it finds no HAProxy, and says so by its exit code
	if !strings.Contains(out, "running") || strings.Contains(out, "capabilit") {
		t.Errorf("check: %s", out)
	}
	if user := docker(t, "top", id, "-o", "pid,uid,args"); !strings.Contains(user, "65532") {
		t.Errorf("user: %s", user)
	}
}

// As process 1: a signal ends it at once, and what others leave behind is
// collected, also where no hook is set.
func TestSidecarIsARightProcessOne(t *testing.T) {
	needDocker(t)
	id := box(t, alone("tandem:shell")...)
	waitFor(t, "the sidecar", func() bool {
		_, err := try(t.Context(), "docker", "exec", id, "tandem", "health")
		return err == nil
	})
	docker(t, "exec", id, "sh", "-c", "for i in 1 2 3; do (setsid sleep 5 &) ; done")
	top := func() string { return docker(t, "top", id, "-o", "pid,stat,comm") }
	waitFor(t, "the orphans", func() bool { return strings.Count(top(), "sleep") == 3 })
	waitFor(t, "the end of the orphans, zombies too", func() bool { return !strings.Contains(top(), "sleep") })
	began := time.Now()
	docker(t, "stop", "--time", "30", id)
	code := strings.TrimSpace(docker(t, "inspect", "--format", "{{.State.ExitCode}}", id))
	if took := time.Since(began); took > 20*time.Second || code != "0" {
		t.Errorf("SIGTERM: ended after %v with %s", took, code)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 30 s still not: %s", what)
		}
	}
}
