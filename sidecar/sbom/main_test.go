package main

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// The test itself is a Go binary with a dependency that is known to it.
func TestEveryModuleHasItsLicence(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(self, strings.NewReader(""), &out); err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(out.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
	if b.Format != "CycloneDX" || len(b.Components) == 0 || b.Components[0].Name != "std" || b.Metadata.Component.Name != "tandem" {
		t.Errorf("%s", out.String())
	}
}

func TestModuleWithoutALicenceIsRefused(t *testing.T) {
	info := `MIT            example.com/a v1.0.0`
	known, err := readLicences(strings.NewReader(info))
	if err != nil || known["example.com/a v1.0.0"] != "MIT" {
		t.Fatalf("%v %v", known, err)
	}
	build := buildOf("example.com/a", "v1.0.0")
	b, err := describe(build, known)
	if err != nil || b.Components[1].PURL != "pkg:golang/example.com/a@v1.0.0" || b.Components[1].Licences[0].Licence.ID != "MIT" {
		t.Errorf("%+v %v", b, err)
	}
	if _, err := describe(buildOf("example.com/a", "v1.0.1"), known); err == nil {
		t.Error("another version has no licence")
	}
}

func buildOf(path, version string) *debug.BuildInfo {
	return &debug.BuildInfo{GoVersion: "go1.26.0", Path: "tandem/sidecar", Deps: []*debug.Module{{Path: path, Version: version}}}
}
