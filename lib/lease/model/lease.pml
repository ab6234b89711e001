/* The lease rules of package lease for 3 voters and 2 bidders, to be checked
 * exhaustively by spin. model_test.go in the parent directory runs it, and runs
 * it again with each mutant (-DMUTANT_...), which must fail.
 *
 * Messages are sets that only grow: whatever was sent may arrive at any later
 * time, any number of times, in any order, or never. Time is a tick that lowers
 * every timer at once, at any moment; so a holder's deadline, a voter's memory
 * and the quarantine are equally long here. (That memory is longer than the
 * lease by the difference of the clocks is arithmetic, see Remember, and left
 * to the simulation.) Voters and bidders restart independently, which allows
 * more than the real thing, where they share a process. Phase 1 is left out: exclusion does not
 * rest on it (value.pml has it), and a bid without it may do more.
 */
#ifndef BALLOTS
#define BALLOTS 3
#endif
#ifndef VOTER_RESTARTS
#define VOTER_RESTARTS 1
#endif
#ifndef BIDDER_RESTARTS
#define BIDDER_RESTARTS 1
#endif
#ifndef LEASE
#define LEASE 2 /* ticks: one is over when it is renewed, so that renewing wins something */
#endif
#ifdef MUTANT_QUARANTINE
#define SILENCE 0
#else
#define SILENCE LEASE
#endif
#ifdef MUTANT_REPLIES
#define QUORUM(a, b, c) (a || b || c) /* the same reply twice */
#else
#define QUORUM(a, b, c) (a + b + c >= 2)
#endif

/* Requests and replies that were sent, by ballot; a proposal has number 0, its
 * renewal number 1. */
bit propose[(BALLOTS + 1) * 2];
bit accept[(BALLOTS + 1) * 6];
bit release[BALLOTS + 1];

/* owner[b] is whose ballot b is: bidder * 2 + incarnation. asked[b * 2 + s] is
 * what is left of the lease that request s asked for, since it was sent. */
byte owner[BALLOTS + 1];
byte asked[(BALLOTS + 1) * 2];
byte next = 1;

/* Voters. */
byte voted[3];   /* the ballot voted for last */
byte memory[3];  /* ticks for which the vote is remembered */
byte released[3];
byte silence[3]; /* ticks of quarantine left */
byte voterRestarts;

/* Bidders. */
byte incarnation[2];
byte ballot[2];
bit trying[2]; /* or holding */
byte bidderRestarts;
byte holds[4]; /* by owner: ticks until it, or its fence, stops */

#define R(b, s) ((b) * 2 + (s))
#define A(b, s, v) ((b) * 6 + (s) * 3 + (v))
#define ME(p) (p * 2 + incarnation[p])

#ifdef MUTANT_OWNER_BY_NODE
#define SAME(a, b) ((a) / 2 == (b) / 2)
#else
#define SAME(a, b) ((a) == (b))
#endif
#ifdef MUTANT_NO_A2
#define BLOCKED(v, b) false
#else
#define BLOCKED(v, b) (memory[v] > 0 && !SAME(owner[voted[v]], owner[b]))
#endif
#ifdef MUTANT_LATE_RENEWAL
#define CLOSED(v, b) false
#define WITHDRAWN(b) false
#else
#define CLOSED(v, b) (b <= released[v])
#define WITHDRAWN(b) release[b]
#endif
#ifdef MUTANT_RELEASE_ANY
#define CLEARS(v, b) (owner[voted[v]] == owner[b])
#else
#define CLEARS(v, b) (owner[voted[v]] == owner[b] && voted[v] <= b)
#endif
#if defined(MUTANT_DEADLINE) || defined(MUTANT_BALLOTS_AGAIN)
#define ANSWERS_COUNT_LATE
#endif
#ifdef MUTANT_DEADLINE
#define DEADLINE(b, s) LEASE
#else
#define DEADLINE(b, s) asked[R(b, s)]
#endif

inline lower(t) {
	if
	:: t > 0 -> t--
	:: else
	fi
}

/* Once nothing is left of what a request asked for, the answers to it can do no
 * harm: forgetting them makes fewer states. */
inline useless(r) {
#ifdef ANSWERS_COUNT_LATE
	skip
#else
	accept[(r) * 3] = 0;
	accept[(r) * 3 + 1] = 0;
	accept[(r) * 3 + 2] = 0
#endif
}

inline tick() {
	d_step {
		for (i : 0 .. 2) {
			lower(memory[i]);
			lower(silence[i]);
			if
			:: memory[i] == 0 -> voted[i] = 0 /* fewer states, and more than the machine allows */
			:: else
			fi
		}
		for (i : 0 .. 3) { lower(holds[i]) }
		for (i : 2 .. BALLOTS * 2 + 1) {
			lower(asked[i]);
			if
			:: asked[i] == 0 -> useless(i)
			:: else
			fi
		}
		i = 0
	}
}

