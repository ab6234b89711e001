/* The value that travels with the lease, for 3 voters and as many bidders as
 * ballots, to be checked exhaustively by spin; see lease.pml for how messages
 * are modelled. There is no time here: leases only forbid, so what holds without
 * them holds with them. Voters keep their promises and values, as with a disk;
 * what may be lost without one is left to the simulation.
 *
 * Request 2b is what ballot b adopted, request 2b + 1 a new decision under it.
 */
#ifndef BALLOTS
#define BALLOTS 3
#endif
#define REQUESTS (BALLOTS * 2 + 2)

bit prepare[BALLOTS + 1];
bit promise[(BALLOTS + 1) * 3];
byte carried[(BALLOTS + 1) * 3]; /* by a promise: the request accepted last, 0 none */
bit propose[REQUESTS];
bit accept[REQUESTS * 3];
byte origin[REQUESTS]; /* the request that proposed this value first; 0 is the blank value */
byte epoch[REQUESTS];
byte promised[3];
byte record[3];

#define DECIDED(r) (accept[(r) * 3] + accept[(r) * 3 + 1] + accept[(r) * 3 + 2] >= 2)

inline onPrepare(b, v) {
	d_step {
		prepare[b] && b > promised[v];
		promised[v] = b;
		promise[b * 3 + v] = 1;
		carried[b * 3 + v] = record[v]
	}
}

#if defined(MUTANT_FIRST_REPLY)
#define PREFER(x, y) false
#elif defined(MUTANT_HIGHEST_EPOCH)
#define PREFER(x, y) (epoch[x] > epoch[y])
#else
#define PREFER(x, y) (x > y)
#endif

inline goOn(b, v, w) { /* the promises of v and w, in this order */
	d_step {
		prepare[b] && !propose[b * 2] && promise[b * 3 + v] && promise[b * 3 + w];
		best = carried[b * 3 + v];
		if
		:: PREFER(carried[b * 3 + w], best) -> best = carried[b * 3 + w]
		:: else
		fi;
		origin[b * 2] = origin[best];
		epoch[b * 2] = epoch[best];
		propose[b * 2] = 1;
		best = 0
	}
}

inline decide(b) { /* a new decision, once the adopted value is decided */
	d_step {
		propose[b * 2] && DECIDED(b * 2) && !propose[b * 2 + 1];
		origin[b * 2 + 1] = b * 2 + 1;
		epoch[b * 2 + 1] = epoch[b * 2] + 1;
		propose[b * 2 + 1] = 1
	}
}

inline onPropose(b, s, v) {
	d_step {
#ifdef MUTANT_PROMISED_HIGHER
		propose[b * 2 + s] && !accept[(b * 2 + s) * 3 + v] && record[v] != b * 2 + s;
#else
		propose[b * 2 + s] && b >= promised[v] && record[v] < b * 2 + s;
		promised[v] = b;
#endif
		record[v] = b * 2 + s;
		/* Whoever accepts the later request has accepted the earlier value too,
		 * as far as its bidder can tell. */
		accept[(b * 2 + s) * 3 + v] = 1;
		judge()
	}
}

inline judge() {
	for (i : 2 .. REQUESTS - 1) {
		for (j : i + 1 .. REQUESTS - 1) {
			if
			:: DECIDED(i) && DECIDED(j) ->
				assert(epoch[j] >= epoch[i]);                             /* never gone back on */
				assert(epoch[j] != epoch[i] || origin[j] == origin[i]);   /* an epoch is given once */
				assert(origin[j] == origin[i] || origin[j] / 2 >= i / 2)  /* nothing older comes back */
			:: else
			fi
		}
	}
	i = 0;
	j = 0
}

proctype Ballot(byte b) {
	byte best, i, j;
	d_step { !prepare[b] && (b == 1 || prepare[b - 1]); prepare[b] = 1 }
	do
	:: onPrepare(b, 0)
	:: onPrepare(b, 1)
	:: onPrepare(b, 2)
	:: goOn(b, 0, 1)
	:: goOn(b, 1, 0)
	:: goOn(b, 0, 2)
	:: goOn(b, 2, 0)
	:: goOn(b, 1, 2)
	:: goOn(b, 2, 1)
	:: decide(b)
	:: onPropose(b, 0, 0)
	:: onPropose(b, 0, 1)
	:: onPropose(b, 0, 2)
	:: onPropose(b, 1, 0)
	:: onPropose(b, 1, 1)
	:: onPropose(b, 1, 2)
	od
}

init {
	byte b;
	atomic {
		for (b : 1 .. BALLOTS) { run Ballot(b) }
	}
}
