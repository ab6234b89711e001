package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/haproxy/haproxytest"
	"tandem/lib/gossip"
	"tandem/sidecar/api/apitest"
	"tandem/sidecar/config"
	"tandem/sidecar/status"
)

const checkKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// checked runs the checks of an environment, without a sidecar or with one
// that has that status.
func checked(t *testing.T, st *status.Status, change ...string) string {
	t.Helper()
	env := append([]string{
		"TANDEM_NODE=lb1", "TANDEM_PEERS=lb1=127.0.0.1:" + freePort(t), "TANDEM_KEY=" + checkKey,
		"TANDEM_BIND=127.0.0.1:" + freePort(t), "TANDEM_API=off", "TANDEM_SOCKET=" + filepath.Join(t.TempDir(), "s"),
		"TANDEM_HAPROXY_SOCKET=" + filepath.Join(t.TempDir(), "absent.sock"),
	}, change...)
	cfg, err := config.Load(env)
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{cfg: cfg}
	if st == nil {
		c.run(t.Context(), newClient(cfg.Socket, ""))
	} else {
		c.status = st
		c.ports(t.Context())
		c.peers(t.Context())
		c.haproxy(t.Context())
	}
	var b bytes.Buffer
	err = printFindings(&b, c.findings)
	faults := strings.Count(b.String(), string(sevFault))
	if exit, ok := errors.AsType[exitError](err); faults > 0 && (!ok || exit.code != exitFailed) || faults == 0 && err != nil {
		t.Errorf("%d faults, error %v", faults, err)
	}
	return b.String()
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func wants(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
}

func TestCheckNamesWhatIsWrongWithTheNetwork(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	wants(t, checked(t, nil, "TANDEM_BIND="+taken.LocalAddr().String()), "is taken by another process", "ss -tulpn")
	wants(t, checked(t, nil, "TANDEM_BIND=192.0.2.1:7946"), "this machine has no address udp 192.0.2.1:7946", "set TANDEM_BIND to an address of this machine")
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	wants(t, checked(t, nil, "TANDEM_API="+api.Addr().String()), "tcp "+api.Addr().String()+" is taken", "(TANDEM_API)")
	stream, err := net.Listen("tcp", "127.0.0.1:0") // gossip needs both
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	wants(t, checked(t, nil, "TANDEM_BIND="+stream.Addr().String()), "tcp "+stream.Addr().String()+" is taken", "(TANDEM_BIND)")
	wants(t, checked(t, nil, "TANDEM_VIPS=10.99.0.1@nope0"), "there is no interface nope0", "choose one of lo")
	wants(t, checked(t, nil, "TANDEM_VIPS=10.99.0.1@lo"), "10.99.0.1 is in no network of lo")
}

func TestCheckNamesWhatIsWrongWithPeers(t *testing.T) {
	peers := func(list string) string { return "TANDEM_PEERS=" + list }
	wants(t, checked(t, nil, peers("lb1=127.0.0.1:1,lb2=no-such-host.invalid")), "lb2: no-such-host.invalid has no address", "use an IP address in TANDEM_PEERS")
	wants(t, checked(t, nil, peers("lb1=192.0.2.1")), "lb1 is this node, and 192.0.2.1 is no address of this machine")
	wants(t, checked(t, nil, peers("lb1=127.0.0.1:1,lb2=127.0.0.1:"+freePort(t))), "lb2: its machine answers, nobody listens", "start tandem there")
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	wants(t, checked(t, nil, peers("lb1=127.0.0.1:1,lb2="+other.Addr().String())), "lb2 at "+other.Addr().String()+": it takes the connection and says nothing", "-> correct the port")
}

func TestCheckSaysWhatTheRunningSidecarKnowsOfPeers(t *testing.T) {
	st := apitest.Pair(time.Now())
	st.Nodes[1].Alive, st.Nodes[1].Reason, st.Nodes[1].Detail = false, "wrong-key", "it uses a key that we do not have"
	st.Nodes[2].Warnings = []string{"voters-differ: TANDEM_PEERS is another there"}
	got := checked(t, &st, "TANDEM_PEERS=lb1=127.0.0.1:1,lb2=127.0.0.1:2,witness=127.0.0.1:3,lb9=127.0.0.1:4")
	wants(t, got, "lb2 is not heard: wrong-key: it uses a key that we do not have", "witness: voters-differ", "lb9 is not known to the running sidecar")
}

// Who cannot agree with anybody is told where the mistake probably is.
func TestCheckSaysOnWhichSideAWrongKeyIs(t *testing.T) {
	const here, peers = "the mistake is probably here", "TANDEM_PEERS=lb1=127.0.0.1:1,lb2=127.0.0.1:2,witness=127.0.0.1:3"
	st := apitest.Pair(time.Now())
	st.Nodes[1].Alive, st.Nodes[1].Reason = false, "wrong-key"
	if got := checked(t, &st, peers); strings.Contains(got, here) || !strings.Contains(got, "give all nodes the same key") {
		t.Error(got)
	}
	st.Nodes[2].Alive, st.Nodes[2].Reason = false, "wrong-key"
	wants(t, checked(t, &st, peers), here)
}

// Before the start the keys can be compared by eye; afterwards check knows.
func TestCheckNamesTheKeyByAHash(t *testing.T) {
	id := gossip.KeyID(decoded(t, checkKey))
	wants(t, checked(t, nil), id+" encrypts; the same must stand here on every node")
	st := apitest.Pair(time.Now())
	c := &checker{cfg: config.Config{Node: "lb1", Keys: config.Keys{decoded(t, checkKey)}}, status: &st}
	c.keys()
	wants(t, fmt.Sprint(c.findings), "the running sidecar holds 1a2b3c4d, here it is "+id, "tandem keys")
	st.Nodes[0].Keys = []string{id}
	c.findings = nil
	c.keys()
	wants(t, fmt.Sprint(c.findings), "as in the running sidecar")
}

func decoded(t *testing.T, key string) []byte {
	t.Helper()
	var keys config.Keys
	if err := keys.UnmarshalText([]byte(key)); err != nil {
		t.Fatal(err)
	}
	return keys[0]
}

// A sidecar that stands still, or whose socket is not ours, is not one that does
// not run.
func TestCheckTellsASidecarThatCannotBeAskedFromNone(t *testing.T) {
	t.Parallel()
	wants(t, checked(t, nil), "note   sidecar        none is running here", "-> start it, and check again")
	wants(t, checked(t, nil, "TANDEM_SOCKET="+frozen(t)), "FAULT  sidecar", "does not answer", "-> its process stands still")
}

// A clock that runs at another rate breaks the leases; the machine's own is not
// touched for this test.
func TestCheckNamesAClockThatRunsWrong(t *testing.T) {
	for tick, want := range map[int64]severity{10000: sevOK, 10040: sevOK, 9960: sevOK, 10100: sevFault, 9000: sevFault} {
		c := &checker{}
		c.tick(tick)
		if len(c.findings) != 1 || c.findings[0].severity != want || want == sevFault && !strings.Contains(c.findings[0].mend, "adjtimex --tick 10000") {
			t.Errorf("tick %d: %v, want %s", tick, c.findings, want)
		}
	}
}

func TestCheckNamesWhatIsWrongWithDirectories(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, checked(t, nil, "TANDEM_STATE_DIR="+file), file+" is not a directory (TANDEM_STATE_DIR)")
	wants(t, checked(t, nil, "TANDEM_STATE_FILE="+file+".d/state"), "make it: mkdir -p "+file+".d")
	wants(t, checked(t, nil, "TANDEM_STATE_DIR="+filepath.Join(t.TempDir(), "a", "b")), "can be written (TANDEM_STATE_DIR)")
	wants(t, checked(t, nil, "TANDEM_STATE_DIR=/proc/self"), "nothing can be written in /proc/self (TANDEM_STATE_DIR)", "-> let the user of the sidecar write there")
	wants(t, checked(t, nil, "TANDEM_MAP=/proc/self/map", "TANDEM_SITES=a=*/a;b=*/b"), "nothing can be written in /proc/self (TANDEM_MAP)")
}

