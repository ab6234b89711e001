package vip

import (
	"go.uber.org/zap"
)

// observer is the system of a Manager that touches nothing: it logs what would
// be done, once, as an operator would type it.
type observer struct {
	log  *zap.Logger
	have map[string]bool
}

func (o *observer) would(command string) {
	o.log.Info("virtual IPs: observing only, would do", zap.String("command", command))
}

func (o *observer) Put(a Address, life int) error {
	if !o.have[a.String()] {
		o.would(putCommand(a, life))
	}
	o.have[a.String()] = true
	return nil
}

func (o *observer) Remove(a Address) (bool, error) {
	if o.have[a.String()] {
		o.would(removeCommand(a))
	}
	delete(o.have, a.String())
	return false, nil
}

// Settle has nothing to wait for.
func (o *observer) Settle(Address) {}

func (o *observer) Look(a Address) (presence, error) {
	return presence{there: o.have[a.String()], carrier: true, index: 1}, nil
}

func (o *observer) Announce(Address) error { return nil }

func (o *observer) Close() {}
