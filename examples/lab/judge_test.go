package lab

import (
	"slices"
	"testing"
	"time"
)

func looks(answers ...[]string) []Sample {
	var samples []Sample
	for i, a := range answers {
		samples = append(samples, Sample{At: time.Duration(i) * look, Have: a, Answer: a})
	}
	return samples
}

func TestRefereeCountsEachMoveOnce(t *testing.T) {
	one, two, none := []string{"lb1"}, []string{"lb2"}, []string(nil)
	j := judge(looks(one, one, none, two, two, one, one), 0, 60*ms)
	if len(j.Moves) != 3 { // from nobody to lb1, to lb2, and back
		t.Errorf("moves %v, want 3", j.Moves)
	}
	j = judge(looks(one, one, none, two, two, one, one), 10*ms, 60*ms)
	want := []Move{{30 * ms, "lb1", "lb2"}, {50 * ms, "lb2", "lb1"}}
	if !slices.Equal(j.Moves, want) {
		t.Errorf("moves %v, want %v: who answered before the time does not count", j.Moves, want)
	}
	if j.Nobody != 10*ms {
		t.Errorf("nobody for %v, want one look", j.Nobody)
	}
}

func TestRefereeSumsUpTheTimeOfTwo(t *testing.T) {
	one, both := []string{"lb1"}, []string{"lb1", "lb2"}
	j := judge(looks(one, both, both, one, one), 0, 40*ms)
	if j.TwoAnswer != 20*ms || j.TwoHave != 20*ms || len(j.Moves) != 1 {
		t.Errorf("got %+v, want two for 20ms and no move but the first", j)
	}
}

func TestRefereeSaysHowLongItWasBlind(t *testing.T) {
	samples := looks([]string{"lb1"}, []string{"lb1"}, []string{"lb1"})
	samples[2].At = 200 * ms
	if j := judge(samples, 0, 100*ms); j.Blind != 190*ms {
		t.Errorf("blind for %v, want 190ms", j.Blind)
	}
}

func TestStaleNamesAreReadBack(t *testing.T) {
	for ns, want := range map[string]string{
		"tdlab12-0-lb1": "tdlab12-0", "tdlab12-3-br": "tdlab12-3",
		"tdlab12": "", "tdlabx-0-lb1": "", "tdlab12-x-lb1": "", "other": "",
	} {
		got, ok := labOf(ns)
		if ok != (want != "") || ok && got != want {
			t.Errorf("labOf(%q) = %q, %v, want %q", ns, got, ok, want)
		}
	}
}
