// Package arch keeps promises of this project that no compiler keeps: packages
// import each other only along the drawn arrows, packages stay small and have enough
// comments, within one a name has one meaning and most references between files lead
// one way, and no tracked file holds a key, a certificate or a token. Its own tests
// use it, and the command in report, which prints the numbers.
//
//	imports, err := arch.Load(root)             // what each package imports
//	for _, v := range arch.Check(imports, arch.Rules()) {
//		t.Error(v)                          // the package, the import, the reason
//	}
//	shapes, err := arch.Shapes(root)            // files and names of each package
//	graphs, err := arch.Graphs(ctx, root, "./ca") // how its files refer to each other
//
// A package without a row in the table is a violation too: first the arrow is drawn with its
// reason, and then it is used. Files ending in _test.go are exempt, because a test may use
// any two packages; so are nested modules, whose requirements are not in go.mod.
package arch

import (
	"bufio"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Violation is an import that no row of the table allows, or, with an empty Import, a package
// without a row.
type Violation struct {
	Package string // import path relative to the module: "rotation/enroll"
	Import  string // the same for our own, the full import path for others
	Why     string // the reason from the table
}

func (v Violation) String() string {
	if v.Import == "" {
		return fmt.Sprintf("%s: %s", v.Package, v.Why)
	}
	return fmt.Sprintf("%s imports %s: %s", v.Package, v.Import, v.Why)
}

// Rule says what one package may import besides the standard library.
type Rule struct {
	Package string   // relative to the module; a last element "..." covers all below
	Own     []string // packages of ours, in the same two forms
	Modules []string // packages of others: a module path covers all below it; "*" is any
	Why     string   // what breaks otherwise; shown with each violation
}

// Check compares imports, as [Load] returns them, with the table. The first
// rule that covers a package is the one that counts. Direct imports are enough:
// each package of ours has a row of its own, so what a row allows adds up to
// what its rows allow in turn; a test asks the go command for the sum.
func Check(imports map[string][]string, rules []Rule) []Violation {
	var out []Violation
	for pkg, list := range imports {
		i := slices.IndexFunc(rules, func(r Rule) bool { return covers(r.Package, pkg) })
		if i < 0 {
			out = append(out, Violation{Package: pkg, Why: "no rule speaks of this package: draw its arrows in internal/arch first"})
			continue
		}
		for _, imp := range list {
			if why := rules[i].refuses(imp); why != "" {
				out = append(out, Violation{Package: pkg, Import: imp, Why: why})
			}
		}
	}
	slices.SortFunc(out, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// refuses returns why the import is not allowed, or nothing.
func (r Rule) refuses(imp string) string {
	if isStandard(imp) {
		return ""
	}
	// Ours are matched exactly, or as a tree where the row says so: an allowed
	// package must not let its future children in.
	if own, ok := strings.CutPrefix(imp, ownPrefix); ok {
		if slices.ContainsFunc(r.Own, func(p string) bool { return covers(p, own) }) {
			return ""
		}
		return r.Why
	}
	// Smallstep's packages are never part of "*": they are named or refused.
	if within(smallstep, imp) {
		if slices.Contains(r.Modules, smallstep) {
			return ""
		}
		return "only ca, ca/internal/acmesrv and ca/internal/acmestore may import smallstep: about 420 packages come with it"
	}
	for _, m := range r.Modules {
		if m == "*" || within(m, imp) {
			return ""
		}
	}
	return r.Why
}

// covers reports whether a pattern of the table matches the package.
func covers(pattern, pkg string) bool {
	base, tree := strings.CutSuffix(pattern, "...")
	if !tree {
		return pattern == pkg
	}
	return within(strings.TrimSuffix(base, "/"), pkg)
}

// within reports whether a package is the root of a tree or below it. A package whose name only
// begins like that of the tree is another one.
func within(tree, pkg string) bool {
	return pkg == tree || strings.HasPrefix(pkg, tree+"/")
}

// isStandard: only the standard library has import paths whose first element
// has no dot. Our own module's path has one, as every path fit for a proxy has.
func isStandard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

// Load parses the import clauses of every package of ours under root, the
// directory of go.mod, whatever its build constraints. Keys are relative to
// the module; own imports keep their full path, as do those of others.
// Errors are those of reading and parsing, and name the file.
func Load(root string) (map[string][]string, error) {
	if err := checkModule(filepath.Join(root, "go.mod")); err != nil {
		return nil, err
	}
	sets := map[string]map[string]bool{}
	err := walk(root, func(pkg, name string) error {
		if sets[pkg] == nil {
			sets[pkg] = map[string]bool{}
		}
		return addImports(sets[pkg], filepath.Join(root, name))
	})
	if err != nil {
		return nil, fmt.Errorf("loading imports: %w", err)
	}
	out := make(map[string][]string, len(sets))
	for pkg, set := range sets {
		out[pkg] = sortedKeys(set)
	}
	return out, nil
}

// checkModule makes sure that own imports are recognised as own: with another
// module path every arrow would be taken for one to a foreign package.
func checkModule(gomod string) error {
	f, err := os.Open(gomod)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, ok := strings.CutPrefix(sc.Text(), "module "); ok {
			if strings.TrimSpace(name)+"/" != ownPrefix {
				return fmt.Errorf("reading %s: the module is %s, the table is for %s", gomod, name, ownPrefix)
			}
			return nil
		}
	}
	return fmt.Errorf("reading %s: no module line", gomod)
}

// walk calls visit for each Go file of ours that is no test, with its package and its
// path, both relative to root. One folder is one package here, even where build
// constraints keep its files apart: an arrow drawn for another platform is an arrow too.
func walk(root string, visit func(pkg, name string) error) error {
	return fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(root, name)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		return visit(path.Dir(name), name)
	})
}

// skipDir leaves out what `go list ./...` leaves out as well.
func skipDir(root, name string) error {
	if name == "." {
		return nil
	}
	base := path.Base(name)
	if base[0] == '.' || base[0] == '_' || base == "testdata" || base == "vendor" {
		return fs.SkipDir
	}
	_, err := os.Stat(filepath.Join(root, name, "go.mod"))
	switch {
	case err == nil:
		return fs.SkipDir // a module of its own: its arrows cost our importers nothing
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// addImports adds what one file imports. Only its import clauses are parsed, so
// a file that is not built on this platform counts as well.
func addImports(set map[string]bool, file string) error {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("parsing %s: import %s: %w", file, spec.Path.Value, err)
		}
		set[imp] = true
	}
	return nil
}

func sortedKeys(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
