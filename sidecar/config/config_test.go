package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const testKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// environ is a small valid environment with changes.
func environ(change ...string) []string {
	base := []string{
		"TANDEM_NODE=lb1",
		"TANDEM_PEERS=lb1=10.0.0.11,lb2=10.0.0.12,witness=10.0.0.13",
		"TANDEM_KEY=" + testKey,
	}
	return append(base, change...)
}

func TestThreeVariablesAreEnough(t *testing.T) {
	c, err := Load(append([]string{"PATH=/bin", "HOME=/"}, environ()...))
	if err != nil {
		t.Fatal(err)
	}
	if c.Mode != ModeQuorum || !c.Lease.Auto || c.Role != RoleLB || !c.Voter() {
		t.Errorf("mode %s, lease %s, role %s, voter %v", c.Mode, c.Lease, c.Role, c.Voter())
	}
	if got := c.Peers[2]; got != (Peer{Name: "witness", Addr: "10.0.0.13:7946"}) {
		t.Errorf("third peer: %+v", got)
	}
	if len(c.VIPs) != 1 || c.VIPs[0].Name != DefaultGroup || c.HasAddresses() {
		t.Errorf("VIP groups: %+v", c.VIPs)
	}
	if c.API.String() != "127.0.0.1:8405" || c.Socket != DefaultSocket || c.HAProxyTimeout != 300*time.Millisecond {
		t.Errorf("API %s, socket %s, timeout %v", c.API, c.Socket, c.HAProxyTimeout)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings: %q", c.Warnings)
	}
}

func TestEveryFieldIsInTheTableAndEveryRowHasAField(t *testing.T) {
	var fields []string
	for f := range reflect.TypeFor[Config]().Fields() {
		if tag := f.Tag.Get("env"); tag != "" && tag != "-" {
			fields = append(fields, tag)
		}
	}
	var rows []string
	for _, v := range Table() {
		rows = append(rows, v.Name)
		if v.Meaning == "" || v.Example == "" {
			t.Errorf("%s: no meaning or no example", v.Name)
		}
	}
	slices.Sort(fields)
	slices.Sort(rows)
	if !slices.Equal(fields, rows) {
		t.Errorf("fields and table differ:\n%q\n%q", fields, rows)
	}
}

// Each example of the table must be acceptable, since error messages offer it.
func TestEveryExampleIsAcceptable(t *testing.T) {
	for _, v := range Table() {
		if strings.HasPrefix(v.Example, "the output of") {
			continue
		}
		env := environ("TANDEM_SITES=a=*/a-*;b=*/b-*", v.Name+"="+v.Example)
		switch v.Name {
		case "TANDEM_INSECURE":
			env = append(env, "TANDEM_KEY=")
		case "TANDEM_API_CERT":
			env = append(env, "TANDEM_API_KEY=/etc/tandem/tls.key")
		case "TANDEM_API_KEY":
			env = append(env, "TANDEM_API_CERT=/etc/tandem/tls.crt")
		}
		if _, err := Load(env); err != nil {
			t.Errorf("%s=%s: %v", v.Name, v.Example, err)
		}
	}
}