inline bid(p) {
#ifdef MUTANT_BALLOTS_AGAIN
	atomic {
		!trying[p] && holds[ME(p)] == 0 && (next <= BALLOTS || ballot[p] > 0);
		if
		:: ballot[p] > 0 && bidderRestarts > 0 /* counts from the start again */
		:: next <= BALLOTS -> ballot[p] = next; next++
		fi;
#else
	atomic {
		!trying[p] && holds[ME(p)] == 0 && next <= BALLOTS;
		ballot[p] = next;
		next++;
#endif
		owner[ballot[p]] = ME(p);
		propose[R(ballot[p], 0)] = 1;
		asked[R(ballot[p], 0)] = LEASE; /* T1: from here */
		trying[p] = 1
	}
}

#define ACCEPTED(p, s) QUORUM(accept[A(ballot[p], s, 0)], accept[A(ballot[p], s, 1)], accept[A(ballot[p], s, 2)])

inline win(p, s) { /* take up, or renew */
	d_step {
		ballot[p] > 0 && !WITHDRAWN(ballot[p]) && propose[R(ballot[p], s)] &&
		ACCEPTED(p, s) && DEADLINE(ballot[p], s) > holds[ME(p)];
		holds[ME(p)] = DEADLINE(ballot[p], s);
		trying[p] = 1;
#ifdef RENEWALS_NEVER_WIN
		assert(s == 0);
#endif
		assert((holds[0] > 0) + (holds[1] > 0) + (holds[2] > 0) + (holds[3] > 0) <= 1)
	}
}

inline renew(p) {
	d_step {
		trying[p] && holds[ME(p)] > 0 && !propose[R(ballot[p], 1)];
		propose[R(ballot[p], 1)] = 1;
		asked[R(ballot[p], 1)] = LEASE
	}
}

inline letGo(p) { /* release, or give a bid up */
	d_step {
		trying[p];
		release[ballot[p]] = 1;
#ifndef MUTANT_LATE_RENEWAL
		asked[R(ballot[p], 0)] = 0;
		asked[R(ballot[p], 1)] = 0;
		useless(R(ballot[p], 0));
		useless(R(ballot[p], 1));
#endif
		holds[ME(p)] = 0;
		trying[p] = 0
	}
}

inline restartBidder(p) { /* its fence goes on to the deadline */
	d_step {
		bidderRestarts < BIDDER_RESTARTS && ballot[p] > 0;
		bidderRestarts++;
		trying[p] = 0;
#ifndef MUTANT_BALLOTS_AGAIN
		asked[R(ballot[p], 0)] = 0;
		asked[R(ballot[p], 1)] = 0;
		useless(R(ballot[p], 0));
		useless(R(ballot[p], 1));
		incarnation[p] = 1;
		ballot[p] = 0
#endif
	}
}

proctype Bidder(byte p) {
	do
	:: bid(p)
	:: win(p, 0)
#ifndef BIDS_ONLY /* a smaller setting, for what needs neither renewals nor releases */
	:: win(p, 1)
	:: renew(p)
	:: letGo(p)
#endif
	:: restartBidder(p)
	od
}

inline onPropose(v, b, s) {
	d_step {
		propose[R(b, s)] && silence[v] == 0 && !CLOSED(v, b) && b >= voted[v] && !BLOCKED(v, b) &&
		(voted[v] != b || memory[v] < LEASE || !accept[A(b, s, v)] && asked[R(b, s)] > 0);
		memory[v] = LEASE;
		voted[v] = b;
#ifdef ANSWERS_COUNT_LATE
		accept[A(b, s, v)] = 1
#else
		accept[A(b, s, v)] = asked[R(b, s)] > 0
#endif
	}
}

inline onRelease(v, b) {
	d_step {
		release[b] && (CLEARS(v, b) && memory[v] > 0 || b > released[v]);
		if
		:: CLEARS(v, b) -> memory[v] = 0
		:: else
		fi;
		if
		:: b > released[v] -> released[v] = b
		:: else
		fi
	}
}

inline restartVoter(v) { /* forgets everything */
	d_step {
		voterRestarts < VOTER_RESTARTS;
		voterRestarts++;
		released[v] = 0;
		voted[v] = 0;
		memory[v] = 0;
		silence[v] = SILENCE
	}
}

proctype Voter(byte v) {
	byte b;
	do
	:: atomic {
		select (b : 1 .. BALLOTS);
		if
		:: onPropose(v, b, 0)
		:: onPropose(v, b, 1)
		:: onRelease(v, b)
		:: restartVoter(v)
		:: else
		fi;
		b = 0
	}
	od
}

proctype Clock() {
	byte i;
	do
	:: tick()
	od
}

init {
	atomic { run Bidder(0); run Bidder(1); run Voter(0); run Voter(1); run Voter(2); run Clock() }
}
