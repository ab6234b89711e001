package main

import (
	"bytes"
	"testing"

	"tandem/sidecar/status"
)

// TestEveryPhaseIsPrinted: two phases are over before the next status comes; one
// of another group, and one of before, are not ours.
func TestEveryPhaseIsPrinted(t *testing.T) {
	var out bytes.Buffer
	f := follower{p: &program{stdout: &out}, group: defaultGroup, want: "b", asked: true, before: status.Site{Active: "a", Epoch: 7}}
	for _, e := range []status.Transition{
		{Resource: "site", Event: "phase", Phase: "enable", To: "a", Epoch: 7},
		{Resource: "site", Event: "switch", Phase: "renounce", To: "b", Epoch: 8},
		{Resource: "site/amq", Event: "switch", Phase: "enable", To: "b", Epoch: 9},
		{Resource: "site", Event: "hook", Phase: "renounce", To: "a", Epoch: 9, Reason: "done", Detail: "renounce/default/a/8"},
		{Resource: "site", Event: "hook", Phase: "renounce", To: "a", Epoch: 9, Reason: "exit-status", Detail: "renounce/default/a/8:\nnot \x1b[2Jnow"},
		{Resource: "site", Event: "phase", Phase: "takeover", To: "b", Epoch: 10},
		{Resource: "site", Event: "phase", Phase: "enable", To: "b", Epoch: 11},
	} {
		if err := f.passed(status.Event{Transition: e}); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []status.Site{
		{Group: "default", Active: "b", Phase: "enable", Epoch: 11, Waiting: "waiting-for-lb"}, // just entered: no word of what it waits for
		{Group: "default", Active: "b", Epoch: 12},                                             // ahead of what is told
	} {
		if done, err := f.step(t.Context(), status.Status{Groups: []status.Site{g}}); err != nil || done {
			t.Errorf("%+v: done %v, %v", g, done, err)
		}
	}
	if err := f.passed(status.Event{Transition: status.Transition{Resource: "site", Event: "done", To: "b", Epoch: 12}}); err != nil {
		t.Fatal(err)
	}
	if done, err := f.step(t.Context(), status.Status{Groups: []status.Site{{Group: "default", Active: "b", Epoch: 12}}}); err != nil || !done {
		t.Errorf("at the end: done %v, %v", done, err)
	}
	if want := "renounce → b\n  renounce/default/a/8:\n  not ·[2Jnow\ntakeover → b\nenable → b\nsite b is active for default (epoch 12)\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