func TestAnErrorNamesVariableValueAndAnExample(t *testing.T) {
	for _, tc := range []struct{ set, want string }{
		{"TANDEM_PEERS=", "TANDEM_PEERS: required and not set; for example TANDEM_PEERS=lb1="},
		{"TANDEM_PEERS=lb1", `TANDEM_PEERS="lb1": "lb1" is not name=address; for example`},
		{"TANDEM_PEERS=lb1=10.0.0.1,lb1=10.0.0.2", "lb1 is listed twice"},
		{"TANDEM_PEERS=lb1=10.0.0.1,lb2=10.0.0.1", "lb1 and lb2 have the same address"},
		{"TANDEM_PEERS=lb1=10.0.0.256", `"10.0.0.256" is neither an IP address nor a host name`},
		{"TANDEM_PEERS=lb1=10.0.0.1:99999", `"99999" is not a port`},
		{"TANDEM_PEERS=lb1=0.0.0.0", "0.0.0.0 is not the address of a host"},
		{"TANDEM_PEERS=lb1=10.0.0.1,,", "an item of the list is empty"},
		{"TANDEM_PEERS=lb1=1.1.1.1,b=1.1.1.2,c=1.1.1.3,d=1.1.1.4,e=1.1.1.5,f=1.1.1.6,g=1.1.1.7,h=1.1.1.8", "8 voters; at most 7"},
		{"TANDEM_ROLE=boss", `TANDEM_ROLE="boss": neither lb, witness nor site; for example TANDEM_ROLE=lb`},
		{"TANDEM_ROLE=site", "TANDEM_SITE: required with TANDEM_ROLE=site; for example TANDEM_SITE=a"},
		{"TANDEM_NODE=lb3 x", `TANDEM_NODE="lb3 x": not a node name`},
		{"TANDEM_NODE=LB1.example.com", `TANDEM_NODE="LB1.example.com": not among TANDEM_PEERS, but lb1 is: use one name in both`},
		{"TANDEM_CLUSTER=a b", `TANDEM_CLUSTER="a b": not a name`},
		{"TANDEM_BIND=7946", `TANDEM_BIND="7946": not an IP address with a port; for example TANDEM_BIND=10.0.0.11:7946`},
		{"TANDEM_KEY=", "TANDEM_KEY: required and not set"},
		{"TANDEM_KEY=c2hvcnQ=", `TANDEM_KEY="(hidden)": key 1 has 5 bytes; AES needs 16, 24 or 32; for example the output of`},
		{"TANDEM_KEY=%%%", `TANDEM_KEY="(hidden)": key 1 is not base64`},
		{"TANDEM_INSECURE=yes please", `TANDEM_INSECURE="yes please": neither true nor false`},
		{"TANDEM_INSECURE=true", "TANDEM_KEY is set too"},
		{"TANDEM_MODE=pair", `TANDEM_MODE="pair": pair needs exactly 2 voters, TANDEM_PEERS has 3`},
		{"TANDEM_LEASE=5", `TANDEM_LEASE="5": neither auto nor a duration; for example TANDEM_LEASE=500ms`},
		{"TANDEM_LEASE=200ms", "a lease is 300ms to 10s long"},
		{"TANDEM_VIPS=10.0.0.100", `"10.0.0.100" names no interface`},
		{"TANDEM_VIPS=10.0.0.100/33@eth0", `"10.0.0.100/33" is not an IP address`},
		{"TANDEM_VIPS=10.0.0.0/24@eth0", "10.0.0.0/24 is the address of the network itself"},
		{"TANDEM_VIPS=127.0.0.1@lo", "127.0.0.1 cannot be a virtual IP"},
		{"TANDEM_VIPS=10.0.0.11@eth0", "10.0.0.11 is the address of peer lb1 itself"},
		{"TANDEM_VIPS=web=10.0.0.100@eth0;api=10.0.0.100@eth0", "10.0.0.100 is listed twice"},
		{"TANDEM_VIPS=10.0.0.100@eth0;10.0.0.101@eth0", "with several groups each needs a name"},
		{"TANDEM_VIPS=10.0.0.100@a-name-that-is-too-long", "is not the name of an interface"},
		{"TANDEM_PREFER=web=lb1", "TANDEM_VIPS has no group web"},
		{"TANDEM_VIP_FAILBACK=often", "neither never nor a duration"},
		{"TANDEM_MOVE_GRACE=30", `TANDEM_MOVE_GRACE="30": not a duration; a number with ms, s, m or h is needed; for example TANDEM_MOVE_GRACE=30s`},
		{"TANDEM_HAPROXY_TIMEOUT=1ms", "out of bounds: 50ms to 10s"},
		{"TANDEM_HAPROXY_SOCKET=admin.sock", "not an absolute path"},
		{"TANDEM_HAPROXY_SOCKET=/run/a.sock,b.sock", "not an absolute path"},
		{"TANDEM_HAPROXY_SOCKET=/run/a.sock,/run/a.sock", "/run/a.sock is listed twice"},
		{"TANDEM_HAPROXY_SOCKET=/run/a/admin.sock,/run/b/admin.sock", "two are called admin; name them: a=/run/a/admin.sock,b=/run/b/admin.sock"},
		{"TANDEM_HAPROXY_SOCKET=a b=/run/a.sock", `"a b" is not a name`},
		{"TANDEM_HAPROXY_SOCKET=/run/a.sock@", "behind @ stand groups of TANDEM_VIPS"},
		{"TANDEM_HAPROXY_SOCKET=/run/a.sock@web", "TANDEM_VIPS has no group web"},
		{"TANDEM_HAPROXY_SOCKET=/run/a.sock@none", "none of them serves the addresses of group default"},
		{"TANDEM_HAPROXY_SOCKET=/run/a.sock,", "an item of the list is empty"},
		{"TANDEM_STATE_FILE=/a,/b", "2 paths for the 1 sockets of TANDEM_HAPROXY_SOCKET; one each, in the same order"},
		{"TANDEM_SOCKET=/" + strings.Repeat("x", 120), "longer than 92 bytes"},
		{"TANDEM_STATE_DIR=/run/tandem/tandem.sock", "the same path as TANDEM_SOCKET"},
		{"TANDEM_SITES=a", `"a" is not site=backend/server`},
		{"TANDEM_SITES=a=*/a-*;b=*/a-*", "pattern */a-* stands at a and at b"},
		{"TANDEM_SITES=a=app", `"app" is not a backend/server glob`},
		{"TANDEM_SITES=a=app/x#y", `is not a backend/server glob`},
		{"TANDEM_SITES=a=*/[;b=*/b", `is not a backend/server glob`},
		{"TANDEM_CRITICAL=app", "it means nothing without TANDEM_SITES"},
		{"TANDEM_MIN_UP=0", "neither a number of servers nor a percentage"},
		{"TANDEM_MIN_UP=101%", "more than 100%"},
		{"TANDEM_SWITCH=both", "neither overlap nor exclusive"},
		{"TANDEM_SITE_AUTO=maybe", "neither on, off nor to=SITE"},
		{"TANDEM_PROBE=10.0.0.1:80", `"10.0.0.1:80" does not begin with tcp://`},
		{"TANDEM_PROBE=tcp://10.0.0.1", `"tcp://10.0.0.1" has no port`},
		{"TANDEM_HOLD=10.0.0.1:5999", "it must be an address on loopback"},
		{"TANDEM_API=localhost:8405", "neither off nor an IP address with a port"},
		{"TANDEM_API=0.0.0.0:8405", "it listens beyond loopback, so TANDEM_API_TOKEN"},
		{"TANDEM_API=[::]:8405", "it listens beyond loopback"},
		{"TANDEM_API_TOKEN=two words", `TANDEM_API_TOKEN="(hidden)": a token consists of visible ASCII characters`},
		{"TANDEM_API_READ_TOKEN=passwört", `TANDEM_API_READ_TOKEN="(hidden)": a token consists of visible ASCII characters`},
		{"TANDEM_PREFER=lb9", `TANDEM_PREFER="lb9": lb9 is not among TANDEM_PEERS (lb1, lb2, witness), so it can hold nothing`},
		{"TANDEM_HOOK_TIMEOUT=0", `TANDEM_HOOK_TIMEOUT="0": out of bounds: 100ms to 24h0m0s`},
		{"TANDEM_PEERS=lb1=[fd00::1", `"[fd00::1" is neither an IP address nor a host name`},
		{"TANDEM_PEERS=lb1=fd00::1]", `"fd00::1]" is neither an IP address nor a host name`},
		{"TANDEM_PEERS=lb1=fd00::1:7946", `"fd00::1:7946" may be an address or one with a port: write [fd00::1]:7946`},
		{"TANDEM_API_CERT=/x.pem", "are needed both, or neither"},
		{"TANDEM_WEBHOOK=ftp://user:pass@example.com/secret", `TANDEM_WEBHOOK="ftp://example.com/…": not an http or https URL`},
		{"TANDEM_LOG_LEVEL=loud", "neither debug, info, warn nor error"},
		{"TANDEM_PEER=x", "TANDEM_PEER: no such variable; did you mean TANDEM_PEERS?"},
		{"TANDEM_API_TOKEN_FIL=x", "did you mean TANDEM_API_TOKEN_FILE?"},
		{"TANDEM_VIP=x", "did you mean TANDEM_VIPS?"},
		{"TANDEM_XYZZY_PLUGH_FOO=x", "TANDEM_XYZZY_PLUGH_FOO: no such variable; `tandem config --table` lists them"},
		{"TANDEM_KEY_FILE=/no/such/file", `TANDEM_KEY_FILE="/no/such/file": TANDEM_KEY is set too`},
	} {
		_, err := Load(environ(tc.set))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s:\n got %v\nwant %s", tc.set, err, tc.want)
			continue
		}
		if n := strings.Count(err.Error(), "\n"); n > 0 {
			t.Errorf("%s: blamed %d times: %v", tc.set, n+1, err)
		}
	}
}