func TestCheckNamesWhatIsWrongWithHAProxy(t *testing.T) {
	wants(t, checked(t, nil), "(no-socket)", "stats socket", "is HAProxy running")

	p := haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("app", 2))
	with := func(change ...string) string {
		return checked(t, nil, append([]string{"TANDEM_HAPROXY_SOCKET=" + p.Socket, "TANDEM_SITES=a=app/a-*;b=app/b-*"}, change...)...)
	}
	got := with()
	wants(t, got, "socket of level admin", "site a: app/a-* matches 2 of 4", "TANDEM_HAPROXY_CFG")
	if strings.Contains(got, string(sevFault)) {
		t.Errorf("a fault where there is none:\n%s", got)
	}
	wants(t, with("TANDEM_SITES=a=app/a-*;b=shop/b-*"), "FAULT  servers        site b: shop/b-* matches no server", "compare TANDEM_SITES")
	p.Do("set server app/a-1 state maint")
	wants(t, with(), "app/a-1 is held by hand")
	p.Do("set server app/b-1 state drain")
	wants(t, with(), "app/b-1 is drained, by a person or by a tandem that ran before")
	wants(t, with("TANDEM_STATE_DIR="+t.TempDir()), "app/b-1 is held by hand (drain)")
	st := apitest.Pair(time.Now())
	st.Held = []status.Held{{Node: "lb1", Server: "app/a-2", Kind: "weight", Detail: "somebody's"}, {Node: "lb2", Server: "app/b-2", Kind: "drain"}}
	running := checked(t, &st, "TANDEM_HAPROXY_SOCKET="+p.Socket, "TANDEM_SITES=a=app/a-*;b=app/b-*")
	wants(t, running, "app/a-2 is held by hand (weight) and left alone: somebody's")
	if strings.Contains(running, "app/a-1 is held") || strings.Contains(running, "app/b-1 is") || strings.Contains(running, "app/b-2") {
		t.Errorf("said of what the sidecar did, or of another node:\n%s", running)
	}
	wants(t, with("TANDEM_HAPROXY_CFG="+p.Config+".absent"), "FAULT  haproxy.cfg")
	wants(t, with("TANDEM_HAPROXY_CFG="+p.Config, "TANDEM_STATE_FILE="+filepath.Join(p.Dir, "elsewhere")), "FAULT  haproxy.cfg", "elsewhere")

	// A socket that its HAProxy has left behind, and one of something else.
	for _, dead := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if dead {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
			wants(t, checked(t, nil, "TANDEM_HAPROXY_SOCKET="+path), "FAULT  haproxy", "(refused)", "-> HAProxy is not running")
			continue
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				for err == nil { // as a mail server does
					if _, err = conn.Read(make([]byte, 100)); err == nil {
						_, err = conn.Write([]byte("500 5.5.1 command unrecognized\r\n"))
					}
				}
				_ = conn.Close()
			}
		}()
		wants(t, checked(t, nil, "TANDEM_HAPROXY_SOCKET="+path), "FAULT  haproxy", "-> ", "TANDEM_HAPROXY_SOCKET")
	}
	low := haproxytest.Start(t, strings.Replace(haproxytest.Global, "level admin", "level user", 1)+haproxytest.Backend("app", 1))
	wants(t, checked(t, nil, "TANDEM_HAPROXY_SOCKET="+low.Socket), "FAULT  haproxy", "(not-admin)", "level admin")
}

