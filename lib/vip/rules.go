package vip

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The gate, as an operator would write it (ip; ip6 is the same with neighbour
// discovery added, see below). Everything but the elements of the sets stands
// still; a renewal replaces the elements of serve and answer.
//
//	table ip tandem_CLUSTER_NODE {
//	  set ours   { type ipv4_addr }                      # what we have put up
//	  set serve  { type ipv4_addr; flags timeout }       # until its deadline
//	  set yield  { type ipv4_addr }                      # planned move: we are the old holder
//	  set fresh  { type ipv4_addr; flags timeout }       # ... and still take new connections
//	  map late   { type ipv4_addr : ipv4_addr; flags timeout }  # ... afterwards they go to the successor
//	  set watch  { type ipv4_addr }                      # we are the new holder: our connections are noted
//	  map relay  { type ipv4_addr : ipv4_addr; flags timeout }  # ... and strays go to the predecessor
//	  set mine_a { type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic }          # ... except ours
//	  set mine_b { the same }
//	  set theirs { type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic,timeout }  # connections that began late
//	  chain in {
//	    type filter hook prerouting priority -310
//	    ip daddr != @ours accept
//	    ip daddr != @serve fib daddr type local drop
//	    meta l4proto != tcp accept
//	    ip daddr @yield ip daddr != @fresh tcp flags & (syn|ack) == syn goto late_syn
//	    ip daddr @yield ip saddr . tcp sport . ip daddr . tcp dport @theirs goto onward
//	    ip daddr @watch goto stray
//	  }
//	  chain stray {
//	    tcp flags & (syn|ack) == syn add @mine_a { ip saddr . tcp sport . ip daddr . tcp dport }
//	    tcp flags & (syn|ack) == syn add @mine_b { ip saddr . tcp sport . ip daddr . tcp dport }
//	    tcp flags & (syn|ack) == syn accept
//	    ip saddr . tcp sport . ip daddr . tcp dport @mine_a accept
//	    ip saddr . tcp sport . ip daddr . tcp dport @mine_b accept
//	    ip ttl < 4 accept
//	    ip ttl >= 8 ip ttl set 7
//	    dup to ip daddr map @relay device iif drop
//	  }
//	  chain late_syn {
//	    add @theirs { ip saddr . tcp sport . ip daddr . tcp dport timeout 10m }
//	    goto onward
//	  }
//	  chain onward {
//	    ip ttl < 4 drop
//	    ip ttl >= 8 ip ttl set 7
//	    dup to ip daddr map @late device iif drop
//	    drop
//	  }
//	  chain out {
//	    type filter hook output priority -310
//	    ip saddr != @ours accept
//	    ip saddr != @serve drop
//	    ip saddr @watch tcp flags & (syn|ack) == syn add @mine_a { ip daddr . tcp dport . ip saddr . tcp sport }
//	    ip saddr @watch tcp flags & (syn|ack) == syn add @mine_b { ip daddr . tcp dport . ip saddr . tcp sport }
//	  }
//	}
//	table arp tandem_CLUSTER_NODE {
//	  set ours   { type ipv4_addr }
//	  set answer { type ipv4_addr; flags timeout }
//	  map self   { type ipv4_addr : ipv4_addr }
//	  chain in {
//	    type filter hook input priority -310
//	    arp operation request arp daddr ip @ours arp daddr ip != @answer drop
//	  }
//	  chain out {
//	    type filter hook output priority -310
//	    arp saddr ip != @ours accept
//	    arp saddr ip @answer accept
//	    arp operation request arp saddr ip set arp saddr ip map @self accept
//	    drop
//	  }
//	}
//
// It stands before connection tracking (priority -200) and does not use it: it
// works whether conntrack is off, full or shared with others, and leaves
// nf_conntrack_tcp_loose alone. A new holder knows its own connections because
// it sees their SYN; those of an earlier tenure it reads from its sockets.
//
// A connection that has ended must not stay known: its client may use the same
// port again, for a connection with the other node, and that one would be taken
// for ours when the address comes back. So there are two lists of our own
// connections. What begins is noted in both, and what is in either is ours. With
// each tenure one list is emptied, filled with the connections that are open,
// and then the other is emptied: what ended is gone, and nothing that began
// meanwhile is missed.
//
// A node that yields must not ask for a neighbour's address in the name of the
// virtual IP: whoever hears the question moves its cache to us. Nor can it do
// without asking during a long grace. So such questions go out in the name of
// the node itself (the map self).
//
// A node that yields goes on relaying to its own predecessor: between its
// yielding and the successor's announcement it still gets everybody's packets,
// and after a move to and fro the predecessor is the successor. So that two
// nodes cannot send a packet that neither knows to and fro for ever, a relayed
// packet has little time to live left, of which each relaying takes one; who
// gets it with too little gives it to its own TCP, which resets it.

// gatePriority is before raw (-300) and connection tracking (-200).
const gatePriority = -310

const (
	// The constant tupleTimeout bounds how long a connection that began late is sent on.
	tupleTimeout = 10 * time.Minute
	// The constant tupleSize bounds the memory of the connection sets, about 100 bytes each.
	tupleSize = 1 << 19
)

// Sets, by name.
const (
	setOurs   = "ours"
	setServe  = "serve"
	setYield  = "yield"
	setFresh  = "fresh"
	setLate   = "late"
	setWatch  = "watch"
	setRelay  = "relay"
	setMineA  = "mine_a"
	setMineB  = "mine_b"
	setTheirs = "theirs"
	setAnswer = "answer"
	setSelf   = "self"
)

// Registers: two of 16 bytes for addresses, and the first four words for tuples.
const (
	regA     = unix.NFT_REG_1
	regB     = unix.NFT_REG_2
	regC     = unix.NFT_REG_3
	regTuple = unix.NFT_REG32_00
)

// layout is what differs between the families.
type layout struct {
	family         nftables.TableFamily
	addr           nftables.SetDatatype
	size           uint32 // of an address
	saddr, daddr   uint32 // offsets in the network header
	ttl            uint32
	tuple          nftables.SetDatatype
	sports, daddrs uint32 // registers of source port and destination in a tuple
	dports         uint32
}

var (
	layout4 = layout{
		family: nftables.TableFamilyIPv4, addr: nftables.TypeIPAddr, size: 4, saddr: 12, daddr: 16, ttl: 8,
		tuple:  nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService),
		sports: regTuple + 1, daddrs: regTuple + 2, dports: regTuple + 3,
	}
	layout6 = layout{
		family: nftables.TableFamilyIPv6, addr: nftables.TypeIP6Addr, size: 16, saddr: 8, daddr: 24, ttl: 7,
		tuple:  nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService, nftables.TypeIP6Addr, nftables.TypeInetService),
		sports: regTuple + 4, daddrs: regTuple + 5, dports: regTuple + 9,
	}
)

