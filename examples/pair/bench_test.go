package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/examples/lab"
)

// broken is a system that cannot be started.
type broken struct{ lab.Tandem }

func (broken) Name() string { return "broken" }

func (broken) Spec(*lab.Lab, *lab.Node) (lab.Spec, error) {
	return lab.Spec{}, errors.New("no such program")
}

// A measurement that fails is told in its cell, and what was measured before
// stays in the file.
func TestBenchKeepsWhatItHas(t *testing.T) {
	if why := os.Getenv("TDLAB_UNABLE"); why != "" {
		t.Skip("no lab here: " + why)
	}
	chosen := []choice{{"tandem", lab.Tandem{}}, {"broken", broken{}}}
	list, err := chooseRows([]string{"power", "witness"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "deep", "table.md")
	r := &benchRun{benchOptions: benchOptions{output: file, repeats: 1, began: time.Now()}, progress: io.Discard, heading: "Measured\n"}
	r.tables = []*table{newTable("By IPv4", list, chosen)}
	r.tables[0].add("power", "tandem", measurement{Noticed: lab.Noticed{Outage: 400 * ms}})
	r.system(t.Context(), chosen[1], false, 0, r.tables[0])
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Measured", "By IPv4:", "| **400** (400–400) |", "no such program", "| the witness loses power | – | – |"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
	if r.failed != 1 {
		t.Errorf("%d failed, want 1", r.failed)
	}
	r.limit = time.Nanosecond
	r.system(t.Context(), chosen[1], false, 0, r.tables[0])
	if r.failed != 1 {
		t.Error("measured after its limit")
	}
}