// Two HAProxys, each with the servers of one site, and one of them absent.
func TestCheckLooksAtEachOfSeveralHAProxys(t *testing.T) {
	web := haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("web", 1))
	mq := haproxytest.Start(t, haproxytest.Global+haproxytest.Backend("mq", 1))
	base := []string{"TANDEM_SITES=a=web/a-*,mq/a-*;b=web/b-*,mq/b-*", "TANDEM_HAPROXY_CFG=" + web.Config + "," + mq.Config}
	got := checked(t, nil, append(base, "TANDEM_HAPROXY_SOCKET=web="+web.Socket+",mq="+mq.Socket+"@none")...)
	wants(t, got, "haproxy web", "haproxy mq", "serves no virtual IP", "site a: web/a-* matches 1 of 4", "site b: mq/b-* matches 1 of 4", "mq: ")
	if strings.Contains(got, "no server matches") {
		t.Errorf("a fault where there is none:\n%s", got)
	}
	got = checked(t, nil, append(base, "TANDEM_HAPROXY_SOCKET=web="+web.Socket+",mq="+mq.Socket+".absent@none")...)
	wants(t, got, "FAULT  haproxy mq", "(no-socket)", "site a: web/a-* matches 1 of 2")
}

// Without capabilities, found in a process that has none.
func TestCheckNamesMissingCapabilities(t *testing.T) {
	if os.Getuid() != 0 {
		wants(t, checked(t, nil, "TANDEM_VIPS=10.99.0.1@lo"), "this process lacks")
		return
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("SKIPPED: setpriv (util-linux) is needed to take capabilities away")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), setpriv, "--bounding-set", "-all", "--inh-caps", "-all", "--", self, "-test.run", "^TestHelperCheck$")
	cmd.Env = append(os.Environ(), "CHECK_WITHOUT_CAPABILITIES=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wants(t, string(out), "FAULT  capabilities   this process lacks NET_ADMIN", "this process lacks NET_RAW", "note   gate", "-> load nf_tables, and give NET_ADMIN")
}