type exprs = []expr.Any

func join(parts ...exprs) exprs {
	var out exprs
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func load(base expr.PayloadBase, offset, size, reg uint32) exprs {
	return exprs{&expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: size}}
}

func network(offset, size, reg uint32) exprs {
	return load(expr.PayloadBaseNetworkHeader, offset, size, reg)
}

func transport(offset, size, reg uint32) exprs {
	return load(expr.PayloadBaseTransportHeader, offset, size, reg)
}

func equals(reg uint32, data ...byte) exprs {
	return exprs{&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}}
}

func in(set string, reg uint32) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg, SetName: set}}
}

func notIn(set string) exprs {
	return exprs{&expr.Lookup{SourceRegister: regA, SetName: set, Invert: true}}
}

func mapped(set string, from, to uint32) exprs {
	return exprs{&expr.Lookup{SourceRegister: from, SetName: set, DestRegister: to, IsDestRegSet: true}}
}

func verdict(k expr.VerdictKind) exprs { return exprs{&expr.Verdict{Kind: k}} }

func goTo(chain string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func addTo(set string, timeout time.Duration) exprs {
	return exprs{&expr.Dynset{SrcRegKey: regTuple, SetName: set, Operation: unix.NFT_DYNSET_OP_ADD, Timeout: timeout}}
}

var (
	accept = verdict(expr.VerdictAccept)
	drop   = verdict(expr.VerdictDrop)
)

func protocol(op expr.CmpOp, proto byte) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regA},
		&expr.Cmp{Op: op, Register: regA, Data: []byte{proto}},
	}
}

// syn: SYN without ACK, the first packet of a connection.
func syn() exprs {
	return join(protocol(expr.CmpOpEq, unix.IPPROTO_TCP), transport(13, 1, regA), exprs{
		&expr.Bitwise{SourceRegister: regA, DestRegister: regA, Len: 1, Mask: []byte{0x12}, Xor: []byte{0}},
	}, equals(regA, 0x02))
}

