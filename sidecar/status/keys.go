package status

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Keys says which keys the nodes of a cluster hold, each named by a hash of it.
type Keys struct {
	OK       bool       `json:"ok"`       // all nodes agree; or hold all that were asked for
	Problems []string   `json:"problems"` // why not, a sentence each
	Nodes    []NodeKeys `json:"nodes"`
	Keys     []Key      `json:"keys"`
}

// NodeKeys are the keys of one node. Those of a node that is silent are not
// known.
type NodeKeys struct {
	Node     string   `json:"node"`
	Alive    bool     `json:"alive"`
	Encrypts string   `json:"encrypts"`
	Decrypts []string `json:"decrypts"` // with these as well
}

// Key is one key and who holds it.
type Key struct {
	ID       string   `json:"id"`
	Holds    []string `json:"holds"`
	Encrypts []string `json:"encrypts"`
	Wanted   bool     `json:"wanted,omitempty"` // it was asked for
}

// NewKeys looks at a status. With wanted, the names of keys, it asks whether
// all nodes hold these; without, whether all hold the same. A follower that is
// silent is gone and does not count.
func NewKeys(s Status, wanted []string) Keys {
	k := Keys{Problems: []string{}, Nodes: []NodeKeys{}, Keys: []Key{}}
	for _, id := range wanted {
		k.key(id).Wanted = true
	}
	for _, n := range s.Nodes {
		switch {
		case !n.Alive && !n.Voter:
			continue
		case !n.Alive:
			k.Nodes = append(k.Nodes, NodeKeys{Node: n.Name})
			k.say("%s is silent: nobody knows its keys", n.Name)
			continue
		case len(n.Keys) == 0:
			k.Nodes = append(k.Nodes, NodeKeys{Node: n.Name, Alive: true})
			k.say("%s does not encrypt, or is of a version that does not tell its keys", n.Name)
			continue
		}
		k.Nodes = append(k.Nodes, NodeKeys{Node: n.Name, Alive: true, Encrypts: n.Keys[0], Decrypts: n.Keys[1:]})
		for i, id := range n.Keys {
			key := k.key(id)
			key.Holds = append(key.Holds, n.Name)
			if i == 0 {
				key.Encrypts = append(key.Encrypts, n.Name)
			}
		}
		k.keysWait(n)
	}
	k.compare(len(wanted) > 0)
	k.OK = len(k.Problems) == 0
	return k
}

// keysWait passes on why a node does not hold yet what its file says.
func (k *Keys) keysWait(n Node) {
	for _, w := range n.Warnings {
		if strings.HasPrefix(w, "keys-") {
			k.say("%s: %s", n.Name, w)
		}
	}
}

func (k *Keys) say(format string, args ...any) {
	k.Problems = append(k.Problems, fmt.Sprintf(format, args...))
}

func (k *Keys) key(id string) *Key {
	i := slices.IndexFunc(k.Keys, func(key Key) bool { return key.ID == id })
	if i < 0 {
		k.Keys = append(k.Keys, Key{ID: id, Holds: []string{}, Encrypts: []string{}})
		i = len(k.Keys) - 1
	}
	return &k.Keys[i]
}

// compare finds keys that some nodes lack, or only some encrypt with.
func (k *Keys) compare(asked bool) {
	var told []string
	for _, n := range k.Nodes {
		if n.Encrypts != "" {
			told = append(told, n.Node)
		}
	}
	for _, key := range k.Keys {
		if asked && !key.Wanted {
			continue
		}
		lacking := slices.DeleteFunc(slices.Clone(told), func(n string) bool { return slices.Contains(key.Holds, n) })
		if len(lacking) > 0 {
			k.say("key %s is not held by %s", key.ID, strings.Join(lacking, " "))
		}
		if !asked && len(key.Encrypts) > 0 && len(key.Encrypts) < len(told) {
			k.say("key %s encrypts on %s only", key.ID, strings.Join(key.Encrypts, " "))
		}
	}
}

// RenderKeys prints who holds what, and the answer.
func RenderKeys(w io.Writer, k Keys, sc Screen) error {
	p := sc.page()
	rows := [][]cell{{c("nodes"), c("encrypts with"), c("decrypts also")}}
	for _, n := range k.Nodes {
		encrypts := c(orDash(n.Encrypts))
		if !n.Alive {
			encrypts = c("silent", bad)
		}
		rows = append(rows, []cell{c("  " + n.Node), encrypts, c(orDash(strings.Join(n.Decrypts, " ")))})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
	rows = [][]cell{{c("keys"), c("held by"), c("encrypts on")}}
	for _, key := range k.Keys {
		name := "  " + key.ID
		if key.Wanted {
			name += " (asked for)"
		}
		rows = append(rows, []cell{
			c(name), c(fmt.Sprintf("%d of %d: %s", len(key.Holds), len(k.Nodes), orDash(strings.Join(key.Holds, " ")))),
			c(orDash(strings.Join(key.Encrypts, " "))),
		})
	}
	p.table(rows...)
	p.b.WriteByte('\n')
	for _, problem := range k.Problems {
		p.text(c("! ", warn), problem)
	}
	if k.OK && slices.ContainsFunc(k.Keys, func(key Key) bool { return key.Wanted }) {
		p.text(c(""), "All nodes hold the keys that were asked for.")
	} else if k.OK {
		p.text(c(""), "All nodes hold the same keys and encrypt with the same one.")
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}