// TestHelperCheck is what TestCheckNamesMissingCapabilities starts; it prints
// and proves nothing by itself.
func TestHelperCheck(t *testing.T) {
	if os.Getenv("CHECK_WITHOUT_CAPABILITIES") == "" {
		return
	}
	fmt.Print(checked(t, nil, "TANDEM_VIPS=10.99.0.1@lo"))
}

// Somebody else has the address: seen in two network namespaces of our own.
func TestCheckFindsAStrangerWithTheAddress(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: network namespaces need root")
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("SKIPPED: iproute2 is needed for network namespaces")
	}
	here, there := fmt.Sprintf("tdcheck%da", os.Getpid()), fmt.Sprintf("tdcheck%db", os.Getpid())
	do := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), ip, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for _, name := range []string{here, there} {
		do("netns", "add", name)
		t.Cleanup(func() { _ = exec.Command(ip, "netns", "del", name).Run() })
	}
	do("-n", here, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", there)
	for i, name := range []string{here, there} {
		do("-n", name, "addr", "add", fmt.Sprintf("10.98.0.%d/24", i+1), "dev", "eth0")
		do("-n", name, "link", "set", "lo", "up")
		do("-n", name, "link", "set", "eth0", "up")
	}
	check := func(vip string) string {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), ip, "netns", "exec", here, self, "-test.run", "^TestHelperStranger$")
		cmd.Env = append(os.Environ(), "CHECK_VIP="+vip)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	wants(t, check("10.98.0.100"), "nobody answers for 10.98.0.100", "eth0 is up")
	do("-n", there, "addr", "add", "10.98.0.100/32", "dev", "eth0")
	wants(t, check("10.98.0.100"), "answers for 10.98.0.100", "another machine has this address")
	do("-n", there, "link", "set", "eth0", "down")
	wants(t, check("10.98.0.100"), "FAULT  interface      eth0 has no carrier", "-> plug the cable in")
	do("-n", here, "link", "set", "eth0", "down")
	wants(t, check("10.98.0.100"), "FAULT  interface      eth0 is down", "ip link set eth0 up")
}

// TestHelperStranger is what TestCheckFindsAStrangerWithTheAddress starts in a
// namespace.
func TestHelperStranger(t *testing.T) {
	if vip := os.Getenv("CHECK_VIP"); vip != "" {
		fmt.Print(checked(t, nil, "TANDEM_VIPS="+vip+"/24@eth0"))
	}
}
