package haproxy

import (
	"slices"
	"testing"

	"tandem/haproxy/haproxytest"
)

// A host name set at the socket takes no server out of service: HAProxy marks it
// (bit 64) and resolves it anew. Marked so it is drained and made ready like any
// other.
func TestHostNameSetByHandStays(t *testing.T) {
	address, resolve := nameServer(t)
	resolve()
	p := haproxytest.Start(t, haproxytest.Global+`
resolvers r
  nameserver n `+address+`
  timeout resolve 100ms
  timeout retry 100ms
  hold valid 100ms
backend be
  server a-1 one.example:80 resolvers r init-addr none
  server b-1 two.example:80 resolvers r init-addr none
`)
	i := run(t, Config{Socket: p.Socket})
	i.Set(toA)
	i.until("resolved", func(o Observation) bool { return states(o.Servers) == "be/a-1=none be/b-1=FDRAIN" })
	for _, name := range []string{"a-1", "b-1"} {
		p.Do("set server be/" + name + " fqdn other-" + name + ".example")
	}
	renamed := func(o Observation) bool {
		return !slices.ContainsFunc(o.Servers, func(s Server) bool { return s.FQDN != "other-"+s.Server+".example" || !s.Up })
	}
	i.until("renamed", renamed)
	// HAProxy shows the mark when the state of the server changes next.
	for n, c := range []struct {
		to   Desired
		want string
	}{
		{toB, "be/a-1=FDRAIN+FQDN be/b-1=FQDN"},
		{toA, "be/a-1=FQDN be/b-1=FDRAIN+FQDN"},
		{toB, "be/a-1=FDRAIN+FQDN be/b-1=FQDN"},
	} {
		c.to.Epoch = uint64(10 + n)
		if o := i.applied(c.to); states(o.Servers) != c.want || len(o.Held) != 0 || !renamed(o) {
			t.Fatalf("step %d: %s, held %+v\n%+v", n, states(o.Servers), o.Held, o.Servers)
		}
	}
}