func TestAllErrorsAreReportedTogetherInTheOrderOfTheTable(t *testing.T) {
	_, err := Load([]string{"TANDEM_LOG_LEVEL=x", "TANDEM_LEASE=x", "TANDEM_NODE=-", "TANDEM_SITES=x"})
	var all Errors
	if !errors.As(err, &all) {
		t.Fatalf("not Errors: %v", err)
	}
	var got []string
	for _, e := range all {
		got = append(got, e.Variable)
	}
	want := []string{"TANDEM_NODE", "TANDEM_PEERS", "TANDEM_KEY", "TANDEM_LEASE", "TANDEM_SITES", "TANDEM_LOG_LEVEL"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestASecretIsReadFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(testKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(environ("TANDEM_KEY=", "TANDEM_KEY_FILE="+path))
	if err != nil || len(c.Keys) != 1 || len(c.Keys[0]) != 32 {
		t.Fatalf("keys %v, error %v", len(c.Keys), err)
	}
	_, err = Load(environ("TANDEM_KEY=", "TANDEM_KEY_FILE="+path+".absent"))
	if err == nil || !strings.Contains(err.Error(), "cannot read the file: no such file or directory") || strings.Contains(err.Error(), "required") {
		t.Errorf("absent file: %v", err)
	}
}

// Somebody who puts the key itself where its file belongs must not find it in
// the log.
func TestAKeyInPlaceOfItsFileIsNotPrinted(t *testing.T) {
	for _, key := range []string{testKey, "/wAAAAAAAAAAAAAAAAAAAA=="} {
		_, err := Load(environ("TANDEM_KEY=", "TANDEM_KEY_FILE="+key))
		if err == nil || strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "TANDEM_KEY_FILE=") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// Kubernetes gives every container variables of each Service in the namespace;
// one whose name begins with tandem must not keep the sidecar from starting.
func TestVariablesOfKubernetesServicesAreNotOurs(t *testing.T) {
	links := []string{
		"TANDEM_SERVICE_HOST=10.96.0.7", "TANDEM_SERVICE_PORT=8405", "TANDEM_SERVICE_PORT_HTTP=8405", "TANDEM_PORT=tcp://10.96.0.7:8405",
		"TANDEM_PORT_8405_TCP=tcp://10.96.0.7:8405", "TANDEM_PORT_8405_TCP_PROTO=tcp", "TANDEM_PORT_8405_TCP_PORT=8405", "TANDEM_PORT_8405_TCP_ADDR=10.96.0.7",
		"TANDEM_API_SERVICE_HOST=10.96.0.8", "TANDEM_API_PORT=udp://[fd00::1]:53", "TANDEM_API_PORT_53_UDP_ADDR=fd00::1",
	}
	if _, err := Load(environ(links...)); err != nil {
		t.Error(err)
	}
	for _, slip := range []string{"TANDEM_PORT=7946", "TANDEM_SERVICE_HOST=lb1", "TANDEM_API_PORT=8405"} {
		if _, err := Load(environ(slip)); err == nil || !strings.Contains(err.Error(), "no such variable") {
			t.Errorf("%s: %v", slip, err)
		}
	}
}

func TestNoSecretIsEverPrinted(t *testing.T) {
	const token, read, webhook = "operate-0123456789abcdef", "read-0123456789abcdef", "signing-secret"
	c, err := Load(environ("TANDEM_API_TOKEN="+token, "TANDEM_API_READ_TOKEN="+read,
		"TANDEM_WEBHOOK=https://user:pw-0815@hooks.example.com/T0/B1/pathsecret", "TANDEM_WEBHOOK_SECRET="+webhook))
	if err != nil {
		t.Fatal(err)
	}
	anyVerb := strings.Join([]string{"%x", "%s", "%d"}, " ") // not a constant, so that vet lets it pass
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	raw := string(c.Keys[0])
	for _, text := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf(anyVerb, c, c, c),
		fmt.Sprint(c.Settings()), string(asJSON), fmt.Sprintf("%x %s %v", c.APIToken, c.Keys, &c.Keys),
	} {
		for _, secret := range []string{token, read, webhook, testKey, raw, "pathsecret", "pw-0815", fmt.Sprintf("%x", token), "0 1 2 3 4 5"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q found in %s", secret, text)
			}
		}
	}
	if c.APIToken.Reveal() != token || c.Webhook.Reveal() == "" {
		t.Error("the secret itself is lost")
	}
}

func TestModeFollowsTheNumberOfVoters(t *testing.T) {
	for peers, want := range map[string]Mode{
		"lb1=10.0.0.1":                           ModeSingle,
		"lb1=10.0.0.1,lb2=10.0.0.2":              ModePair,
		"lb1=10.0.0.1,lb2=10.0.0.2,w=[fd00::1]":  ModeQuorum,
		"lb1=a.example:1,lb2=b,c=fd00::2,d=10.1": "", // refused
	} {
		c, err := Load(environ("TANDEM_PEERS=" + peers))
		if c.Mode != want {
			t.Errorf("%s: mode %q, error %v", peers, c.Mode, err)
		}
	}
}

func TestPeersTakeNamesPortsAndIPv6(t *testing.T) {
	var p Peers
	if err := p.UnmarshalText([]byte("a=h.example, b=10.0.0.1:99 ,c=fd00::1,d=[fd00::2]:5,e=[fd00::3]")); err != nil {
		t.Fatal(err)
	}
	want := Peers{{"a", "h.example:7946"}, {"b", "10.0.0.1:99"}, {"c", "[fd00::1]:7946"}, {"d", "[fd00::2]:5"}, {"e", "[fd00::3]:7946"}}
	if !slices.Equal(p, want) {
		t.Errorf("got %v", p)
	}
}

func TestGroupsSitesAndPreferences(t *testing.T) {
	c, err := Load(environ("TANDEM_VIPS=web=10.0.0.100/24@eth0,2001:db8::100@eth0;cloud=", "TANDEM_PREFER=lb2",
		"TANDEM_SITES=a=*/a-*,x/1;b=*/b-*", "TANDEM_MIN_UP=50%", "TANDEM_SITE_AUTO=to=b", "TANDEM_HOOK_TAKEOVER=/a b;/c;"))
	if err != nil {
		t.Fatal(err)
	}
	web, _ := c.VIPGroup("web")
	if got := fmt.Sprint(web.Addresses); got != "[{10.0.0.100/24 eth0} {2001:db8::100/128 eth0}]" {
		t.Errorf("web: %s", got)
	}
	if c.Prefer["web"] != "lb2" || c.Prefer["cloud"] != "lb2" || len(c.Prefer) != 2 {
		t.Errorf("prefer: %v", c.Prefer)
	}
	if got := fmt.Sprint(c.Sites); got != "[{a [*/a-* x/1]} {b [*/b-*]}]" {
		t.Errorf("sites: %s", got)
	}
	if c.MinUp != (MinUp{Percent: 50}) || c.SiteAuto.To != "b" || len(c.HookTakeover) != 2 {
		t.Errorf("min-up %v, auto %v, hooks %q", c.MinUp, c.SiteAuto, c.HookTakeover)
	}
}

func TestAFollowerHasNoVoteAndAWitnessMustHaveOne(t *testing.T) {
	c, err := Load(environ("TANDEM_NODE=lb9"))
	if err != nil || c.Voter() || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "follows without a vote") {
		t.Errorf("follower: voter %v, warnings %q, error %v", c.Voter(), c.Warnings, err)
	}
	_, err = Load(environ("TANDEM_NODE=w9", "TANDEM_ROLE=witness"))
	if err == nil || !strings.Contains(err.Error(), "a witness must be one of TANDEM_PEERS (lb1, lb2, witness)") {
		t.Errorf("witness: %v", err)
	}
}

