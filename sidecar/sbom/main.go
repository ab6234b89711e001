// Command sbom prints what a Go binary is made of, as CycloneDX 1.6 in JSON: the
// modules that the binary itself names, with their checksums, and the licences
// that it is given on its standard input, as .ci/licences prints them:
//
//	.ci/licences | sbom bin/tandem > tandem.cdx.json
package main

import (
	"bufio"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

type bom struct {
	Format      string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Version     int         `json:"version"`
	Metadata    metadata    `json:"metadata"`
	Components  []component `json:"components"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref,omitempty"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Licences   []licence  `json:"licenses,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type licence struct {
	Licence struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: .ci/licences | sbom BINARY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(binary string, licences io.Reader, out io.Writer) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read build information: %w", err)
	}
	known, err := readLicences(licences)
	if err != nil {
		return err
	}
	b, err := describe(info, known)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(b)
}

// readLicences reads lines of licence, module and version: "module version" →
// licence.
func readLicences(in io.Reader) (map[string]string, error) {
	known := map[string]string{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 {
			known[f[1]+" "+f[2]] = f[0]
		}
	}
	return known, lines.Err()
}

func describe(info *debug.BuildInfo, known map[string]string) (bom, error) {
	main := component{Type: "application", Ref: info.Path, Name: info.Main.Path, Version: info.Main.Version}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" || s.Key == "GOOS" || s.Key == "GOARCH" || s.Key == "CGO_ENABLED" {
			main.Properties = append(main.Properties, property{"go:" + s.Key, s.Value})
		}
	}
	b := bom{Format: "CycloneDX", SpecVersion: "1.6", Version: 1, Metadata: metadata{main}}
	std := strings.TrimPrefix(info.GoVersion, "go")
	b.Components = append(b.Components, module("std", std, "", "BSD-3-Clause"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		id := known[m.Path+" "+m.Version]
		if id == "" {
			return bom{}, fmt.Errorf("%s %s: no licence is given for it; run .ci/licences with the go.mod that the binary was built from", m.Path, m.Version)
		}
		b.Components = append(b.Components, module(m.Path, m.Version, m.Sum, id))
	}
	return b, nil
}

// module is one of Go's. Its checksum is of the module's tree, as go.sum has it,
// and so no hash of a file.
func module(path, version, sum, id string) component {
	purl := "pkg:golang/" + path + "@" + version
	c := component{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl, Licences: make([]licence, 1)}
	c.Licences[0].Licence.ID = id
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}
