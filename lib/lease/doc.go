// Package lease decides by quorum which node holds a lease, and carries a small
// value with it. It is a pure state machine: time, messages and wishes go in,
// and what the caller must do comes out. There is no clock, no goroutine, no
// I/O and no randomness but a seed inside, so that every run can be repeated.
//
// Read testdata/stories first, in their order: they tell the protocol. Then
// rules.go, which is all that safety rests on; then voter.go, bid.go, hold.go.
//
// # What the caller does
//
// One goroutine owns the Machine. For each input (a message, the time of
// Output.Wake, a wish) it
//
//  1. reads CLOCK_BOOTTIME once, and calls Step with that reading;
//  2. lets go of every lease in Output.LetGo: stops acting on it, at once;
//  3. writes Output.Persist to disk, if there is a state directory. A voter's
//     word must be on disk before it is given;
//  4. sends Output.Send;
//  5. takes up what is in Output.TakeUp, and moves fences to the deadlines in
//     Output.Renewed. A fence must end by itself at the deadline, whatever
//     becomes of this process; and immediately before each act the caller
//     compares the clock with the deadline;
//  6. acts on Output.Decided, logs Output.Notes;
//  7. calls Step(Tick) at Output.Wake at the latest.
//
// The slices in an Output are valid until the next Step. The incarnation is 128
// random bits, new for each process that begins anew. One whose program is replaced
// in place goes on under the same: Snapshot is all that a machine knows, and Restore
// makes the machine of it that takes its place. Messages may be lost, repeated, delayed,
// reordered and replayed; they must not be forged (encryption is the
// transport's matter), nor arrive from a node with the same name.
//
// # What holds
//
//   - At most one process holds a resource, by its own deadline.
//   - Until that deadline, a quorum of voters remembers its lease.
//   - A value that a quorum accepted is not lost or gone back on as long as a
//     quorum remembers it, and an epoch is given once. Without a disk, a voter
//     that restarts forgets its values until the next renewal, and its promises
//     for good; a decision can then be lost by a restart that coincides with
//     another fault. With a disk it cannot. What a voter said in a former life
//     counts no more once it has been heard in the present one.
//   - When the network is whole, somebody who stands for it holds the lease
//     within a quarantine, a lease, and a second.
//
// In pair mode the first and the third do not hold while the link between two
// healthy nodes is cut and both pass the isolation test; Status.Alone says so.
// What holds of a pair all the same is shown in pair_test.go, clause by clause.
//
// # When one of a pair goes on alone
//
// Both must agree while both are heard. This is when a node's own vote is enough
// (mayBeAlone in pair.go): D is the lease that it asks for, A how long voters
// remember that (Remember); a peer is deaf that speaks and answers nothing. The causes
// are those of TestHowLongAPairWaits and TestWhoMayNotBeAlone, which have each
// to the nanosecond; on the right is where it is played with two nodes.
//
//	cause                                alone from                            played in
//	a holder, the peer is silent         D/2 after its last word               11_a_pair
//	a holder, the peer is deaf           never: it lets go, before the peer,   TestPairOfWhichOneIsDeafToTheOtherOnly
//	                                     which hears nobody, goes on
//	alone already, the peer is deaf      D after the first of the questions    TestPairOfWhichOneIsDeaf
//	                                     that it leaves unanswered
//	a candidate that has not asked       never: it may just have been silent   TestPairAsksBeforeItIsAlone
//	the peer held something              A after its last word, when its lease TestPairSurvivorWaitsForTheEndOfThePeersLease
//	                                     is over
//	the peer held nothing                A after the first question, or after  TestPairAsksBeforeItIsAlone
//	                                     its last word if that is later
//	the peer held something, long ago    the same, since it may have been      TestPairAsksBeforeItIsAlone
//	                                     started again: when the first
//	                                     question came 2A after its last word
//	a candidate, the peer is deaf        2A after the first question, later    TestPairOfWhichOneIsDeaf
//	                                     than the deaf one would
//	the peer is in quarantine            at once, when it answers so: it holds 11_a_pair
//	                                     nothing; no isolation test is needed
//	the peer says no                     never: it is heard                    TestPairBothAgreeWhileBothAreHeard
//	this node is in its own quarantine   never
//	this node has no vote                never
//	this node is cut off                 never                                 TestPairNobodyIsAloneWithoutTheIsolationTest, 13_a_pair_isolated_node
//	the isolation test is too old        never: it must have begun after the   TestPairNobodyIsAloneWithoutTheIsolationTest
//	                                     peer's last word (of a deaf one:
//	                                     after the first question), and within
//	                                     the longest lease
//
// Where two causes are given the earlier time counts; where one says never it is
// never, but that a peer in quarantine asks for no isolation test. A question is a request of this node; those that lie further apart than D
// are no row of them, and any answer ends the row. A peer held something if it said so
// in one of the last two renewals before its last word, and has not let go
// (TestWhatIsKnownOfAPeer). Its word counts when it is new: what somebody plays again
// is none (TestADeadPeerIsNotKeptAliveByReplays). And whatever the cause, this node's
// own voter forbids a lease that it knows to be another's.
//
// # Why
//
//	         D, on the holder's clock (1 % slow at most)
//	holder   |——————————————————————————|                 lets go
//	         ask                  answer
//	            \                /
//	voter        |———————————————————————————————|        forgets
//	              A, on the voter's clock (1 % fast at most)
//
// The holder counts from when it asked, the voter from when it was asked, which
// is later. So the voter forgets last if D·(1+ρ) ≤ A·(1−ρ), with ρ = 1 %; that
// is what Remember computes. Two leases both need a majority of accepts, and
// two majorities share a voter, which accepts the second only when it has
// forgotten the first. A voter that restarted has forgotten too early, and
// keeps silent for as long as the longest lease may be remembered. It learns
// values and leases meanwhile, without voting.
//
// Renewal is phase 2 alone: exclusion rests on accepts. Phase 1 brings the
// value, by the highest (ballot, sequence), never by the highest epoch.
//
// # Changing the voters
//
// One voter may be added or removed at a time, by restarting all nodes with the
// new list one by one, and waiting until Machine.Differing is empty everywhere
// before the next change: the majorities of lists that differ by one voter
// always meet (2 of 3 and 3 of 4; 3 of 4 and 3 of 5). Two at a time is unsafe (2
// of 3 and 3 of 5 may have nobody in common; TestTwoVotersAtOnceIsUnsafe shows
// it, TestVotersChangeOneAtATime the other), and so is a change of MaxLease to
// a longer one by anything but first restarting all voters with the longer
// MaxLease and only then asking for longer leases. A change from or to pair mode
// has the risks of pair mode until it is complete.
//
// # What was checked
//
// The simulation (TestNoTwoHolders; TANDEM_TEST_SOAK=1h, TANDEM_TEST_SEED) plays
// clusters of 2, 3, 5 and 7 voters against an adversary who loses, repeats,
// delays and replays messages, freezes, crashes and restarts nodes, cuts links
// one way and both, and runs clocks at ±1 %; it judges by true time. Part of what it
// does is planned (gambit_test.go): short courses of events that single deeds seldom
// hit upon. Thirteen broken copies of the rules are found by it in every run
// (TestMutantsFail), most within a few thousand steps. Programs are replaced in
// place as well (TestNoTwoHoldersWhereProgramsAreReplaced), and those that were not
// told everything are found (TestForgetfulSnapshotsFail). Known bad histories are
// played one by one, with the mutants of the rules that they are about
// (history_test.go, life_test.go, replay_test.go); so are pairs and changes of voters.
//
// The Promela models are checked exhaustively by spin (TestModel;
// TANDEM_TEST_MODEL=full). The first, model/lease.pml, covers exclusion: 3 voters, 2
// bidders, 2 ballots with a renewal each that may win, releases, one restart of a
// voter and one of a bidder, or 3 ballots without restarts; messages in any order
// and number, time as a common tick. (With 3 ballots and a restart, in the full
// run, a lease lasts one tick, in which no renewal wins anything.) It leaves out
// phase 1, values and the difference of clocks.
// The second, model/value.pml, covers values: 3 voters, 3 ballots with a decision each, no
// time, no restarts. Pair mode, hints, the tuner and five voters are in neither.
// The mutants fail there too, each in a setting in which the sound model passes, but
// for two: the one about answers of a voter's former life and the one about older
// values, since voters in the second model do not restart. Late deadlines and ballots
// used again are looked for among bids alone, without renewals and releases.
//
// # References
//
// M. Trencséni, A. Gazsó, H. Reinhardt: PaxosLease: Diskless Paxos for Leases,
// arXiv:1209.4187 (2012), with the first author's later correction: as printed,
// a voter lets a higher ballot overwrite a live lease. L. Lamport: Paxos Made
// Simple (2001).
package lease
