package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Shape is what the budgets of CONTRIBUTING.md count in one package. It is
// parsed and not compiled, so files of every platform count.
type Shape struct {
	Package  string   // relative to the module
	Files    []string // Go files without tests; a generated file is not counted
	Exported []string // package-level names; a type with its methods is one name, errors are none
	Twins    []string // names that a method shares with a type or function of the package, unless it returns that type
	Builtins []string // functions and methods that are named like a builtin function
	Lines    int      // lines that are not blank, comments counted

	leaves       map[Mechanism][]string
	halfComments int // see CommentShare
}

// Mechanism is something that the whole project does in one package only.
type Mechanism string

// The mechanisms that [Shape.Uses] knows.
const (
	CertPool    Mechanism = "x509.NewCertPool" // internal/certs
	Recover     Mechanism = "recover()"        // internal/panics
	ShiftedWait Mechanism = "<<min("           // internal/backoff
)

// Uses returns the files of the package that use the mechanism, with their
// paths from the root.
//
// A second place for one of these is how two policies of waiting, of trust or of
// panics come to be.
func (s Shape) Uses(m Mechanism) []string { return s.leaves[m] }

// Shapes parses every package of ours under root, the directory of go.mod, and
// returns the packages in the order of their names. Nested modules are left out.
func Shapes(root string) ([]Shape, error) {
	var order []string
	readers := map[string]*shapeReader{}
	err := walk(root, func(pkg, name string) error {
		if readers[pkg] == nil {
			readers[pkg] = newShapeReader(pkg)
			order = append(order, pkg)
		}
		return readers[pkg].readFile(root, name)
	})
	if err != nil {
		return nil, fmt.Errorf("parsing packages: %w", err)
	}
	slices.Sort(order)
	shapes := make([]Shape, 0, len(order))
	for _, pkg := range order {
		shapes = append(shapes, readers[pkg].finish())
	}
	return shapes, nil
}

// builtinNames are the functions of the language. A function or method of ours
// that has such a name gives it a second meaning.
var builtinNames = []string{
	"append", "cap", "clear", "close", "complex", "copy", "delete", "imag", "len",
	"make", "max", "min", "new", "panic", "print", "println", "real", "recover",
}

// shapeReader collects a Shape file by file. Methods and types may be declared
// in different files, so twins are known at the end only.
type shapeReader struct {
	shape   Shape
	methods map[string]bool
	top     map[string]bool // types and functions
}

func newShapeReader(pkg string) *shapeReader {
	return &shapeReader{
		shape:   Shape{Package: pkg, leaves: map[Mechanism][]string{}},
		methods: map[string]bool{},
		top:     map[string]bool{},
	}
}

func (r *shapeReader) readFile(root, name string) error {
	src, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	if ast.IsGenerated(f) {
		return nil
	}
	r.shape.Files = append(r.shape.Files, path.Base(name))
	lines, halfComments := countComments(src)
	r.shape.Lines += lines
	r.shape.halfComments += halfComments
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			r.addFunc(d)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				r.addSpec(spec)
			}
		}
	}
	r.addMechanisms(f, name)
	return nil
}

func (r *shapeReader) addFunc(d *ast.FuncDecl) {
	name, full := d.Name.Name, d.Name.Name
	switch {
	case d.Recv != nil:
		full = typeName(d.Recv.List[0].Type) + "." + name
		r.methods[name] = r.methods[name] || !returnsNamesake(d)
	case name == "init" || name == "_":
		return
	default:
		r.top[name] = true
		r.addExported(d.Name)
	}
	if slices.Contains(builtinNames, name) && !slices.Contains(r.shape.Builtins, full) {
		r.shape.Builtins = append(r.shape.Builtins, full)
	}
}

// returnsNamesake reports whether a method returns the type that it is named
// like, as Identity.Server returns a Server. Then both have one meaning.
func returnsNamesake(d *ast.FuncDecl) bool {
	return d.Type.Results != nil && typeName(d.Type.Results.List[0].Type) == d.Name.Name
}

// typeName returns the name of a type of this package, without pointer and type
// parameters.
func typeName(expr ast.Expr) string {
	switch t := expr.(type) {
	case *ast.StarExpr:
		return typeName(t.X)
	case *ast.IndexExpr: // one type parameter
		return typeName(t.X)
	case *ast.IndexListExpr:
		return typeName(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}

func (r *shapeReader) addSpec(spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		r.top[s.Name.Name] = true
		if !strings.HasSuffix(s.Name.Name, "Error") {
			r.addExported(s.Name)
		}
	case *ast.ValueSpec:
		for _, id := range s.Names {
			if !strings.HasPrefix(id.Name, "Err") {
				r.addExported(id)
			}
		}
	}
}

// addExported counts a name of the package's documentation. Methods and fields
// are read with their type, and errors where they are returned.
func (r *shapeReader) addExported(id *ast.Ident) {
	if id.IsExported() && !slices.Contains(r.shape.Exported, id.Name) { // once where each platform has its own
		r.shape.Exported = append(r.shape.Exported, id.Name)
	}
}

// addMechanisms looks for calls, not for text: comments and strings may name
// what only one package does.
func (r *shapeReader) addMechanisms(f *ast.File, name string) {
	x509Name := importedAs(f, "crypto/x509")
	used := map[Mechanism]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			used[CertPool] = used[CertPool] || isIdent(n.X, x509Name) && n.Sel.Name == "NewCertPool"
		case *ast.CallExpr:
			used[Recover] = used[Recover] || isIdent(n.Fun, "recover")
		case *ast.BinaryExpr:
			call, ok := n.Y.(*ast.CallExpr)
			used[ShiftedWait] = used[ShiftedWait] || n.Op == token.SHL && ok && isIdent(call.Fun, "min")
		}
		return true
	})
	for m, yes := range used {
		if yes {
			r.shape.leaves[m] = append(r.shape.leaves[m], name)
		}
	}
}

// importedAs returns the name that the file has for an import, or nothing.
func importedAs(f *ast.File, imp string) string {
	for _, spec := range f.Imports {
		if unquoted, err := strconv.Unquote(spec.Path.Value); err != nil || unquoted != imp {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(imp)
	}
	return ""
}

func isIdent(expr ast.Expr, name string) bool {
	id, ok := expr.(*ast.Ident)
	return ok && name != "" && id.Name == name
}

// mayBeTwins are names that a method has because of an interface of the standard
// library, and "run": commands and loops are both run.
var mayBeTwins = []string{"Error", "String", "run"}

// finish finds the twins and sorts what was collected.
func (r *shapeReader) finish() Shape {
	for name := range r.methods {
		if r.methods[name] && r.top[name] && !slices.Contains(mayBeTwins, name) {
			r.shape.Twins = append(r.shape.Twins, name)
		}
	}
	for _, list := range [][]string{r.shape.Files, r.shape.Exported, r.shape.Twins, r.shape.Builtins} {
		slices.Sort(list)
	}
	return r.shape
}
