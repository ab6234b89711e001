package vip

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func icmp6(kind byte) exprs {
	return join(protocol(expr.CmpOpEq, unix.IPPROTO_ICMPV6), transport(0, 1, regA), equals(regA, kind))
}

const (
	neighborSolicitation  = 135
	neighborAdvertisement = 136
)

// target of a neighbour solicitation or advertisement.
func target() exprs { return transport(8, 16, regA) }

// solicitations for an address that we may not answer for are dropped, those
// sent to the address itself (reachability probes) as well.
//
//	icmpv6 type nd-neighbor-solicit icmpv6 taddr @ours icmpv6 taddr != @serve drop
//	icmpv6 type nd-neighbor-solicit icmpv6 taddr @yield drop
func solicitations() []exprs {
	return []exprs{
		join(icmp6(neighborSolicitation), target(), in(setOurs, regA), notIn(setServe), drop),
		join(icmp6(neighborSolicitation), target(), in(setYield, regA), drop),
	}
}

// advertisements of such an address do not go out, those of this process neither.
//
//	icmpv6 type nd-neighbor-advert icmpv6 taddr @ours icmpv6 taddr != @serve drop
//	icmpv6 type nd-neighbor-advert icmpv6 taddr @yield drop
func advertisements() []exprs {
	return []exprs{
		join(icmp6(neighborAdvertisement), target(), in(setOurs, regA), notIn(setServe), drop),
		join(icmp6(neighborAdvertisement), target(), in(setYield, regA), drop),
	}
}

// ownQuestions: see the ARP table in rules.go.
//
//	icmpv6 type nd-neighbor-solicit ip6 saddr @yield ip6 saddr set ip6 saddr map @self accept
//	icmpv6 type nd-neighbor-solicit ip6 saddr @yield drop
func ownQuestions() []exprs {
	write := &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: regB, Base: expr.PayloadBaseNetworkHeader,
		Offset: layout6.saddr, Len: 16,
		// The source address is in the ICMPv6 checksum, which stands two bytes
		// behind the header of 40.
		CsumType: expr.CsumTypeInet, CsumOffset: 42,
	}
	asked := join(icmp6(neighborSolicitation), layout6.src(regA), in(setYield, regA))
	return []exprs{
		join(asked, mapped(setSelf, regA, regB), exprs{write}, accept),
		join(asked, drop),
	}
}

// arpChains is the gate for address resolution of IPv4.
func arpChains() []chainRules {
	const operation, sender, targetIP = 6, 14, 24
	request := join(network(operation, 2, regA), equals(regA, 0, 1))
	write := &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: regB, Base: expr.PayloadBaseNetworkHeader, Offset: sender, Len: 4,
	}
	// The hooks of this family have numbers of their own (linux/netfilter_arp.h).
	hookIn, hookOut := nftables.ChainHookRef(0), nftables.ChainHookRef(1)
	return []chainRules{
		{name: "in", hook: hookIn, rules: []exprs{
			join(request, network(targetIP, 4, regA), in(setOurs, regA), notIn(setAnswer), drop),
		}},
		{name: "out", hook: hookOut, rules: []exprs{
			join(network(sender, 4, regA), notIn(setOurs), accept),
			join(network(sender, 4, regA), in(setAnswer, regA), accept),
			join(request, network(sender, 4, regA), mapped(setSelf, regA, regB), exprs{write}, accept),
			drop,
		}},
	}
}
