package lease

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"strings"
	"testing"
)

// unknown imports packages without what is in them.
type unknown struct{}

func (unknown) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, path)
	p.MarkComplete()
	return p, nil
}

// TestTheMachineIsPure reads the package's own source: no goroutine, no
// channel, no select, no iteration over a map (whose order would differ from
// run to run), and nothing imported that reads a clock or does I/O.
func TestTheMachineIsPure(t *testing.T) {
	allowed := map[string]bool{"cmp": true, "errors": true, "fmt": true, "slices": true, "strings": true, "time": true}
	fset := token.NewFileSet()
	var files []*ast.File
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	// What is imported stays unknown, which makes errors: reading it would take
	// seconds, and nothing of it is a map.
	conf := types.Config{Importer: unknown{}, Error: func(error) {}}
	_, _ = conf.Check("tandem/lib/lease", fset, files, info)
	clock := map[string]bool{"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true, "Tick": true, "NewTimer": true, "NewTicker": true}
	for _, f := range files {
		for _, i := range f.Imports {
			if path := strings.Trim(i.Path.Value, `"`); !allowed[path] {
				t.Errorf("%v: imports %s", fset.Position(i.Pos()), path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			what := ""
			switch n := n.(type) {
			case *ast.GoStmt:
				what = "go statement"
			case *ast.SelectStmt:
				what = "select"
			case *ast.ChanType:
				what = "channel"
			case *ast.SendStmt:
				what = "send"
			case *ast.RangeStmt:
				over := info.Types[n.X].Type // nil: what an imported function returned
				if over == nil {
					break
				}
				if _, isMap := over.Underlying().(*types.Map); isMap {
					what = "iteration over a map"
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && clock[n.Sel.Name] {
					what = "time." + n.Sel.Name
				}
			}
			if what != "" {
				t.Errorf("%v: %s", fset.Position(n.Pos()), what)
			}
			return true
		})
	}
}
