package site

import (
	"flag"
	"os"
	"testing"
)

// TestMain keeps the property tests short unless -rapid.checks is given: with
// the race detector one check takes about a tenth of a second.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		if err := flag.Set("rapid.checks", "60"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