// local: the destination is an address of this machine.
func local() exprs {
	return exprs{
		&expr.Fib{Register: regB, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regB, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func (l layout) src(reg uint32) exprs { return network(l.saddr, l.size, reg) }
func (l layout) dst(reg uint32) exprs { return network(l.daddr, l.size, reg) }

// incoming loads the tuple of a connection as its client sends it; outgoing of
// one that this machine opens, turned round.
func (l layout) incoming() exprs {
	return join(l.src(regTuple), transport(0, 2, l.sports), l.dst(l.daddrs), transport(2, 2, l.dports))
}

func (l layout) outgoing() exprs {
	return join(l.dst(regTuple), transport(2, 2, l.sports), l.src(l.daddrs), transport(0, 2, l.dports))
}

// Relayed packets have a time to live of 7 at most; with less than 4 they are
// relayed no more.
func (l layout) tired() exprs { return l.ttlIs(expr.CmpOpLt, 4) }

func (l layout) tire() exprs {
	if l.size == 16 {
		return join(l.ttlIs(expr.CmpOpGte, 8), write(l.ttl, 7))
	}
	// The checksum of the IPv4 header is over pairs of bytes; the other one of
	// this pair is the protocol.
	return join(l.ttlIs(expr.CmpOpGte, 8), write(l.ttl, 7, unix.IPPROTO_TCP))
}

func (l layout) ttlIs(op expr.CmpOp, n byte) exprs {
	return join(network(l.ttl, 1, regA), exprs{&expr.Cmp{Op: op, Register: regA, Data: []byte{n}}})
}

// write puts bytes into the network header; two of them are in its checksum.
func write(offset uint32, data ...byte) exprs {
	p := &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: regA,
		Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(data)),
	}
	if len(data) == 2 {
		p.CsumType, p.CsumOffset = expr.CsumTypeInet, 10
	}
	return exprs{&expr.Immediate{Register: regA, Data: data}, p}
}

// send copies the packet to the node that a map names for its destination, over
// the link it came in by.
func (l layout) send(set string) exprs {
	return join(l.dst(regA), mapped(set, regA, regB), exprs{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: regC},
		&expr.Dup{RegAddr: regB, RegDev: regC, IsRegDevSet: true},
	}, drop)
}

// chainRules is a chain and what stands in it, in order.
type chainRules struct {
	name  string
	hook  *nftables.ChainHook // nil: reached by goto
	rules []exprs
}

// chains of an ip or ip6 table. Chains reached by goto come first.
func (l layout) chains() []chainRules {
	inRules := []exprs{
		join(l.dst(regA), notIn(setOurs), accept),
		join(l.dst(regA), notIn(setServe), local(), drop),
		join(protocol(expr.CmpOpNeq, unix.IPPROTO_TCP), accept),
		join(l.dst(regA), in(setYield, regA), notIn(setFresh), syn(), goTo("late_syn")),
		join(l.dst(regA), in(setYield, regA), l.incoming(), in(setTheirs, regTuple), goTo("onward")),
		join(l.dst(regA), in(setWatch, regA), goTo("stray")),
	}
	outRules := []exprs{
		join(l.src(regA), notIn(setOurs), accept),
		join(l.src(regA), notIn(setServe), drop),
		join(l.src(regA), in(setWatch, regA), syn(), l.outgoing(), addTo(setMineA, 0)),
		join(l.src(regA), in(setWatch, regA), syn(), l.outgoing(), addTo(setMineB, 0)),
	}
	if l.size == 16 {
		inRules = append(solicitations(), inRules...)
		outRules = append(outRules[:2:2], append(ownQuestions(), outRules[2:]...)...)
		outRules = append(advertisements(), outRules...)
	}
	return []chainRules{
		{name: "onward", rules: []exprs{join(l.tired(), drop), l.tire(), l.send(setLate), drop}},
		{name: "late_syn", rules: []exprs{join(l.incoming(), addTo(setTheirs, tupleTimeout)), goTo("onward")}},
		{name: "stray", rules: []exprs{
			join(syn(), l.incoming(), addTo(setMineA, 0)),
			join(syn(), l.incoming(), addTo(setMineB, 0)),
			join(syn(), accept),
			join(l.incoming(), in(setMineA, regTuple), accept),
			join(l.incoming(), in(setMineB, regTuple), accept),
			join(l.tired(), accept),
			l.tire(),
			l.send(setRelay),
		}},
		{name: "in", hook: nftables.ChainHookPrerouting, rules: inRules},
		{name: "out", hook: nftables.ChainHookOutput, rules: outRules},
	}
}
