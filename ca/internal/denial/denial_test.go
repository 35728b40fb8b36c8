package denial_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/denial"
)

// A rule that is declared is among Rules, so that its metric begins at zero.
func TestRulesAreAll(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "denial.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil || spec.Type.(*ast.Ident).Name != "Rule" {
			return true
		}
		declared++
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil || !slices.Contains(denial.Rules(), denial.Rule(text)) {
			t.Errorf("%s is not among the rules (%v)", spec.Names[0].Name, err)
		}
		return true
	})
	if declared != len(denial.Rules()) {
		t.Errorf("%d rules are declared, and Rules returns %d", declared, len(denial.Rules()))
	}
}
