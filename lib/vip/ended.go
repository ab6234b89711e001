package vip

import (
	"context"
	"errors"
	"net/netip"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// A connection that has ended leaves its ports behind at the node that carried
// it, for a minute (TIME-WAIT). When the address has been elsewhere meanwhile,
// its client may have used the same port again, for a connection with the other
// node. Should that node die, the client's packets would come here and be
// answered from what was left, in numbers that mean nothing to it: a connection
// that hangs until the client gives up, in place of a reset. So what earlier
// tenures left is forgotten with each taking up.

// forgetEnded has Run forget, aside from the taking up, what has ended.
func (m *Manager) forgetEnded(g *group) {
	if m.sys.sockets == nil || m.cfg.Observe {
		return
	}
	var list []netip.Addr
	for _, c := range g.addrs {
		list = append(list, c.ip())
	}
	select {
	case m.ended <- list:
	default: // Run is busy with the last ones, or has ended
	}
}

// sweep forgets what forgetEnded asks for, until ctx ends.
func (m *Manager) sweep(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case list := <-m.ended:
			for _, ip := range list {
				n, err := m.sys.sockets.Forget(ip)
				if errors.Is(err, unix.EOPNOTSUPP) { // an older one: they stay for their minute
					m.log.Debug("virtual IPs: this kernel cannot forget ended connections", zap.Stringer("address", ip))
				} else if err != nil {
					m.log.Warn("virtual IPs: cannot forget ended connections", zap.Stringer("address", ip), zap.Error(err))
				} else if n > 0 {
					m.log.Debug("virtual IPs: forgot ended connections", zap.Stringer("address", ip), zap.Int("connections", n))
				}
			}
		}
	}
}