func TestSharedSettingsCompareByMeaning(t *testing.T) {
	load := func(change ...string) map[string]string {
		c, err := Load(environ(change...))
		if err != nil {
			t.Fatal(err)
		}
		return c.Shared()
	}
	a := load("TANDEM_VIPS=10.0.0.100@eth0", "TANDEM_MOVE_GRACE=60s", "TANDEM_NODE=lb1")
	b := load("TANDEM_VIPS=10.0.0.100/32@ens3", "TANDEM_MOVE_GRACE=1m", "TANDEM_NODE=lb2")
	if !reflect.DeepEqual(a, b) {
		t.Errorf("the same meaning compares as different:\n%v\n%v", a, b)
	}
	c := load("TANDEM_VIPS=10.0.0.101@eth0", "TANDEM_MOVE_GRACE=1m")
	if a["TANDEM_VIPS"] == c["TANDEM_VIPS"] {
		t.Error("another address compares as the same")
	}
}

func FuzzLoadNeverPanics(f *testing.F) {
	for _, v := range Table() {
		f.Add(v.Name, v.Example)
	}
	f.Add("TANDEM_PEERS", "a=[::1]:1,b=::,c=[")
	f.Fuzz(func(t *testing.T, name, value string) {
		c, err := Load(environ(name + "=" + value))
		if err == nil && (c.Mode == "" || len(c.VIPs) == 0 || len(c.Peers) == 0) {
			t.Errorf("%s=%q: accepted without mode, groups or peers", name, value)
		}
	})
}

