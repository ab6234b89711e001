// Package gossip carries opaque bytes between the nodes of a cluster and says
// who is there. It is hashicorp/memberlist behind Run, Send, Broadcast and
// Members, with what memberlist leaves to its users added around it.
//
// Stance:
//
//   - Membership is a hint. Failure detection by gossip takes seconds and is
//     sometimes wrong, so nothing here decides who may act. [Gossip.Send] goes
//     to the configured address of a voter even while the membership calls
//     that voter dead.
//   - Delivery is not promised. Messages are lost, repeated, reordered and
//     delivered late; a replay by a stranger who recorded the network cannot be
//     told from the original. Whoever uses this package puts sender, addressee
//     and a number into each message and checks them.
//   - Nothing that a caller does can block on the network: Send, Broadcast,
//     Members and Health return at once.
//   - Strangers cost little. A guard before memberlist drops what does not look
//     like ours by its first bytes, counts it and does not log it. It is not
//     only thrift: memberlist v0.7.0 panics on a recorded datagram whose one
//     unauthenticated byte was changed (see guard.go).
//   - A partition heals. memberlist never joins again by itself; a loop here
//     does, for each voter that is missing, for as long as it is missing.
//
// Each process gives itself a new name on the wire, node and boot joined by a
// dot, so that a restart is always a new member and two processes of one name
// can be told apart.
//
// The order of a caller: [New], then [Gossip.Run] in a goroutine of its own; read
// [Gossip.Messages] without pause; look at [Gossip.Members] after each
// [Gossip.Changed].
package gossip
