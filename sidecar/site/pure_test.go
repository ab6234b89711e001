package site

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestThePackageIsPure reads the package's own source: no goroutine, no
// channel, no clock, no iteration over a map, and only imports that are free
// of side effects.
func TestThePackageIsPure(t *testing.T) {
	allowed := map[string]bool{
		"cmp": true, "encoding/json": true, "errors": true, "fmt": true, "math": true, "slices": true, "strconv": true, "strings": true, "time": true,
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, f.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); !allowed[path] {
				t.Errorf("%s imports %s", f.Name(), path)
			}
		}
		maps := mapNames(file)
		ast.Inspect(file, func(n ast.Node) bool {
			impure := ""
			switch n := n.(type) {
			case *ast.GoStmt:
				impure = "a goroutine"
			case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
				impure = "a channel"
			case *ast.RangeStmt:
				if id, ok := n.X.(*ast.Ident); ok && maps[id.Name] {
					impure = "iteration over the map " + id.Name
				}
			case *ast.SelectorExpr:
				if id, ok := n.X.(*ast.Ident); ok && id.Name == "time" && strings.Contains(" Now Since Until Sleep After AfterFunc Tick NewTimer NewTicker ", " "+n.Sel.Name+" ") {
					impure = "time." + n.Sel.Name
				}
			}
			if impure != "" {
				t.Errorf("%s: %s", set.Position(n.Pos()), impure)
			}
			return true
		})
	}
}

// mapNames lists the variables and fields of a file that are made as maps.
func mapNames(file *ast.File) map[string]bool {
	names := map[string]bool{}
	isMap := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.MapType:
			return true
		case *ast.CompositeLit:
			_, ok := e.Type.(*ast.MapType)
			return ok
		case *ast.CallExpr:
			if len(e.Args) > 0 {
				_, ok := e.Args[0].(*ast.MapType)
				return ok
			}
		}
		return false
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i, rhs := range n.Rhs {
				if id, ok := n.Lhs[min(i, len(n.Lhs)-1)].(*ast.Ident); ok && isMap(rhs) {
					names[id.Name] = true
				}
			}
		case *ast.Field:
			for _, id := range n.Names {
				if isMap(n.Type) {
					names[id.Name] = true
				}
			}
		}
		return true
	})
	return names
}
