package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNoLogLineHasItsNodeTwice: every line of a sidecar carries the field node,
// the one that writes it; another node goes by another name, since of two
// fields with one name a reader of JSON sees one.
func TestNoLogLineHasItsNodeTwice(t *testing.T) {
	field := regexp.MustCompile(`zap\.\w+\("node",`)
	found := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for range field.FindAllString(string(b), -1) {
			if found++; filepath.Base(path) != "log.go" {
				t.Errorf("%s: a field of the name node", path)
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d found, %v", found, err)
	}
}
