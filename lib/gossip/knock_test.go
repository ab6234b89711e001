package gossip

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// A node that does not run yet learns whether the others would take it in, and
// becomes no member by asking.
func TestAKnockTellsWhoWouldTakeUsIn(t *testing.T) {
	at := func(change ...func(*Config)) (*realNode, string) {
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		return startReal(t, "a", addr, nil, change...), addr
	}
	node, same := at()
	_, plain := at(func(c *Config) { c.Keys, c.Insecure = nil, true })
	other := []byte("another key of 32 bytes, no less")
	rotating := [][]byte{other, testKey}
	_, two := at(func(c *Config) { c.Keys = rotating })
	answers := func(text string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 512))
				_, _ = conn.Write([]byte(text))
				_ = conn.Close()
			}
		}()
		return l.Addr().String()
	}
	for _, x := range []struct {
		what, addr, cluster string
		keys                [][]byte
		want                Reason
	}{
		{"the same key", same, "test", [][]byte{testKey}, ReasonNone},
		{"its key is our second", same, "test", rotating, ReasonWrongKey},
		{"our key is its second", two, "test", [][]byte{testKey}, ReasonWrongKey},
		{"both of two keys", two, "test", rotating, ReasonNone},
		{"another key", same, "test", [][]byte{other}, ReasonWrongKey},
		{"another cluster", same, "prod", [][]byte{testKey}, ReasonOtherCluster},
		{"it does not encrypt", plain, "test", [][]byte{testKey}, ReasonNotEncrypted},
		{"neither encrypts", plain, "test", nil, ReasonNone},
		{"it encrypts", same, "test", nil, ReasonClosed},
		{"nobody", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "test", [][]byte{testKey}, ReasonRefused},
		{"a web server", answers("HTTP/1.1 400 Bad Request\r\n\r\n"), "test", [][]byte{testKey}, ReasonFailed},
		{"garbage that looks encrypted", answers("\x0a\xff\xff\xff\xffgarbage"), "test", [][]byte{testKey}, ReasonWrongKey},
	} {
		var got Reason
		var detail string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if got, detail = Knock(t.Context(), x.addr, x.cluster, x.keys); got == x.want {
				break // the nodes take a moment to listen
			}
		}
		if got != x.want {
			t.Errorf("%s: %q (%s), want %q", x.what, got, detail, x.want)
		}
	}
	if members := node.Members(); len(members) != 1 {
		t.Errorf("a knock has made members: %v", members)
	}
}
