package lease

import (
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// apart is node a of a pair, a second after its quarantine, and what it knows of
// its peer b. Its lease is 500 ms, of which voters remember A.
type apart struct {
	*Machine

	r *resource
	b *peer
}

const (
	apartLease = 500 * time.Millisecond
	apartMax   = time.Second
	apartNow   = 10 * time.Second
)

func newApart(t *testing.T) apart {
	t.Helper()
	m, err := New(Config{
		Node: "a", Incarnation: Incarnation{1}, Voters: []string{"a", "b"}, Mode: ModePair,
		MaxLease: apartMax, Tuning: Tuning{Fixed: apartLease},
	}, apartNow-2*time.Second-Remember(apartMax))
	if err != nil {
		t.Fatal(err)
	}
	m.now = apartNow
	return apart{m, m.resource("vip"), &m.peers[1]}
}

// before is an instant so long ago.
func before(ms int) time.Duration { return apartNow - time.Duration(ms)*time.Millisecond }

// alonePause has a row for each line of the package comment's table that is about
// how long a peer is waited for, by the same words.
var alonePause = []struct {
	cause string
	known func(a apart)
	from  time.Duration
}{
	{"a holder, the peer is silent", func(a apart) {
		a.r.holding, a.b.fresh, a.b.asked = true, before(100), before(90)
	}, before(100) + apartLease/2},
	{"a holder, the peer is silent", func(a apart) { // that the peer holds something too is no reason to wait
		a.r.holding, a.b.fresh, a.b.held = true, before(100), before(100)
	}, before(100) + apartLease/2},
	{"a holder, the peer is deaf", func(a apart) {
		a.r.holding, a.b.fresh, a.b.asked = true, before(10), before(900)
	}, before(10) + apartLease/2},
	{"alone already, the peer is deaf", func(a apart) {
		a.r.holding, a.r.alone, a.b.fresh, a.b.asked = true, true, before(10), before(900)
	}, before(900) + apartLease},
	{"a candidate that has not asked", func(a apart) { a.b.fresh = before(5000) }, never},
	{"the peer held something", func(a apart) {
		a.b.fresh, a.b.held, a.b.asked = before(400), before(400), before(100)
	}, before(400) + Remember(apartLease)},
	{"the peer held something", func(a apart) { // it says so with each renewal, of which one may be lost
		a.b.fresh, a.b.held, a.b.asked = before(400), before(400)-2*maxRenewal, before(100)
	}, before(400) + Remember(apartLease)},
	{"the peer held nothing", func(a apart) {
		a.b.fresh, a.b.held, a.b.asked = before(400), before(401)-2*maxRenewal, before(100)
	}, before(100) + Remember(apartLease)},
	{"the peer held nothing", func(a apart) {
		a.b.fresh, a.b.asked = before(5000), before(100)
	}, before(100) + Remember(apartLease)},
	{"the peer held nothing", func(a apart) { // it has spoken since it was asked
		a.b.fresh, a.b.asked = before(50), before(200)
	}, before(50) + Remember(apartLease)},
	{"the peer held nothing", func(a apart) { // nor has it ever been heard
		a.b.asked = before(100)
	}, before(100) + Remember(apartLease)},
	{"the peer held something, long ago", func(a apart) {
		a.b.fresh, a.b.held, a.b.asked = before(2000), before(2000), before(2000)+2*Remember(apartLease)+1
	}, before(2000) + 3*Remember(apartLease) + 1},
	{"a candidate, the peer is deaf", func(a apart) {
		a.b.fresh, a.b.asked = before(1), before(800)
	}, before(800) + 2*Remember(apartLease)},
	{"a candidate, the peer is deaf", func(a apart) { // whatever it says that it holds: its voter is this node's too
		a.b.fresh, a.b.held, a.b.asked = before(1), before(1), before(800)
	}, before(800) + 2*Remember(apartLease)},
}

// TestHowLongAPairWaits goes through the causes, to the nanosecond.
func TestHowLongAPairWaits(t *testing.T) {
	for _, c := range alonePause {
		t.Run(c.cause, func(t *testing.T) {
			a := newApart(t)
			a.reachOK, a.reachAt = true, apartNow
			if c.known(a); a.aloneFrom(a.r) != c.from {
				t.Fatalf("alone from %v, want %v", a.aloneFrom(a.r), c.from)
			}
			for _, at := range []time.Duration{c.from - 1, c.from} {
				a.now = at
				a.reachAt = at // it reaches others all the time
				if alone := a.mayBeAlone(a.r); alone != (at == c.from && at < never) {
					t.Errorf("%v before: may be alone %v", c.from-at, alone)
				}
			}
		})
	}
}

// aloneNever has a row for each line of the table that is about this node itself.
var aloneNever = []struct {
	cause string
	known func(a apart)
	may   bool
}{
	{"this node is in its own quarantine", func(a apart) { a.quarantineEnds = apartNow + 1 }, false},
	{"this node is in its own quarantine", func(a apart) { a.quarantineEnds = apartNow }, true},
	{"this node has no vote", func(a apart) { a.self = -1 }, false},
	{"this node is cut off", func(a apart) { a.reachOK = false }, false},
	{"the isolation test is too old", func(a apart) { a.reachAt = a.b.fresh }, false},
	{"the isolation test is too old", func(a apart) { a.reachAt = a.b.fresh + 1 }, true},
	{"the isolation test is too old", func(a apart) { a.b.fresh, a.b.asked, a.reachAt = before(5000), before(4000), apartNow-apartMax }, false},
	{"the isolation test is too old", func(a apart) { a.b.fresh, a.b.asked, a.reachAt = before(5000), before(4000), apartNow-apartMax+1 }, true},
	// A deaf peer speaks all the time: what counts is since when it does not answer.
	{"the isolation test is too old", func(a apart) { a.b.fresh, a.b.asked, a.reachAt = before(1), before(1100), before(1100) }, false},
	{"the isolation test is too old", func(a apart) { a.b.fresh, a.b.asked, a.reachAt = before(1), before(1100), before(999) }, true},
	{"the peer is in quarantine", func(a apart) { // it holds nothing, whomever this node reaches
		a.reachOK, a.b.fresh, a.b.asked = false, before(1), 0
		a.r.phase, a.r.renewSeq, a.r.tally.silent[1] = proposing, 7, 7
	}, true},
	{"the peer is in quarantine", func(a apart) { // it was, when an earlier bid asked it
		a.reachOK, a.b.fresh, a.b.asked = false, before(1), 0
		a.r.phase, a.r.renewSeq, a.r.tally.silent[1] = proposing, 7, 6
	}, false},
	{"the peer is in quarantine", func(a apart) { // nor has this node anything to decide
		a.reachOK, a.b.fresh, a.b.asked = false, before(1), 0
		a.r.phase, a.r.renewSeq, a.r.tally.silent[1] = idle, 7, 7
	}, false},
}

// TestWhoMayNotBeAlone although the peer was silent for long enough, and who may
// although it was not.
func TestWhoMayNotBeAlone(t *testing.T) {
	for _, c := range aloneNever {
		t.Run(c.cause, func(t *testing.T) {
			a := newApart(t)
			a.b.fresh, a.b.asked, a.reachOK, a.reachAt = before(900), before(800), true, before(1)
			if !a.mayBeAlone(a.r) {
				t.Fatal("not alone to begin with")
			}
			if c.known(a); a.mayBeAlone(a.r) != c.may {
				t.Errorf("may be alone %v", !c.may)
			}
		})
	}
}

// TestWhatIsKnownOfAPeer: when its silence and its deafness begin, and whether it
// held something.
func TestWhatIsKnownOfAPeer(t *testing.T) {
	b := Owner{"b", Incarnation{2}}
	says := func(p *peer, now time.Duration, from Owner, items ...Item) {
		p.spoke(&Message{From: from, To: "a", Items: items}, now)
	}
	renewal := Item{Kind: KindPropose, Resource: "vip", Held: true}
	for name, c := range map[string]struct {
		said  func(p *peer)
		holds bool
	}{
		"it renews":                 {func(p *peer) { says(p, 10, b, renewal) }, true},
		"it bids":                   {func(p *peer) { says(p, 10, b, Item{Kind: KindPropose, Resource: "vip"}) }, false},
		"it has let go":             {func(p *peer) { says(p, 10, b, renewal); says(p, 20, b, Item{Kind: KindRelease}) }, false},
		"it was started again":      {func(p *peer) { says(p, 10, b, renewal); says(p, 20, Owner{"b", Incarnation{3}}) }, false},
		"it has renewed no more":    {func(p *peer) { says(p, 10, b, renewal); says(p, 11+2*maxRenewal, b) }, false},
		"one renewal of it is lost": {func(p *peer) { says(p, 10, b, renewal); says(p, 10+2*maxRenewal, b) }, true},
	} {
		if p := (&peer{}); func() bool { c.said(p); return p.holds() }() != c.holds {
			t.Errorf("%s: holds %v", name, !c.holds)
		}
	}

	a := newApart(t)
	for _, c := range []struct {
		at, since time.Duration
	}{{apartNow, apartNow}, {apartNow + apartLease, apartNow}, {apartNow + 2*apartLease, apartNow}, {apartNow + 3*apartLease + 1, apartNow + 3*apartLease + 1}} {
		if a.now = c.at; true {
			a.ask(1, a.r)
		}
		if a.b.asked != c.since {
			t.Errorf("asked at %v: unanswered since %v, want %v", c.at, a.b.asked, c.since)
		}
	}
	a.b.news(&Message{From: b, To: "a", Items: []Item{{Kind: KindRefuse, Ballot: Ballot{Incarnation: a.owner.Incarnation, Node: "a"}, Echo: 3}}}, a.owner, 2)
	if a.b.asked == 0 {
		t.Error("an answer to what was never asked ended the row")
	}
	a.b.news(&Message{From: b, To: "a", Items: []Item{{Kind: KindRefuse, Ballot: Ballot{Incarnation: a.owner.Incarnation, Node: "a"}, Echo: 2}}}, a.owner, 2)
	if a.b.asked != 0 {
		t.Error("an answer, though it is no, did not end the row")
	}
}

// TestTheTableOfPairsIsWhole: the package comment has every cause that is tested
// here, and every test that it names is there.
func TestTheTableOfPairsIsWhole(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	doc := f.Doc.Text()
	causes := map[string]bool{}
	for _, c := range alonePause {
		causes[c.cause] = true
	}
	for _, c := range aloneNever {
		causes[c.cause] = true
	}
	for cause := range causes {
		if !strings.Contains(doc, "\n\t"+cause+"  ") {
			t.Errorf("the table has no line for %q", cause)
		}
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\bTest\w+`).FindAllString(doc, -1) {
		named[name] = true
	}
	for _, story := range regexp.MustCompile(`\b\d\d_\w+`).FindAllString(doc, -1) {
		if _, err := os.Stat(filepath.Join("testdata/stories", story+".txt")); err != nil {
			t.Error(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if !strings.Contains(source.String(), "\nfunc "+name+"(t *testing.T)") {
			t.Errorf("the package comment names %s, which is not there", name)
		}
	}
	if len(named) < 10 {
		t.Errorf("only %d tests are named", len(named))
	}
}
