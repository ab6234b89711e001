package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tandem/lib/gossip"
	"tandem/sidecar/config"
	"tandem/sidecar/status"
)

const (
	// How often the file of the keys is read again; SIGHUP makes it at once.
	keysEvery = 2 * time.Second
	// How often all nodes must have been seen to do without a key before it is
	// dropped here.
	dropAfter = 2

	keysWait = "keys-wait"
	keysFile = "keys-file"
)

// keyring brings the keys of gossip to what the file of TANDEM_KEY_FILE says,
// without a restart and without ever cutting a node off. It takes the steps of
// a rotation one by one, each when the others allow it:
//
//  1. a key that is new is added at once: it decrypts;
//  2. the first key of the file encrypts when every node holds it;
//  3. a key that is not in the file is dropped when no node encrypts with it.
//
// A restart takes the file as it is.
type keyring struct {
	file    string // empty: the keys came from the environment
	network keyHolder
	node    keyTeller
	log     *zap.Logger
	hup     chan os.Signal

	held    map[string][]byte // the keys in force, by name
	remarks map[string]string
	free    int // how often in a row nobody was seen to need what is to be dropped
}

type keyHolder interface {
	Keys() []string
	SetKeys(keys [][]byte) error
}

type keyTeller interface {
	Status() status.Status
	Remark(ctx context.Context, kind, text string) error
	Tell(ctx context.Context, t status.Transition) error
}

func newKeyring(cfg config.Config, network keyHolder, node keyTeller, log *zap.Logger) *keyring {
	k := &keyring{
		file: cfg.KeyFile, network: network, node: node, log: log.Named("keys"), hup: make(chan os.Signal, 1),
		held: map[string][]byte{}, remarks: map[string]string{},
	}
	k.hold(cfg.Keys)
	return k
}

// listen has SIGHUP come here.
func (k *keyring) listen() { signal.Notify(k.hup, syscall.SIGHUP) }

// Run looks at the file until ctx ends. It owns SIGHUP, which would end the
// process otherwise.
func (k *keyring) Run(ctx context.Context) error {
	k.listen()
	defer signal.Stop(k.hup)
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.hup:
			k.log.Info("told to read the keys again", zap.String("file", k.file))
			if k.file == "" {
				k.log.Warn("the keys were given in the environment: use TANDEM_KEY_FILE to change them without a restart")
			}
		case <-tick.C:
		}
		if k.file != "" {
			k.look(ctx)
		}
	}
}

// look reads the file and goes as far towards it as the others allow.
func (k *keyring) look(ctx context.Context) {
	keys, err := config.ReadKeys(k.file)
	if err != nil {
		k.remark(ctx, keysFile, err.Error()+"; the keys in force are kept")
		return
	}
	k.remark(ctx, keysFile, "")
	wanted, now := k.hold(keys), k.network.Keys()
	if same(wanted, now) {
		k.free = 0
		k.remark(ctx, keysWait, "")
		return
	}
	next, wait := k.step(wanted, now, k.node.Status())
	k.remark(ctx, keysWait, wait)
	if !same(next, now) {
		k.set(ctx, now, next)
	}
}

// step says which keys to hold next, the one that encrypts first, and what
// keeps this node from all that is wanted.
func (k *keyring) step(wanted, now []string, st status.Status) (next []string, wait string) {
	first, why := wanted[0], missing(wanted[0], st)
	if why != "" {
		first = now[0]
	}
	next = []string{first}
	for _, id := range append(slices.Clone(wanted), now...) {
		if !slices.Contains(next, id) {
			next = append(next, id)
		}
	}
	if why != "" {
		k.free = 0
		return next, why
	}
	if len(next) == len(wanted) {
		return next, ""
	}
	if why = using(wanted, st); why != "" {
		k.free = 0
		return next, why
	}
	// What was sent under the old key may still be on its way.
	if k.free++; k.free < dropAfter {
		return next, ""
	}
	return wanted, ""
}

// missing says who keeps this node from encrypting with a key. A follower
// hears of voters only, which hear of all: it goes after the first of them.
func missing(id string, st status.Status) string {
	voters, own, begun := 0, false, false
	for _, n := range st.Nodes {
		if n.Voter {
			voters++
			own = own || n.Name == st.Node
			begun = begun || len(n.Keys) > 0 && n.Keys[0] == id
		}
	}
	if voters == 0 {
		return "this node cannot tell what the others hold"
	}
	why := blocker(st, func(n status.Node) string {
		if !slices.Contains(n.Keys, id) {
			return fmt.Sprintf("%s does not hold key %s yet, so it does not encrypt here", n.Name, id)
		}
		return ""
	})
	if why == "" && !own && !begun {
		return fmt.Sprintf("no voter encrypts with key %s yet, so it does not encrypt here", id)
	}
	return why
}

// using says who still encrypts with a key that is not wanted any more.
func using(wanted []string, st status.Status) string {
	return blocker(st, func(n status.Node) string {
		if !slices.Contains(wanted, n.Keys[0]) {
			return fmt.Sprintf("%s encrypts with key %s, so it is kept here", n.Name, n.Keys[0])
		}
		return ""
	})
}

// blocker asks every other node. A voter that is silent may have any keys; a
// follower that is silent is gone.
func blocker(st status.Status, ask func(status.Node) string) string {
	for _, n := range st.Nodes {
		var why string
		switch {
		case n.Name == st.Node:
		case !n.Alive && n.Voter:
			why = n.Name + " is silent, and may not hold the new keys; a restart takes the file as it is"
		case !n.Alive:
		case len(n.Keys) == 0:
			why = n.Name + " does not tell its keys (an older version); a restart takes the file as it is"
		default:
			why = ask(n)
		}
		if why != "" {
			return why
		}
	}
	return ""
}

// set changes the keys in force.
func (k *keyring) set(ctx context.Context, now, next []string) {
	var keys [][]byte
	for _, id := range next {
		keys = append(keys, k.held[id])
	}
	if err := k.network.SetKeys(keys); err != nil {
		k.remark(ctx, keysFile, err.Error())
		return
	}
	for id := range k.held {
		if !slices.Contains(next, id) {
			delete(k.held, id)
		}
	}
	k.log.Info("keys changed", zap.Strings("from", now), zap.Strings("to", next))
	err := k.node.Tell(ctx, status.Transition{
		Resource: "node", Event: "keys", From: strings.Join(now, " "), To: strings.Join(next, " "), Reason: "key-file",
		Detail: "the first encrypts, all decrypt",
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		k.log.Warn("change of keys not told", zap.Error(err))
	}
}

// hold remembers keys and gives their names.
func (k *keyring) hold(keys [][]byte) []string {
	var ids []string
	for _, key := range keys {
		id := gossip.KeyID(key)
		k.held[id] = key
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// remark tells what an operator should know, when it changes.
func (k *keyring) remark(ctx context.Context, kind, text string) {
	if k.remarks[kind] == text {
		return
	}
	if text != "" {
		k.log.Warn("keys", zap.String("kind", kind), zap.String("detail", text))
	}
	if err := k.node.Remark(ctx, kind, text); err == nil {
		k.remarks[kind] = text
	}
}

// same says whether two rings encrypt and decrypt alike.
func same(a, b []string) bool {
	if len(a) != len(b) || len(a) == 0 || a[0] != b[0] {
		return len(a) == 0 && len(b) == 0
	}
	for _, id := range a {
		if !slices.Contains(b, id) {
			return false
		}
	}
	return true
}
