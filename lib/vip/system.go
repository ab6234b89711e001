package vip

import (
	"fmt"
	"net/netip"

	"go.uber.org/zap"
)

// openSystem opens what the machine offers.
func (m *Manager) openSystem() error {
	if m.cfg.Observe || !m.has(false) {
		o := &observer{log: m.log, have: map[string]bool{}}
		m.sys = system{addresses: o, announcer: o, neighbours: o}
		m.setFence(FenceNone, "nothing is fenced")
		return nil
	}
	k, err := openKernel()
	if err != nil {
		return err
	}
	m.sys = system{addresses: k, announcer: newSpeaker(), neighbours: k, sockets: diag{}}
	if m.cfg.DisableGate {
		m.setFence(FenceLifetime, "the gate is turned off")
		return nil
	}
	four := len(m.ours("", false)) > 0
	gate, err := openNFT(tableName(m.cfg.Cluster, m.cfg.Node), m.cfg.Now, four, m.has(true))
	if err != nil {
		m.setFence(FenceLifetime, fmt.Sprintf("nftables: %v", named(err)))
		return nil
	}
	m.sys.gate = gate
	m.setFence(FenceGate, "")
	return nil
}

func (m *Manager) setFence(f Fence, why string) {
	m.fence, m.why = f, why
	m.metrics.fence(f)
	m.log.Info("virtual IPs: fence in force", zap.String("fence", string(f)), zap.String("detail", why))
}

func (o *observer) Own(Address, []netip.Addr) netip.Addr { return netip.Addr{} }
func (o *observer) Other(netip.Addr, string) netip.Addr  { return netip.Addr{} }