func TestIndependentBackendsAreNames(t *testing.T) {
	_, err := Load([]string{
		"TANDEM_PEERS=lb1=10.0.0.11", "TANDEM_NODE=lb1", "TANDEM_INSECURE=true",
		"TANDEM_SITES=a=*/a-*;b=*/b-*", "TANDEM_INDEPENDENT=amq*",
	})
	if err == nil || !strings.Contains(err.Error(), `TANDEM_INDEPENDENT="amq*": amq* is a glob`) {
		t.Errorf("got %v", err)
	}
}

func TestSeveralHAProxys(t *testing.T) {
	c, err := Load(environ("TANDEM_VIPS=web=10.0.0.100@eth0;api=10.0.0.101@eth0",
		"TANDEM_HAPROXY_SOCKET=/run/web.sock@web, api=/run/2.sock@api+web ,/run/inner.sock@none", "TANDEM_STATE_FILE=/s/1,/s/2,/s/3"))
	if err != nil {
		t.Fatal(err)
	}
	want := HAProxys{
		{Name: "web", Socket: "/run/web.sock", Groups: []string{"web"}, StateFile: "/s/1"},
		{Name: "api", Socket: "/run/2.sock", Groups: []string{"api", "web"}, StateFile: "/s/2"},
		{Name: "inner", Socket: "/run/inner.sock", Groups: []string{}, StateFile: "/s/3"},
	}
	if !reflect.DeepEqual(c.HAProxys, want) {
		t.Errorf("%+v", c.HAProxys)
	}
	if !c.HAProxys[2].Aside() || c.HAProxys[1].Aside() || c.HAProxys[0].Serves("api") {
		t.Error("who serves what")
	}
	one, err := Load(environ("TANDEM_HAPROXY_SOCKET=/run/haproxy/admin.sock"))
	if err != nil || len(one.HAProxys) != 1 || one.HAProxys[0].Name != "" || !one.HAProxys[0].Serves("default") {
		t.Errorf("a single path: %+v, %v", one.HAProxys, err)
	}
}

func TestLegalSettingsThatDeserveAWord(t *testing.T) {
	for _, tc := range []struct{ set, want string }{
		{"TANDEM_API_TOKEN=secret", "TANDEM_API_TOKEN has fewer than 16 characters and can be guessed"},
		{"TANDEM_BIND=0.0.0.0:7000", "the others look for this node at 10.0.0.11:7946 (TANDEM_PEERS), and it listens on 0.0.0.0:7000 (TANDEM_BIND)"},
		{"TANDEM_PEERS=lb1=10.0.0.11:7000,lb2=10.0.0.12,witness=10.0.0.13", "the others look for this node at 10.0.0.11:7000 (TANDEM_PEERS), and it listens on 0.0.0.0:7946 (TANDEM_BIND)"},
	} {
		c, err := Load(environ(tc.set))
		if err != nil || len(c.Warnings) != 1 || !strings.HasPrefix(c.Warnings[0], tc.want) {
			t.Errorf("%s: warnings %q, error %v", tc.set, c.Warnings, err)
		}
	}
}
